"""Processes that were started together and work as one: who does what."""

from __future__ import annotations

from accelerate import Accelerator


def share_of(accelerator: Accelerator) -> tuple[int, int]:
    """(rank, processes): this process's share of the batches of :func:`mtl_tickets.tasks.batches.passes_over`."""
    return accelerator.process_index, accelerator.num_processes
