"""The embedded default suite: eight generated tasks over one invented language. No network, no downloads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtl_tickets.errors import InputError, Problem, nearest
from mtl_tickets.tasks.playground.corpus import document
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.suite import SUITE, Row

EVALUATION_ROWS = 400
SPLITS = ("train", "dev", "test")


def generate(name: str, seed: int = 0, scale: float = 1.0) -> dict[str, list[Row]]:
    task = SUITE[name]
    seen: set[tuple[str, ...]] = set()
    sizes = {"dev": EVALUATION_ROWS, "test": EVALUATION_ROWS, "train": math.ceil(task.rows * scale)}
    return {split: _rows(name, split, seed, sizes[split], seen) for split in sizes}


def _rows(name: str, split: str, seed: int, n: int, seen: set[tuple[str, ...]]) -> list[Row]:
    dice = Dice("playground", name, split, seed)
    task = SUITE[name]
    rows: list[Row] = []
    while len(rows) < n:
        texts, label = task.make(dice)
        if dice.chance(task.noise):
            label = (int(label) + 1 + dice.below(len(task.labels) - 1)) % len(task.labels)
        if texts in seen:
            continue
        seen.add(texts)
        rows.append((texts, label))
    return rows


def text(seed: int = 0, tokens: int = 1_000_000) -> list[str]:
    dice = Dice("playground", "text", seed)
    documents: list[str] = []
    while tokens > 0:
        documents.append(document(dice))
        tokens -= documents[-1].count(" ") + 1
    return documents
