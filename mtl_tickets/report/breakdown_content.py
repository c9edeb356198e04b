"""What a report says of the parts of evaluation sets: where a shortcut leads to the right label, and where not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtl_tickets.report.breakdowns import FEW
from mtl_tickets.report.data import Breakdown
from mtl_tickets.report.document import Block, Fold, Paragraph, Said, Table, TableCell, TableRow, Text
from mtl_tickets.report.verdict_content import differences
from mtl_tickets.report.words import listed, over


def by_parts(found: Sequence[Breakdown], seeds: Sequence[int]) -> Iterable[Block]:
    yield Paragraph(
        "Accuracy in % apart for rows of every kind. A network that has learned a shortcut is good where the shortcut "
        "leads to the right label, and bad where it does not."
    )
    for item in found:
        table = _table(item, seeds)
        yield table if len(item.parts) <= FEW else Fold(f"{item.task} by {listed(item.names)}", (table,))
        if item.judgement is not None:
            yield differences(item.judgement, average=False, of=listed(item.names), where=f" on {item.task}")


def _table(item: Breakdown, seeds: Sequence[int]) -> Table:
    wide = len(item.parts) <= FEW
    about = f", {item.split}, by {listed(item.names)}{over(seeds)}" + ("; in brackets the rows" if wide else "")
    caption: Text = (Said(item.task), about)
    names = item.shown
    if wide:
        headings = [f"{name} ({rows:,})" for name, rows in zip(names, item.rows, strict=True)]
        lines = [
            TableRow(Said(heading), tuple(TableCell(str(cell)) for cell in cells))
            for heading, cells in item.lines.items()
        ]
        return Table(caption, ("method", *map(Said, headings)), tuple(lines))
    lines = [
        TableRow(Said(name), (TableCell(f"{rows:,}"), *(TableCell(str(cells[i])) for cells in item.lines.values())))
        for i, (name, rows) in enumerate(zip(names, item.rows, strict=True))
    ]
    return Table(caption, (listed(item.names), "rows", *map(Said, item.lines)), tuple(lines))
