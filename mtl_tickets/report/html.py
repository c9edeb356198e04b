"""A document as one HTML file that needs nothing else: no network, no script, no font. Everything that is text passes
:func:`_escaped`."""

from __future__ import annotations

import html
import re
from functools import cache
from importlib import resources
from urllib.parse import quote

from mtl_tickets.report.document import (
    SIGNS,
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    Fold,
    Gallery,
    Heading,
    Link,
    Listing,
    Mark,
    Paragraph,
    Piece,
    Said,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
    pieces,
    plain,
)
from mtl_tickets.report.drawing import inline

# nothing may be fetched, run or sent; styles and pictures stand in the file
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
# points: figures up to this width shrink with the page, wider ones are scrolled where there is no room
SHRINKS = 320
# a page's pixels for one point of a drawing, where there is room and at least
SCALE, LEAST = 1.38, 1.05
# points: galleries of drawings up to these widths have more columns
NARROW, MIDDLE = 200, 260


def page(document: Document) -> str:
    """The whole file."""
    title = _attribute(plain(document.title))
    links = "".join(
        f'<li><a href="#{_attribute(section.name)}">{_escaped(section.title)}</a></li>' for section in document.sections
    )
    sections = "\n".join(
        f'<section aria-labelledby="{_attribute(section.name)}">\n'
        f'<h2 id="{_attribute(section.name)}" tabindex="-1">{_escaped(section.title)}</h2>\n{_blocks(section.blocks)}\n'
        "</section>"
        for section in document.sections
    )
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_attribute(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title} · mtl-tickets report</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the report</a>\n'
        f"<header>\n<h1>{_text(document.title)}</h1>\n{_blocks(document.lead)}\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n'
        f'<main id="main" tabindex="-1">\n{sections}\n</main>\n'
        "<footer>Made by mtl-tickets report from the result files of the runs. The figures are also files, in figures/."
        "</footer>\n</body>\n</html>\n"
    )


@cache
def _style() -> str:
    return resources.files("mtl_tickets.report").joinpath("page.css").read_text(encoding="utf-8")


def _blocks(blocks: tuple[Block, ...]) -> str:
    return "\n".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            kind = ' class="warns"' if block.warns else ""
            return f"<p{kind}>{_text(block.text)}</p>"
        case Bullets():
            return "<ul>\n" + "".join(f"<li>{_text(item)}</li>\n" for item in block.items) + "</ul>"
        case Heading():
            return f"<h3>{_escaped(block.text)}</h3>"
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Gallery():
            inside = "\n".join(map(_figure, block.figures))
            width = max(figure.drawing.width for figure in block.figures)
            kind = "narrow" if width <= NARROW else "middle" if width <= MIDDLE else "wide"
            return f'<div class="gallery {kind}">\n{inside}\n</div>'
        case Listing():
            code = f'<pre dir="ltr"><code><bdi>{_escaped(block.text)}</bdi></code></pre>'
            return _scrolled(code, block.label)
        case Fold():
            return f"<details><summary>{_escaped(block.summary)}</summary>\n{_blocks(block.blocks)}\n</details>"


def _table(table: Table) -> str:
    headings = "".join(
        f'<th scope="col"{_words(i, table)}>{_text(heading)}</th>' for i, heading in enumerate(table.headings)
    )
    rows = "\n".join(_row(row, table) for row in table.rows)
    inside = (
        f"<table>\n<caption><span>{_text(table.caption)}</span></caption>\n"
        f"<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )
    return _scrolled(inside, plain(table.caption))


def _row(row: TableRow, table: Table) -> str:
    cells = "".join(_cell(cell, i, table) for i, cell in enumerate(row.cells, 1))
    head = _text(row.head).replace("_", "_<wbr>")  # long names may break there; no markup of ours has a _
    kind = ' class="sums"' if row.sums else ""
    return f'<tr{kind}><th scope="row">{head}</th>{cells}</tr>'


def _cell(cell: TableCell, column: int, table: Table) -> str:
    if isinstance(cell.text, str):
        number, sign, rest = cell.text.partition(" ± ")
        text = _escaped(number) + (f' <span class="sd">± {_escaped(rest)}</span>' if sign else "")
    else:
        text = _text(cell.text)
    if cell.best:
        return f'<td class="best">{text} <span aria-hidden="true">★</span><span class="unseen">best</span></td>'
    return f"<td{_words(column, table)}>{text}</td>"


def _words(column: int, table: Table) -> str:
    return ' class="words"' if column in table.words else ""


def _scrolled(inside: str, label: str) -> str:
    """What may be wider than the page is scrolled by itself, by keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{_attribute(label)}">\n{inside}\n</div>'


def _figure(figure: Figure) -> str:
    drawing = figure.drawing
    svg = inline(drawing.svg, drawing.name)
    width = SCALE * drawing.width
    least = f"min-width: {LEAST * drawing.width:.0f}px; " if drawing.width > SHRINKS else ""
    named = f'<svg role="img" aria-label="{_attribute(figure.finding)}" style="{least}max-width: {width:.0f}px" '
    svg = svg.replace("<svg ", named, 1)
    if least:
        svg = _scrolled(svg, f"figure {drawing.name}")
    return f"<figure>\n{svg}\n<figcaption>{_text(figure.caption)}</figcaption>\n</figure>"


def _text(text: Text) -> str:
    return "".join(_piece(piece) for piece in pieces(text))


def _piece(piece: Piece) -> str:
    match piece:
        case str():
            return _escaped(piece)
        case Said():
            return f"<bdi>{_escaped(piece.text)}</bdi>"
        case Code():
            return f"<code><bdi>{_escaped(piece.text)}</bdi></code>"
        case Strong():
            return f"<strong>{_escaped(piece.text)}</strong>"
        case Mark():
            kind = piece.outcome if piece.outcome in ("better", "worse") else "open"
            sign = f'<span aria-hidden="true">{SIGNS[piece.outcome]}</span>'
            return f'<span class="mark {kind}">{sign} {_escaped(piece.outcome)}</span>'
        case Link():
            return f'<a href="{_attribute(quote(piece.path))}">{_escaped(piece.text)}</a>'


def _escaped(text: str) -> str:
    """Text as it stands. What no HTML file may hold (control characters, halves of characters) is replaced."""
    return html.escape(re.sub(r"[^\t\n\r -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def _attribute(text: str) -> str:
    return _escaped(" ".join(text.split()))
