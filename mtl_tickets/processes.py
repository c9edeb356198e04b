"""Processes that were started together (``accelerate launch``, ``torchrun``) and work as one: who does what.

All of them go through the same steps in the same order. What one of them would write, decide or find on disk is done by
the first, and told to the others: :func:`by_main`.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mtl_tickets import watch
from mtl_tickets.errors import InputError, Problem

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator, PartialState
    from torch import nn
    from torch.distributed import ProcessGroup

Found = TypeVar("Found")

# how long processes wait for each other: one may be reading or checking much while the others have nothing to do
PATIENCE = datetime.timedelta(hours=2)
# what accelerate can be told to divide weights by
DIVIDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
# bytes that travel at once
PIECE = 32 * 1024 * 1024

_watch: watch.Watch | None = None


def share_of(accelerator: Accelerator) -> tuple[int, int]:
    """(rank, processes): this process's share of the batches of :func:`mtl_tickets.tasks.batches.passes_over`."""
    return accelerator.process_index, accelerator.num_processes


def group() -> PartialState:
    """The processes that were started with this one, which it joins here. Without GPUs accelerate lets processes work
    together only where it is told to use CPUs; else each would take itself for the only one.

    Raises :class:`InputError` where a launcher was told to divide the weights.
    """
    import torch
    from accelerate import PartialState

    for name in DIVIDED:
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1"):
            rule = "weights are not divided among processes: each has all of them, and a share of the rows"
            hint = "take it out of accelerate's configuration, or launch with --multi_gpu"
            raise InputError(Problem(rule, place="accelerate launch", found=name, hint=hint))
    if PartialState._shared_state:
        return PartialState()
    if "LOCAL_RANK" not in os.environ:
        return PartialState()
    joined = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    # threads of a group that is still there when the interpreter ends abort the process now and then
    atexit.register(joined.destroy_process_group)
    if joined.num_processes > 1:
        _be_watched(joined)
    return joined


def _be_watched(joined: PartialState) -> None:
    """From now on, by a connection of its own: this one's may be busy with waiting."""
    global _watch
    from torch.distributed import distributed_c10d

    store: Any = distributed_c10d._get_default_store()
    _watch = watch.Watch(store.clone, joined.process_index, joined.num_processes, watch.limit())
    atexit.register(_watch.start(watch.end))  # left before the group is


def at(what: str, limited: bool = False, counted: bool = True) -> None:
    """Tells the other processes, if there are any, where this one is: :meth:`mtl_tickets.watch.Watch.at`."""
    if _watch is not None:
        _watch.at(what, limited, counted)


def accelerator_for(mixed_precision: str | None = None) -> Accelerator:
    """This process's, of its group. Accelerate keeps the first precision of a process for ever; here a process may do
    several things, each with its own. None: what there is.

    Raises :class:`InputError` for fp16 without an NVIDIA GPU, and as :func:`group` does.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if mixed_precision == "fp16" and not torch.cuda.is_available():
        rule, hint = "fp16 needs an NVIDIA GPU", "use bf16 or no"
        raise InputError(Problem(rule, place="mixed_precision", found=mixed_precision, hint=hint))
    group()
    known = AcceleratorState().mixed_precision if AcceleratorState._shared_state else mixed_precision
    if mixed_precision is not None and known != mixed_precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=mixed_precision)


def is_main() -> bool:
    """Whether this is the first process of those that were started together; one that is alone is."""
    return bool(group().is_main_process)


def by_main(work: Callable[[], Found]) -> Found:
    """What ``work()`` returns, or the error it ends with, in the first process, which alone does it; all others wait
    and are given the same. Every process must come here, in the same order; what is found must be picklable."""
    from accelerate.utils import broadcast_object_list

    here = group()
    if here.num_processes == 1:
        return work()
    before = _watch.what if _watch is not None else ""
    at("what the first process does alone")
    outcome: list[tuple[Found | None, Exception | None]] = [(None, None)]
    if here.is_main_process:
        try:
            outcome[0] = work(), None
        except Exception as error:  # raised again below, in all of them
            outcome[0] = None, error
    found, failed = broadcast_object_list(outcome)[0]
    at(before)
    if failed is not None:
        raise failed
    return found


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Which of them are set in some process; all give as many, and wait for each other on their CPUs: no GPU is waited
    for."""
    import torch
    from torch import distributed

    if group().num_processes == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.uint8)
    distributed.all_reduce(found, distributed.ReduceOp.MAX, group=_of_cpus(distributed.group.WORLD))
    return [bool(flag) for flag in found.tolist()]


@functools.cache
def _of_cpus(world: ProcessGroup) -> ProcessGroup:
    """The same processes, connected by their CPUs."""
    from torch import distributed

    atexit.register(_of_cpus.cache_clear)  # a group that is kept somewhere has its threads until the very end
    if distributed.get_backend(world) == "gloo":
        return world
    return distributed.new_group(backend="gloo", timeout=PATIENCE)


def summed(tensors: Sequence[torch.Tensor]) -> None:
    """Puts the sum over all processes into each of ``tensors``; all give the same shapes in the same order, on the
    device that they work on. Small ones travel together, in pieces of :data:`PIECE` bytes: each by itself would take
    long."""
    import torch
    from torch import distributed

    for piece in _pieces(tensors):
        if len(piece) == 1 and piece[0].is_contiguous():
            distributed.all_reduce(piece[0])
            continue
        flat = torch.cat([tensor.reshape(-1) for tensor in piece])
        distributed.all_reduce(flat)
        for tensor, total in zip(piece, flat.split([tensor.numel() for tensor in piece]), strict=True):
            tensor.copy_(total.view_as(tensor))


def _pieces(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """In their order, cut where the next is of another kind or the piece is full."""
    piece: list[torch.Tensor] = []
    for tensor in tensors:
        full = sum(kept.nbytes for kept in piece) + tensor.nbytes > PIECE
        if piece and (full or tensor.dtype != piece[0].dtype):
            yield piece
            piece = []
        piece.append(tensor)
    if piece:
        yield piece


def same(model: nn.Module) -> None:
    """Gives all processes the first one's parameters and buffers. They should have them: all have read the same files
    and drawn the same numbers. But machines of two kinds may not have computed the same."""
    from torch import distributed

    if group().num_processes > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            sent = tensor.detach().contiguous()
            distributed.broadcast(sent, 0)
            tensor.detach().copy_(sent)
