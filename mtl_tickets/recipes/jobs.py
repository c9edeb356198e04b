"""What a recipe asks its workbench to do: trainings, looks at trainings, scorings, and the point they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.scoring import ScoreSettings
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

    def rewound(self, tickets: Mapping[str, Ticket] | None = None) -> MultiTaskModel:
        """The model with the weights of the start, bit for bit, and these tickets on."""
        self.snapshot.restore(self.model)
        self.model.set_tickets(dict(tickets or {}))
        return self.model


@dataclass(frozen=True)
class Training:
    """One training of a recipe: from θ_0 with fresh heads, on ``tasks``, under ``tickets`` (none: dense).

    Its rows go under ``report_as``. ``keep_weights`` keeps what it learned for a later stage, ``keep_model`` is the
    folder of a model for use.
    """

    stage: str
    report_as: str
    tasks: tuple[str, ...]
    settings: TrainSettings
    tickets: Mapping[str, Ticket] | None = None
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
