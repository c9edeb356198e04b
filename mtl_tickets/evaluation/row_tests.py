"""Is one method better than another on rows like these? Tests over the rows of a dev set that both answered.

The unit of inference is the row, the trained models are fixed: see :mod:`mtl_tickets.evaluation.statistics` for the
other question, that of another training, and for when each is the right one. Several seeds enter as the mean over
their models, and a row is one unit for all of them: rows that are hard are hard for every seed, so seeds times rows
would count the same evidence several times.

- *McNemar's test* is for right or wrong: only rows on which the methods differ carry evidence, and each falls to A or
  B with equal chance under the null. The exact test is conservative; its mid-p is near alpha and rarely above it
  (Fagerland, Lydersen and Laake 2013, The McNemar test for binary matched-pairs data).
- *The paired bootstrap* is for any metric, F1 and correlations included, which are no means over rows (Efron and
  Tibshirani 1993, chapters 13 and 14; Dror et al. 2018).

Rows must be independent: where several were made from one text, resample texts instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.evaluation.statistics import Interval, above_zero, require_share
from mtl_tickets.tasks.metrics import METRICS, Function

# counts of a chunk of resamples: 16 MB each
CELLS = 2_000_000
# rows are left out in at most so many groups where the bootstrap's interval is corrected for skew
GROUPS = 400

# counts [resamples, rows] -> metric [models, resamples], nan where it is undefined
Evaluate = Callable[[np.ndarray], np.ndarray]


# -- right or wrong ----------------------------------------------------------------------------------------------------


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


# -- any metric --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowBootstrap:
    """A metric's mean over seeds for A and B on all rows, and how ``difference`` = a - b varies over resampled rows.

    ``interval`` is the percentile interval and ``p`` its inversion: p <= 1 - level exactly where 0 is outside.
    ``bca`` is corrected for bias and skew, None where that is undefined (the resamples all alike or all on one side of
    the difference). ``sd`` is the standard error. ``undefined``: resamples in which the metric of some model was.
    """

    rows: int
    seeds: int
    resamples: int
    undefined: int
    a: float
    b: float
    difference: float
    sd: float
    interval: Interval
    bca: Interval | None
    p: float


def paired_bootstrap(
    metric: str | Function,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    labels: np.ndarray,
    *,
    resamples: int = 4_999,
    level: float = 0.95,
    seed: int = 0,
    undefined: float = 0.0,
) -> RowBootstrap:
    """Resamples rows, the same ones for both methods and all seeds.

    ``metric``: a function of (predictions, labels) in which the order of rows does not matter and more is better, or
    the name of one in :data:`METRICS`; accuracy, f1, f1_macro, mcc and pearson by name cost one matrix product
    for all resamples, everything else 2 x seeds calls for each. Predictions: ``[rows]``, or ``[seeds, rows, ...]`` with
    whatever the function takes of a row; labels: ``[rows]``.

    Where a metric is undefined in a resample (not finite, or a ValueError or ZeroDivisionError) it counts as
    ``undefined``: 0, as in :mod:`mtl_tickets.tasks.metrics`, since leaving such resamples out would judge a method by
    those that flatter it. How often is in the result; a function that answers 0 itself hides it.

    Raises :class:`InputError` for shapes that do not fit, fewer than 2 rows, a metric where less is better, or too
    few resamples for the level.
    """
    labels = np.asarray(labels)
    a, b = np.atleast_2d(np.asarray(predictions_a)), np.atleast_2d(np.asarray(predictions_b))
    _require_fit(a, b, labels)
    require_share("level", level)
    # the k-th lowest and highest resample bound the interval (Efron and Tibshirani, section 12.5), and p <= 1 - level
    # exactly where fewer than k lie on the other side of 0
    k = math.floor((1 - level) / 2 * (resamples + 1) + 1e-9)
    if k < 1:
        least = math.ceil(2 / (1 - level) - 1e-9) - 1
        raise InputError(
            Problem(f"a level of {level} needs at least {least} resamples", place="resamples", found=resamples)
        )
    evaluate, models, rows = _evaluator(metric, np.concatenate([a, b]), labels), len(a), len(labels)

    def seed_means(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        values = evaluate(counts)
        defined = np.isfinite(values)
        values = np.where(defined, values, undefined)
        return values[:models].mean(0), values[models:].mean(0), int(np.sum(~defined.all(0)))

    on_all_a, on_all_b, _ = seed_means(np.ones((1, rows)))
    difference = float(on_all_a[0] - on_all_b[0])
    random, chunk = np.random.default_rng(seed), max(1, CELLS // rows)
    found, missing = [], 0
    for start in range(0, resamples, chunk):
        of_a, of_b, without = seed_means(_resampled(random, min(chunk, resamples - start), rows))
        found.append(of_a - of_b)
        missing += without
    drawn = np.sort(np.concatenate(found))
    drawn[np.abs(drawn) < 1e-12] = 0.0  # equal metrics, summed in another order
    beyond = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    left_a, left_b, _ = seed_means(_leave_out(rows))
    return RowBootstrap(
        rows=rows,
        seeds=models,
        resamples=resamples,
        undefined=missing,
        a=float(on_all_a[0]),
        b=float(on_all_b[0]),
        difference=difference,
        sd=float(drawn.std(ddof=1)),
        interval=Interval(float(drawn[k - 1]), float(drawn[-k]), level),
        bca=_bca(drawn, difference, left_a - left_b, level),
        p=min(1.0, 2 * (beyond + 1) / (resamples + 1)),
    )


def _require_fit(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> None:
    if labels.ndim != 1 or len(labels) < 2:
        raise InputError(Problem("resampling rows needs two labelled rows or more", found=f"shape {labels.shape}"))
    if a.shape != b.shape or not len(a) or a.shape[1] != len(labels):
        raise InputError(
            Problem(
                "both methods need a prediction of each seed for every labelled row",
                found=f"shapes {a.shape} and {b.shape} for {len(labels)} rows",
            )
        )


def _resampled(random: np.random.Generator, times: int, rows: int) -> np.ndarray:
    """How often each row was drawn: float64 [times, rows], each line summing to ``rows``."""
    drawn = random.integers(0, rows, (times, rows)) + rows * np.arange(times)[:, None]
    return np.bincount(drawn.ravel(), minlength=times * rows).reshape(times, rows).astype(np.float64)


def _leave_out(rows: int) -> np.ndarray:
    groups = min(rows, GROUPS)
    return (np.arange(rows) % groups != np.arange(groups)[:, None]).astype(np.float64)


def _bca(drawn: np.ndarray, difference: float, left: np.ndarray, level: float) -> Interval | None:
    below = (np.mean(drawn < difference - 1e-12) + np.mean(drawn <= difference + 1e-12)) / 2
    influence = left.mean() - left
    size = float(np.sum(influence**2)) ** 1.5
    if not 0 < below < 1 or size < 1e-30 or np.ptp(drawn) == 0:
        return None
    bias, skew = special.ndtri(below), float(np.sum(influence**3)) / (6 * size)
    ends = bias + special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    if (skew * ends >= 1).any():
        return None
    low, high = np.quantile(drawn, special.ndtr(bias + ends / (1 - skew * ends)))
    return Interval(float(low), float(high), level)


# -- metrics of many resamples at once ---------------------------------------------------------------------------------


def _evaluator(metric: str | Function, predictions: np.ndarray, labels: np.ndarray) -> Evaluate:
    """Predictions ``[models, rows, ...]``."""
    if not isinstance(metric, str):
        return _one_by_one(metric, predictions, labels)
    if not METRICS.get(metric).in_score:
        raise InputError(Problem("more must be better: give a function that negates it", place="metric", found=metric))
    if metric == "pearson":
        return _pearson(predictions, labels)
    if metric in _OF_CLASSES:
        return _of_classes(_OF_CLASSES[metric], predictions, labels)
    return _one_by_one(METRICS.get(metric), predictions, labels)


def _one_by_one(metric: Function, predictions: np.ndarray, labels: np.ndarray) -> Evaluate:
    on_all = np.array([[metric(answers, labels)] for answers in predictions], dtype=np.float64)  # its errors are shown

    def value(answers: np.ndarray, rows: np.ndarray) -> float:
        try:
            return float(metric(answers[rows], labels[rows]))
        except (ValueError, ZeroDivisionError):
            return math.nan

    def evaluate(counts: np.ndarray) -> np.ndarray:
        if (counts == 1).all():
            return np.repeat(on_all, len(counts), 1)
        samples = [np.repeat(np.arange(len(labels)), line.astype(np.int64)) for line in counts]
        return np.array([[value(answers, rows) for rows in samples] for answers in predictions])

    return evaluate


# hits, answers and labels of each class [resamples, classes], the classes -> metric [resamples]
OfClasses = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _of_classes(metric: OfClasses, predictions: np.ndarray, labels: np.ndarray) -> Evaluate:
    classes = np.unique(np.concatenate([predictions.ravel(), labels]))
    true = labels[:, None] == classes

    def evaluate(counts: np.ndarray) -> np.ndarray:
        values = []
        for answers in predictions:
            said = answers[:, None] == classes
            sums = counts @ np.concatenate([said & true, said, true], 1).astype(np.float64)
            hit, given, wanted = np.split(sums, 3, axis=1)
            values.append(metric(hit, given, wanted, classes))
        return np.array(values)

    return evaluate


def _accuracy(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return hit.sum(1) / true.sum(1)


def _f1(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    positive = classes == 1
    return _divided(2 * hit[:, positive].sum(1), (said + true)[:, positive].sum(1))


def _f1_macro(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.nanmean(_divided(2 * hit, said + true), 1)


def _mcc(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    rows = true.sum(1)
    spread = (rows**2 - (said**2).sum(1)) * (rows**2 - (true**2).sum(1))
    return _divided(hit.sum(1) * rows - (said * true).sum(1), np.sqrt(spread))


_OF_CLASSES: dict[str, OfClasses] = {"accuracy": _accuracy, "f1": _f1, "f1_macro": _f1_macro, "mcc": _mcc}


def _pearson(predictions: np.ndarray, labels: np.ndarray) -> Evaluate:
    y = labels - np.mean(labels, dtype=np.float64)

    def correlations(answers: np.ndarray, counts: np.ndarray) -> np.ndarray:
        if not np.isfinite(answers).all():  # undefined in every resample, as on all rows
            return np.full(len(counts), np.nan)
        x = answers - np.mean(answers, dtype=np.float64)  # centred: sums of squares then lose no digits
        n, sx, sy, sxx, syy, sxy = (counts @ np.stack([np.ones(len(y)), x, y, x * x, y * y, x * y], 1)).T
        spread_x, spread_y = n * sxx - sx**2, n * syy - sy**2
        constant = (spread_x <= 1e-12 * n * sxx) | (spread_y <= 1e-12 * n * syy)
        return _divided(n * sxy - sx * sy, np.sqrt(np.where(constant, 0.0, spread_x * spread_y)))

    def evaluate(counts: np.ndarray) -> np.ndarray:
        return np.array([correlations(answers, counts) for answers in predictions])

    return evaluate


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """nan where ``below`` is 0."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
