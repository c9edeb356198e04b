"""Rows without padding: the tokens of a batch stand one after the other in one long row.

Linear layers, which are most of the work, then see no padding. Attention keeps the texts apart by where each ends.
Where torch has a kernel for texts of any lengths (CUDA, half precision, no dropout inside attention), it is used; else
queries, keys and values are padded for the time of the attention alone. Both give what padded rows give.

It is an attention implementation of transformers by the name ``"packed"``, with the library's own names for where texts
end (``cu_seq_lens_q``). A pass that says nothing of ends is ``"sdpa"``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"


@dataclass(frozen=True)
class Packing:
    """How the B rows of a batch, S tokens wide with padding, become one row of T tokens.

    ``places``: int64 [T], each token's place in the flattened [B * S]; ``rows``: int64 [T], the row it is of; ``ends``:
    int32 [N + 1], where each of N texts that are read apart ends, from 0; ``longest``: at least the tokens of the
    longest of them.
    """

    places: torch.Tensor
    rows: torch.Tensor
    ends: torch.Tensor
    longest: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: torch.Tensor, texts: torch.Tensor | None = None, tokens: int | None = None) -> Packing:
        """``mask``: int64 [B, S], 0 on padding. ``texts``: 0 and 1 [B, S] where a row's two texts are read apart; a
        text's tokens need not be neighbours. ``tokens``: the sum of the mask, for which a device would have to be
        waited for."""
        rows, width = mask.shape
        count = int(mask.sum()) if tokens is None else tokens
        apart = torch.zeros_like(mask) if texts is None else texts
        lengths = torch.stack([(mask * (1 - apart)).sum(1), (mask * apart).sum(1)], dim=1)
        if texts is None:
            lengths = lengths[:, :1]
        row = torch.arange(rows, device=mask.device).unsqueeze(1)
        order = torch.where(mask == 1, 2 * row + apart, 2 * rows)
        places = order.flatten().argsort(stable=True)[:count]
        ends = functional.pad(lengths.flatten().cumsum(0, dtype=torch.int32), (1, 0))
        # anywhere else than on a CPU, asking for the longest would wait for the device
        longest = int(lengths.max()) if mask.device.type == "cpu" else width
        return cls(places, places // width, ends, longest, (rows, width))

    def pack(self, values: torch.Tensor) -> torch.Tensor:
        """[B, S, ...] -> [1, T, ...]."""
        return values.flatten(0, 1).index_select(0, self.places).unsqueeze(0)

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """[1, T, ...] -> [B, S, ...], 0 on padding."""
        rows, width = self.shape
        whole = values.new_zeros(rows * width, *values.shape[2:])
        return whole.index_copy(0, self.places, values[0]).unflatten(0, (rows, width))

    @property
    def named(self) -> dict[str, Any]:
        """What attention has to be told, by the names that transformers has for it."""
        ends, longest = self.ends, self.longest
        return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The heads' contexts: [1, T, H, d_h] from ``query``, ``key``, ``value`` [1, H, T, d_h], each token's from its own
    text; where no ends are given that of ``"sdpa"``."""
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if _has_kernel(query, dropout):
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = cu_seq_lens_q, max_length_q
        context = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scaling)
        assert isinstance(context, torch.Tensor)
    else:
        context = _padded_within(query, key, value, cu_seq_lens_q, max_length_q, dropout, scaling)
    return context.unsqueeze(0), None


AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def _has_kernel(query: torch.Tensor, dropout: float) -> bool:
    """Whether torch computes attention over texts of any lengths at once; it knows no dropout there."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.float16, torch.bfloat16)
        and dropout == 0.0
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and importlib.util.find_spec("torch.nn.attention.varlen") is not None
    )


def _padded_within(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """[T, H, d_h]: padded rows, and back."""
    tokens = len(query)
    steps = torch.arange(longest, device=query.device)
    # an empty text looks at a place that nobody reads, for what sees nothing at all may be no number
    there = steps < ends.diff().clamp(min=1).unsqueeze(1)
    places = torch.where(there, ends[:-1, None] + steps, 0).flatten()
    query, key, value = (
        states.index_select(0, places).unflatten(0, there.shape).transpose(1, 2) for states in (query, key, value)
    )
    seen = there[:, None, None, :]
    context = functional.scaled_dot_product_attention(query, key, value, seen, dropout_p=dropout, scale=scaling)
    token = torch.arange(tokens, device=query.device)
    text = torch.searchsorted(ends, token, right=True, out_int32=False) - 1
    return context.transpose(1, 2).flatten(0, 1).index_select(0, text * longest + token - ends[text])
