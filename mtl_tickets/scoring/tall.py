"""What share of a unit's weights in a multi-task model are a task's: the evidence of the sharing rule ``tall``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from mtl_tickets.model.anatomy import anatomy_of
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
    heads, width = space.parts["heads"][1], None
    found: dict[str, list[np.ndarray]] = {part: [] for part in space.parts}
    for layer in range(space.layers):

        def own(place: str, layer: int = layer) -> torch.Tensor:
            name = f"{anatomy.layers}.{layer}.{getattr(anatomy, place)}.weight"
            way, apart = (alone[name] - before[name]).abs(), (together[name] - alone[name]).abs()
            return (way > threshold * apart).double()

        # rows of query, key and value, columns of the output: one of each for every feature of a head
        rows = [own(place) for place in ("query", "key", "value")]
        columns = own("attention_output")
        width = columns.shape[1] // heads
        features = sum(part.sum(1) for part in rows) + columns.sum(0)
        found["heads"].append((features.view(heads, width).sum(1) / (4 * width * columns.shape[0])).numpy())
        neurons = own("ffn_in").sum(1) + own("ffn_out").sum(0)
        each = 2 * columns.shape[0]
        found["ffn"].append(np.asarray(float(neurons.sum()) / (each * len(neurons))))
        if "neurons" in found:
            found["neurons"].append((neurons / each).numpy())
    return {part: np.stack(layers) for part, layers in found.items()}
