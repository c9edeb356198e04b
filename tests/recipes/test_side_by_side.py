"""Workers that compute, fail, talk and are interrupted. Each case runs in a process of its own: a hang must fail."""

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
        an_interrupted_parent,
        a_killed_worker,
    ],
)
def test_it_ends(case):
    within(60, case)
