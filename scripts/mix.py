"""The eight GLUE tasks in the proportions of their official training sets, on models with random weights: what the
benchmarks of speed run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from mtl_tickets.model.encoders import load_tokenizer
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.pretraining.encoders import resolve_encoder
from mtl_tickets.tasks.batches import BatchSettings
from mtl_tickets.tasks.encode import EncodedTask, encode
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import TaskSpec, load_task
from mtl_tickets.tickets.ticket import Ticket

# rows of the official training sets (Wang et al. 2019, https://arxiv.org/abs/1804.07461, table 1)
OFFICIAL = {
    "cola": 8551,
    "sst2": 67349,
    "mrpc": 3668,
    "stsb": 5749,
    "rte": 2490,
    "qnli": 104743,
    "qqp": 363846,
    "mnli": 392702,
}
MAX_LENGTH = 128
SHAPES = {
    "4x256": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 1024},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}


def tokenizer() -> Any:
    """The package's own."""
    return load_tokenizer(resolve_encoder("mini"))


def encoded_rows(root: Path, rows: Mapping[str, int], *, dev: bool = False) -> dict[str, EncodedTask]:
    """So many training rows (or rows of the first dev split), or all where there are fewer, drawn from the tasks of
    ``root`` (the official layout)."""
    words = tokenizer()
    tasks = {}
    for name, wanted in rows.items():
        spec = load_task(name)
        split = spec.dev_splits[0] if dev else "train"
        there = read_rows(spec, split, DataSettings(source="folder", root=str(root)))
        drawn = np.sort(np.random.default_rng(0).permutation(len(there))[:wanted])
        tasks[name] = encode(spec, split, there.select(drawn), words, MAX_LENGTH, None)
    return tasks


def mix(root: Path, rows: int) -> dict[str, EncodedTask]:
    """About ``rows`` training rows of the eight tasks in the proportions of the official training sets; every task has
    four or more."""
    whole = sum(OFFICIAL.values())
    return encoded_rows(root, {name: max(4, round(rows * n / whole)) for name, n in OFFICIAL.items()})


def split_in(tasks: dict[str, EncodedTask], name: str, number: int) -> dict[str, EncodedTask]:
    """The rows of one task as those of ``number`` tasks."""
    parts = np.array_split(np.random.default_rng(0).permutation(len(tasks[name])), number)
    return {f"{name}-{i}": tasks[name].select(np.sort(part)) for i, part in enumerate(parts)}


def published_batches(rows: int) -> BatchSettings:
    """One task a batch, rows in random order, padded to the longest: as MT-DNN and Super Tickets train."""
    return BatchSettings(size=rows, regime="one_task", buckets=False, edges=tuple(range(1, MAX_LENGTH + 1)))


def lengths(tasks: dict[str, EncodedTask]) -> str:
    """How long the rows are, for a reader."""
    found = np.concatenate([task.lengths for task in tasks.values()])
    return f"{len(found):,} rows of {found.mean():.1f} tokens on average, at most {found.max()}"


def config(shape: str) -> BertConfig:
    return BertConfig(vocab_size=len(tokenizer()), max_position_embeddings=512, **SHAPES[shape])


def info(name: str, spec: TaskSpec | None = None) -> TaskInfo:
    """``name``: of a GLUE task, or any name for a task of the form of ``spec``."""
    spec = spec or load_task(name)
    return TaskInfo(name, spec.kind, tuple(spec.labels), spec.outputs, spec.head_dropout)


def model(shape: str, tasks: list[TaskInfo], attention: str = "sdpa") -> MultiTaskModel:
    return MultiTaskModel.from_encoder(config(shape), tasks, attention=attention, seed=0)


def random_tickets(of: MultiTaskModel, share: float, seed: int = 0) -> dict[str, Ticket]:
    """For each task a ticket that keeps about ``share`` of all units, drawn at random."""
    rng = np.random.default_rng(seed)
    return {
        task.name: Ticket(of.space, {part: rng.random(shape) < share for part, shape in of.space.parts.items()})
        for task in of.tasks
    }


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
