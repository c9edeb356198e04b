"""What a recipe asks its workbench to do: trainings, looks at trainings, scorings, and the point they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from mtl_tickets.model import weight_masks
from mtl_tickets.model.anatomy import anatomy_of, layers_of
from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.scoring import ScoreSettings
from mtl_tickets.scoring.magnitude import weight_magnitudes
from mtl_tickets.tasks.batches import Batch
from mtl_tickets.tickets.budget import Allocation
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.learned_gates import Values
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.rewind import Snapshot


class StoppedAfter(Exception):
    """``--to STAGE``: the run ends here on request."""


@dataclass
class Start:
    """The point a training starts from and a ticket is rewound to: a model, and the snapshot of its weights."""

    model: MultiTaskModel

    def __post_init__(self) -> None:
        self.snapshot = Snapshot(self.model)

    def rewound(self, tickets: Mapping[str, Ticket] | None = None, base: Ticket | None = None) -> MultiTaskModel:
        """The model with the weights of the start, bit for bit, and these tickets on; seen through ``base``, a ticket
        of single weights, until its masks are taken off."""
        weight_masks.take_off(self.model.encoder)
        self.snapshot.restore(self.model)
        if base is not None:
            weight_masks.put_on(self.model.encoder, base)
        self.model.set_tickets(dict(tickets or {}))
        return self.model


@dataclass(frozen=True)
class Origin:
    """What the encoder's weights are when a training begins; a ticket is rewound to them.

    ``pretrained``: θ_0. ``reinitialised``: drawn anew, from ``seed``, as the architecture draws them. ``shuffled``: θ_0
    with the six matrices of its layers in another order, drawn from ``seed``. ``stage``: what the stage ``stage`` kept
    of its encoder.
    """

    kind: Literal["pretrained", "reinitialised", "shuffled", "stage"] = "pretrained"
    seed: int = 0
    stage: str = ""

    def put_into(self, encoder: nn.Module, folder: Path) -> None:
        """Gives an encoder that holds θ_0 these weights, in place. ``folder``: of the stages."""
        if self.kind == "reinitialised":
            encoder.load_state_dict(random_encoder(encoder.config, seed=self.seed).state_dict(), strict=False)
        elif self.kind == "shuffled":
            layers, anatomy = layers_of(encoder), anatomy_of(encoder)
            names = [f"{getattr(anatomy, matrix)}.weight" for matrix in weight_masks.MATRICES]
            weights = [{name: layer.get_parameter(name).detach().clone() for name in names} for layer in layers]
            for layer, source in zip(layers, shuffled_order(len(layers), self.seed), strict=True):
                layer.load_state_dict(weights[source], strict=False)
        elif self.kind == "stage":
            encoder.load_state_dict(kept_encoder(folder / self.stage))


PRETRAINED = Origin()


def put_on_top(model: MultiTaskModel, stage: Path) -> None:
    """Gives the model what a stage has kept of everything above its encoder: heads, and the pooler of an encoder that
    has none of its own."""
    kept = load_file(stage / "weights.safetensors")
    above = {name: weight for name, weight in kept.items() if not name.startswith("encoder.")}
    missing, unexpected = model.load_state_dict(above, strict=False)
    lost = [*unexpected, *(name for name in missing if not name.startswith("encoder."))]
    assert not lost, f"{stage} and the model differ in {lost}"


def kept_encoder(stage: Path) -> dict[str, torch.Tensor]:
    """The weights of the encoder that a stage has kept, by their names in it."""
    kept = load_file(stage / "weights.safetensors")
    return {name.removeprefix("encoder."): w for name, w in kept.items() if name.startswith("encoder.")}


def shuffled_order(layers: int, seed: int) -> list[int]:
    """A permutation of the layers that is not the identity, where there is one."""
    generator = torch.Generator().manual_seed(seed)
    order = list(range(layers))
    while layers > 1 and order == sorted(order):
        order = torch.randperm(layers, generator=generator).tolist()
    return order


@dataclass(frozen=True)
class Prune:
    """What a training is followed by: of the weights in ``space``, so many in all are dropped, those of least magnitude
    first; what its base has dropped stays dropped."""

    space: WeightSpace
    dropped: int
    allocation: Allocation = "global"

    def ticket(self, encoder: nn.Module, base: Ticket | None, otherwise: nn.Module | None = None) -> Ticket:
        """What is left of a trained encoder; matrices it has not are judged by those of ``otherwise``."""
        scores = weight_magnitudes(encoder, self.space, base, otherwise)
        return draw(scores, {"weights": self.dropped}, allocation=self.allocation)


class TaskObjective(Protocol):
    """What a training on tasks minimises in place of the tasks' own losses: the sum of the losses of a batch's rows.
    ``digest`` stands for everything that decides it; ``before_step`` is the loop's."""

    @property
    def digest(self) -> str: ...

    def before_step(self, step: int) -> None: ...

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor: ...


@dataclass(frozen=True)
class Training:
    """One training of a recipe: from ``origin`` with fresh heads, on ``tasks``, under ``tickets`` (none: dense).

    ``base``: a ticket of single weights, under which all tasks see the encoder. ``prune``: draws the next one from
    what was learned. Its rows go under ``report_as``. ``until``: the optimiser steps after which it ends, None: all.
    ``horizon``: over how many such trainings the learning rate falls. ``heads_from``: the stage whose kept heads it
    starts with in place of fresh ones. ``objective``: None for the tasks' own losses. ``fit``: it is evaluated on rows
    it was trained on, too. ``keep_weights`` keeps what it learned for a later stage, ``keep_model`` is the folder of a
    model for use.
    """

    stage: str
    report_as: str
    tasks: tuple[str, ...]
    settings: TrainSettings
    tickets: Mapping[str, Ticket] | None = None
    base: Ticket | None = None
    origin: Origin = PRETRAINED
    prune: Prune | None = None
    until: int | None = None
    horizon: int = 1
    heads_from: str = ""
    objective: TaskObjective | None = None
    fit: bool = False
    keep_weights: bool = False
    keep_model: Path | None = None


@dataclass(frozen=True)
class Look:
    """A training of one task up to step ``until``, to see how it does. It goes on from there, or is given up."""

    stage: str
    training: Training
    until: int


@dataclass(frozen=True)
class Learning:
    """A training in which the tasks' tickets are trained with the encoder. ``start``: task -> the first numbers of its
    units; ``draw``: what a task keeps of them (:mod:`mtl_tickets.training.learned_gates`)."""

    stage: str
    start: Mapping[str, Values]
    draw: Callable[[str, Values], Mapping[str, np.ndarray]]
    settings: TrainSettings
    gate_lr: float
    overlap: float


@dataclass(frozen=True)
class Scoring:
    """Scores of one task, on the weights that the stage ``trained`` kept."""

    stage: str
    task: str
    trained: str
    settings: ScoreSettings
