"""Is one method better than another? Tests over seeds, corrections for many comparisons, and what n seeds can show.

Two questions, two units of inference; neither answers the other:

- *Seeds*: would another training come out so? The unit is a run; both methods ran with the same seeds, on the same
  dev rows. This module. Nothing here speaks of other rows.
- *Rows*: would another dev set come out so? The unit is a row that both methods answered; the trained models are
  fixed. :mod:`mtl_tickets.evaluation.row_tests`. Nothing there speaks of other trainings, which for small tasks
  differ by more than methods do (Reimers and Gurevych 2017; Dodge et al. 2020).

Which test, and why (Dror et al. 2018 survey them for NLP):

- *Paired t* is what verdicts are made of. A score is a mean over many rows, and the average over tasks a mean of
  such means, so that differences are near normal, and it is the only one of the three that can speak with few seeds.
- *Sign flip* (Fisher's exact permutation test of paired differences) assumes symmetric differences only and compares
  means; *Wilcoxon signed rank* does so by ranks, and one wild seed moves it little. Both are exact and conservative:
  with n seeds their p is never below 2^(1-n), with 5 seeds 0.0625. They stand beside t to confirm it, not to be
  chosen from after the fact.
- *Holm* (1979) keeps the chance of any false finding in a family below alpha, however the comparisons depend on each
  other (all share a baseline here, so they do).
- *Power* (Card et al. 2020): a high p shows nothing, least of all equality. What a comparison could have found is
  said by :func:`minimum_detectable`.

Sources: Dror, Baumer, Shlomov and Reichart 2018, The Hitchhiker's Guide to Testing Statistical Significance in Natural
Language Processing; Reimers and Gurevych 2017, Reporting Score Distributions Makes a Difference; Dodge et al. 2019,
Show Your Work, and 2020, Fine-Tuning Pretrained Language Models: Weight Initializations, Data Orders, and Early
Stopping; Card et al. 2020, With Little Power Comes Great Responsibility; Holm 1979, A Simple Sequentially Rejective
Multiple Test Procedure; Hedges 1981, Distribution Theory for Glass's Estimator of Effect Size; Phipson and Smyth 2010,
Permutation P-values Should Never Be Zero; Efron and Tibshirani 1993, An Introduction to the Bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import optimize, special, stats

from mtl_tickets.errors import InputError, Problem

Scores = Mapping[int, float]  # seed -> score
Name = TypeVar("Name", bound=Hashable)

# sign flips are enumerated up to this many seeds (2^15 of them, the other half being their mirror image)
ENUMERATED = 16
# scores are averages of averages: differences below this share of the scores are rounding, not findings
ROUNDING = 1e-11


@dataclass(frozen=True)
class Interval:
    """Covers the true value in ``level`` of all repetitions, both ends included."""

    low: float
    high: float
    level: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


# -- over seeds --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedMean:
    """A mean over ``n`` seeds. ``sd``: the sample standard deviation (n - 1 below the line), None for one seed.
    ``interval``: Student's, for the mean; None for one seed, and without spread, where it would have no width and
    promise certainty."""

    n: int
    mean: float
    sd: float | None
    interval: Interval | None


@dataclass(frozen=True)
class SeedTest:
    """Paired tests of A - B over ``n`` >= 2 seeds; every p is two-sided, above 0 and at most 1, and never nan.

    ``difference`` is the mean, ``sd`` the sample standard deviation of the differences. ``d_z`` = difference / sd is
    Cohen's d of paired data; ``g_z`` is d_z with Hedges's exact correction for small samples, which exists from
    3 seeds on (with 5 it is 0.80 d_z). ``p`` is the paired t test's.

    Without spread there is no t: ``t``, ``d_z``, ``g_z`` and ``interval`` are None, and ``p`` is the sign flip's. That
    is 1 where all differences are 0, and 2^(1-n), the least that n seeds can show, where they are all the same other
    number. The t formula would answer nan and 0.
    """

    n: int
    difference: float
    sd: float
    interval: Interval | None
    t: float | None
    df: int
    p: float
    p_sign_flip: float
    p_wilcoxon: float
    d_z: float | None
    g_z: float | None

    @property
    def identical(self) -> bool:
        """Whether both methods have the same score with every seed."""
        return self.difference == 0 and self.sd == 0


def seed_mean(values: Sequence[float], level: float = 0.95) -> SeedMean:
    """Mean, standard deviation and interval of one score a seed."""
    scores = _finite(values)
    require_share("level", level)
    mean = float(scores.mean())
    if len(scores) == 1:
        return SeedMean(1, mean, None, None)
    if np.ptp(scores) <= ROUNDING * np.abs(scores).max():
        return SeedMean(len(scores), mean, 0.0, None)
    low, high = stats.ttest_1samp(scores, 0.0).confidence_interval(level)
    return SeedMean(len(scores), mean, float(scores.std(ddof=1)), Interval(float(low), float(high), level))


def differences(a: Scores, b: Scores) -> np.ndarray:
    """A - B for each seed, by ascending seed; what is only rounding is 0, or no spread. Raises :class:`InputError`
    where the seeds are not the same, there are none, or a score is not finite."""
    if set(a) != set(b):
        raise InputError(
            Problem("both methods need a score for the same seeds", found=f"seeds {sorted(a)} and {sorted(b)}")
        )
    seeds = sorted(a)
    first, second = _finite([a[seed] for seed in seeds]), _finite([b[seed] for seed in seeds])
    result = first - second
    rounding = ROUNDING * max(np.abs(first).max(), np.abs(second).max())
    if np.ptp(result) <= rounding:
        result[:] = np.median(result)
    result[np.abs(result) <= rounding] = 0.0
    return result


def paired_test(a: Scores, b: Scores, level: float = 0.95) -> SeedTest:
    """The tests of A against B. Swapping A and B changes signs and no p. Raises :class:`InputError` as
    :func:`differences` does, and for a single seed."""
    values = differences(a, b)
    n = len(values)
    if n < 2:
        raise InputError(Problem("a test over seeds needs two seeds or more", found=n))
    require_share("level", level)
    mean, flip, ranks = float(values.mean()), sign_flip(values), wilcoxon(values)
    if np.ptp(values) == 0:
        return SeedTest(n, mean, 0.0, None, None, n - 1, flip, flip, ranks, None, None)
    found, sd = stats.ttest_1samp(values, 0.0), float(values.std(ddof=1))
    low, high = found.confidence_interval(level)
    return SeedTest(
        n=n,
        difference=mean,
        sd=sd,
        interval=Interval(float(low), float(high), level),
        t=float(found.statistic),
        df=n - 1,
        p=above_zero(found.pvalue),
        p_sign_flip=flip,
        p_wilcoxon=ranks,
        d_z=mean / sd,
        g_z=mean / sd * _hedges(n - 1) if n > 2 else None,
    )


def sign_flip(values: Sequence[float] | np.ndarray, draws: int = 99_999, seed: int = 0) -> float:
    """Two-sided p of the mean of differences that are symmetric about 0 under the null: the share of all sign
    assignments that give a mean at least as far from 0.

    Exact up to 16 differences, conservative (its size is at most alpha). Beyond that it is estimated from ``draws``
    random assignments and the given one, so that it is never 0.
    """
    d = _finite(values)
    # ties with the observed sum count, however the sums were rounded
    reached = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    if len(d) <= ENUMERATED:
        bits = np.arange(2 ** (len(d) - 1))[:, None] >> np.arange(len(d)) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * bits) @ d) >= reached))
    random, count, chunk = np.random.default_rng(seed), 1, max(1, 2_000_000 // len(d))
    for start in range(0, draws, chunk):
        signs = 1.0 - 2.0 * random.integers(0, 2, (min(chunk, draws - start), len(d)))
        count += int(np.sum(np.abs(signs @ d) >= reached))
    return count / (draws + 1)


def wilcoxon(values: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, differences of 0 left out (1 where all are).

    Exact up to 16 differences, ties included: ranks are flipped as differences are in :func:`sign_flip`. Beyond that
    it is scipy's, which is exact to 50 without ties and a normal approximation else.
    """
    d = _finite(values)
    d = d[d != 0]
    if not len(d):
        return 1.0
    sizes = np.round(np.abs(d) / np.abs(d).max(), 9)  # equal differences tie, however they were rounded
    if len(d) <= ENUMERATED:
        return sign_flip(np.sign(d) * stats.rankdata(sizes))
    return above_zero(stats.wilcoxon(np.sign(d) * sizes).pvalue)


