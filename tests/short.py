"""A device whose memory holds few rows."""

import torch

from mtl_tickets.training.objectives.task_loss import task_loss


class Short:
    """The tasks' losses on a device whose memory holds so many rows: it ends in the middle of the backward pass."""

    def __init__(self, rows, error):
        self.rows, self.error, self.seen = rows, error, []

    def __call__(self, model, batch):
        loss = task_loss(model, batch)
        self.seen.append(len(batch.input_ids))
        if len(batch.input_ids) > self.rows:
            middle = model.encoder.encoder.layer[0].output.dense.weight.register_hook(self.full)
            loss.register_hook(lambda gradient: gradient)
            self.hook = middle
        return loss

    def full(self, gradient):
        self.hook.remove()
        raise self.error


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
