"""A multi-task model whose tickets are trained with it: what the sharing rule ``learned`` is found out by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl_tickets.model.gates import Segment
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.tasks.batches import Batch
from mtl_tickets.training.objectives.task_loss import task_loss

Values = Mapping[str, np.ndarray]
"""Part name -> a number for each unit."""


class LearnedGates(nn.Module):
    """``model`` seen through tickets that are drawn anew in every pass from trained numbers.

    ``start``: task -> the first numbers, for every task of the model. ``draw(task, values)`` gives the kept units, part
    -> boolean array, of a task with these numbers. ``speed``: how many times the optimiser's learning rate the numbers
    have. ``overlap`` weighs :meth:`apartness`.

    Straight-through: the pass sees gates of 0 and 1, and the gradient of a gate, which a dropped unit has too, goes to
    its number.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        start: Mapping[str, Values],
        draw: Callable[[str, Values], Mapping[str, np.ndarray]],
        speed: float,
        overlap: float,
    ):
        super().__init__()
        self.model, self.draw, self.speed, self.overlap = model, draw, speed, overlap
        self.names = [task.name for task in model.tasks]
        self.shapes = {part: values.shape for part, values in start[self.names[0]].items()}
        device = next(model.parameters()).device
        # flat: numbers of units are no matrices, and weight decay would draw them to 0
        self.numbers = nn.ParameterDict(
            {
                part: nn.Parameter(
                    torch.as_tensor(np.stack([start[name][part] for name in self.names]), dtype=torch.float32)
                    .flatten()
                    .to(device)
                    / speed
                )
                for part in self.shapes
            }
        )

    @property
    def heads(self) -> nn.ModuleDict:
        """The model's heads, which may have a learning rate of their own."""
        return self.model.heads

    def values(self) -> dict[str, torch.Tensor]:
        """Part -> float32 [T, ...shape of the part]: the numbers, with their gradients."""
        return {
            part: (flat * self.speed).view(len(self.names), *self.shapes[part]) for part, flat in self.numbers.items()
        }

    def of_task(self, name: str) -> dict[str, np.ndarray]:
        """Part -> float64 array of its shape: a task's numbers."""
        place = self.names.index(name)
        return {part: values[place].detach().cpu().double().numpy() for part, values in self.values().items()}

    def gates(self) -> dict[str, torch.Tensor]:
        """Part -> float32 [T, ...]: 1 and 0 as drawn now, with the gradient of the numbers."""
        kept = [self.draw(name, self.of_task(name)) for name in self.names]
        found = {}
        for part, values in self.values().items():
            hard = torch.as_tensor(np.stack([units[part] for units in kept]), dtype=torch.float32).to(values.device)
            found[part] = hard + values - values.detach()
        return found

    def apartness(self) -> torch.Tensor:
        """How far tasks are from their mean: the mean over units of the variance over tasks of sigmoid(number)."""
        spreads = [torch.sigmoid(values).var(0, correction=0).flatten() for values in self.values().values()]
        return torch.cat(spreads).mean()

    def forward(self, *, segments: list[Segment], **inputs: Any) -> list[torch.Tensor]:
        """The logits of each segment, as the model's own."""
        gates = self.gates()
        rows = {
            part: torch.cat([of[task].expand(stop - start, *of.shape[1:]) for task, start, stop in segments])
            for part, of in gates.items()
        }
        with self.model.gates.leaves(**rows):
            return self.model(segments=segments, **inputs)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """An objective: the tasks' losses, summed, and the term for sharing for each row that is here."""
        rows = sum(stop - start for _, start, stop in batch.segments)
        return task_loss(model, batch) + self.overlap * rows * self.apartness()


def first_numbers(kept: Mapping[str, np.ndarray], scores: Values) -> dict[str, np.ndarray]:
    """Numbers that draw a ticket again: kept units lie in (0, 1), dropped ones in (-1, 0), on either side evenly and in
    the order of their scores, so that those at the border change sides first."""
    found = {}
    for part, units in kept.items():
        numbers = np.empty(units.shape)
        for side, below in ((units, 0.0), (~units, -1.0)):
            order = np.argsort(np.argsort(scores[part][side], kind="stable"), kind="stable")
            numbers[side] = below + (order + 0.5) / max(1, len(order))
        found[part] = numbers
    return found
