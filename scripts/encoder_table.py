"""Encoders side by side: each task's single-task score from runs that differ in the encoder alone.

    python scripts/encoder_table.py mini=runs/A random=runs/B [...] > table.md

Every run is at least `--to single`. Dev scores x 100, mean ± sample standard deviation over seeds; the yardsticks come
from the first run. Runs whose seeds, tasks or evaluated rows differ are refused: their numbers say nothing together.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtl_tickets.errors import CheckpointError, InputError, MtlTicketsError, Problem
from mtl_tickets.evaluation.records import Row, one, read_rows
from mtl_tickets.locate import runs_in
from mtl_tickets.report.tables import Cell, escaped

YARDSTICKS = {"yardstick/majority": "majority", "yardstick/bag_of_words": "bag of words"}
# what a ladder's rung is chosen on
SELECTION = "selection"


def encoder_table(runs: Mapping[str, Sequence[Sequence[Row]]]) -> str:
    """``runs``: encoder -> the rows of each seed. Markdown; of a task with several dev splits, all are averaged.

    Raises :class:`CheckpointError` where rows are missing or the runs do not fit together.
    """
    told = {name: _told(seeds) for name, seeds in runs.items()}
    first, expected = next(iter(told.items()))
    for name, found in told.items():
        if found.keys() != expected.keys():
            unlike = sorted(found.keys() ^ expected.keys())
            rule = f"must have the seeds, tasks and rows of {first}; only one has (seed, task, split, rows)"
            raise CheckpointError(Problem(rule, name, found=unlike[:5]))
    splits = list(dict.fromkeys((task, split) for _, task, split, _ in expected))
    tasks = list(dict.fromkeys(task for task, _ in splits))

    def cell(seeds: Sequence[Sequence[Row]], stage: str, wanted: Sequence[str], fixed: bool = False) -> Cell:
        def score(rows: Sequence[Row], task: str) -> float:
            values = [
                one(rows, stage=stage, task=task, split=split, metric="score").value for t, split in splits if t == task
            ]
            return statistics.fmean(values)

        return Cell(tuple(statistics.fmean(score(rows, task) for task in wanted) for rows in seeds), fixed=fixed)

    headings = ["task", *YARDSTICKS.values(), *(escaped(name) for name in runs)]
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    for label, wanted in [*((task, [task]) for task in tasks), ("average", tasks)]:
        cells = [cell(runs[first], stage, wanted, fixed=True) for stage in YARDSTICKS]
        cells += [cell(seeds, "single", wanted) for seeds in runs.values()]
        lines.append(f"| {' | '.join([escaped(label), *map(str, cells)])} |")
    return "\n".join(lines)


def _told(seeds: Sequence[Sequence[Row]]) -> dict[tuple[int, str, str, int], None]:
    """Seed, task, split and number of rows of everything that was evaluated after single-task training, in order."""
    return {
        (row.seed, row.task, row.split, row.n): None
        for rows in seeds
        for row in rows
        if row.stage == "single" and row.metric == "score" and row.split != SELECTION
    }


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        runs = {}
        for argument in arguments:
            name, equals, path = argument.partition("=")
            if not equals or not name or not path:
                raise InputError(Problem("must be NAME=RUN", found=argument))
            runs[name] = [read_rows(run / "results.jsonl") for run in runs_in(Path(path))]
        print(encoder_table(runs))
    except MtlTicketsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
