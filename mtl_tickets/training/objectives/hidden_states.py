"""Distillation of hidden states, by their cosine, into a network seen through masks from the same network without
(TAMT, Liu et al. 2022, https://arxiv.org/abs/2204.11218; METHODS 2.3), and masked-language modelling beside it.

    L = mean over layers and over tokens of 1 - cos(student's state, teacher's state)

The output of the embeddings is no layer's; nothing is projected; the teacher reads what the student reads. Deviations,
each of which is a switch back to the published code (METHODS 2.9): tokens of padding do not count; the teacher's
dropout is off; where nothing is predicted, the text is read whole, without the one token a sequence that the published
batches spoil.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.nn import functional as F


class MaskedText(Protocol):
    """What is needed of a :class:`mtl_tickets.pretraining.masking.MaskedBatch`."""

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    count: int
    rows: float
    tokens: float
    attention_mask: torch.Tensor | None
    token_type_ids: torch.Tensor | None

    def to(self, device: torch.device) -> Any: ...


def cosine_distance(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], real: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean over layers and tokens of 1 - cosine, float32, 0 to 2. Of each layer [B, S, width]; ``real``: [B, S], 0
    on tokens that do not count; None: all count."""
    layers = [1 - F.cosine_similarity(s.float(), t.float(), dim=-1) for s, t in zip(student, teacher, strict=True)]
    distances = torch.stack(layers).mean(0)
    return distances.mean() if real is None else (distances * real).sum() / real.sum()


@dataclass(frozen=True)
class MaskObjective:
    """The loop's objective for :class:`mtl_tickets.training.learned_masks.LearnedMasks` over a masked-language model.

    ``mlm``: nats per predicted token. ``distillation``: the distance above, on the text as it was before tokens were
    masked. ``both``: the sum of the two means, the distance times ``weight`` (published: 1), on the masked text.

    The loop divides sums by the number of predicted tokens; a batch's mean distance counts by them. A process has a
    part of the batch's tokens, and that part of the sum.
    """

    kind: Literal["mlm", "distillation", "both"] = "mlm"
    weight: float = 1.0
    spoiled: bool = False
    """Published for ``distillation``: read the text with its masks on, of which there is at least one a sequence."""
    count_padding: bool = False
    """Published for ``distillation``: tokens of padding count too."""
    teacher_dropout: bool = False
    """Published for ``distillation``: the teacher is in training mode."""

    def __call__(self, model: nn.Module, batch: MaskedText) -> torch.Tensor:
        if self.kind == "mlm":
            logits, _ = model(batch.input_ids, batch.positions, batch.attention_mask, batch.token_type_ids)
            return _negative_log_likelihood(logits, batch)
        logits, distance = self._read(model, batch)
        weighed = distance * (batch.count * (batch.rows if self.count_padding else batch.tokens))
        if self.kind == "distillation":
            return weighed
        return _negative_log_likelihood(logits, batch) + weighed * self.weight

    def _read(self, model: nn.Module, batch: MaskedText) -> tuple[Any, torch.Tensor]:
        """The student's logits, None without masked-language modelling, and its distance from the teacher."""
        both = self.kind == "both"
        ids = batch.input_ids if both or self.spoiled else unmasked(batch)
        further = (batch.attention_mask, batch.token_type_ids)
        with torch.no_grad():
            *_, teacher = model(ids, None, *further, every_layer=True, dense=True, dropout=self.teacher_dropout)
        logits, _, student = model(ids, batch.positions if both else None, *further, every_layer=True)
        real = None if self.count_padding else batch.attention_mask
        return logits, cosine_distance(student, teacher, real)


def unmasked(batch: MaskedText) -> torch.Tensor:
    """int64 [B, S]: the text before tokens of it were masked."""
    ids = batch.input_ids.flatten().scatter(0, batch.positions, batch.labels)
    return ids.view_as(batch.input_ids)


@torch.no_grad()
def held_out_distance(model: nn.Module, batches: Any, objective: MaskObjective, device: torch.device) -> float:
    """The mean distance of the masked network from the whole one over the tokens of one pass, dropout off, on the text
    that ``objective`` reads. ``batches``: a :class:`mtl_tickets.pretraining.masking.MaskedBatches`."""
    training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches.one_pass():
        batch = batch.to(device)
        counted = objective.count_padding or batch.attention_mask is None
        number = batch.input_ids.numel() if counted else int(batch.attention_mask.sum())
        total += float(objective._read(model, batch)[1]) * number
        tokens += number
    model.train(training)
    return total / tokens


def _negative_log_likelihood(logits: torch.Tensor, batch: MaskedText) -> torch.Tensor:
    return F.cross_entropy(logits.float(), batch.labels, reduction="sum")
