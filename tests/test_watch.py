"""Processes that work as one: whoever holds up the others is named, and nobody else."""

import os
import socket

import pytest
from torch.distributed import HashStore

from mtl_tickets.watch import LIMIT, LONGEST, VARIABLE, Watch, limit
from tests.pairs import pair


@pytest.fixture
def three():
    store = HashStore()
    return [Watch(lambda: store, rank, 3, limit=60.0, now=0.0) for rank in range(3)]


def looks(watches, start, end, frozen=()):
    """What each finds at the end of that time, or before it. Those that are ``frozen`` do
    nothing."""
    found = [None] * len(watches)
    live = [watch for rank, watch in enumerate(watches) if rank not in frozen]
    for now in range(start, end + 1, 5):
        for watch in live:
            watch.exchange()
        for watch in live:
            rank = watches.index(watch)
            found[rank] = found[rank] or watch.judge(float(now))
    return found


def test_who_lives_and_goes_on_is_left_alone(three):
    for step in range(50):
        for watch in three:
            watch.at(f"step {step}", limited=True)
        assert looks(three, 40 * step, 40 * step + 35) == [None] * 3


def test_a_frozen_process_is_named_by_the_others(three):
    for watch in three:
        watch.at("step 7")
    assert looks(three, 0, 10) == [None] * 3 and looks(three, 15, 70, frozen=[1]) == [None] * 3
    found = looks(three, 75, 80, frozen=[1])
    for ranks, words in (found[0], found[2]):
        assert ranks == [1] and words.startswith(f"process 1 of 3 ({socket.gethostname()}, process id {os.getpid()})")
        assert "is stuck at step 7: nothing was heard of it for 60 s" in words


def test_one_that_never_spoke_is_named(three):
    assert looks(three, 0, 60, frozen=[2]) == [None] * 3
    ranks, words = looks(three, 65, 65, frozen=[2])[0]
    assert ranks == [2] and "process 2 of 3 (not heard of yet) is stuck at its start" in words


def test_one_that_lives_but_does_not_go_on_is_named_by_all(three):
    for watch in three:
        watch.at("its rows", limited=True)
    for watch in (three[0], three[2]):
        watch.at("batch 1", limited=True)
    assert looks(three, 0, 60) == [None] * 3
    for ranks, words in looks(three, 65, 70):
        assert ranks == [1]
        assert "is stuck at its rows: it did not go on for 60 s, and the others wait for it (batch 1)" in words


def test_one_that_goes_on_keeps_all_from_being_stuck(three):
    for watch in three:
        watch.at("a step", limited=True)
    for now in range(0, 300, 30):
        three[2].at(f"step {now}", limited=True)
        assert looks(three, now, now + 25) == [None] * 3


def test_what_one_does_alone_may_take_as_long_as_it_likes(three):
    for watch in three:
        watch.at("a step", limited=True)
    three[0].at("a checkpoint", counted=False)  # which the others need not know of
    assert looks(three, 0, 3600) == [None] * 3


def test_who_has_left_is_not_missed(three):
    for watch in three[1:]:
        watch._left = True
    assert looks(three, 0, 5) == [None] * 3
    assert looks(three, 10, 600, frozen=[1, 2]) == [None] * 3


def test_a_process_that_was_suspended_blames_nobody(three):
    for watch in three:
        watch.at("a step", limited=True)
    assert looks(three, 0, 30) == [None] * 3
    assert looks(three, 5000, 5025) == [None] * 3
    assert looks(three, 5030, 5070)[0] is not None  # the time before counts


def test_where_no_words_can_be_left_that_is_said(three):
    assert looks(three, 0, 5) == [None] * 3
    for now in range(10, 70, 5):
        assert three[1].judge(float(now)) is None
    ranks, words = three[1].judge(70.0)
    assert ranks == [] and "where the processes tell each other how far they are, gave no answer for 60 s" in words


@pytest.mark.parametrize(
    ("given", "expected"),
    [("5", 5.0), ("", LIMIT), ("-1", LIMIT), ("0", LIMIT), ("nan", LIMIT), ("long", LIMIT), ("inf", LONGEST)],
)
def test_the_limit_is_a_number_of_seconds_above_0(monkeypatch, given, expected):
    monkeypatch.setenv(VARIABLE, given)
    assert limit() == expected


PROCESS = """
import os, signal, time
from mtl_tickets.processes import at, by_main, group
joined = group()
at("step 12")
by_main(lambda: None)
if joined.process_index == int(os.environ["VICTIM"]):
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGSTOP)
joined.wait_for_everyone()
print("together")
"""


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_ends_and_says_who_it_was(victim):
    """Process 0 keeps the words: when it is frozen nobody answers any more, which is found out about when its silence
    is."""
    processes = pair(PROCESS, VICTIM=str(victim), **{VARIABLE: "3"})
    try:
        out, err = processes[1 - victim].communicate(timeout=120)
    finally:
        processes[victim].kill()
        processes[victim].communicate()
    assert (processes[1 - victim].returncode, out) == (1, "")
    who = f"process {victim} of 2 ({socket.gethostname()}, process id {processes[victim].pid})"
    named = [f"{who} is stuck at step 12: nothing was heard"]
    if victim == 0:
        named.append("127.0.0.1, where the processes tell each other how far they are, gave no answer")
    assert any(f"mtl-tickets: error: {found}" in err for found in named), err
    assert "start again with --resume" in err
