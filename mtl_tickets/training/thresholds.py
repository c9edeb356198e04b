"""Which scores lie lowest, exactly and in linear time; a threshold between them and the rest; and what a pass sees of a
weight whose score is above it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class StraightThrough(torch.autograd.Function):
    """(scores, thresholds, weight) -> weight where the score is above, else 0; the scores' gradient is that of the
    masked weight times the weight. Nothing flows to the weight."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, thresholds: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return torch.where(scores > thresholds, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None, None


def equal_shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many of ``count`` units are taken from sets of these sizes: the same fraction of each, by Sainte-Laguë's
    rule, earlier sets first among equal claims. What a ``per_matrix`` draw takes, without a number for every unit."""
    # the j-th unit of a set of n claims the place (j - 1/2) / n; below this place every claim is certainly won
    safe = max(0.0, (count - len(sizes) / 2 - 1) / max(1, sum(sizes)))
    won = [max(0, math.ceil(safe * size - 0.5) - 1) for size in sizes]
    claims = [((taken + 0.5) / size, number) for number, (taken, size) in enumerate(zip(won, sizes, strict=True))]
    heapq.heapify(claims)
    for _ in range(count - sum(won)):
        number = claims[0][1]
        won[number] += 1
        claim = (won[number] + 0.5) / sizes[number] if won[number] < sizes[number] else math.inf
        heapq.heapreplace(claims, (claim, number))
    return won


def lowest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Marks the ``count`` lowest of flat ``values``, the first ones among equals."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if values.device.type == "cuda":
        limit = torch.kthvalue(values, count).values
    else:  # several times as quick as torch's on a CPU; not every other device has it
        limit = torch.tensor(np.partition(values.cpu().numpy(), count - 1)[count - 1], device=values.device)
    marked = values < limit
    marked[(values == limit).nonzero().flatten()[: count - int(marked.sum())]] = True
    return marked


def highest(scores: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """[rows, 1]; -inf where a row has none."""
    return scores.masked_fill(~where, -torch.inf).amax(1, keepdim=True)


def least(scores: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """[rows, 1]; inf where a row has none."""
    return scores.masked_fill(~where, torch.inf).amin(1, keepdim=True)


def just_above(low: torch.Tensor) -> torch.Tensor:
    """A float32 just above; never a subnormal one, which some devices take for 0."""
    tiny = torch.finfo(torch.float32).tiny
    found = torch.nextafter(low, torch.full_like(low, torch.inf))
    return torch.where(found.abs() < tiny, tiny, found)


def between(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Halfway, at least ``low`` and less than ``high``; ``low`` where one of them is infinite."""
    middle = low + (high - low) / 2
    return torch.where(middle < high, middle, low)
