"""Progress: the time left is reckoned from work that was done, not from work that was found finished."""

import io

import pytest
from rich.console import Console

from mtl_tickets.report.progress import BarProgress, Clock, LineProgress, clock_time, make_progress


class Watch:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def work(clock: Clock, watch: Watch, steps: int, seconds_each: float) -> None:
    for _ in range(steps):
        watch.time += seconds_each
        clock.advance(1)


@pytest.mark.parametrize(
    ("total", "worked", "elapsed", "left"),
    [
        pytest.param(100, [(20, 2.0)], 40, 160, id="one speed"),
        pytest.param(1000, [(100, 10.0), (300, 1.0)], 1300, 600, id="slow at first: the last minutes count"),
    ],
)
def test_time_left_is_work_left_at_the_speed_of_the_last_minutes(total, worked, elapsed, left):
    watch = Watch()
    clock = Clock(watch)
    clock.begin(total)
    clock.stage()
    for steps, seconds_each in worked:
        work(clock, watch, steps, seconds_each)
    assert clock.elapsed == pytest.approx(elapsed)
    assert clock.left == pytest.approx(left, rel=0.05)


def test_finished_work_that_is_found_says_nothing_about_the_speed():
    watch = Watch()
    clock = Clock(watch)
    clock.begin(1000)
    clock.advance(500)
    assert clock.left is None
    clock.stage()
    work(clock, watch, 10, 2.0)
    clock.advance(90)
    assert clock.done == 600
    assert clock.left == pytest.approx(400 * 2.0)


def test_more_work_than_reckoned_is_all_of_it():
    clock = Clock(Watch())
    clock.begin(3)
    clock.advance(5)
    assert clock.share == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "--:--"), (0, "00:00"), (61.9, "01:01"), (3600, "1:00:00"), (360000, "100:00:00")]
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


def test_a_file_gets_lines_at_intervals_and_a_terminal_a_bar():
    assert isinstance(make_progress(Console(file=io.StringIO())), LineProgress)
    assert isinstance(make_progress(Console(file=io.StringIO(), force_terminal=True)), BarProgress)


def test_lines_come_only_now_and_then_and_are_never_markup():
    watch, file = Watch(), io.StringIO()
    progress = LineProgress(Console(file=file, width=60), every=10, now=watch)
    with progress:
        progress.begin("run/seed-1", 100)
        progress.stage("single/[red]x[/red]")
        for _ in range(30):
            watch.time += 1.0
            progress.advance(1)
        progress.say("[bold]said[/bold]")
    lines = file.getvalue().splitlines()
    assert lines[0] == "run/seed-1: 100 steps"
    assert len(lines) == 5
    assert " ".join(lines[1].split()) == "10% 10 of 100 steps, 00:10 elapsed, 01:30 left single/[red]x[/red]"
    assert lines[-1] == "[bold]said[/bold]"


def test_the_bar_shows_stage_steps_and_times():
    file = io.StringIO()
    with BarProgress(Console(file=file, force_terminal=True, width=100)) as progress:
        progress.begin("run/seed-1", 1000)
        progress.stage("ladder/[b]/winning-1")
        progress.advance(250)
        progress._bar.refresh()
    shown = file.getvalue()
    assert "ladder/[b]/winning-1" in shown
    assert "250/1,000" in shown
    assert "--:-- left" in shown
