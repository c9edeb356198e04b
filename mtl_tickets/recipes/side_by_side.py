"""Independent work in several processes on one CPU machine.

Small encoders use a second core badly; two trainings use two cores fully. Workers are forked, so that they share the
data and models that are there already. Each computes with one thread: the threads of a parent that has computed are
lost in a fork, and OpenMP (GNU's, which torch brings) would wait for them for ever. The work leaves its results in the
run directory, as it would one after the other; how far it is comes back through a pipe.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import torch

from mtl_tickets import watch
from mtl_tickets.errors import MtlTicketsError

if TYPE_CHECKING:
    from mtl_tickets.recipes.workbench import Workbench

logger = logging.getLogger(__name__)

# seconds of listening before the workers are looked at again: they may talk faster than this process listens
LISTENING = 0.2

# what a forked worker finds of its parent: the verb and the things to do with it, where to say how far it is, and
# whether it is to stop
_work: tuple[Callable[[Any], None], Sequence[Any], Any, Any] | None = None


class _Stopped(Exception):
    """A worker ends its work because another failed, or the user interrupted the parent."""


def side_by_side(bench: Workbench, verb: Callable[[Any], None], things: Sequence[Any], workers: int) -> None:
    """``verb(thing)`` for every thing, ``workers`` at a time. On an error, or an interruption of this process, nothing
    more is begun, what is under way stops at its next word of progress, and then the error is raised.

    ``verb`` must leave its results on disk: what it changes in memory is lost with its process.
    """
    global _work
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    stop = context.RawValue("b", 0)  # without a lock, which a killed worker could hold
    _work = verb, things, told, stop

    busy: dict[int, tuple[float, str]] = {}  # worker -> when it was last heard of, and where it was

    def listen() -> None:
        now = time.monotonic()
        while not told.empty() and time.monotonic() < now + LISTENING:
            worker, name, argument = told.get()
            if name == "idle":
                busy.pop(worker, None)
                continue
            busy[worker] = now, str(argument) if name == "stage" else busy.get(worker, (now, "its start"))[1]
            if name != "busy":
                getattr(bench.progress, name)(argument)
        for worker, (heard, where) in busy.items():
            if now - heard > watch.limit():
                busy[worker] = now, where  # once in that time
                logger.warning("worker process %d has said nothing for %.0f s: it is at %s", worker, now - heard, where)

    try:
        pool = ProcessPoolExecutor(min(workers, len(things)), context, _begin, (bench, told, stop, os.getpid()))
        futures = [pool.submit(_do, number) for number in range(len(things))]
        left: set[Future[None]] = set(futures)
        try:
            while left:
                done, left = wait(left, timeout=0.2, return_when=FIRST_EXCEPTION)
                listen()
                if any(future.exception() for future in done):
                    break
            while not told.empty():
                listen()
        finally:
            stop.value = 1
            while not all(future.cancel() or future.done() for future in futures):
                while not told.empty():  # a worker may be waiting for room in the pipe
                    told.get()
                time.sleep(0.02)
            pool.shutdown(wait=True)
    finally:
        _work = None
    for error in [future.exception() for future in futures if not future.cancelled()]:
        if isinstance(error, BrokenProcessPool):
            raise MtlTicketsError(
                f"one of {workers} worker processes was killed (is the memory full?): go on with fewer workers"
            ) from None
        if error is not None and not isinstance(error, _Stopped):
            raise error


class _Told:
    """A worker's progress: everything is told to the parent."""

    def __init__(self, told: Any, stop: Any):
        self._told, self._stop = told, stop

    def _tell(self, name: str, argument: object) -> None:
        if self._stop.value:
            raise _Stopped
        self._told.put((os.getpid(), name, argument))

    def begin(self, run: str, work: int) -> None:
        self._tell("say", f"{run} begins")

    def stage(self, name: str) -> None:
        self._tell("stage", name)

    def advance(self, work: int) -> None:
        self._tell("advance", work)

    def say(self, text: str) -> None:
        self._tell("say", text)


def _begin(bench: Workbench, told: Any, stop: Any, parent: int) -> None:
    # Ctrl-C reaches every process of a terminal: the parent hears it and tells the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # what came from the parent never becomes garbage: a collection after every training would walk over all of it
    gc.freeze()
    bench.progress = _Told(told, stop)
    bench.run.only_stages = True
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker does not outlive a killed parent: it would hold the run's lock and write on."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _do(number: int) -> None:
    assert _work is not None
    verb, things, told, stop = _work
    if stop.value:
        raise _Stopped
    told.put((os.getpid(), "busy", number))
    try:
        verb(things[number])
    finally:
        told.put((os.getpid(), "idle", number))
