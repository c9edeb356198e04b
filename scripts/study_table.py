"""What a study found, as one short Markdown file: tables, verdicts, and what it was run with.

    python scripts/study_table.py studies/STUDY "COMMAND" > table.md

COMMAND is what made the study, as it is to be shown. Numbers are those of the study's report, which has the sentences
about every baseline; here are those about the first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.report.choice_content import honest_choice
from mtl_tickets.report.data import Difference, ReportData
from mtl_tickets.report.document import Bullets, Paragraph, plain
from mtl_tickets.report.standings import HEADINGS, standings
from mtl_tickets.report.study import StudyData, gather_study
from mtl_tickets.report.tables import escaped, markdown


def study_table(study: StudyData, command: str) -> str:
    parts = [f"# {escaped(study.description or study.name)}", f"```bash\n{command}\n```"]
    for point in study.points:
        if len(study.points) > 1:
            parts.append(f"## {escaped(point.name)}")
        parts += ["Has not begun."] if point.report is None else _point(point.report)
    return "\n\n".join(parts) + "\n"


def _point(report: ReportData) -> Iterable[str]:
    yield escaped(report.runs[0].made_on)
    yield from report.missing
    for judgement in report.judgements:
        yield f"**Against {escaped(judgement.baseline)}**, from the best average to the worst:"
        lines = [f"| {' | '.join(HEADINGS)} |", "|---|" + "---:|" * 4 + "---|"]
        lines += [f"| {' | '.join(map(escaped, item.cells()))} |" for item in standings(report, judgement)]
        yield "\n".join(lines)
    for judgement in report.judgements[:1]:
        yield f"Over seeds, against {escaped(judgement.baseline)}:"
        yield _sentences(judgement.average)
    for on_rows in report.on_rows.judgements[:1] if report.on_rows else ():
        yield f"Over rows, the trained models being fixed, against {escaped(on_rows.baseline)}:"
        yield _sentences(on_rows.average)
    if report.scores is not None:
        yield "Task by task:"
        yield markdown(report.scores).strip()
    yield "\n".join(f"- {escaped(label)}: {escaped(text)}" for label, text in report.notes.items())
    yield "What choosing on dev would have added:"
    for block in honest_choice(report):
        if isinstance(block, Bullets):
            yield "\n".join(f"- {escaped(plain(item))}" for item in block.items)
        elif isinstance(block, Paragraph):
            yield escaped(plain(block.text))


def _sentences(items: Iterable[Difference]) -> str:
    return "\n".join(f"- {escaped(item.sentence)}." for item in items)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: {__doc__}")
    try:
        sys.stdout.write(study_table(gather_study(sys.argv[1]), sys.argv[2]))
    except MtlTicketsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
