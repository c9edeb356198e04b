"""Accuracy on the parts of evaluation sets, from the rows of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_tickets.evaluation.records import Row
from mtl_tickets.report.runs import Run
from mtl_tickets.report.tables import Cell
from mtl_tickets.tasks.breakdown import values_of


@dataclass(frozen=True)
class Breakdown:
    """A split of a task by the ``names`` of its breakdown: ``parts``, each its values, with so many ``rows``, and for
    each method, by its heading, the accuracy in % on every part."""

    task: str
    split: str
    names: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    lines: Mapping[str, tuple[Cell, ...]]


def breakdowns(runs: Sequence[Run], headings: Mapping[str, str]) -> tuple[Breakdown, ...]:
    """All that there are. ``headings``: of the columns of the table, by stage; those without such rows are left out.

    Raises :class:`CheckpointError` where a run lacks a row that another has.
    """
    found: dict[tuple[str, str, tuple[str, ...]], dict[str, tuple[tuple[str, ...], Row]]] = {}
    stages = set()
    for row in (row for run in runs for row in run.rows):
        values = values_of(row.metric)
        if values is not None and row.stage in headings:
            stages.add((row.stage, row.task))
            names = tuple(name for name, _ in values)
            part = tuple(value for _, value in values)
            found.setdefault((row.task, row.split, names), {}).setdefault(row.metric, (part, row))
    made = []
    for (task, split, names), parts in found.items():
        lines = {}
        for stage, heading in headings.items():
            if (stage, task) in stages:
                lines[heading] = tuple(_cell(runs, stage, task, split, metric) for metric in parts)
        shown, rows = zip(*parts.values(), strict=True)
        made.append(Breakdown(task, split, names, shown, tuple(row.n for row in rows), lines))
    return tuple(made)


def _cell(runs: Sequence[Run], stage: str, task: str, split: str, metric: str) -> Cell:
    return Cell(tuple(100 * run.row(stage, task, split, metric).value for run in runs))
