"""A BERT's hidden states at chosen places, computed with less work: what masked-language modelling needs, on BERT form.

The numbers are those of the transformers model without dropout, on its own weights, seen through their
parametrisations where they have some; tested to be equal. What is saved: query, key and value are one product; the
last layer is computed only at the places asked for; under mixed precision every operation is in the low precision, and
each weight is cast once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": F.gelu, "relu": F.relu}


def applies_to(network: Any) -> bool:
    """Whether ``network`` is a BERT whose hidden states can be computed here: learned positions, no dropout, and no
    gates on at the moment."""
    config = network.config
    dropouts = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    return (
        config.model_type == "bert"
        and config.hidden_act in ACTIVATIONS
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not any(dropouts)
        and not _gated(network)
    )


def _gated(network: nn.Module) -> bool:
    """Whether a hook of :class:`mtl_tickets.model.gates.Gates` has a gate in it now."""
    return any(
        getattr(hook, "gate", None) is not None
        for module in network.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )


def effective_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as a pass sees them, by the names parameters have without parametrisations. Gradients flow."""
    found: dict[str, torch.Tensor] = {}
    for path, part in module.named_modules():
        if "parametrizations" in path.split("."):
            continue
        names = [name for name, value in part._parameters.items() if value is not None]
        if parametrize.is_parametrized(part):
            names += list(part.parametrizations)
        found |= {f"{path}.{name}" if path else name: getattr(part, name) for name in names}
    return found


def hidden_states(
    encoder: Any,
    input_ids: torch.Tensor,
    positions: torch.Tensor | None,
    attention_mask: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """[P, width] in ``dtype``: what the last layer of a ``BertModel`` gives at ``positions`` [P] of the flattened
    ``input_ids`` [B, S], or everywhere (None: P = B * S). ``attention_mask``: [B, S], 0 on padding. ``dtype``: of
    weights and activations."""
    *_, last = _layers(encoder, input_ids, positions, attention_mask, token_type_ids, dtype)
    return last


def every_layer(
    encoder: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, ...]:
    """[B, S, width] in ``dtype`` for each layer, first to last: what it gives, everywhere. As :func:`hidden_states`."""
    layers = _layers(encoder, input_ids, None, attention_mask, token_type_ids, dtype)
    return tuple(states.view(*input_ids.shape, -1) for states in layers)


def _layers(
    encoder: Any,
    input_ids: torch.Tensor,
    positions: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    dtype: torch.dtype,
) -> Iterator[torch.Tensor]:
    """[B * S, width] after each layer; after the last one [P, width]."""
    low = {name: weight.to(dtype) for name, weight in effective_weights(encoder).items()}
    config = encoder.config
    (batch, length), heads = input_ids.shape, config.num_attention_heads
    width = int(config.hidden_size)
    size, activation = width // heads, ACTIVATIONS[str(config.hidden_act)]

    def norm(states: torch.Tensor, name: str) -> torch.Tensor:
        eps = config.layer_norm_eps
        return F.layer_norm(states, (width,), low[f"{name}.weight"], low[f"{name}.bias"], eps)

    def linear(states: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(states, low[f"{name}.weight"], low[f"{name}.bias"])

    # as in transformers, padding's own vector does not learn
    words = F.embedding(input_ids, low["embeddings.word_embeddings.weight"], padding_idx=config.pad_token_id)
    kinds = low["embeddings.token_type_embeddings.weight"]
    kind = kinds[0] if token_type_ids is None else F.embedding(token_type_ids, kinds)
    states = words + (low["embeddings.position_embeddings.weight"][:length] + kind)
    states = norm(states, "embeddings.LayerNorm").flatten(0, 1)
    hidden = None
    if attention_mask is not None:
        hidden = (attention_mask == 0).repeat_interleave(heads, dim=0)[:, None, :]
    layers = int(config.num_hidden_layers)
    for number in range(layers):
        layer = f"encoder.layer.{number}"
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        weight, bias = (torch.cat([low[f"{part}.{kind}"] for part in parts]) for kind in ("weight", "bias"))
        # [3, batch * heads, length, size]
        mixed = F.linear(states, weight, bias).view(batch, length, 3, heads, size).permute(2, 0, 3, 1, 4)
        query, key, value = mixed.reshape(3, batch * heads, length, size).unbind(0)
        match = torch.bmm(query * size**-0.5, key.transpose(1, 2))
        if hidden is not None:
            match = match.masked_fill(hidden, torch.finfo(dtype).min)
        context = torch.bmm(torch.softmax(match, dim=-1), value)
        context = context.view(batch, heads, length, size).transpose(1, 2).reshape(batch * length, width)
        if number == layers - 1 and positions is not None:
            context, states = context[positions], states[positions]
        states = norm(
            states + linear(context, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
        )
        inner = activation(linear(states, f"{layer}.intermediate.dense"))
        states = norm(states + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        yield states
