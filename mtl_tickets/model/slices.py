"""A layer's weights unit by unit, or without some of its units: the one place that knows which rows and columns a unit
is.

The weights are a mapping name -> tensor, as in a state dictionary; where units go it is changed, tensors in it are not.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

import torch
import torch.nn.functional as F

from mtl_tickets.model.anatomy import Anatomy

# neurons that are left are filled up with zero neurons to a multiple of this: the width fast kernels want
WIDTH_STEP = 8
Weights = MutableMapping[str, torch.Tensor]


def padded_width(neurons: int) -> int:
    """Neurons of a block that has so many left, zero neurons included."""
    return max(1, -(-neurons // WIDTH_STEP)) * WIDTH_STEP


def unit_matrices(anatomy: Anatomy) -> tuple[str, ...]:
    """The names of the weight matrices of a layer that units are made of."""
    places = (*_rows_of_heads(anatomy), anatomy.attention_output, anatomy.ffn_in, anatomy.ffn_out)
    return tuple(f"{place}.weight" for place in places)


def own_weights(weights: Mapping[str, torch.Tensor], anatomy: Anatomy, heads: int) -> dict[str, torch.Tensor]:
    """The weights of every unit of a layer that has all of its units, laid end to end: ``heads`` ``[..., H, 4·d_h·d]``
    and ``neurons`` ``[..., F, 2·d]``; a feed-forward block's are those of all its neurons.

    ``weights``: name of each of :func:`unit_matrices` -> ``[..., out, in]``. A head's weights are its rows of query,
    key and value and its columns of the attention's output projection, a neuron's its row of the first and its column
    of the second linear layer. Biases are no unit's: those of outputs belong to the layer, and what a unit costs is
    counted in weights alone.
    """
    rows = [weights[f"{place}.weight"] for place in _rows_of_heads(anatomy)]
    columns, inward, outward = (
        weights[f"{place}.weight"] for place in (anatomy.attention_output, anatomy.ffn_in, anatomy.ffn_out)
    )
    by_head = [part.unflatten(-2, (heads, -1)).flatten(-2) for part in (*rows, columns.transpose(-2, -1))]
    return {"heads": torch.cat(by_head, -1), "neurons": torch.cat([inward, outward.transpose(-2, -1)], -1)}


def keep_heads(weights: Weights, anatomy: Anatomy, places: Sequence[int], width: int, prefix: str = "") -> None:
    """Leaves the heads at ``places`` (their numbers among those there), of ``width`` features each.

    Rows of query, key and value and columns of the attention's output projection go; its bias stays.
    """
    output = f"{prefix}{anatomy.attention_output}.weight"
    features = torch.tensor([place * width + i for place in places for i in range(width)], dtype=torch.long)
    features = features.to(weights[output].device)
    for part in _rows_of_heads(anatomy):
        for name in (f"{prefix}{part}.weight", f"{prefix}{part}.bias"):
            weights[name] = weights[name][features]
    weights[output] = weights[output][:, features].contiguous()


def keep_neurons(weights: Weights, anatomy: Anatomy, places: Sequence[int], width: int, prefix: str = "") -> None:
    """Leaves the neurons at ``places``, and zero neurons up to ``width``.

    Rows of the first and columns of the second linear layer go. A zero neuron contributes nothing and never receives a
    gradient where the activation maps 0 to 0 (GELU, ReLU, tanh, SiLU).
    """
    inward, outward = (f"{prefix}{part}" for part in (anatomy.ffn_in, anatomy.ffn_out))
    neurons = torch.tensor(places, dtype=torch.long, device=weights[f"{inward}.weight"].device)
    padding = width - len(places)
    weights[f"{inward}.weight"] = F.pad(weights[f"{inward}.weight"][neurons], (0, 0, 0, padding))
    weights[f"{inward}.bias"] = F.pad(weights[f"{inward}.bias"][neurons], (0, padding))
    weights[f"{outward}.weight"] = F.pad(weights[f"{outward}.weight"][:, neurons], (0, padding)).contiguous()


def _rows_of_heads(anatomy: Anatomy) -> tuple[str, str, str]:
    return anatomy.query, anatomy.key, anatomy.value
