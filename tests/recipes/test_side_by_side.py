"""Workers that compute, fail, talk and are interrupted. Each case runs in a process of its own: a hang must fail."""

import logging
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.side_by_side import side_by_side
from tests.counting import Counting


def bench(progress=None):
    return SimpleNamespace(progress=progress or Silent(), run=SimpleNamespace(only_stages=False))


def within(seconds, case):
    process = multiprocessing.get_context("spawn").Process(target=case)
    process.start()
    process.join(seconds)
    hangs = process.is_alive()
    process.kill()
    assert not hangs and process.exitcode == 0


def compute():
    values = torch.randn(300, 300)
    return float((values @ values).exp().sum() + torch.randn(300_000).exp().sum())


def computing_after_a_parent_that_has_computed():
    torch.set_num_threads(4)
    compute()
    side_by_side(bench(), lambda thing: compute(), range(3), 2)


def an_error_beside_a_worker_that_talks():
    told = bench()

    def verb(thing):
        if thing == 0:
            raise MtlTicketsError("no")
        while True:  # more than a pipe holds, were nobody listening
            told.progress.advance(1)

    with pytest.raises(MtlTicketsError, match="no"):
        side_by_side(told, verb, range(4), 2)


def every_word_is_heard():
    told = bench(Counting())
    counting = told.progress

    def verb(thing):
        for _ in range(3000):
            told.progress.advance(1)

    side_by_side(told, verb, range(3), 2)
    assert counting.done == 9000


def a_silent_worker_is_told_of():
    os.environ["MTL_TICKETS_STUCK_SECONDS"] = "0.5"
    said = []
    logging.getLogger("mtl_tickets").addHandler(handler := logging.Handler())
    handler.emit = lambda record: said.append(record.getMessage())
    told = bench()

    def verb(thing):
        told.progress.stage("ladder/a/own-1")
        time.sleep(1.5)

    side_by_side(told, verb, range(1), 2)
    assert 1 <= len(said) <= 3 and all("has said nothing for" in text and "ladder/a/own-1" in text for text in said)


def an_interrupted_parent():
    class Interrupting(Silent):
        def advance(self, work):
            raise KeyboardInterrupt

    told = bench(Interrupting())
    begun = multiprocessing.get_context("fork").RawArray("b", 20)

    def verb(thing):
        begun[thing] = 1
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches the workers too
        while True:
            told.progress.advance(1)
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(told, verb, range(20), 2)
    assert sum(begun) == 2


def a_killed_worker():
    with pytest.raises(MtlTicketsError, match="was killed"):
        side_by_side(bench(), lambda thing: os.kill(os.getpid(), signal.SIGKILL), range(3), 2)


@pytest.mark.parametrize(
    "case",
    [
        computing_after_a_parent_that_has_computed,
        an_error_beside_a_worker_that_talks,
        every_word_is_heard,
        a_silent_worker_is_told_of,
        an_interrupted_parent,
        a_killed_worker,
    ],
)
def test_it_ends(case):
    within(60, case)
