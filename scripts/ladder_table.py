"""The ladder of a run as a table: score against parameters kept, for winning, random and losing tickets.

    python scripts/ladder_table.py runs/EXPERIMENT > table.md

Everything comes from the result rows: dev scores, each number a mean over seeds (in the first table over tasks too)
with the sample standard deviation over seeds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_tickets.errors import CheckpointError, MtlTicketsError, Problem
from mtl_tickets.evaluation.records import Row, one, read_rows, select
from mtl_tickets.locate import runs_in
from mtl_tickets.report.tables import Cell, escaped

KINDS = ("winning", "random", "losing")
# what the rung is chosen on; it says nothing of rows that no choice has seen
SELECTION = "selection"


def ladder_tables(runs: Sequence[Sequence[Row]], where: str = "") -> str:
    """``runs``: the rows of one seed each. Markdown: the average over tasks with what is kept, then a table a kind.

    Of a task with several dev splits the first is shown. Raises :class:`CheckpointError` where a run has no ladder.
    """
    rows = [row for run in runs for row in run]
    first_split: dict[str, str] = {}
    for row in select(rows, stage="single", metric="score"):
        if row.split != SELECTION:
            first_split.setdefault(row.task, row.split)
    stages = {row.stage for row in rows}
    kinds = [kind for kind in KINDS if f"ladder/{kind}-1" in stages]
    if not kinds or not first_split:
        raise CheckpointError(
            Problem("the run must have trained its ladders", where, hint="run it, at least --to ladder")
        )
    rungs = sum(stage.startswith(f"ladder/{kinds[0]}-") for stage in stages)

    def values(stage: str, task: str, metric: str = "score") -> tuple[float, ...]:
        split = first_split[task] if metric == "score" else "all"
        return tuple(one(run, stage=stage, task=task, metric=metric, split=split).value for run in runs)

    def averaged(stage: str, metric: str = "score") -> tuple[float, ...]:
        by_task = [values(stage, task, metric) for task in first_split]
        return tuple(statistics.fmean(of_seed) for of_seed in zip(*by_task, strict=True))

    lines = ["| rung | kept % | " + " | ".join(kinds) + " |", "|---:|---:|" + "---:|" * len(kinds)]
    lines.append("| 0 | 100.0 | " + " | ".join([str(Cell(averaged("single")))] * len(kinds)) + " |")
    for rung in range(1, rungs + 1):
        kept = statistics.fmean(averaged(f"ladder/{kinds[0]}-{rung}", "remaining"))
        cells = [str(Cell(averaged(f"ladder/{kind}-{rung}"))) for kind in kinds]
        lines.append(f"| {rung} | {kept:.1f} | " + " | ".join(cells) + " |")
    for kind in kinds:
        lines += ["", f"### {kind} tickets, rung by rung", ""]
        lines += ["| task | " + " | ".join(map(str, range(rungs + 1))) + " |", "|---|" + "---:|" * (rungs + 1)]
        for task in first_split:
            cells = [str(Cell(values("single", task)))]
            cells += [str(Cell(values(f"ladder/{kind}-{rung}", task))) for rung in range(1, rungs + 1)]
            lines.append(f"| {escaped(task)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(ladder_tables([read_rows(run / "results.jsonl") for run in runs_in(Path(arguments[0]))], arguments[0]))
    except MtlTicketsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
