"""How far the runs of a study are, which other processes do: told by each, kept in one place, shown in another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress
    from mtl_tickets.study.executors.base import Outcome
    from mtl_tickets.study.plan import StudyRun

logger = logging.getLogger(__name__)

# seconds between two words of a worker, and between two times that it puts its files to a storage
WORD, PUT = 0.5, 30.0


class Board:
    """An actor of Ray: what every run has last said of itself."""

    def __init__(self) -> None:
        self.runs: dict[str, Standing] = {}

    def begin(self, run: str, worker: str) -> None:
        before = self.runs.get(run)
        self.runs[run] = Standing(worker, 1 if before is None else before.begun + 1)

    def tell(self, run: str, found: int, worked: int, total: int, stage: str, said: list[str]) -> None:
        standing = self.runs[run]
        standing.found, standing.worked, standing.total, standing.stage = found, worked, total, stage
        standing.said += said

    def read(self) -> dict[str, Standing]:
        return self.runs


@dataclass
class Standing:
    """How far a run is: steps that were found done and those done now, of all; on which worker, the how manieth."""

    worker: str
    begun: int = 1
    found: int = 0
    worked: int = 0
    total: int = 0
    stage: str = ""
    said: list[str] = field(default_factory=list)


class Word:
    """A run's progress, told to the board now and then from a thread of its own: a training does not wait for it."""

    def __init__(self, board: Any, run: str, put: Callable[[], None]):
        self._board, self._run, self._put = board, run, put
        self._found, self._worked, self._total, self._stage = 0, 0, 0, ""
        self._said: list[str] = []
        self._last_put = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tell_on, daemon=True)
        self._thread.start()

    def begin(self, run: str, work: int) -> None:
        self._found, self._worked, self._total = 0, 0, work

    def stage(self, name: str) -> None:
        self._stage = name
        self._now_and_then()

    def _now_and_then(self) -> None:
        """In the thread that writes the files: they are whole, and belong together. A storage that does not answer now
        is asked again later."""
        if time.monotonic() - self._last_put < PUT:
            return
        try:
            self._put()
        except OSError as error:
            logger.warning("%s; it is tried again", error)
        self._last_put = time.monotonic()

    def advance(self, work: int) -> None:
        self._now_and_then()
        if work == 1:
            self._worked += 1
        else:
            self._found += work

    def say(self, text: str) -> None:
        self._said.append(text)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._tell()

    def _tell_on(self) -> None:
        while not self._closed.wait(WORD):
            self._tell()

    def _tell(self) -> None:
        said, self._said = self._said, []
        self._board.tell.remote(self._run, self._found, self._worked, self._total, self._stage, said)


class View:
    """All runs in one place. Steps of runs that have not begun are reckoned as those that have."""

    def __init__(self, runs: list[StudyRun], progress: Progress, told: Callable[[str], None]):
        self._names = {str(run.path): f"run {number} of {len(runs)}: {run.name}" for number, run in enumerate(runs, 1)}
        self._progress, self._told = progress, told
        self._workers: dict[str, int] = {}
        self._said: dict[str, int] = {}
        self._found, self._worked, self._total = 0, 0, 0
        self._ended: set[str] = set()

    def show(self, board: dict[str, Standing]) -> None:
        known = [standing.total for standing in board.values() if standing.total]
        if known and not self._total:
            self._total = round(sum(known) / len(known) * len(self._names))
            self._progress.begin(f"{len(self._names)} runs on a cluster, about", self._total)
        for run, standing in board.items():
            if standing.begun > self._workers.get(run, 0):
                again = "" if standing.begun == 1 else " goes on, its worker was lost:"
                self._told(f"{self._names[run]}{again} on {standing.worker}")
                self._workers[run], self._said[run] = standing.begun, 0
            for text in standing.said[self._said.get(run, 0) :]:
                self._told(f"{self._names[run]}: {text}")
            self._said[run] = len(standing.said)
        if not self._total:
            return
        working = [run for run in board if run not in self._ended]
        stages = ", ".join(board[run].stage for run in working[:3])
        self._progress.stage(f"{len(self._ended)} done, {len(working)} at work: {stages}")
        found = sum(standing.found for standing in board.values())
        worked = sum(standing.worked for standing in board.values())
        if found > self._found:
            self._progress.advance(found - self._found)
            self._found = found
        # one by one: so many steps took time, which says how long the rest takes
        for _ in range(worked - self._worked):
            self._progress.advance(1)
        self._worked = max(self._worked, worked)

    def ended(self, run: StudyRun, outcome: Outcome) -> None:
        name = str(run.path)
        self._ended.add(name)
        failed = outcome.failed.get(run.path)
        self._told(f"{self._names[name]}: " + (f"failed, {failed[0]}" if failed else "done"))
