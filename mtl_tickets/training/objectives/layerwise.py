"""Distillation layer by layer, as of SPD (Huang et al., ACL 2022, arXiv 2110.08190; METHODS 5.2, 5.4), after TinyBERT
(Jiao et al. 2020, arXiv 1909.10351).

    L = sum over l = 0 .. L of MSE(hidden_l) + sum over l = 1 .. L of MSE(attention_l) + prediction

hidden_0 is the embeddings' output, attention are probabilities; prediction is the soft cross-entropy
- tau² sum over classes of softmax(teacher / tau) log softmax(student / tau), of regression (student - teacher)². Gold
labels are not used, unless ``task`` weighs the task's own loss.

Every MSE is a mean over a row's tokens (or pairs of them), so that a row weighs the same whatever batch it stands in.
Deviations, each of which is a switch back to the published code: padding counts nothing; probabilities are those before
dropout; the cross-entropy is summed over classes and has tau² (Hinton et al. 2015, arXiv 1503.02531, section 2), so
that its weight depends on neither; regression looks at the teacher's prediction, not at the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic
import torch
from torch import nn
from torch.nn import functional as F

from mtl_tickets.model.inside import PROBABILITIES
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.batches import Batch
from mtl_tickets.training.objectives.task_loss import example_losses


class LayerwiseSettings(Settings):
    """What the parts of the loss weigh; a part of weight 0 is not computed."""

    hidden: pydantic.NonNegativeFloat = pydantic.Field(1.0, description="hidden states of every layer")
    attention: pydantic.NonNegativeFloat = pydantic.Field(
        1.0,
        description="attention probabilities of every layer, for which training computes attention step by step, "
        "whatever encoder.attention says; 0: it need not",
    )
    prediction: pydantic.NonNegativeFloat = pydantic.Field(1.0, description="the teacher's answers")
    task: pydantic.NonNegativeFloat = pydantic.Field(0.0, description="the task's own loss; published: none")
    temperature: pydantic.PositiveFloat = pydantic.Field(1.0, description="divides logits of classes")

    @pydantic.model_validator(mode="after")
    def _something(self) -> LayerwiseSettings:
        if not any((self.hidden, self.attention, self.prediction, self.task)):
            raise ValueError("some part of the loss must weigh something")
        return self


@dataclass(frozen=True)
class LayerwiseObjective:
    """The loop's objective for a :class:`mtl_tickets.model.grafting.Grafted`: the sum over rows of the loss above."""

    weights: LayerwiseSettings = field(default_factory=LayerwiseSettings)
    class_mean: bool = False
    """Published: the cross-entropy is averaged over classes and has no tau²."""
    gold: bool = False
    """Published: regression looks at the label."""
    count_padding: bool = False
    """Published: tokens of padding count too."""
    attention_dropout: bool = False
    """Published: the student's probabilities are those after dropout."""

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        weights = self.weights
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
            "segments": batch.segments,
            "tokens": batch.tokens,
        }
        attention = None if not weights.attention else "eager" if self.attention_dropout else PROBABILITIES
        asked = {"inside": True, "attention": attention}
        with torch.no_grad():
            answers, *states = model(**inputs, **asked, teacher=True)
        logits, *own_states = model(**inputs, **asked)
        real = torch.ones_like(batch.attention_mask) if self.count_padding else batch.attention_mask
        losses = torch.zeros(len(batch.input_ids), device=batch.input_ids.device)
        if weights.hidden:
            losses = losses + weights.hidden * hidden_distance(own_states[0], states[0], real)
        if weights.attention:
            losses = losses + weights.attention * attention_distance(own_states[1], states[1], real)
        parts = [losses.sum()]
        for student, teacher, labels in zip(logits, answers, batch.labels, strict=True):
            if weights.prediction:
                parts.append(weights.prediction * self._prediction(student, teacher, labels).sum())
            if weights.task:
                parts.append(weights.task * example_losses(student, _there(labels)).sum())
        return torch.stack(parts).sum()

    def deciding(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {**vars(self), "weights": self.weights.model_dump(mode="json")}

    def _prediction(self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """[rows]."""
        if student.shape[-1] == 1:
            if self.gold:
                return example_losses(student, _there(labels))
            return F.mse_loss(student, teacher, reduction="none").squeeze(-1)
        return soft_cross_entropy(student, teacher, self.weights.temperature, self.class_mean)


def soft_cross_entropy(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0, class_mean: bool = False
) -> torch.Tensor:
    """[rows], from logits [rows, classes]."""
    products = F.softmax(teacher / temperature, -1) * F.log_softmax(student / temperature, -1)
    return -products.mean(-1) if class_mean else -products.sum(-1) * temperature**2


def hidden_distance(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], real: torch.Tensor
) -> torch.Tensor:
    """Float32 [B]: summed over layers, of each [B, S, d], the mean square of the difference over features and over the
    tokens where ``real`` [B, S] is 1."""
    layers = [(s.float() - t.float()).square().mean(-1) for s, t in zip(student, teacher, strict=True)]
    return (torch.stack(layers).sum(0) * real).sum(1) / real.sum(1)


def attention_distance(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], real: torch.Tensor
) -> torch.Tensor:
    """Float32 [B]: summed over layers, of each [B, H, S, S], the mean square of the difference over heads and over the
    pairs of tokens of which both are ``real``, [B, S]."""
    layers = [(s.float() - t.float()).square().mean(1) for s, t in zip(student, teacher, strict=True)]
    pairs = real[:, :, None] * real[:, None, :]
    return (torch.stack(layers).sum(0) * pairs).sum((1, 2)) / pairs.sum((1, 2))


def _there(labels: torch.Tensor | None) -> torch.Tensor:
    if labels is None:
        raise ValueError("a training batch must be labelled")
    return labels
