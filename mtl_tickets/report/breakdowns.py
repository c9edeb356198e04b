"""Accuracy on the parts of evaluation sets, from the rows of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mtl_tickets.evaluation.records import Row
from mtl_tickets.report.data import Breakdown, Method
from mtl_tickets.report.judging import judged
from mtl_tickets.report.runs import Run
from mtl_tickets.report.tables import Cell
from mtl_tickets.tasks.breakdown import values_of

# parts of a table that is as wide as a page, and of a family of tests
FEW = 8


def breakdowns(
    runs: Sequence[Run], methods: Sequence[Method], baseline: str, compared: Sequence[str]
) -> tuple[Breakdown, ...]:
    """All that there are. ``methods``: the columns of the table; those without such rows are left out. ``baseline`` and
    what is ``compared`` with it are stages.

    Raises :class:`CheckpointError` where a run lacks a row that another has.
    """
    found: dict[tuple[str, str, tuple[str, ...]], dict[str, tuple[tuple[str, ...], Row]]] = {}
    there, stages = set(), {method.stage for method in methods}
    for row in (row for run in runs for row in run.rows):
        values = values_of(row.metric)
        if values is not None and row.stage in stages:
            there.add((row.stage, row.task))
            names = tuple(name for name, _ in values)
            part = tuple(value for _, value in values)
            found.setdefault((row.task, row.split, names), {}).setdefault(row.metric, (part, row))
    made = []
    for (task, split, names), parts in found.items():
        having = [method for method in methods if (method.stage, task) in there]
        shown, rows = zip(*parts.values(), strict=True)
        lines = {
            method.heading: tuple(_cell(runs, method.stage, task, split, metric) for metric in parts)
            for method in having
        }
        item = Breakdown(task, split, names, shown, tuple(row.n for row in rows), lines, None)
        if len(shown) <= FEW:
            by_part = dict(zip(item.shown, zip(*lines.values(), strict=True), strict=True))
            seeds = [run.seed for run in runs]
            item = replace(item, judgement=judged(by_part, seeds, having, baseline, compared))
        made.append(item)
    return tuple(made)


def _cell(runs: Sequence[Run], stage: str, task: str, split: str, metric: str) -> Cell:
    return Cell(tuple(100 * run.row(stage, task, split, metric).value for run in runs))
