"""Batches are made before they are needed, on a thread of their own, and moved to the device there."""

from __future__ import annotations

import math
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mtl_tickets import watch
from mtl_tickets.errors import MtlTicketsError

# seconds after which a full queue is looked at again, to see whether anybody still wants batches
PATIENCE = 0.1


@contextmanager
def ahead(batches: Iterator[Any], device: torch.device, number: int) -> Iterator[Iterator[Any]]:
    """The batches in their order, on ``device``, at most ``number`` of them made before they are asked for; 0: none.

    On CUDA they are copied from pinned memory in the stream of who asks, which waits for none of it itself. What goes
    wrong while a batch is made is raised where it is asked for. Inside, nobody else may take from ``batches``.

    Raises :class:`MtlTicketsError` where no batch comes within half of :func:`mtl_tickets.watch.limit` (before other
    processes, which wait for this one, end it), with the line of code that the thread is stuck at.
    """
    if number == 0:
        yield (batch.to(device) for batch in batches)
        return
    # a thread begins with the first device and its first stream, whatever this one uses
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(number)
    enough = threading.Event()

    def put(batch: Any, problem: BaseException | None = None) -> bool:
        while not enough.is_set():
            try:
                made.put((batch, problem), timeout=PATIENCE)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            with torch.cuda.stream(stream):  # of None: nothing
                for batch in batches:
                    if not put(batch.to(device)):
                        return
            put(None)
        except BaseException as problem:  # whatever it is, it belongs where the batch is waited for
            put(None, problem)

    def next_made() -> tuple[Any, BaseException | None]:
        # in slices: the clock goes on while a process is suspended
        for _ in range(math.ceil(watch.limit() / 2 / PATIENCE)):
            try:
                return made.get(timeout=PATIENCE)
            except queue.Empty:
                continue
        enough.set()
        raise MtlTicketsError(_stuck(thread))

    def taken() -> Iterator[Any]:
        while True:
            batch, problem = next_made()
            if problem is not None:
                raise problem
            if batch is None:
                return
            yield batch

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        if not enough.is_set():  # else it is stuck, and ends with the process
            enough.set()
            thread.join()


def _stuck(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = traceback.extract_stack(frame) if frame else []
    where = ", called from ".join(f"{step.filename}, line {step.lineno}, in {step.name}" for step in stack[:-4:-1])
    long = f"{watch.limit() / 2:,.1f} s"
    return f"the thread that makes batches is stuck: none came for {long}; it is at {where or 'its end'}"
