"""Accuracy apart for the rows of every kind: of a label, of a heuristic that a challenge set is built on, of both."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

import numpy as np

from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spec import TaskSpec

PLAIN = " /:;'()+"


@dataclass(frozen=True)
class Part:
    """The rows that have these values, and the share of them that was answered right."""

    values: tuple[tuple[str, str], ...]
    rows: int
    accuracy: float

    @property
    def metric(self) -> str:
        """``accuracy[heuristic=subsequence,label=entailment]``; signs that would be taken for others are as in URLs."""
        return f"accuracy[{','.join(f'{quote(name, PLAIN)}={quote(value, PLAIN)}' for name, value in self.values)}]"


def values_of(metric: str) -> tuple[tuple[str, str], ...] | None:
    """The values of a part by the name of its metric; None for any other metric."""
    if not (metric.startswith("accuracy[") and metric.endswith("]")):
        return None
    pairs = (pair.partition("=") for pair in metric[len("accuracy[") : -1].split(","))
    return tuple((unquote(name), unquote(value)) for name, _, value in pairs)


def broken_down(spec: TaskSpec, rows: Rows, predictions: np.ndarray) -> list[Part]:
    """The parts of labelled rows that the task's ``breakdown`` asks for, each in the order of its values.

    ``predictions``: label ids [rows]. What asks for a column that these rows were read without is left out: a file
    given by hand need not have it.
    """
    if not spec.breakdown:
        return []
    right = predictions == rows.labels
    columns = dict(rows.groups)
    if rows.labels is not None:
        columns["label"] = [rows.label_names[label] for label in rows.labels.tolist()]
    parts = []
    for names in spec.breakdown:
        if not set(names) <= set(columns):
            continue
        keys = list(zip(*(columns[name] for name in names), strict=True))
        for key in sorted(set(keys)):
            chosen = np.array([other == key for other in keys])
            values = tuple(zip(names, key, strict=True))
            parts.append(Part(values, int(chosen.sum()), float(right[chosen].mean())))
    return parts
