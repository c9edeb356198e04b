"""Metrics of many resamples of rows at once: what the bootstrap spends its time on.

A resample is how often each row was drawn. Metrics by name cost a few matrix products (or, for ranks, sums along rows
in order) for all resamples and models; any other function is called once for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.tasks.metrics import METRICS, Function

# counts [resamples, rows] -> values [metrics, models, resamples], nan where one is undefined
Evaluate = Callable[[np.ndarray], np.ndarray]
# the same of one metric: -> [models, resamples]
EvaluateOne = Callable[[np.ndarray], np.ndarray]


def evaluator(metrics: Sequence[str | Function], predictions: np.ndarray, labels: np.ndarray) -> Evaluate:
    """Of predictions ``[models, rows, ...]`` for labels ``[rows]``. Raises :class:`InputError` for a name of a metric
    that is not known, or where less is better."""
    names = [metric for metric in metrics if isinstance(metric, str)]
    if wrong := [name for name in names if not METRICS.get(name).in_score]:
        rule = "more must be better: give a function that negates it"
        raise InputError([Problem(rule, place="metric", found=name) for name in wrong])
    of_classes = [name for name in names if name in _OF_CLASSES]
    sums = _class_sums(predictions, labels) if of_classes else None
    others = [None if metric in of_classes else _other(metric, predictions, labels) for metric in metrics]

    def evaluate(counts: np.ndarray) -> np.ndarray:
        found = sums(counts) if sums else ()
        return np.stack(
            [
                other(counts) if other else _OF_CLASSES[str(metric)](*found)
                for metric, other in zip(metrics, others, strict=True)
            ]
        )

    return evaluate


def _other(metric: str | Function, predictions: np.ndarray, labels: np.ndarray) -> EvaluateOne:
    if not isinstance(metric, str):
        return _one_by_one(metric, predictions, labels)
    known = {"pearson": _pearson, "spearman": _spearman}
    return (
        known[metric](predictions, labels) if metric in known else _one_by_one(METRICS.get(metric), predictions, labels)
    )


def _one_by_one(metric: Function, predictions: np.ndarray, labels: np.ndarray) -> EvaluateOne:
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


# -- of classes --------------------------------------------------------------------------------------------------------

# hits and answers of each class [models, resamples, classes], labels of each [resamples, classes], and the classes
Sums = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
OfClasses = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _class_sums(predictions: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], Sums]:
    classes = np.unique(np.concatenate([predictions.ravel(), labels]))
    true, said = labels[:, None] == classes, predictions[..., None] == classes
    columns = np.concatenate([np.moveaxis(said & true, 0, 1), np.moveaxis(said, 0, 1)], 1)  # [rows, 2 models, classes]
    # sums of so few ones are whole numbers that half the digits hold, in half the time
    kind = np.float32 if len(labels) < 2**24 else np.float64
    table: np.ndarray = np.concatenate([columns.reshape(len(labels), -1), true], 1).astype(kind)
    shape = (2, len(predictions), len(classes))

    def sums(counts: np.ndarray) -> Sums:
        found = (counts.astype(kind) @ table).astype(np.float64)
        wanted = found[:, -len(classes) :]
        hit, given = np.moveaxis(found[:, : -len(classes)].reshape(len(counts), *shape), 0, 2)
        return hit, given, wanted, classes

    return sums


def _accuracy(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return hit.sum(-1) / true.sum(-1)


def _f1(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    positive = classes == 1
    return _divided(2 * hit[..., positive].sum(-1), (said + true)[..., positive].sum(-1))


def _f1_macro(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.nanmean(_divided(2 * hit, said + true), -1)


def _mcc(hit: np.ndarray, said: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    rows = true.sum(-1)
    spread = (rows**2 - (said**2).sum(-1)) * (rows**2 - (true**2).sum(-1))
    return _divided(hit.sum(-1) * rows - (said * true).sum(-1), np.sqrt(spread))


_OF_CLASSES: dict[str, OfClasses] = {"accuracy": _accuracy, "f1": _f1, "f1_macro": _f1_macro, "mcc": _mcc}


# -- of numbers --------------------------------------------------------------------------------------------------------


def _pearson(predictions: np.ndarray, labels: np.ndarray) -> EvaluateOne:
    broken = ~np.isfinite(predictions).all(1)  # undefined in every resample, as on all rows
    sound = np.where(broken[:, None], 0.0, predictions)
    x = (sound - sound.mean(1, keepdims=True)).T  # centred: sums of squares then lose no digits
    y = (labels - np.mean(labels, dtype=np.float64))[:, None]
    table = np.concatenate([x, x * x, x * y, y, y * y], 1)

    def evaluate(counts: np.ndarray) -> np.ndarray:
        found, n = (counts @ table).T, counts.sum(1)
        sx, sxx, sxy = found[:-2].reshape(3, len(broken), -1)
        sy, syy = found[-2:]
        spread_x, spread_y = n * sxx - sx**2, n * syy - sy**2
        constant = (spread_x <= 1e-12 * n * sxx) | (spread_y <= 1e-12 * n * syy)
        values = _divided(n * sxy - sx * sy, np.sqrt(np.where(constant, 0.0, spread_x * spread_y)))
        values[broken] = np.nan
        return values

    return evaluate


def _spearman(predictions: np.ndarray, labels: np.ndarray) -> EvaluateOne:
    """Pearson's correlation of ranks, equal values having the mean of theirs. A value drawn d times below which b were
    drawn has rank b + (d + 1) / 2; the mean of all n ranks is (n + 1) / 2, and the sum of squares about it
    (n³ - sum of d³) / 12."""
    broken = ~np.isfinite(predictions).all(1)
    of_labels, of_answers = _Sorted(labels), [_Sorted(answers) for answers in predictions]

    def evaluate(counts: np.ndarray) -> np.ndarray:
        times = np.ascontiguousarray(counts.T)  # rows first: to go through them in order is to read whole lines
        n, half = counts.sum(1), times / 2
        cubes = n**3
        drawn = of_labels.sums(times)
        ranks = np.cumsum(drawn, 0) - (drawn + n) / 2
        spread_y = cubes - _cubed(drawn)
        weighted = times * ranks[of_labels.place]
        all_different = cubes - _cubed(times)
        values = np.full((len(broken), len(counts)), np.nan)
        for i in np.flatnonzero(~broken):
            answers, below, product, both = of_answers[i], -n / 2, np.empty_like(n), np.zeros_like(n)
            for count, weight in zip(answers.lines(half), answers.lines(weighted), strict=True):
                below += count
                both += np.multiply(below, weight, out=product)
                below += count
            spread_x = all_different if answers.all_different else cubes - _cubed(answers.sums(times))
            values[i] = _divided(12 * both, np.sqrt(spread_x * spread_y))
        return values

    return evaluate


class _Sorted:
    """The different values of a column, rising. ``place`` ``[rows]`` is that of each row's value among them."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        different, self.place, rows = np.unique(values, return_inverse=True, return_counts=True)
        self.starts = np.cumsum(rows) - rows
        self.all_different = len(different) == len(values)

    def sums(self, table: np.ndarray) -> np.ndarray:
        """``[rows, resamples]`` -> ``[values, resamples]``"""
        found = table[self.order]
        return found if self.all_different else np.add.reduceat(found, self.starts, axis=0)

    def lines(self, table: np.ndarray) -> Iterable[np.ndarray]:
        """The same, one by one."""
        return (table[row] for row in self.order) if self.all_different else iter(self.sums(table))


def _cubed(drawn: np.ndarray) -> np.ndarray:
    return np.einsum("vr,vr,vr->r", drawn, drawn, drawn)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """nan where ``below`` is 0."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
