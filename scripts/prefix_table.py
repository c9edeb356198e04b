"""Sharing rules side by side: score, size, and how much of the encoder all tasks have in common on the same text.

    python scripts/prefix_table.py RUN > table.md

RUN is a folder of `mtl-tickets run`. A layer is computed once for all tasks whose tickets agree in it and in all layers
below: "common" counts the layers that are computed once for all tasks, "computed" all that are, beside what a pass for
each task would compute. Dev scores x 100, the average over tasks; mean ± sample standard deviation over seeds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtl_tickets.errors import InputError, MtlTicketsError, Problem
from mtl_tickets.evaluation.records import Row, read_rows, select
from mtl_tickets.locate import runs_in
from mtl_tickets.report.tables import Cell, escaped
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket


def groups(tickets: Mapping[str, Ticket]) -> list[int]:
    """Of each layer, how many times it is computed to answer all tasks."""
    space = next(iter(tickets.values())).space
    if not isinstance(space, StructuredSpace):
        raise InputError(Problem("the prefix that tasks share is one of layers", found=space.kind))
    found, before = [], dict.fromkeys(tickets, b"")
    for layer in range(space.layers):
        before = {
            task: below + b"|".join(ticket.units[part][layer].tobytes() for part in ticket.units)
            for (task, ticket), below in zip(tickets.items(), before.values(), strict=True)
        }
        found.append(len(set(before.values())))
    return found


def line(rule: str, runs: Sequence[tuple[Sequence[Row], Mapping[str, Ticket]]]) -> str:
    """``runs``: of each seed its rows and the tickets of the rule."""
    scores, kept, common, computed = [], [], [], []
    for rows, tickets in runs:
        of_rule = select(rows, stage=f"multi/{rule}", metric="score")
        values = {
            task: [row.value for row in of_rule if row.task == task and row.split != "selection"] for task in tickets
        }
        scores.append(statistics.fmean(statistics.fmean(of_task) for of_task in values.values()))
        kept.append(statistics.fmean(ticket.remaining_percent() for ticket in tickets.values()))
        sizes = groups(tickets)
        common.append(float(sizes.count(1)))
        computed.append(100 * sum(sizes) / (len(sizes) * len(tickets)))
    cells = [Cell(tuple(found), fixed=found is not scores) for found in (scores, kept, common, computed)]
    return f"| {' | '.join([escaped(rule), *map(str, cells)])} |"


def prefix_table(folders: Sequence[Path]) -> str:
    """Of the runs of all seeds; markdown."""
    rows = [read_rows(folder / "results.jsonl") for folder in folders]
    rules = [row.stage.removeprefix("multi/") for row in rows[0] if row.stage.startswith("multi/")]
    first = _tickets(folders[0] / "tickets" / rules[0]) if rules else {}
    layers, tasks = len(groups(first)) if first else 0, len(first)
    lines = [
        f"| rule | average | kept % | common layers of {layers} | computed % of {tasks} passes |",
        "|---|---:|---:|---:|---:|",
    ]
    for rule in dict.fromkeys(rules):
        tickets = [_tickets(folder / "tickets" / rule) for folder in folders]
        lines.append(line(rule, list(zip(rows, tickets, strict=True))))
    return "\n".join(lines)


def _tickets(folder: Path) -> dict[str, Ticket]:
    return {path.stem: Ticket.load(path) for path in sorted(folder.glob("*.safetensors"))}


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(prefix_table(list(runs_in(Path(arguments[0])))))
    except MtlTicketsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
