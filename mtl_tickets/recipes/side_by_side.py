"""Independent work in several processes on one CPU machine.

Small encoders use a second core badly; two trainings use two cores fully. Workers are forked, so that they share the
data and models that are there already, and each gets its share of the threads. The work leaves its results in the run
directory, as it would one after the other; how far it is comes back through a pipe.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mtl_tickets.recipes.workbench import Workbench

# what a forked worker finds of its parent: the verb and the things to do with it
_work: tuple[Callable[[Any], None], Sequence[Any]] | None = None


def side_by_side(bench: Workbench, verb: Callable[[Any], None], things: Sequence[Any], workers: int) -> None:
    """``verb(thing)`` for every thing, ``workers`` at a time; the first error is raised when the others have stopped.

    ``verb`` must leave its results on disk: what it changes in memory is lost with its process.
    """
    global _work
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    workers = min(workers, len(things))
    threads = max(1, torch.get_num_threads() // workers)
    _work = verb, things
    try:
        with ProcessPoolExecutor(workers, context, _begin, (bench, told, threads, os.getpid())) as pool:
            futures = [pool.submit(_do, number) for number in range(len(things))]
            left: set[Any] = set(futures)
            while left:
                done, left = wait(left, timeout=0.2, return_when=FIRST_EXCEPTION)
                while not told.empty():
                    name, argument = told.get()
                    getattr(bench.progress, name)(argument)
                if any(future.exception() for future in done):
                    pool.shutdown(wait=True, cancel_futures=True)
                    break
            for future in futures:
                if not future.cancelled():
                    future.result()
    finally:
        _work = None


class _Told:
    """A worker's progress: everything is told to the parent."""

    def __init__(self, told: Any):
        self._told = told

    def begin(self, run: str, work: int) -> None:
        self._told.put(("say", f"{run} begins"))

    def stage(self, name: str) -> None:
        self._told.put(("stage", name))

    def advance(self, work: int) -> None:
        self._told.put(("advance", work))

    def say(self, text: str) -> None:
        self._told.put(("say", text))


def _begin(bench: Workbench, told: Any, threads: int, parent: int) -> None:
    torch.set_num_threads(threads)
    bench.progress = _Told(told)
    bench.run.only_stages = True
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker does not outlive a killed parent: it would hold the run's lock and write on."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _do(number: int) -> None:
    assert _work is not None
    verb, things = _work
    verb(things[number])