# -- many comparisons --------------------------------------------------------------------------------------------------


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p of each member of a family, in the order given: the k-th smallest of m is multiplied by
    m - k + 1, none is below a smaller one's, none above 1.

    ``adjusted <= alpha`` for some member happens with probability at most alpha where all nulls are true, under any
    dependence. Raises :class:`InputError` for what is no p.
    """
    wrong = [
        Problem("a p must be in [0, 1]", place=str(name), found=p) for name, p in p_values.items() if not 0 <= p <= 1
    ]
    if wrong:
        raise InputError(wrong)
    adjusted: dict[Name, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = adjusted[name] = min(1.0, max(least, (len(p_values) - rank) * p_values[name]))
    return {name: adjusted[name] for name in p_values}


# -- what n seeds can show ---------------------------------------------------------------------------------------------


def power_of(difference: float, sd: float, seeds: int, alpha: float = 0.05) -> float:
    """The chance that a two-sided paired t test over ``seeds`` finds a true mean difference of this size, with the
    right sign, where paired differences have standard deviation ``sd``.

    From the noncentral t. Findings of the wrong sign do not count, so that no difference has power alpha / 2.
    """
    _require_power_inputs(sd, alpha)
    if seeds < 2:
        raise InputError(Problem("a test over seeds needs two seeds or more", found=seeds))
    return _power(abs(difference) * math.sqrt(seeds) / sd, seeds - 1, alpha)


def minimum_detectable(seeds: int, sd: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true mean difference that is found with probability ``power``; smaller ones are missed more often.

    ``sd`` is the standard deviation of the paired differences. Estimated from five seeds it may in truth be 0.6 to 2.9
    times as large (95 % interval), and the answer with it.
    """
    _require_power_inputs(sd, alpha, power)
    if seeds < 2:
        raise InputError(Problem("a test over seeds needs two seeds or more", found=seeds))
    high = 1.0
    while _power(high, seeds - 1, alpha) < power:
        high *= 2.0
    shift = optimize.brentq(lambda shift: _power(shift, seeds - 1, alpha) - power, 0.0, high, xtol=1e-10)
    return float(shift) * sd / math.sqrt(seeds)


