"""Batches are made before they are needed, on a thread of their own, and moved to the device there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# seconds after which a full queue is looked at again, to see whether anybody still wants batches
PATIENCE = 0.1


@contextmanager
def ahead(batches: Iterator[Any], device: torch.device, number: int) -> Iterator[Iterator[Any]]:
    """The batches in their order, on ``device``, at most ``number`` of them made before they are asked for; 0: none.

    On CUDA they are copied from pinned memory in the stream of who asks, which waits for none of it itself. What goes
    wrong while a batch is made is raised where it is asked for. Inside, nobody else may take from ``batches``.
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

    def taken() -> Iterator[Any]:
        while True:
            batch, problem = made.get()
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
        enough.set()
        thread.join()
