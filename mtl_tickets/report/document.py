"""A report as a value: sections of paragraphs, tables and figures. How it looks is for a renderer to say, which also is
the one place where text is escaped; here all text is plain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_tickets.evaluation.verdicts import Outcome
from mtl_tickets.report.drawing import Drawing


@dataclass(frozen=True)
class Said:
    """Text that somebody else wrote: a description, a label, a name. It is set apart, so that its direction of writing
    stays its own."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command, or a name as it stands in a file."""

    text: str


@dataclass(frozen=True)
class Strong:
    text: str


@dataclass(frozen=True)
class Mark:
    """A verdict, as a sign and a word."""

    outcome: Outcome


@dataclass(frozen=True)
class Link:
    """To a file beside this one: ``path`` is relative, with ``/``."""

    text: str
    path: str


SIGNS: dict[Outcome, str] = {"better": "▲", "worse": "▼", "not shown": "○", "same scores": "=", "one seed": "–"}

Piece = str | Said | Code | Strong | Mark | Link
Text = Piece | tuple[Piece, ...]


@dataclass(frozen=True)
class Paragraph:
    text: Text
    warns: bool = False


@dataclass(frozen=True)
class Bullets:
    items: tuple[Text, ...]


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    text: str


@dataclass(frozen=True)
class TableCell:
    text: Text
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """``sums``: stands below a line, as it is made from the rows above."""

    head: Text
    cells: tuple[TableCell, ...]
    sums: bool = False


@dataclass(frozen=True)
class Table:
    """``headings`` are those of all columns, the first of which holds the heads of the rows. ``words``: columns of
    text; the others are numbers."""

    caption: Text
    headings: tuple[Text, ...]
    rows: tuple[TableRow, ...]
    words: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """``finding`` says in words what there is to be seen, for whom the drawing is not to be seen."""

    drawing: Drawing
    finding: str
    caption: Text


@dataclass(frozen=True)
class Gallery:
    """Small figures side by side."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Listing:
    """Text of a file, line for line."""

    text: str
    label: str


@dataclass(frozen=True)
class Fold:
    """What is shown on demand. Holds no headings."""

    summary: str
    blocks: tuple[Block, ...]


Block = Paragraph | Bullets | Heading | Table | Figure | Gallery | Listing | Fold


@dataclass(frozen=True)
class Section:
    """``name`` is what links lead to."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    title: Text
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]


def pieces(text: Text) -> tuple[Piece, ...]:
    return text if isinstance(text, tuple) else (text,)


def plain(text: Text) -> str:
    """The text without any form."""
    return "".join(_plain(piece) for piece in pieces(text))


def _plain(piece: Piece) -> str:
    if isinstance(piece, Mark):
        return f"{SIGNS[piece.outcome]} {piece.outcome}"
    return piece if isinstance(piece, str) else piece.text


def drawings(blocks: Sequence[Block]) -> list[Drawing]:
    """Every drawing in these blocks, in order."""
    found: list[Drawing] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block.drawing)
        elif isinstance(block, Gallery):
            found += [figure.drawing for figure in block.figures]
        elif isinstance(block, Fold):
            found += drawings(block.blocks)
    return found
