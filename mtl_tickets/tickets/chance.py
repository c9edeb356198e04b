"""Chance: how alike two tickets would be if each task kept as many units as it does, but any units.

The null hypothesis is that the kept units of the two tasks are independent, uniform sets of the sizes they have. The
number of units both keep is then hypergeometric, for several pools (or layers) a sum of independent hypergeometrics,
and the Jaccard similarity rises with it. Distributions are exact, nothing is simulated: to the last digits of a float,
except that sums over very many units are convolved by Fourier transform, which knows probabilities below about 1e-14
only to be that small.

What rejecting the null does not say: that sharing helps. Tickets of one encoder may overlap because some units matter
to any task. Nor does the null know that a draw protects a head in every layer; where few heads are kept, compare
``within="layer"``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Literal, TypedDict

import numpy as np

from mtl_tickets.errors import Problem, TicketError, nearest
from mtl_tickets.tickets.space import common_space, require_equal
from mtl_tickets.tickets.ticket import Ticket

Within = Literal["pool", "layer"]


class Chance(TypedDict):
    """A Jaccard similarity beside the distribution it has by chance."""

    jaccard: float
    expected: float
    sd: float
    z: float
    """(jaccard - expected) / sd; 0 where chance has no choice (sd 0)."""
    p_more: float
    """The probability of at least this similarity."""
    p_less: float
    """The probability of at most this similarity."""
    p_two_sided: float
    """Twice the smaller of the two, at most 1."""
    low: float
    """The largest similarity that chance stays below with a probability of at most ``level``."""
    high: float
    """The smallest similarity that chance exceeds with a probability of at most ``level``."""


def chance_overlap(
    one: Ticket, two: Ticket, pool: str | None = None, within: Within = "pool", level: float = 0.025
) -> Chance:
    """The Jaccard similarity of two tickets over ``pool``, or over all units, against the null hypothesis.

    ``within`` is what keeps its numbers of units: every ``pool``, which asks whether the tasks keep the same units; or
    every ``layer`` of it (of single weights every matrix), which asks whether they do beyond keeping as many in the
    same layers. Feed-forward blocks, one a layer, are compared as a whole in both. Raises :class:`TicketError` for
    different spaces, an unknown pool, or a ``level`` that is no probability.
    """
    space = one.space
    require_equal(space, two.space, "two tickets")
    if pool is not None and pool not in space.pools:
        raise TicketError(
            Problem("the unit space has no such pool", "", "pool", pool, nearest(pool, list(space.pools)))
        )
    if not 0 < level < 1:
        raise TicketError(Problem("must be a probability between 0 and 1", place="level", found=level))
    pools = list(space.pools) if pool is None else [pool]
    strata = list(zip(_strata(one, pools, within), _strata(two, pools, within), strict=True))
    least, probability = 0, np.ones(1)
    for mine, theirs in strata:
        first, of_stratum = _hypergeometric(mine.size, int(mine.sum()), int(theirs.sum()))
        more, probability = _trimmed(_convolved(probability, of_stratum))
        least += first + more
    both = sum(int((mine & theirs).sum()) for mine, theirs in strata)
    kept = sum(int(mine.sum()) + int(theirs.sum()) for mine, theirs in strata)
    return _compared(both, kept, least, probability, level)


def chance_matrix(
    tickets: Mapping[str, Ticket], within: Within = "pool", level: float = 0.025
) -> dict[str, dict[str, dict[str, Chance]]]:
    """task -> other task -> ``"all"`` and every pool -> :func:`chance_overlap`. Symmetric; no task is its own other.

    The probabilities are those of single comparisons: who reads many at once corrects them (Holm), once a pair.
    """
    space = common_space(tickets, "tickets")
    matrix: dict[str, dict[str, dict[str, Chance]]] = {task: {} for task in tickets}
    for one, two in itertools.combinations(tickets, 2):
        of_pool = {pool: chance_overlap(tickets[one], tickets[two], pool, within, level) for pool in space.pools}
        everything = chance_overlap(tickets[one], tickets[two], None, within, level)
        matrix[one][two] = matrix[two][one] = {"all": everything, **of_pool}
    return {one: {two: row[two] for two in tickets if two != one} for one, row in matrix.items()}


def _strata(ticket: Ticket, pools: list[str], within: Within) -> list[np.ndarray]:
    """The units of the pools, in the sets whose sizes the null hypothesis holds fixed."""
    if within == "pool":
        return [np.concatenate([ticket.units[p].ravel() for p in ticket.space.pools[pool]]) for pool in pools]
    parts = [part for pool in pools for part in ticket.space.pools[pool]]
    return [row for part in parts for row in ticket.units[part].reshape(ticket.space.rows(part), -1)]


def _hypergeometric(size: int, mine: int, theirs: int) -> tuple[int, np.ndarray]:
    """The smallest number in common that has a probability, and from there the probability of each number, when
    ``mine`` and ``theirs`` of ``size`` units are kept at random."""
    mean = mine * theirs / size
    sd = math.sqrt(mean * (size - mine) / size * (size - theirs) / max(1, size - 1))
    reach = 2000 + int(50 * sd)  # beyond this every probability is 0 in floating point
    first, last = max(0, mine + theirs - size, int(mean) - reach), min(mine, theirs, int(mean) + reach)
    x = np.arange(first, last, dtype=np.float64)
    # P(x + 1) / P(x): no factorials, which overflow
    steps = np.log((mine - x) * (theirs - x)) - np.log((x + 1) * (size - mine - theirs + x + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    probability = np.exp(logs - logs.max())
    more, probability = _trimmed(probability / probability.sum())
    return first + more, probability


def _convolved(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    if min(len(one), len(two)) < 4096:
        return np.convolve(one, two)
    length = len(one) + len(two) - 1
    fast = 1 << (length - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(one, fast) * np.fft.rfft(two, fast), fast)[:length]
    return np.where(product < 1e-17, 0.0, product)  # below lies the noise of the transform


def _trimmed(probability: np.ndarray) -> tuple[int, np.ndarray]:
    """How many zeros it starts with, and the rest without the zeros at either end."""
    there = np.flatnonzero(probability)
    return int(there[0]), probability[there[0] : there[-1] + 1]


def _compared(both: int, kept: int, least: int, probability: np.ndarray, level: float) -> Chance:
    """``both`` of ``kept`` units (counted twice where both keep them) against the distribution from ``least`` on."""
    counts = least + np.arange(len(probability))
    similarity = counts / (kept - counts) if kept else np.ones(1)
    jaccard = both / (kept - both) if kept else 1.0
    expected = float(np.sum(probability * similarity))
    sd = math.sqrt(float(np.sum(probability * (similarity - expected) ** 2)))
    more, less = (min(1.0, float(np.sum(probability[where]))) for where in (counts >= both, counts <= both))
    below = np.cumsum(probability) - probability  # of fewer units in common
    above = np.cumsum(probability[::-1])[::-1] - probability
    return {
        "jaccard": jaccard,
        "expected": expected,
        "sd": sd,
        "z": (jaccard - expected) / sd if sd else 0.0,
        "p_more": more,
        "p_less": less,
        "p_two_sided": min(1.0, 2 * min(more, less)),
        "low": float(similarity[np.flatnonzero(below <= level)[-1]]),
        "high": float(similarity[np.flatnonzero(above <= level)[0]]),
    }
