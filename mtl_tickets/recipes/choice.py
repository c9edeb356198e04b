"""Which rung of every task's ladder is its super ticket: the one that scores best on rows that are held out.

As published (Liang et al. 2021), by the task's own rows alone. A small task holds out few of them (of 2,500 rows 250,
whose accuracy has a standard error of three points), and the best of nine noisy scores is mostly luck:
often a ticket far too small. ``borrow`` is our addition: what a rung gains over the whole encoder is shrunk towards
what it gains for the other tasks (Efron and Morris 1975, Data Analysis Using Stein's Estimator), the more the fewer
rows a task holds out. It is for the size of tickets what the sharing rule ``adaptive`` is for their units.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import pydantic

from mtl_tickets.settings import Settings

WHOLE = "dense"
"""The whole encoder among the rungs: no pruning is admissible."""

Curve = Mapping[str, float]
"""Rung -> score of 0 to 100, from :data:`WHOLE` to the smallest ticket."""


class ChoiceSettings(Settings):
    """How a task's rung is chosen."""

    borrow: pydantic.NonNegativeFloat = pydantic.Field(
        0.0,
        description="a task's scores count as its held-out rows, what the other tasks found as so many rows; "
        "0: the task's own rows alone, as published",
    )


def best_rungs(curves: Mapping[str, Curve], rows: Mapping[str, int], borrow: float = 0.0) -> dict[str, str]:
    """task -> its rung. ``rows``: how many each task's scores are of; curves may lack rungs, but not the whole encoder.

    Every task should have every rung: where rungs were stopped early, those that are left were chosen by luck too.

    A rung k of task t is worth (n_t d_t(k) + borrow * D_t(k)) / (n_t + borrow), d_t(k) being its score less that of
    the whole encoder and D_t(k) the mean of d_u(k) over the other tasks that have the rung, weighed by their rows; 0
    where no other task has it. Of equals the smallest ticket, which stands last, is chosen. The order of tasks does
    not matter.
    """
    gains = {task: {rung: score - curve[WHOLE] for rung, score in curve.items()} for task, curve in curves.items()}

    def worth(task: str, rung: str) -> float:
        others = sorted(other for other in gains if other != task and rung in gains[other])
        weights = [rows[other] for other in others]
        found = statistics.fmean([gains[other][rung] for other in others], weights) if sum(weights) else 0.0
        return (rows[task] * gains[task][rung] + borrow * found) / (rows[task] + borrow)

    chosen = {}
    for task, curve in curves.items():
        # rounded, as sums in another order must not decide between equals; without borrowing nothing is computed
        values = {rung: round(worth(task, rung), 9) for rung in curve} if borrow else curve
        chosen[task] = max(enumerate(values), key=lambda item: (values[item[1]], item[0]))[1]
    return chosen
