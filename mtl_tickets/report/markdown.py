"""A document as Markdown, for where the HTML file cannot be opened: the same words, and links to the figures."""

from __future__ import annotations

import re
import unicodedata
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
    Text,
    pieces,
)
from mtl_tickets.report.tables import escaped

# FIRST STRONG ISOLATE and POP DIRECTIONAL ISOLATE: what <bdi> is in HTML
ISOLATE, END = "\u2068", "\u2069"


def markdown(document: Document) -> str:
    """The whole file. Figures are expected in ``figures/`` beside it."""
    parts = [f"# {_text(document.title)}", *(_block(block) for block in document.lead)]
    for section in document.sections:
        parts += [f"## {escaped(section.title)}", *(_block(block) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return _text(block.text)
        case Bullets():
            return "\n".join(f"- {_text(item)}" for item in block.items)
        case Heading():
            return f"### {escaped(block.text)}"
        case Table():
            return _table(block)
        case Figure():
            return f"![{escaped(block.finding)}](figures/{block.drawing.name}.svg)\n\n{_text(block.caption)}"
        case Gallery():
            return "\n\n".join(_block(figure) for figure in block.figures)
        case Listing():
            fence = "`" * (1 + max([2, *(len(run) for run in re.findall("`+", block.text))]))
            return f"{escaped(block.label)}:\n\n{fence}text\n{_storable(block.text).rstrip()}\n{fence}"
        case Fold():
            return "\n\n".join([f"**{escaped(block.summary)}**", *(_block(inner) for inner in block.blocks)])


def _table(table: Table) -> str:
    bars = "".join("---|" if i == 0 or i in table.words else "---:|" for i in range(len(table.headings)))
    lines = [f"| {' | '.join(map(_text, table.headings))} |", f"|{bars}"]
    for row in table.rows:
        cells = (f"**{_text(cell.text)} ★**" if cell.best else _text(cell.text) for cell in row.cells)
        lines.append(f"| {' | '.join([_text(row.head), *cells])} |")
    return f"{_text(table.caption).rstrip('.')}:\n\n" + "\n".join(lines)


def _text(text: Text) -> str:
    return "".join(_piece(piece) for piece in pieces(text))


def _piece(piece: Piece) -> str:
    match piece:
        case str():
            return _kept(piece)
        case Said():
            return _isolated(_kept(piece.text))
        case Code():
            # no escapes inside a code span: a longer fence keeps the ticks of its text apart
            fence = "`" * (1 + max([0, *(len(run) for run in re.findall("`+", piece.text))]))
            space = " " if fence != "`" else ""
            return f"{fence}{space}{' '.join(_storable(piece.text).split())}{space}{fence}"
        case Strong():
            return f"**{_kept(piece.text).strip()}** " if piece.text.endswith(" ") else f"**{_kept(piece.text)}**"
        case Mark():
            return f"{SIGNS[piece.outcome]} {piece.outcome}"
        case Link():
            return f"[{_kept(piece.text)}]({quote(piece.path)})"


def _kept(text: str) -> str:
    """Escaped; a blank at either end, which joins pieces, stays."""
    inner = escaped(_storable(text))
    return f"{' ' * text[:1].isspace()}{inner}{' ' * (bool(inner) and text[-1:].isspace())}"


def _isolated(text: str) -> str:
    """Text that may run from right to left is kept from turning what stands beside it."""
    turns = {"R", "AL", "AN", "RLE", "RLO", "LRE", "LRO", "RLI", "LRI", "FSI", "PDF", "PDI"}
    return f"{ISOLATE}{text}{END}" if any(unicodedata.bidirectional(c) in turns for c in text) else text


def _storable(text: str) -> str:
    return re.sub(r"[^\t\n\r -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
