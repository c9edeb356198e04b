"""Tasks and rows for the tests of bias models."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spec import TaskSpec

LABELS = ["contradiction", "entailment", "neutral"]
WORDS = [f"{a}{b}" for a in ("ba", "ke", "mi", "so", "tu", "lor") for b in ("nd", "pp", "rst", "v", "xo", "zin")]


def task(labels: Sequence[str] = LABELS, **changes: Any) -> TaskSpec:
    source = {"kind": "files", "text": ["a", "b"], "label": "c", "splits": {"train": "t.tsv"}}
    settings = {
        "name": "t",
        "labels": list(labels),
        "metrics": ["accuracy"],
        "splits": {"train": "labelled"},
        "sources": {"f": source},
    }
    return TaskSpec.model_validate(settings | changes)


def rows(*texts: list[str], labels: Sequence[int] | None = None, names: Sequence[str] = LABELS) -> Rows:
    """Rows on lines 2, 3, ..., as below a header."""
    return Rows(
        list(texts),
        None if labels is None else np.asarray(labels),
        np.arange(2, len(texts[0]) + 2),
        list(names),
        "t.tsv",
    )


def drawn(count: int, length: int, seed: int, words: Sequence[str] = WORDS) -> list[str]:
    """Texts of words drawn at random."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(words, length)) for _ in range(count)]


def planted(count: int, seed: int) -> Rows:
    """Pairs that are entailment (1) where all words of the second text are in the first, else 0 or 2, by a coin."""
    draw = np.random.default_rng(seed)
    first, second, labels = [], [], []
    for _ in range(count):
        premise = draw.choice(WORDS, 8, replace=False)
        hypothesis = draw.choice(premise, 4, replace=False)
        entailed = draw.random() < 0.5
        if not entailed:
            strangers = [word for word in WORDS if word not in premise]
            hypothesis[draw.integers(4)] = draw.choice(strangers)
        first.append(" ".join(premise))
        second.append(" ".join(hypothesis))
        labels.append(1 if entailed else 2 * int(draw.integers(2)))
    return rows(first, second, labels=labels)
