"""Is one method better than another on rows like these? Tests over the rows of dev sets that both answered.

The unit of inference is the row, the trained models are fixed: see :mod:`mtl_tickets.evaluation.statistics` for the
other question, that of another training, and for when each is the right one. Several seeds enter as the mean over
their models, and a row is one unit for all of them: rows that are hard are hard for every seed, so seeds times rows
would count the same evidence several times.

*The paired bootstrap* is for any metric, F1 and correlations included, which are no means over rows (Efron and
Tibshirani 1993, chapters 13 and 14; Dror et al. 2018). Methods are compared on the same resamples; of several tasks
each is resampled by itself, so that the average over them varies as it would with other rows of the same tasks. For
right or wrong there is McNemar's test beside it, :mod:`mtl_tickets.evaluation.mcnemar`.

Rows must be independent: where several were made from one text, resample texts instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.evaluation.row_metrics import Evaluate, evaluator
from mtl_tickets.evaluation.statistics import Interval, require_share
from mtl_tickets.files import digest
from mtl_tickets.tasks.metrics import Function

# counts of a chunk of resamples: 16 MB each
CELLS = 2_000_000
# rows are left out in at most so many groups where the bootstrap's interval is corrected for skew
GROUPS = 400
RESAMPLES = 4_999
# differences of shares below this are equal metrics, summed in another order
ROUNDING = 1e-12


@dataclass(frozen=True)
class RowBootstrap:
    """A score's mean over seeds for A and B on all rows, and how ``difference`` = a - b varies over resampled rows.

    ``interval`` is the percentile interval and ``p`` its inversion: p <= 1 - level exactly where 0 is outside.
    ``bca`` is corrected for bias and skew, None where that is undefined (the resamples all alike or all on one side of
    the difference). ``sd`` is the standard error. ``undefined``: resamples in which a metric of some model was.
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
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
    undefined: float = 0.0,
) -> RowBootstrap:
    """Resamples rows, the same ones for both methods and all seeds.

    ``metric``: a function of (predictions, labels) in which the order of rows does not matter and more is better, or
    the name of one in :data:`METRICS`; those that come with the package cost little for all resamples
    (:mod:`mtl_tickets.evaluation.row_metrics`), everything else 2 x seeds calls for each. Predictions: ``[rows]``, or
    ``[seeds, rows, ...]`` with whatever the function takes of a row; labels: ``[rows]``.

    Where a metric is undefined in a resample (not finite, or a ValueError or ZeroDivisionError) it counts as
    ``undefined``: 0, as in :mod:`mtl_tickets.tasks.metrics`, since leaving such resamples out would judge a method by
    those that flatter it. How often is in the result; a function that answers 0 itself hides it.

    Raises :class:`InputError` for shapes that do not fit, fewer than 2 rows, a metric where less is better, or too
    few resamples for the level.
    """
    labels = np.asarray(labels)
    a, b = np.atleast_2d(np.asarray(predictions_a)), np.atleast_2d(np.asarray(predictions_b))
    _require_fit(a, b, labels)
    _require_resamples(resamples, level)
    found = _resampled_set(RowSet("", "", (metric,), labels, {"a": a, "b": b}), resamples, seed, undefined)
    return Resampled(("a", "b"), len(a), resamples, level, {"": (found,)}).on_task("", "a", "b")


# -- several methods on several tasks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowSet:
    """What methods answered to the labelled rows of one split of a task. A score is the mean of ``metrics``, as for
    :func:`paired_bootstrap`. ``labels`` ``[rows]``; ``answers``: method -> ``[seeds, rows, ...]``."""

    task: str
    split: str
    metrics: tuple[str | Function, ...]
    labels: np.ndarray
    answers: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        task: str,
        split: str,
        metrics: Sequence[str | Function],
        answers: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]],
    ) -> RowSet:
        """From method -> seed -> predictions and labels as they were kept together. Raises :class:`InputError` naming
        every method and seed that did not answer the rows, or has not the labels or the seeds, of the first."""
        (first, by_seed), *_ = answers.items()
        seed, (_, labels) = next(iter(by_seed.items()))
        problems = []
        for method, found in answers.items():
            if list(found) != list(by_seed):
                rule = f"must have the seeds of {first}: {sorted(by_seed)}"
                problems.append(Problem(rule, place=f"{task}, {split}: {method}", found=sorted(found)))
            for number, (predictions, known) in found.items():
                place = f"{task}, {split}: {method}, seed {number}"
                if not len(predictions) == len(known) == len(labels):
                    rule = f"must have answers and labels for the {len(labels)} rows of {first}, seed {seed}"
                    problems.append(Problem(rule, place=place, found=f"{len(predictions)} and {len(known)}"))
                elif not np.array_equal(known, labels):
                    differ = f"{int(np.sum(known != labels))} that differ"
                    problems.append(Problem(f"must have the labels of {first}, seed {seed}", place=place, found=differ))
        if problems:
            raise InputError(problems)
        stacked = {method: np.stack([made for made, _ in found.values()]) for method, found in answers.items()}
        return cls(task, split, tuple(metrics), labels, stacked)


