"""Sections of a report as one short Markdown file: what an experiment found, and what it was run with.

    python scripts/report_tables.py runs/EXPERIMENT "COMMAND" SECTION... > table.md

COMMAND is what made the runs, as it is to be shown. SECTION is a section's name: verdict, scores, parts, ... Numbers
and sentences are those of the report; its figures stay there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.report.content import document
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.document import Block, Document, Figure, Fold, Gallery, Listing, Paragraph, Said
from mtl_tickets.report.gather import gather
from mtl_tickets.report.markdown import markdown


def report_tables(data: ReportData, command: str, names: Sequence[str]) -> str:
    whole = document(data)
    by_name = {section.name: section for section in whole.sections}
    for name in names:
        if name not in by_name:
            sys.exit(f"error: the report has no section {name!r}; it has {', '.join(by_name)}")
    lead = (*whole.lead, Listing(command, "Made with"), Paragraph(Said(data.runs[0].made_on)))
    sections = [replace(by_name[name], blocks=tuple(_words(by_name[name].blocks))) for name in names]
    return markdown(Document(whole.title, lead, tuple(sections)))


def _words(blocks: Iterable[Block]) -> Iterable[Block]:
    """What is not drawn."""
    for block in blocks:
        if isinstance(block, Fold):
            yield replace(block, blocks=tuple(_words(block.blocks)))
        elif not isinstance(block, Figure | Gallery):
            yield block


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit(f"usage: {__doc__}")
    place, command, *names = sys.argv[1:]
    try:
        sys.stdout.write(report_tables(gather(place), command, names))
    except MtlTicketsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
