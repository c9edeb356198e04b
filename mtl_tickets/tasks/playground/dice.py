"""Random choices that are the same on every machine, in every process and under every Python version."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A stream of choices named by its arguments: ``Dice("text", 3)`` always rolls the same.

    Only ``random.Random(int).random()`` is used: it is the one method whose sequence Python promises to keep, while
    ``choice``, ``sample`` and ``shuffle`` have changed between versions.
    """

    def __init__(self, *name: str | int):
        text = "/".join(str(part) for part in name)
        self._random = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))

    def below(self, n: int) -> int:
        """An integer in 0..n-1."""
        return int(self._random.random() * n)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def weighted(self, items: dict[T, float]) -> T:
        """A key, drawn in proportion to its value. Keys count in the order in which they were entered."""
        left = self._random.random() * _added(items.values())
        for item, weight in items.items():
            left -= weight
            if left < 0:
                return item
        return next(reversed(items))

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A random permutation (Fisher-Yates)."""
        rest = list(items)
        for last in range(len(rest) - 1, 0, -1):
            other = self.below(last + 1)
            rest[last], rest[other] = rest[other], rest[last]
        return rest

    def bell(self) -> float:
        """Roughly normal with mean 0 and standard deviation 1: the sum of twelve uniform numbers less 6.

        No logarithm or sine is taken, so the last bit does not depend on the platform's mathematics library.
        """
        return _added(self._random.random() for _ in range(12)) - 6.0


def _added(numbers: Iterable[float]) -> float:
    """From left to right. The built-in ``sum`` rounds floats differently from Python 3.12 on."""
    total = 0.0
    for number in numbers:
        total += number
    return total
