"""The gradients of one optimiser step, from as many batches and processes as it takes; in parts where memory is short
of a batch."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.processes import any_of, at, summed

logger = logging.getLogger(__name__)

# how allocators say it that raise nothing of their own
SAID = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


class Descent:
    """Of one training.

    A batch that does not fit into memory is computed in halves, and so are, from then on, all that are as large: the
    sum of their losses is the batch's. What is drawn in a pass (dropout, grafted layers) is drawn anew, and an
    objective that weighs the rows of a batch against each other weighs those of each half.

    Several processes add up their gradients when each has its own, so that one which is short of memory keeps the
    others waiting but needs nothing of them: that is why torch's ``DistributedDataParallel``, which adds up in the
    middle of the backward pass, has no place here. It also wants a gradient of every parameter from every process; here
    the heads of tasks that no process has a row of get none, as with one process.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[nn.Module, Any], torch.Tensor],
        parameters: Sequence[nn.Parameter],
        accelerator: Accelerator,
        summing: torch.device,
    ):
        self._model, self._objective, self._parameters = model, objective, parameters
        self._accelerator, self._summing = accelerator, summing
        self._most: int | None = None

    def __call__(self, window: Sequence[Any], count: int, where: str = "", limited: bool = False) -> torch.Tensor:
        """Leaves the gradient of the mean loss over ``count`` rows of all processes in the parameters, which have none
        before; gives this process's sum of losses, float64. ``where``: what to tell the other processes, and
        ``limited`` whether they are to wait for it so long and no longer.

        Raises :class:`MtlTicketsError` where a single row needs more memory than there is.
        """
        total = self._of_this_process(window, count, where, limited)
        if self._accelerator.num_processes > 1:
            at(f"{where}, where gradients are added up", limited)
            there = any_of([parameter.grad is not None for parameter in self._parameters])
            summed([_gradient(p) for p, somewhere in zip(self._parameters, there, strict=True) if somewhere])
        return total

    def _of_this_process(self, window: Sequence[Any], count: int, where: str, limited: bool) -> torch.Tensor:
        at(where, limited)
        while True:
            parts = [part for batch in window for part in self._cut(batch)]
            try:
                return self._backward(parts, count, where, limited)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            # outside of the handler, whose traceback holds what is in memory
            for parameter in self._parameters:
                parameter.grad = None
            gc.collect()
            if self._accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            self._halve(parts)

    def _backward(self, parts: Sequence[Any], count: int, where: str, limited: bool) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self._summing)
        for position, part in enumerate(parts):
            # not counted: a process that is short of memory has more of them than the others
            at(f"{where}, part {position + 1} of {len(parts)}", limited, counted=False)
            loss = self._objective(self._model, part) * part.weight
            self._accelerator.backward(loss * (1 / count))
            total += loss.detach().to(self._summing)
        return total

    def _halve(self, parts: Sequence[Any]) -> None:
        largest = max(parts, key=_size)
        if halves_of(largest) is None:
            shape = " x ".join(map(str, getattr(largest, "input_ids", torch.empty(0)).shape))
            advice = "use a machine with more memory, a shorter max_length or a smaller encoder"
            raise MtlTicketsError(f"out of memory with the least batch there can be ({shape} tokens): {advice}")
        self._most = _size(largest) - 1
        logger.warning("out of memory with %d tokens at once: such batches are computed in parts", _size(largest))

    def _cut(self, batch: Any) -> list[Any]:
        """The batch in parts, none larger than what is known to be too large."""
        if self._most is None or _size(batch) <= self._most or (halves := halves_of(batch)) is None:
            return [batch]
        return [part for half in halves for part in self._cut(half)]


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    """A parameter's, 0 where this process has none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error of torch or Python means."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(said in str(error) for said in SAID)


def _size(batch: Any) -> int:
    """Tokens, padding included."""
    return int(batch.input_ids.numel()) if hasattr(batch, "input_ids") else 1


def halves_of(batch: Any) -> tuple[Any, Any] | None:
    """A batch in two, where its kind can be and it is of more than one row."""
    halves = getattr(batch, "halves", None)
    return None if halves is None else halves()
