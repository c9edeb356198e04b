"""Tiny things for tests: random examples and a random encoder, both by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import BertConfig

from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.tasks.encode import EncodedTask

VOCABULARY = 60


def encoded(
    sequences: Sequence[np.ndarray], labels: np.ndarray | None, types: Sequence[np.ndarray] | None = None
) -> EncodedTask:
    """Token id sequences and labels as an encoded task."""
    lengths = np.array([len(s) for s in sequences])
    stops = np.cumsum(lengths)
    ids = np.concatenate(sequences).astype(np.int32)
    flat_types = np.zeros(len(ids), np.int8) if types is None else np.concatenate(types).astype(np.int8)
    return EncodedTask(ids, flat_types, stops - lengths, stops, labels, np.arange(len(sequences)), int(lengths.max()))


def random_task(rows: int, classes: int = 2, seed: int = 0, longest: int = 14) -> EncodedTask:
    """Random sentences of 3 to ``longest`` tokens; ``classes`` 1 makes a regression task."""
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(5, VOCABULARY, rng.integers(3, longest + 1)) for _ in range(rows)]
    labels = rng.normal(size=rows).astype(np.float32) if classes == 1 else rng.integers(0, classes, rows)
    return encoded(sequences, labels)


def config(layers: int = 2, dropout: float = 0.1, **changes: object) -> BertConfig:
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        # larger than usual, so that a random encoder tells its inputs apart
        "initializer_range": 0.2,
    }
    return BertConfig(**(settings | changes))


def info(name: str, classes: int = 2, dropout: float = 0.1) -> TaskInfo:
    if classes == 1:
        return TaskInfo(name, "regression", (), 1, dropout)
    return TaskInfo(name, "classification", tuple(str(i) for i in range(classes)), classes, dropout)


def model(classes: dict[str, int], dropout: float = 0.1, layers: int = 2, seed: int = 0) -> MultiTaskModel:
    """A random multi-task model; ``classes``: task name -> classes (1: regression)."""
    tasks = [info(name, n, dropout) for name, n in classes.items()]
    return MultiTaskModel.from_encoder(config(layers, dropout), tasks, seed=seed)