def seeds_needed(difference: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """The fewest seeds (two or more) with which a true mean difference of this size is found with probability
    ``power``. Raises :class:`InputError` for a difference of 0, which none would do for."""
    _require_power_inputs(sd, alpha, power)
    if not (math.isfinite(difference) and difference != 0):
        raise InputError(Problem("the difference to be found must be a number other than 0", found=difference))
    low, high = 1, 2
    while power_of(difference, sd, high, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(difference, sd, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _power(shift: float, df: int, alpha: float) -> float:
    return float(stats.nct.sf(stats.t.isf(alpha / 2, df), df, shift))


def _hedges(df: int) -> float:
    """The factor that makes Cohen's d unbiased for normal differences; close to 1 - 3 / (4 df - 1)."""
    return math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)


# -- shared with the tests over rows -----------------------------------------------------------------------------------


def above_zero(p: float) -> float:
    """``p`` where it did not underflow: no finite sample rules anything out."""
    return min(1.0, max(float(p), float(np.finfo(np.float64).tiny)))


def require_share(name: str, value: float) -> None:
    """Raises :class:`InputError` unless ``value`` is strictly between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(Problem("must be between 0 and 1", place=name, found=value))


def _require_power_inputs(sd: float, alpha: float, power: float | None = None) -> None:
    require_share("alpha", alpha)
    if not (math.isfinite(sd) and sd > 0):
        raise InputError(Problem("power needs differences that vary: a standard deviation above 0", found=sd))
    if power is not None and not alpha / 2 < power < 1:
        raise InputError(Problem("must be above alpha / 2 and below 1", place="power", found=power))


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    result = np.array(values, dtype=np.float64)
    if result.ndim != 1 or not len(result) or not np.isfinite(result).all():
        raise InputError(Problem("scores must be one finite number a seed, at least one", found=result.tolist()))
    return result
