"""One run after the other, here.

Any number of processes may work on a study at once, on one machine or on several with a common folder: who comes to a
run that another has locked goes on to the next. A run that is finished is left alone, one that was stopped is gone on
with. Stages that several points need are done once and taken over by the others.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.processes import group
from mtl_tickets.study.executors.base import EXECUTORS, Executor, Outcome, attempted

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress
    from mtl_tickets.study.plan import Study

# seconds between two looks at runs that other processes hold
PATIENCE = 2.0


@EXECUTORS.register("local")
class Local(Executor):
    """One run after the other in this process; others may work on the same study beside it."""

    kind: Literal["local"] = "local"

    def run(self, study: Study, progress: Progress, told: Callable[[str], None]) -> Outcome:
        outcome, runs = Outcome(), study.runs
        while len(outcome.finished) + len(outcome.failed) < len(runs):
            waiting = False
            for number, run in enumerate(runs, 1):
                if run.path in outcome:
                    continue
                heading = f"run {number} of {len(runs)}: {run.name}"
                begins = partial(told, heading + (" (finished before)" if run.finished else ""))
                try:
                    done = attempted(study, run, progress, begins)
                except MtlTicketsError as error:
                    if group().num_processes > 1:
                        raise  # the others may be waiting in the middle of this run
                    outcome.fail(run, error)
                    told(f"{heading}: failed, {outcome.failed[run.path][0]}")
                    continue
                if done:
                    outcome.finished.add(run.path)
                    give_back()
                else:
                    waiting = True
            if waiting:
                time.sleep(PATIENCE)
        return outcome


def give_back() -> None:
    """Gives the system the memory that a run has left free. glibc keeps it, in more and smaller pieces after every run,
    so that the process would grow by half a megabyte a run; other libraries give it back by themselves."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