@dataclass(frozen=True)
class _ResampledSet:
    """A score, mean over seeds, by method: ``on_all`` rows ``[methods]``, ``drawn`` and whether it was ``undefined``
    ``[methods, resamples]``, and with groups of rows ``left`` out ``[methods, groups]``."""

    rows: int
    on_all: np.ndarray
    drawn: np.ndarray
    undefined: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class Resampled:
    """The scores of ``methods``, means over ``seeds`` models of each, on resamples that all of them share. ``tasks``:
    task -> its splits. A task's score is the mean over its splits, the average that over tasks."""

    methods: tuple[str, ...]
    seeds: int
    resamples: int
    level: float
    tasks: Mapping[str, tuple[_ResampledSet, ...]]

    def score(self, task: str, method: str) -> float:
        """On all rows."""
        place = self.methods.index(method)
        return float(np.mean([part.on_all[place] for part in self.tasks[task]]))

    def undefined(self, task: str) -> int:
        """Resamples in which a metric of some model was undefined."""
        return int(np.any([part.undefined.any(0) for part in self.tasks[task]], 0).sum())

    def on_task(self, task: str, a: str, b: str) -> RowBootstrap:
        parts = self.tasks[task]
        return self._compared([(1 / len(parts), part) for part in parts], a, b)

    def on_average(self, a: str, b: str) -> RowBootstrap:
        """Over the tasks, unweighted."""
        return self._compared(
            [(1 / len(self.tasks) / len(parts), part) for parts in self.tasks.values() for part in parts], a, b
        )

    def _compared(self, parts: Sequence[tuple[float, _ResampledSet]], a: str, b: str) -> RowBootstrap:
        i, j = self.methods.index(a), self.methods.index(b)
        drawn, undefined = np.zeros(self.resamples), np.zeros(self.resamples, dtype=bool)
        of_a = of_b = 0.0
        influence = []
        for weight, part in parts:
            drawn += weight * _rounded(part.drawn[i] - part.drawn[j])
            undefined |= part.undefined[i] | part.undefined[j]
            of_a, of_b = of_a + weight * part.on_all[i], of_b + weight * part.on_all[j]
            left = part.left[i] - part.left[j]
            influence.append(weight * (left.mean() - left))
        drawn = np.sort(_rounded(drawn))
        k = _outside(self.resamples, self.level)
        beyond = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
        difference = float(_rounded(np.array(of_a - of_b)))
        return RowBootstrap(
            rows=sum(part.rows for _, part in parts),
            seeds=self.seeds,
            resamples=self.resamples,
            undefined=int(undefined.sum()),
            a=float(of_a),
            b=float(of_b),
            difference=difference,
            sd=float(drawn.std(ddof=1)),
            interval=Interval(float(drawn[k - 1]), float(drawn[-k]), self.level),
            bca=_bca(drawn, difference, np.concatenate(influence), self.level),
            p=min(1.0, 2 * (beyond + 1) / (self.resamples + 1)),
        )


def resample(
    sets: Sequence[RowSet],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
    undefined: float = 0.0,
) -> Resampled:
    """Resamples the rows of each set by itself, the same ones for all its methods and their seeds, as
    :func:`paired_bootstrap` does with ``seed`` :func:`row_seed`: what is drawn of a task depends on no other task.

    Raises :class:`InputError` naming every set and method that does not fit the first, and as
    :func:`paired_bootstrap` does.
    """
    _require_resamples(resamples, level)
    _require_same_methods(sets)
    methods = tuple(sets[0].answers)
    tasks: dict[str, tuple[_ResampledSet, ...]] = {}
    for rows in sets:
        # in the order of the first
        ordered = RowSet(rows.task, rows.split, rows.metrics, rows.labels, {m: rows.answers[m] for m in methods})
        found = _resampled_set(ordered, resamples, row_seed(seed, rows.task, rows.split), undefined)
        tasks[rows.task] = (*tasks.get(rows.task, ()), found)
    return Resampled(methods, len(sets[0].answers[methods[0]]), resamples, level, tasks)


def row_seed(seed: int, task: str, split: str) -> int:
    """The seed that the rows of one split are drawn with."""
    return int(digest([seed, task, split], length=15), 16)


def enough_resamples(comparisons: int, alpha: float = 0.05) -> int:
    """So many that the least p there can be, multiplied by a family of ``comparisons``, is a fifth of alpha or less."""
    return max(RESAMPLES, math.ceil(10 * comparisons / alpha - 1e-9) - 1)


