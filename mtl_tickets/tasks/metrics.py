"""Metrics in their natural units, from scikit-learn and scipy; a task's score is the mean of its metrics x 100.

Predictions and labels are numpy arrays of N values: label ids (classification) or numbers (regression). Where a
metric is undefined (all predictions alike, fewer than two rows) it is 0.0 and never NaN: such a model has learned
nothing, and a NaN would spread into every average. GLUE's "average score" averages tasks after averaging the metrics
within each (Wang et al. 2019), which is what :func:`score` gives per task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtl_tickets.registry import Registry

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

METRICS: Registry[Metric] = Registry("metric", __name__)

Values = np.ndarray
Function = Callable[[Values, Values], float]


@dataclass
class Metric:
    """A metric as a function of (predictions, labels). ``kinds``: the task kinds it is for. ``in_score``: whether it
    is a share of 1 where more is better, shown x100 and averaged into the score; the others are errors, less is
    better, shown as they are."""

    function: Function
    kinds: tuple[str, ...]
    in_score: bool = True

    def __post_init__(self) -> None:
        self.__doc__ = self.function.__doc__

    def __call__(self, predictions: Values, labels: Values) -> float:
        if len(predictions) != len(labels):
            raise ValueError(f"as many predictions as labels are needed; found {len(predictions)} and {len(labels)}")
        value = float(self.function(np.asarray(predictions), np.asarray(labels))) if len(labels) else 0.0
        return value if math.isfinite(value) or not self.in_score else 0.0


def metric(kinds: Sequence[str], in_score: bool = True) -> Callable[[Function], Metric]:
    """Decorator that enters a function of (predictions, labels) into :data:`METRICS` under its name."""

    def enter(function: Function) -> Metric:
        return METRICS.register(function.__name__)(Metric(function, tuple(kinds), in_score))

    return enter


def compute(spec: TaskSpec, predictions: Values, labels: Values) -> dict[str, float]:
    """The task's metrics, by name, in natural units."""
    return {name: METRICS.get(name)(predictions, labels) for name in spec.metrics}


def score(spec: TaskSpec, values: Mapping[str, float]) -> float:
    """Mean x100 of the task's metrics that count (all but errors such as mse)."""
    return 100.0 * float(np.mean([values[name] for name in spec.metrics if METRICS.get(name).in_score]))


@metric(["classification"])
def accuracy(predictions: Values, labels: Values) -> float:
    """Share of rows with the right label."""
    return float(np.mean(predictions == labels))


@metric(["classification"])
def f1(predictions: Values, labels: Values) -> float:
    """F1 of the positive class, which is label id 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels == 1, predictions == 1, zero_division=0))


@metric(["classification"])
def f1_macro(predictions: Values, labels: Values) -> float:
    """Mean of the F1 of every class that occurs."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0))


@metric(["classification"])
def mcc(predictions: Values, labels: Values) -> float:
    """Matthews correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions)) if _varied(predictions, labels) else 0.0


@metric(["regression"])
def pearson(predictions: Values, labels: Values) -> float:
    """Pearson correlation."""
    from scipy.stats import pearsonr

    return float(pearsonr(predictions, labels).statistic) if _varied(predictions, labels) else 0.0


@metric(["regression"])
def spearman(predictions: Values, labels: Values) -> float:
    """Spearman rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, labels).statistic) if _varied(predictions, labels) else 0.0


@metric(["regression"], in_score=False)
def mse(predictions: Values, labels: Values) -> float:
    """Mean squared error (less is better; not part of the score)."""
    return float(np.mean((predictions.astype(np.float64) - labels.astype(np.float64)) ** 2))


@metric(["regression"], in_score=False)
def mae(predictions: Values, labels: Values) -> float:
    """Mean absolute error (less is better; not part of the score)."""
    return float(np.mean(np.abs(predictions.astype(np.float64) - labels.astype(np.float64))))


def _varied(*columns: Values) -> bool:
    """Whether a correlation is defined: two rows or more, and no column constant or with a non-finite value."""
    return all(len(c) > 1 and bool(np.isfinite(c).all()) and bool(np.ptp(c) > 0) for c in columns)
