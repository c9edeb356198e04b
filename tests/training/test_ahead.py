import contextlib
import threading
import time

import pytest
import torch

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.training.ahead import ahead

CPU = torch.device("cpu")


class Number:
    def __init__(self, value):
        self.value, self.moved = value, None

    def to(self, device):
        self.moved = device
        return self


def numbers(count, made=None, fail_at=None):
    for value in range(count):
        if value == fail_at:
            raise OSError("the disk is gone")
        if made is not None:
            made.append(value)
        yield Number(value)


def batch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_every_batch_comes_once_in_its_order_and_on_the_device(number):
    with ahead(numbers(20), CPU, number) as batches:
        found = list(batches)
    assert [batch.value for batch in found] == list(range(20))
    assert all(batch.moved == CPU for batch in found)


def test_no_more_are_made_than_asked_for_and_they_are_made_elsewhere():
    made = []
    with ahead(numbers(100, made), CPU, 2) as batches:
        for taken in range(1, 4):
            next(batches)
            deadline = time.monotonic() + 20
            while len(made) < taken + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            # two wait, one may be in the maker's hand
            assert taken + 2 <= len(made) <= taken + 3


@pytest.mark.parametrize("number", [0, 2])
def test_what_goes_wrong_is_raised_where_the_batch_is_wanted(number):
    with ahead(numbers(10, fail_at=4), CPU, number) as batches:
        found = [next(batches).value for _ in range(4)]
        with pytest.raises(OSError, match="disk is gone"):
            next(batches)
    assert found == [0, 1, 2, 3]
    assert not batch_threads()


def test_who_stops_early_leaves_no_thread():
    with contextlib.suppress(KeyboardInterrupt), ahead(numbers(1000), CPU, 2) as batches:
        assert next(batches).value == 0
        assert batch_threads()
        raise KeyboardInterrupt
    assert not batch_threads()


def test_a_thread_that_is_stuck_is_named_with_the_line_it_is_at(monkeypatch):
    monkeypatch.setenv("MTL_TICKETS_STUCK_SECONDS", "0.5")
    gone = threading.Event()

    def stuck():
        yield Number(0)
        gone.wait()

    with ahead(stuck(), CPU, 2) as batches:
        next(batches)
        with pytest.raises(
            MtlTicketsError,
            match=r"none came for 0.2 s; it is at .*, in wait, .*test_ahead.py, line \d+, in stuck",
        ):
            next(batches)
        gone.set()
