"""Is a sub-network as good as the model it is a part of? The criterion that lottery tickets are judged by.

Chen et al. 2020 (The Lottery Ticket Hypothesis for Pre-trained BERT Networks, arXiv 2007.12223): a sub-network is
*matching* where its mean over seeds is at least the mean of the full model less one standard deviation of the full
model over seeds. The stricter criterion of their supplement asks for the mean itself. *Universal* is what matches on
every task.

Neither is a test: a sub-network that matches may be worse, and the more the full model varies the more do match. What
is shown to be worse is for :mod:`mtl_tickets.evaluation.verdicts` to say.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.evaluation.statistics import ROUNDING


@dataclass(frozen=True)
class Matching:
    """A sub-network beside the full model. ``sd`` is the full model's over seeds (n - 1 below the line) and ``bound``
    its mean less that, or, of a loss, with that added. ``matches``: as good as the bound; ``reaches``: as good as the
    mean. These but ``mean`` and ``full`` are None with one seed, which decides nothing."""

    mean: float
    full: float
    sd: float | None
    bound: float | None
    matches: bool | None
    reaches: bool | None


@dataclass(frozen=True)
class Highest:
    """The highest sparsity at which a kind of sub-network is good enough (None: at none that was tried), and whether it
    is at every lower one that was tried, too."""

    sparsity: float | None
    every_lower: bool


def matching(values: Sequence[float], full: Sequence[float], lower_is_better: bool = False) -> Matching:
    """Whether a sub-network with ``values``, one a seed, matches the full model. Differences that are only rounding are
    none. Raises :class:`InputError` for no values and for what is not finite."""
    for what, numbers in (("the sub-network", values), ("the full model", full)):
        if not numbers or not all(map(math.isfinite, numbers)):
            raise InputError(Problem("must have one finite number a seed, at least one", place=what, found=[*numbers]))
    mean, whole = statistics.fmean(values), statistics.fmean(full)
    if len(full) < 2:
        return Matching(mean, whole, None, None, None, None)
    sd = statistics.stdev(full)
    bound = whole + sd if lower_is_better else whole - sd
    rounding = ROUNDING * max(map(abs, (*values, *full)))

    def as_good_as(other: float) -> bool:
        return (other - mean if lower_is_better else mean - other) >= -rounding

    return Matching(mean, whole, sd, bound, as_good_as(bound), as_good_as(whole))


def highest(found: Mapping[float, Matching], strict: bool = False) -> Highest | None:
    """Of sparsity -> sub-network. ``strict``: good enough is what reaches the full model's mean. None where it is not
    decided, with one seed. Raises :class:`InputError` where nothing was tried."""
    if not found:
        raise InputError(Problem("no sparsity was tried"))
    good = {sparsity: item.reaches if strict else item.matches for sparsity, item in found.items()}
    decided = {sparsity: value for sparsity, value in good.items() if value is not None}
    return highest_of(decided) if len(decided) == len(good) else None


def highest_of(good: Mapping[float, bool]) -> Highest:
    """The same of sparsity -> whether it is good enough."""
    best = max((sparsity for sparsity, value in good.items() if value), default=None)
    return Highest(best, best is not None and all(value for sparsity, value in good.items() if sparsity < best))


def universal(found: Iterable[Matching]) -> bool | None:
    """Whether a sub-network matches on every target; None where one target is not decided and no other speaks against
    it. Raises :class:`InputError` where there is no target."""
    verdicts = [item.matches for item in found]
    if not verdicts:
        raise InputError(Problem("there is no target to match on"))
    if False in verdicts:
        return False
    return None if None in verdicts else True
