"""A task's loss with a model of its bias beside it: what the loop minimises when a network shall not learn the bias.

The three losses are functions in files of their own (:mod:`.product_of_experts`, :mod:`.example_reweighting`,
:mod:`.confidence_regularisation`); here a batch's rows find their bias. The bias can be annealed over the training: its
distribution is raised to a power and normalised again (METHODS 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mtl_tickets.files import digest
from mtl_tickets.tasks.batches import Batch
from mtl_tickets.training.objectives.confidence_regularisation import confidence_regularisation
from mtl_tickets.training.objectives.example_reweighting import example_reweighting
from mtl_tickets.training.objectives.product_of_experts import product_of_experts
from mtl_tickets.training.objectives.task_loss import example_losses, forward

Debiasing = Literal["product_of_experts", "reweighting", "confidence"]
NEUTRAL = (1.0, 1.0)


def annealed(bias: torch.Tensor, power: float) -> torch.Tensor:
    """Log-probabilities [rows, classes] of the distribution raised to ``power`` and normalised: 1 leaves it as it is, 0
    makes it uniform."""
    return bias if power == 1 else F.log_softmax(bias * power, dim=-1)


class Debiased:
    """The loop's objective for a :class:`mtl_tickets.model.multitask.MultiTaskModel`.

    ``bias``: number of the task in the batches -> log-probabilities [training rows, classes], in the order of the
    encoded training rows. Tasks without have their own loss. ``teacher``: the same of the fine-tuned network, for
    ``confidence``. ``powers``: of the bias at the first step and at the last of ``steps``, linear in between; by
    default nothing is annealed, as published.

    :meth:`before_step` is the loop's; :attr:`digest` stands for everything that decides a loss.
    """

    def __init__(
        self,
        kind: Debiasing,
        bias: Mapping[int, np.ndarray],
        teacher: Mapping[int, np.ndarray] | None = None,
        powers: tuple[float, float] = NEUTRAL,
        steps: int = 1,
    ):
        if kind == "confidence" and set(teacher or ()) != set(bias):
            raise ValueError("confidence regularisation needs a teacher for every task with a bias")
        self.kind, self.powers, self.steps = kind, powers, steps
        self._bias = {task: torch.tensor(table, dtype=torch.float32) for task, table in bias.items()}
        self._teacher = {task: torch.tensor(table, dtype=torch.float32) for task, table in (teacher or {}).items()}
        self.power = powers[0]

    @property
    def digest(self) -> str:
        tables = {
            f"{name} {task}": digest([list(table.shape), table.numpy().tobytes().hex()])
            for name, of_tasks in (("bias", self._bias), ("teacher", self._teacher))
            for task, table in sorted(of_tasks.items())
        }
        return digest([self.kind, list(self.powers), self.steps if self.powers != NEUTRAL else None, tables])

    def before_step(self, step: int) -> None:
        """Sets the power of the bias for the batches of this step, the first of which is 0."""
        first, last = self.powers
        self.power = first + (last - first) * min(1.0, step / max(1, self.steps - 1))

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        losses = []
        for (task, start, stop), logits, labels in zip(
            batch.segments, forward(model, batch), batch.labels, strict=True
        ):
            if labels is None:
                raise ValueError("a training batch must be labelled")
            rows = torch.from_numpy(batch.indices[start:stop])
            losses.append(self._losses(task, rows, logits, labels).sum())
        return torch.stack(losses).sum()

    def _losses(self, task: int, rows: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if task not in self._bias:
            return example_losses(logits, labels)
        bias = annealed(self._bias[task][rows], self.power).to(logits.device)
        if self.kind == "product_of_experts":
            return product_of_experts(logits, labels, bias)
        if self.kind == "reweighting":
            return example_reweighting(logits, labels, bias)
        return confidence_regularisation(logits, labels, bias, self._teacher[task][rows].to(logits.device))
