"""What share of a unit's weights in a multi-task model are a task's: the evidence of the sharing rule ``tall``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from mtl_tickets.model.anatomy import anatomy_of
from mtl_tickets.model.slices import own_weights, unit_matrices
from mtl_tickets.tickets.space import StructuredSpace

Weights = Mapping[str, torch.Tensor]
"""The encoder's parameters by name."""


@torch.no_grad()
def tall_shares(
    encoder: nn.Module, space: StructuredSpace, before: Weights, alone: Weights, together: Weights, threshold: float
) -> dict[str, np.ndarray]:
    """Part name -> float64 array of its shape, 0 to 1: the share of the unit's weights with |alone - before| >
    ``threshold`` * |together - alone| (Wang et al. 2024, arXiv 2405.07813, equation 4).

    ``before``: pretrained, ``alone``: fine-tuned on the task, ``together``: on all tasks. Biases, which no unit owns,
    do not count. ``encoder`` says where the weights are, whatever it holds.
    """
    anatomy = anatomy_of(encoder)
    found: dict[str, list[np.ndarray]] = {part: [] for part in space.parts}
    for layer in range(space.layers):
        theirs = {}
        for matrix in unit_matrices(anatomy):
            name = f"{anatomy.layers}.{layer}.{matrix}"
            way, apart = (alone[name] - before[name]).abs(), (together[name] - alone[name]).abs()
            theirs[matrix] = (way > threshold * apart).double()
        own = own_weights(theirs, anatomy, space.heads)
        for part, shares in (("heads", own["heads"].mean(1)), ("neurons", own["neurons"].mean(1))):
            if part in found:
                found[part].append(shares.numpy())
        found["ffn"].append(own["neurons"].mean().numpy())
    return {part: np.stack(layers) for part, layers in found.items()}
