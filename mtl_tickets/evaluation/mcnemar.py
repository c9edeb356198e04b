"""Is one method right more often than another on rows like these? McNemar's test, for right or wrong.

Only rows on which the methods differ carry evidence, and each falls to A or B with equal chance under the null. The
exact test is conservative; its mid-p is near alpha and rarely above it (Fagerland, Lydersen and Laake 2013, The McNemar
test for binary matched-pairs data). The trained models are fixed: see :mod:`mtl_tickets.evaluation.row_tests`, which is
for any metric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.evaluation.statistics import above_zero


@dataclass(frozen=True)
class McNemar:
    """``wins`` and ``losses``: rows that more, or fewer, of A's models answer right than of B's. ``difference``: A's
    accuracy less B's, mean over seeds, as a share of 1. ``p`` is exact, ``p_mid`` its mid-p; both two-sided."""

    rows: int
    seeds: int
    wins: int
    losses: int
    difference: float
    p: float
    p_mid: float


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """McNemar's exact test of two methods' correctness, ``[rows]`` or ``[seeds, rows]`` of 0 and 1.

    With one seed it is the binomial test of wins against losses. With several, the null swaps all of A's answers to a
    row with all of B's: a row that k more of A's models answer right weighs k, with either sign, and the distribution
    of the weighted sum is computed exactly. p is 1 where the methods are right on the same rows.

    Raises :class:`InputError` for unequal shapes, no rows, or values other than 0 and 1.
    """
    a, b = np.atleast_2d(np.asarray(right_a)), np.atleast_2d(np.asarray(right_b))
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise InputError(
            Problem("both methods need an answer of each seed to the same rows", found=f"shapes {a.shape}, {b.shape}")
        )
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise InputError(Problem("answers must be right (1) or wrong (0)"))
    margins = a.astype(np.int64).sum(0) - b.astype(np.int64).sum(0)
    p, p_mid = _swaps(margins)
    wins, losses = int(np.sum(margins > 0)), int(np.sum(margins < 0))
    return McNemar(a.shape[1], a.shape[0], wins, losses, float(margins.mean() / a.shape[0]), p, p_mid)


def _swaps(margins: np.ndarray) -> tuple[float, float]:
    """p and mid-p of the sum of ``margins`` when each keeps or changes its sign with equal chance."""
    ways, won, total = np.ones(1), 0, 0
    for weight in range(1, int(np.abs(margins).max()) + 1):
        count = int(np.sum(np.abs(margins) == weight))
        share = np.zeros(weight * count + 1)
        share[::weight] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        ways = np.convolve(ways, share)  # of what fell to A, 0 to total
        won, total = won + weight * int(np.sum(margins == weight)), total + weight * count
    if 2 * won == total:
        return 1.0, 1.0
    tail = min(won, total - won)
    p = 2.0 * float(ways[: tail + 1].sum())
    return above_zero(p), above_zero(p - ways[tail])
