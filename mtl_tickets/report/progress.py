"""How far a run is: a bar on a terminal, a plain line now and then anywhere else.

Both keep the same books (:class:`Clock`). Work that is found finished, by ``--resume``, takes no time and says nothing
about the speed of the rest, so the time left is reckoned from the work done while a stage was under way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

WINDOW_SECONDS = 120.0


class Clock:
    """Steps done and to do, and the time they took. ``now`` gives seconds and never goes back."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self.begin(0)

    def begin(self, work: int) -> None:
        self.total, self.done = work, 0
        self.started = self._now()
        self._marks: deque[tuple[float, int]] = deque()
        self._worked = 0

    def stage(self) -> None:
        """A stage starts that is not done yet: from here on steps take time."""
        if not self._marks:
            self._marks.append((self._now(), 0))

    def advance(self, work: int) -> None:
        """``work`` steps are done. More than one at once were found finished: a training reports each step it makes."""
        self.done += work
        if work != 1 or not self._marks:
            return
        self._worked += 1
        now = self._now()
        # about one mark a second is enough for a speed
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self._worked))
            while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_SECONDS:
                self._marks.popleft()

    @property
    def elapsed(self) -> float:
        return self._now() - self.started

    @property
    def share(self) -> float:
        """Between 0 and 1; the total is an estimate, so more than all of it may be done."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left at the speed of the last two minutes; None before there is a speed."""
        if not self._marks or self._worked == self._marks[0][1]:
            return None
        speed = (self._worked - self._marks[0][1]) / max(self._now() - self._marks[0][0], 1e-9)
        return max(0, self.total - self.done) / speed


def clock_time(seconds: float | None) -> str:
    """``1:02:03`` or ``02:03``; ``--:--`` where it is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def make_progress(console: Console) -> BarProgress | LineProgress:
    """The bar where ``console`` is a terminal, lines where it is a file or a pipe."""
    return BarProgress(console) if console.is_terminal else LineProgress(console)


class BarProgress:
    """A live line: stage, bar, steps done of all, time elapsed, time left."""

    def __init__(self, console: Console):
        self.console = console
        self.clock = Clock()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=_column(ratio=2)),
            BarColumn(bar_width=None, table_column=_column(ratio=1, minimum=8)),
            _Steps(self.clock),
            console=console,
            expand=True,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, run: str, work: int) -> None:
        self.clock.begin(work)
        self._bar.console.print(Text(run, style="bold"))
        self._bar.update(self._task, description="starting", total=max(work, 1), completed=0)

    def stage(self, name: str) -> None:
        self.clock.stage()
        self._bar.update(self._task, description=name)

    def advance(self, work: int) -> None:
        self.clock.advance(work)
        self._bar.update(self._task, completed=min(self.clock.done, self.clock.total))

    def say(self, text: str) -> None:
        self._bar.console.print(Text(text, style="dim"))


class LineProgress:
    """Plain lines for logs: at the start, and then at a stage or step once ``every`` seconds have passed."""

    def __init__(self, console: Console, every: float = 15.0, now: Callable[[], float] = time.monotonic):
        self.console = console
        self.clock = Clock(now)
        self._every, self._now = every, now
        self._said = now()
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, run: str, work: int) -> None:
        self.clock.begin(work)
        self.say(f"{run}: {work:,} steps")

    def stage(self, name: str) -> None:
        self.clock.stage()
        self._stage = name
        self._now_and_then()

    def advance(self, work: int) -> None:
        self.clock.advance(work)
        self._now_and_then()

    def say(self, text: str) -> None:
        self._said = self._now()
        self.console.print(Text(text), soft_wrap=True)

    def _now_and_then(self) -> None:
        if self._now() - self._said < self._every:
            return
        if not self.clock.total:
            self.say(self._stage)
            return
        clock = self.clock
        self.say(
            f"{clock.share:4.0%}  {clock.done:,} of {clock.total:,} steps, {clock_time(clock.elapsed)} elapsed, "
            f"{clock_time(clock.left)} left  {self._stage}"
        )


class _Steps(ProgressColumn):
    """``1,204/5,800  01:12 < 04:10``: steps, time elapsed, time left."""

    def __init__(self, clock: Clock):
        super().__init__()
        self._clock = clock

    def render(self, task: Task) -> Text:
        clock = self._clock
        steps = f"{clock.done:,}/{clock.total:,}  " if clock.total else ""
        left = f", {clock_time(clock.left)} left" if clock.total else ""
        return Text(f"{steps}{clock_time(clock.elapsed)}{left}", style="cyan")


def _column(ratio: int, minimum: int | None = None) -> Column:
    return Column(ratio=ratio, no_wrap=True, min_width=minimum, overflow="ellipsis")
