"""Rewinding: going back to exactly the weights one started from.

The published code of three of the five systems rewinds nothing, because its "original weights" alias the live ones
(METHODS 2.9, 3.8, 4.5). Here the snapshot is a clone with a content hash, and putting it back is checked.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from mtl_tickets.errors import MtlTicketsError


class Snapshot:
    """A copy of a module's parameters and buffers on the CPU, with ``digest``, the SHA-256 of its content."""

    def __init__(self, module: nn.Module):
        self.state = {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
        self.digest = content_hash(self.state)

    def restore(self, module: nn.Module) -> None:
        """Puts the weights back, bit for bit. Raises where the snapshot was written to meanwhile."""
        if content_hash(self.state) != self.digest:
            raise MtlTicketsError("the snapshot changed since it was taken: something holds on to its tensors")
        module.load_state_dict(self.state, strict=True)


def content_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
