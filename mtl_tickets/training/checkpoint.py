"""Everything a stopped training needs to go on bit for bit: one safetensors file, no pickle.

Tensors: ``model/<name>``, ``optimiser/<parameter number>/<key>``, ``rng/...``. Metadata: one JSON text with the place
in the plan, the history so far, the loss scaler and a digest of what is being trained. A digest of all this tells a
file that is cut off, or in which a bit has flipped, from one that is whole.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.files import written_whole

FORMAT = "mtl_tickets.checkpoint"
VERSION = "1"


class DamagedCheckpoint(CheckpointError):
    """The file is not what was written."""


@dataclass
class Place:
    """Where a training stands: ``epoch`` and ``batch`` say which batch comes next, ``step`` counts optimiser steps.
    ``seconds``: how long it has trained until here, over all starts."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    examples: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: Any | None,
    place: Place,
    training: str,
) -> None:
    """Writes the checkpoint whole. ``training`` is a digest of what is trained: another training refuses the file."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    plain: dict[str, Any] = {}
    for number, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimiser/{number}/{key}"] = value
            else:
                plain[f"{number}/{key}"] = value
    tensors |= _generators()
    note = {
        "training": training,
        "place": asdict(place),
        "optimiser": plain,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "python": list(random.getstate()[1]),
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, "version": VERSION, "note": json.dumps(note)}
    with written_whole(path) as part:
        save_file(tensors, part, metadata={**metadata, "digest": _digest(tensors, metadata)})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: Any | None,
    training: str,
) -> Place:
    """Puts everything back and says where to go on.

    Raises :class:`DamagedCheckpoint`, with nothing changed, where the file is not, bit for bit, what was written, and
    another :class:`CheckpointError` where it does not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DamagedCheckpoint(Problem(f"must be a checkpoint of this program ({error})", file=str(path))) from None
    written = metadata.pop("digest", None)
    if written != _digest(tensors, metadata):
        raise DamagedCheckpoint(Problem("must hold what was written: it is damaged", file=str(path)))
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if metadata.get(key) != expected:
            raise CheckpointError(
                Problem(f"{key} must be {expected!r}", file=str(path), place="metadata", found=metadata.get(key))
            )
    note = json.loads(metadata["note"])
    if note["training"] != training:
        raise CheckpointError(
            Problem(
                "the checkpoint must belong to the training that is resumed",
                file=str(path),
                found=note["training"],
                hint=f"this training is {training!r}; delete the file to start it over",
            )
        )
    model.load_state_dict(_below(tensors, "model/"), strict=True)
    state = optimiser.state_dict()
    moments: dict[int, dict[str, Any]] = {}
    for name, value in {**_below(tensors, "optimiser/"), **note["optimiser"]}.items():
        number, _, key = name.partition("/")
        moments.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**state, "state": moments})
    if scaler is not None and note["scaler"]:
        scaler.load_state_dict(note["scaler"])
    _set_generators(tensors, note["python"])
    return Place(**note["place"])


def _digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    content = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        content.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _generators() -> dict[str, torch.Tensor]:
    numpy_state: Any = np.random.get_state()  # a tuple, for the legacy generator
    tensors = {
        "rng/torch": torch.get_rng_state(),
        "rng/numpy": torch.from_numpy(np.asarray(numpy_state[1]).astype(np.int64)),
        "rng/numpy_place": torch.tensor([int(numpy_state[2])]),
    }
    if torch.cuda.is_available():
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"rng/cuda/{device}"] = state
    return tensors


def _set_generators(tensors: dict[str, torch.Tensor], python: list[int]) -> None:
    torch.set_rng_state(tensors["rng/torch"])
    words = tensors["rng/numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(tensors["rng/numpy_place"][0]), 0, 0.0))
    random.setstate((3, tuple(python), None))
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            if f"rng/cuda/{device}" in tensors:
                torch.cuda.set_rng_state(tensors[f"rng/cuda/{device}"], device)
