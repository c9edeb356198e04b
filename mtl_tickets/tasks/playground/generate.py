"""The splits of a task, and unlabelled text, from a seed."""

from __future__ import annotations

import math

from mtl_tickets.errors import InputError, Problem, nearest
from mtl_tickets.tasks.playground.corpus import document
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.suite import SUITE, Row

EVALUATION_ROWS = 400
SPLITS = ("train", "dev", "test")


def generate(name: str, seed: int = 0, scale: float = 1.0) -> dict[str, list[Row]]:
    """The splits of one task: split -> rows of (texts, label). A label is the number of its name, or a score 0-5.

    No input occurs twice, within a split or across splits. ``scale`` multiplies the size of the training split; a
    smaller one is a prefix of a larger one, and dev and test never change.

    Raises :class:`InputError` for an unknown task or a scale that is not positive.
    """
    if name not in SUITE:
        raise InputError(Problem("unknown playground task", found=name, hint=nearest(name, list(SUITE))))
    if not scale > 0:
        raise InputError(Problem("scale must be positive", file="playground", place=name, found=scale))
    # train comes last: what dev and test hold must not depend on its size
    sizes = {"dev": EVALUATION_ROWS, "test": EVALUATION_ROWS, "train": math.ceil(SUITE[name].rows * scale)}
    seen: set[tuple[str, ...]] = set()
    splits = {split: _rows(name, split, seed, size, seen) for split, size in sizes.items()}
    return {split: splits[split] for split in SPLITS}


def passages(seed: int = 0, tokens: int = 1_000_000) -> list[tuple[str, str]]:
    """Unlabelled text: documents of two passages that belong together, at least ``tokens`` words and marks in all.

    Less text is a prefix of more text.
    """
    dice = Dice("playground", "text", seed)
    documents = []
    while tokens > 0:
        documents.append(document(dice))
        tokens -= sum(passage.count(" ") + 1 for passage in documents[-1])
    return documents


def text(seed: int = 0, tokens: int = 1_000_000) -> list[str]:
    """The same unlabelled text, a document on a line."""
    return [" ".join(document) for document in passages(seed, tokens)]


def _rows(name: str, split: str, seed: int, size: int, seen: set[tuple[str, ...]]) -> list[Row]:
    dice = Dice("playground", name, split, seed)
    task = SUITE[name]
    rows: list[Row] = []
    while len(rows) < size:
        texts, label = task.make(dice)
        if dice.chance(task.noise):
            label = (int(label) + 1 + dice.below(len(task.labels) - 1)) % len(task.labels)
        if texts not in seen:
            seen.add(texts)
            rows.append((texts, label))
    return rows
