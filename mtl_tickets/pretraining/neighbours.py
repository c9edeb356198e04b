"""Attention that looks at neighbours from the first step on.

A small BERT that starts from random weights spends the first part of its training on finding out that words near each
other tell of each other: until attention can tell places apart, the loss stands still a little below that of a bag of
words. Here it is told. Positions are sines and cosines in a small subspace, in which a shift is a rotation; the
queries and keys of some heads read that subspace, the query turned by the head's own offset, so that the head attends
to the token that many places away. Everything is a starting value: all of it is trained.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

# the offsets of a first layer's heads, nearest neighbours first
NEAREST_FIRST = tuple(offset for distance in range(1, 65) for offset in (-distance, distance))
# how much higher the attended token's logit is, before training, than that of a token far away
PEAK = 8.0
# weights of linear layers start with this standard deviation over the square root of their inputs
FAN_IN = 0.5
GOLDEN = (math.sqrt(5) - 1) / 2


@torch.no_grad()
def attend_to_neighbours(network: Any, seed: int, peak: float = PEAK) -> None:
    """Gives a fresh ``BertForMaskedLM`` the start, in place; the word embeddings stay as they are.

    Head ``h`` of the first layer attends ``NEAREST_FIRST[h]`` places away: -1, 1, -2, 2, ... Of a head's ``d``
    dimensions all but one odd one are used; heads of fewer than 4 dimensions tell few places apart. The weights of the
    linear layers between vectors become N(0, (0.5 / sqrt(inputs))²).
    """
    config = network.config
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    generator = torch.Generator().manual_seed(seed)
    for layer in network.bert.encoder.layer.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.normal_(0, FAN_IN / math.sqrt(layer.in_features), generator=generator)
    frequencies = torch.from_numpy(_frequencies(size // 2))
    basis = torch.linalg.qr(torch.randn(width, 2 * len(frequencies), generator=generator))[0]
    embeddings = network.bert.embeddings
    waves = _waves(config.max_position_embeddings, frequencies) @ basis.T
    # a position is as long as a word is on average
    length = embeddings.word_embeddings.weight.norm(dim=1).mean()
    embeddings.position_embeddings.weight.copy_(waves * (length / math.sqrt(len(frequencies))))
    embeddings.token_type_embeddings.weight.zero_()
    # behind the layer norm the position has half of a vector's squared length, which is its width
    gain = math.sqrt(peak * math.sqrt(size) / (width / 2))
    attention = network.bert.encoder.layer[0].attention.self
    for head, offset in zip(range(config.num_attention_heads), NEAREST_FIRST, strict=False):
        rows = slice(head * size, head * size + 2 * len(frequencies))
        attention.query.weight[rows] = gain * _rotation(frequencies * offset) @ basis.T
        attention.key.weight[rows] = gain * basis.T


def _frequencies(number: int) -> np.ndarray:
    """``number`` angles a place, spread over (0, pi) without a common period, so that no two offsets look alike."""
    steps = np.arange(number)
    return (math.pi * (steps + ((steps + 1) * GOLDEN) % 1) / number).astype(np.float32)


def _waves(positions: int, frequencies: torch.Tensor) -> torch.Tensor:
    """[positions, 2 * frequencies]: cosine and sine of every frequency, side by side."""
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.stack([torch.cos(angles), torch.sin(angles)], dim=2).flatten(1)


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """[2n, 2n]: turns each pair of :func:`_waves` forward by its angle."""
    blocks = [
        torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
        for c, s in zip(torch.cos(angles), torch.sin(angles), strict=True)
    ]
    return torch.block_diag(*blocks)