def _resampled_set(rows: RowSet, resamples: int, seed: int, undefined: float) -> _ResampledSet:
    count, methods = len(rows.labels), len(rows.answers)
    evaluate = evaluator(rows.metrics, np.concatenate(list(rows.answers.values())), rows.labels)
    random, chunk = np.random.default_rng(seed), max(1, CELLS // count)
    drawn, missing = [], []
    for start in range(0, resamples, chunk):
        scores, without = _scores(evaluate, _drawn(random, min(chunk, resamples - start), count), methods, undefined)
        drawn.append(scores)
        missing.append(without)
    on_all, _ = _scores(evaluate, np.ones((1, count)), methods, undefined)
    left, _ = _scores(evaluate, _leave_out(count), methods, undefined)
    return _ResampledSet(count, on_all[:, 0], np.concatenate(drawn, 1), np.concatenate(missing, 1), left)


def _scores(evaluate: Evaluate, counts: np.ndarray, methods: int, undefined: float) -> tuple[np.ndarray, np.ndarray]:
    """By method and resample the mean over metrics and seeds, and whether one of them was undefined."""
    values = evaluate(counts)
    values = values.reshape(len(values), methods, -1, len(counts))
    defined = np.isfinite(values)
    return np.where(defined, values, undefined).mean((0, 2)), np.any(~defined, (0, 2))


def _rounded(differences: np.ndarray) -> np.ndarray:
    return np.where(np.abs(differences) < ROUNDING, 0.0, differences)


def _outside(resamples: int, level: float) -> int:
    """The k-th lowest and highest resample bound the interval (Efron and Tibshirani, section 12.5), and p <= 1 - level
    exactly where fewer than k lie on the other side of 0."""
    return math.floor((1 - level) / 2 * (resamples + 1) + 1e-9)


def _require_resamples(resamples: int, level: float) -> None:
    require_share("level", level)
    if _outside(resamples, level) < 1:
        least = math.ceil(2 / (1 - level) - 1e-9) - 1
        raise InputError(
            Problem(f"a level of {level} needs at least {least} resamples", place="resamples", found=resamples)
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


def _require_same_methods(sets: Sequence[RowSet]) -> None:
    if not sets or len(sets[0].answers) < 2:
        raise InputError(Problem("a comparison needs the answers of two methods to the rows of at least one task"))
    methods = sorted(sets[0].answers)
    seeds = len(next(iter(sets[0].answers.values())))
    problems, seen = [], set()
    for rows in sets:
        place = f"{rows.task}, {rows.split}"
        if (rows.task, rows.split) in seen:
            problems.append(Problem("may stand only once", place=place))
        seen.add((rows.task, rows.split))
        if sorted(rows.answers) != methods:
            problems.append(Problem(f"must have the methods {methods}", place=place, found=sorted(rows.answers)))
        if rows.labels.ndim != 1 or len(rows.labels) < 2:
            rule = "resampling rows needs two labelled rows or more"
            problems.append(Problem(rule, place=place, found=f"shape {rows.labels.shape}"))
        wanted = (seeds, *rows.labels.shape[:1])
        problems += [
            Problem(
                f"must have a prediction of each of {seeds} seeds for each of {len(rows.labels)} rows",
                place=f"{place}: {method}",
                found=f"shape {answers.shape}",
            )
            for method, answers in rows.answers.items()
            if answers.shape[:2] != wanted or not seeds
        ]
    if problems:
        raise InputError(problems)


def _drawn(random: np.random.Generator, times: int, rows: int) -> np.ndarray:
    """How often each row was drawn: float64 [times, rows], each line summing to ``rows``."""
    drawn = random.integers(0, rows, (times, rows)) + rows * np.arange(times)[:, None]
    return np.bincount(drawn.ravel(), minlength=times * rows).reshape(times, rows).astype(np.float64)


def _leave_out(rows: int) -> np.ndarray:
    groups = min(rows, GROUPS)
    return (np.arange(rows) % groups != np.arange(groups)[:, None]).astype(np.float64)


def _bca(drawn: np.ndarray, difference: float, influence: np.ndarray, level: float) -> Interval | None:
    """``influence``: what leaving out each group of rows takes away; of several sets of rows those of all (Davison and
    Hinkley 1997, section 5.3)."""
    below = (np.mean(drawn < difference - ROUNDING) + np.mean(drawn <= difference + ROUNDING)) / 2
    size = float(np.sum(influence**2)) ** 1.5
    if not 0 < below < 1 or size < 1e-30 or np.ptp(drawn) == 0:
        return None
    bias, skew = special.ndtri(below), float(np.sum(influence**3)) / (6 * size)
    ends = bias + special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    if (skew * ends >= 1).any():
        return None
    low, high = np.quantile(drawn, special.ndtr(bias + ends / (1 - skew * ends)))
    return Interval(float(low), float(high), level)
