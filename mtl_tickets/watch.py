"""Who is stuck? Processes that work as one wait for each other, so that one that does not go on holds up all of them,
silently. Here each tells the others that it lives and how far it is, and after a time limit the one that holds up the
others is named.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# seconds; the variable of the environment is for machines that are slower, or slow for a while
LIMIT = 600.0
VARIABLE = "MTL_TICKETS_STUCK_SECONDS"
# ten years: what Python can wait for without an overflow, and as good as no limit
LONGEST = 3e8
# seconds that the first to find out has for saying so before the others do
GRACE = 5.0


def limit() -> float:
    """Seconds after which who does not go on is stuck: :data:`VARIABLE`, where it is a number above 0."""
    try:
        given = float(os.environ.get(VARIABLE, LIMIT))
    except ValueError:
        given = 0.0
    return min(given, LONGEST) if given > 0 else LIMIT


@dataclass
class _Heard:
    """Of one process: how often it beat, how often it went on, where it is, and when the two last changed here."""

    beats: int = -1
    moves: int = -1
    limited: bool = False
    what: str = "its start"
    name: str = "not heard of yet"
    left: bool = False
    beaten: float = 0.0
    moved: float = 0.0


class Watch:
    """Of process ``rank`` of ``world``. ``connect``: makes a connection to where words lie for all of them, which has
    ``set``, ``get`` and ``check`` (a store of torch.distributed)."""

    def __init__(self, connect: Callable[[], Any], rank: int, world: int, limit: float, now: float | None = None):
        self._connect, self._rank, self._world, self._limit = connect, rank, world, limit
        self.interval = min(5.0, limit / 10)
        self._name = f"{socket.gethostname()}, process id {os.getpid()}"
        now = time.monotonic() if now is None else now
        self._heard = [_Heard(beaten=now, moved=now) for _ in range(world)]
        self._beats, self._moves, self._limited, self.what, self._left = 0, 0, False, "its start", False
        self._store: Any = None
        self._words: list[str | None] = [None] * world
        self._answers = 0  # of the store
        self._answered, self._judged = (0, now), now

    def at(self, what: str, limited: bool = False, counted: bool = True) -> None:
        """This process is now there. ``limited``: it has to go on from there within the time limit. What is ``counted``
        all of them must say in the same order."""
        self._moves += counted
        self._limited, self.what = limited, what

    def exchange(self) -> None:
        """Beats, and fetches the words of all. May wait for ever where who keeps the words does not answer."""
        if self._store is None:
            self._store = self._connect()
        self._beats += 1
        mine = [self._beats, self._moves, self._limited, self.what, self._name, self._left]
        self._store.set(f"mtl_tickets/watch/{self._rank}", json.dumps(mine))
        for rank in range(self._world):
            key = f"mtl_tickets/watch/{rank}"
            if self._store.check([key]):
                self._words[rank] = self._store.get(key)
        self._answers += 1

    def judge(self, now: float) -> tuple[list[int], str] | None:
        """The processes that hold up the others at the time ``now`` (seconds), and that in words; None while all go on.
        To be asked every :attr:`interval`."""
        gap = now - self._judged - self.interval
        self._judged = now
        if gap > 2 * self.interval:  # this process was stopped itself, and with it perhaps all of them
            self._answered = self._answered[0], self._answered[1] + gap
            for heard in self._heard:
                heard.beaten, heard.moved = heard.beaten + gap, heard.moved + gap
        if self._answers != self._answered[0]:
            self._answered = self._answers, now
        elif now - self._answered[1] > self._limit:
            keeper = os.environ.get("MASTER_ADDR", "the first machine")
            return (
                [],
                f"{keeper}, where the processes tell each other how far they are, gave no answer for {self._long}",
            )
        for words, heard in zip(self._words, self._heard, strict=True):
            if words is None:
                continue
            beats, moves, heard.limited, heard.what, heard.name, heard.left = json.loads(words)
            if beats != heard.beats:
                heard.beats, heard.beaten = beats, now
            if moves != heard.moves:
                heard.moves, heard.moved = moves, now
        here = {rank: heard for rank, heard in enumerate(self._heard) if not heard.left}
        silent = [rank for rank, heard in here.items() if now - heard.beaten > self._limit]
        if silent:
            return silent, f"{self._named(silent)}: nothing was heard of it for {self._long}"
        if here and all(heard.limited and now - heard.moved > self._limit for heard in here.values()):
            least = min(heard.moves for heard in here.values())
            behind = [rank for rank, heard in here.items() if heard.moves == least]
            rest = sorted({heard.what for heard in here.values() if heard.moves > least})
            others = f", and the others wait for it ({', '.join(rest)})" if rest else ""
            return behind, f"{self._named(behind)}: it did not go on for {self._long}{others}"
        return None

    @property
    def _long(self) -> str:
        return f"{self._limit:,.0f} s"

    def _named(self, ranks: list[int]) -> str:
        return "; ".join(
            f"process {rank} of {self._world} ({self._heard[rank].name}) is stuck at {self._heard[rank].what}"
            for rank in ranks
        )

    def start(self, stuck: Callable[[str], None]) -> Callable[[], None]:
        """Looks again and again, on threads of its own, until the function that is returned is called. ``stuck(words)``
        is called once, in the first process that is not itself what holds up the others, a little later in the others,
        if they are there still."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._tell, args=(stop,), name="watch: words", daemon=True),
            threading.Thread(target=self._listen, args=(stop, stuck), name="watch", daemon=True),
        ]
        for thread in threads:
            thread.start()

        def leave() -> None:
            self._left = True
            stop.set()
            for thread in threads:
                thread.join(GRACE)  # who keeps the words may be gone

        return leave

    def _tell(self, stop: threading.Event) -> None:
        from torch.distributed import DistNetworkError, DistStoreError

        stopped = False
        while not stopped:
            stopped = stop.wait(0 if self._beats == 0 else self.interval)  # the last time it says that it leaves
            try:
                self.exchange()
            except (DistNetworkError, DistStoreError):
                self._store = None  # tried again, until the limit is over

    def _listen(self, stop: threading.Event, stuck: Callable[[str], None]) -> None:
        while not stop.wait(self.interval):
            found = self.judge(time.monotonic())
            if found is None:
                continue
            ranks, words = found
            if self._rank != min((rank for rank in range(self._world) if rank not in ranks), default=0):
                stop.wait(GRACE)
            if not stop.is_set():
                stuck(words)
            return


def end(words: str) -> None:
    """Ends this process, which is in the middle of waiting for another, and says why."""
    advice = "whatever was reported as done is kept: start again with --resume"
    print(f"mtl-tickets: error: {words}. {advice}; {VARIABLE} sets the limit", file=sys.stderr, flush=True)
    os._exit(1)
