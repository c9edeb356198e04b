"""What a task's head reads of an encoder's hidden states: one vector a row.

- ``pooler``: the pooler's output, as published. ``first``: the first token. ``mean``: the mean over all tokens.
- ``texts``: the mean; of a pair the means a and b of the two texts, |a - b| and a * b side by side (the features of
  Conneau et al. 2017, https://arxiv.org/abs/1705.02364, section 3.1).
- ``aligned``: the same of the embeddings' output and of the last layer; of a pair, in each of the two, also every token
  h beside the mixture m of the other text's tokens that it is like: the means over each text of |h - m| and of h * m
  (attend, compare, aggregate: Parikh et al. 2016, https://arxiv.org/abs/1606.01933, section 3). Deviations: what a
  token attends to is decided by cosines, times ``SHARPNESS``, and tokens are compared without a network, so that the
  head stays one linear layer; and the means are means, not sums, so that length tells nothing.

Under the last two, each text of a pair is read as if it were alone, as in both sources; deviation: the second one has
no [CLS]. An encoder that is too small, or saw too little text, to compare two texts itself is helped much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from mtl_tickets.model.anatomy import layers_of

Pooling = Literal["pooler", "first", "mean", "texts", "aligned"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
# texts of a pair are read apart
APART: tuple[str, ...] = ("texts", "aligned")
# what cosines are multiplied by before the softmax
SHARPNESS = 20.0


def views(pooling: str, texts: int) -> int:
    """How many vectors as wide as the encoder a head reads of a row of 1 or 2 texts."""
    one, two = {"texts": (1, 4), "aligned": (2, 16)}.get(pooling, (1, 1))
    return two if texts == 2 else one


def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, d]: the mean of ``hidden`` [B, S, d] where ``mask`` [B, S] is 1; 0 where it is 1 nowhere."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def compared(hidden: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """[B, 4 d]: the means a, b of two texts, |a - b| and a * b. ``one``, ``other`` [B, S]: 1 at a text's tokens."""
    a, b = mean(hidden, one), mean(hidden, other)
    return torch.cat([a, b, (a - b).abs(), a * b], dim=1)


def aligned(hidden: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """[B, 4 d]: |h - m| and h * m, the means over the one text and over the other.

    Computed in float32 whatever the precision around it: the cosines decide. Where a text has no token there is nothing
    to be like, and m is 0.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        kind, hidden = hidden.dtype, hidden.float()
        length = functional.normalize(hidden, dim=-1)
        across = (one[:, :, None] * other[:, None, :] + other[:, :, None] * one[:, None, :]) > 0
        likeness = (length @ length.transpose(1, 2)) * SHARPNESS
        weights = likeness.masked_fill(~across, torch.finfo(torch.float32).min).softmax(-1) * across
        mixture = weights @ hidden
        differences, products = (hidden - mixture).abs(), hidden * mixture
        means = [mean(values, text) for values in (differences, products) for text in (one, other)]
        return torch.cat(means, dim=1).to(kind)


def read(
    pooling: str, below: torch.Tensor | None, last: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None
) -> torch.Tensor:
    """[B, views * d] under ``mean``, ``texts`` and ``aligned``. ``last`` [B, S, d]: the last layer's output; ``below``
    [B, S, d]: the embeddings', needed under ``aligned``; ``types`` [B, S] tells a pair's texts apart, None: one text.
    """
    hidden = [last] if below is None else [below, last]
    if types is None or pooling == "mean":
        return torch.cat([mean(states, mask) for states in hidden], dim=1)
    other = mask * types
    one = mask - other
    ways = [compared, aligned] if pooling == "aligned" else [compared]
    return torch.cat([way(states, one, other) for states in hidden for way in ways], dim=1)


@contextmanager
def embedded(encoder: nn.Module, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """Inside, a forward pass leaves what goes into the first layer, [B, S, d], in the list; none unless ``wanted``."""
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])

    if not wanted:
        yield seen
        return
    handle = layers_of(encoder)[0].register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
