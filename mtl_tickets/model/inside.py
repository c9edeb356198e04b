"""What an encoder computes on its way to an answer: every layer's hidden states and attention probabilities.

Hidden states are seen by hooks under every attention implementation. Probabilities exist only where attention is
computed step by step: for passes that are looked into, it is, by the implementation ``"probabilities"``, whatever the
encoder is set to. It gives the probabilities before dropout. Those of transformers' own ``"eager"`` are after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.model.anatomy import anatomy_of, layers_of

PROBABILITIES = "probabilities"
Attending = Literal["probabilities", "eager", "sdpa"]
"""How attention is computed in a pass that is looked into; ``"sdpa"`` tells no probabilities."""


@dataclass
class Inside:
    """Of one pass: ``hidden``, what goes into the first layer and comes out of each, L + 1 times [B, S, d];
    ``attention``, L times [B, H, S, S], each row of which sums to 1 but for dropout."""

    hidden: list[torch.Tensor] = field(default_factory=list)
    attention: list[torch.Tensor] = field(default_factory=list)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The heads' contexts [B, S, H, d_h] from ``query``, ``key``, ``value`` [B, H, S, d_h], and the probabilities
    before dropout [B, H, S, S]. ``attention_mask`` is added to the scores."""
    scores = torch.matmul(query, key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = functional.softmax(scores, dim=-1)
    context = torch.matmul(functional.dropout(probabilities, dropout, module.training), value)
    return context.transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(PROBABILITIES, attend)
AttentionMaskInterface.register(PROBABILITIES, eager_mask)


@contextmanager
def attending(how: Attending, *encoders: nn.Module) -> Iterator[None]:
    """Inside, these encoders compute attention so."""
    configs: list[Any] = [encoder.config for encoder in encoders]
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = how
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


@contextmanager
def watched(encoder: nn.Module, attention: bool = True) -> Iterator[Inside]:
    """Inside, a forward pass of the encoder, of the layers that it has now, leaves what it computes.

    Raises :class:`InputError` in a pass whose attention tells no probabilities, where they are wanted.
    """
    seen, handles = Inside(), []
    layers, anatomy = layers_of(encoder), anatomy_of(encoder)

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.hidden.append(inputs[0])

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.hidden.append(output)

    def look(module: nn.Module, inputs: Any, output: tuple[Any, ...]) -> None:
        if output[1] is None:
            hint = f"compute it inside attending({PROBABILITIES!r}, encoder)"
            found = getattr(encoder.config, "_attn_implementation", None)
            raise InputError(Problem("this attention tells no probabilities", "attention", "", found, hint))
        seen.attention.append(output[1])

    try:
        handles.append(layers[0].register_forward_pre_hook(enter))
        for layer in layers:
            handles.append(layer.register_forward_hook(leave))
            if attention:
                module = anatomy.find(layer, "attention")
                assert module is not None
                handles.append(module.register_forward_hook(look))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
