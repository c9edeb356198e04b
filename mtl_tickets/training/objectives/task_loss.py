"""The tasks' own losses: cross-entropy, and mean squared error on the raw label for regression (METHODS 1.6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.tasks.batches import Batch


def example_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of every row, float32 [rows]. ``logits`` [rows, classes] with int64 labels, or [rows, 1] with float ones."""
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def forward(model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
    """The logits of every segment of the batch, float32 [rows of the segment, outputs]."""
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        segments=batch.segments,
        tokens=batch.tokens,
    )


def task_loss(model: torch.nn.Module | MultiTaskModel, batch: Batch) -> torch.Tensor:
    """Sum over the batch's rows of their task's loss."""
    losses = []
    for logits, labels in zip(forward(model, batch), batch.labels, strict=True):
        if labels is None:
            raise ValueError("a training batch must be labelled")
        losses.append(example_losses(logits, labels).sum())
    return torch.stack(losses).sum()
