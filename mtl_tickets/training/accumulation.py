"""Where long sums are kept: float32 loses small terms, and not every device knows float64 (Apple's MPS does not)."""

from __future__ import annotations

import functools

import torch


@functools.cache
def accumulation_device(device: torch.device) -> torch.device:
    """Where float64 sums of what ``device`` computes are kept: there, or on the CPU if it has no float64.

    ``total += value.to(accumulation_device(device))`` copies nothing where the device has float64, so that nobody waits
    for it; elsewhere float32 values travel to the CPU, one copy an addition.
    """
    try:
        # some devices only refuse to compute with it
        torch.ones((), dtype=torch.float64, device=device).add_(1.0)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device
