"""What the benchmarks share: rounds that alternate, medians, ratios, and the facts of the machine they ran on."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mtl_tickets.files import write_text
from mtl_tickets.provenance import device, versions

# the first steps of a training, which are slower
UNCOUNTED = 5
# way -> its figure in every round
Figures = dict[str, list[float]]


class Stopwatch:
    """What is done in a second, from the end of step ``UNCOUNTED`` to that of the last. ``amounts``: of each step."""

    def __init__(self, amounts: list[int]):
        self.amounts, self.steps, self.started, self.seconds = amounts, 0, 0.0, 0.0

    def step(self, _: int = 1) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.steps += 1
        if self.steps == UNCOUNTED:
            self.started = time.perf_counter()
        self.seconds = time.perf_counter() - self.started

    @property
    def speed(self) -> float:
        return sum(self.amounts[UNCOUNTED : self.steps]) / self.seconds


def rounds(ways: Mapping[str, Callable[[], float]], repeats: int, unit: str) -> Figures:
    """Measures every way once a round, every other round in reverse order: what slows the machine slows all of them."""
    figures: Figures = {name: [] for name in ways}
    widest = max(map(len, ways))
    for number in range(repeats):
        for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            figures[name].append(ways[name]())
            print(f"round {number + 1}  {name:{widest}} {figures[name][-1]:14,.4g} {unit}", flush=True)
    return figures


def comparison(what: str, figures: Figures, unit: str, of: str, over: str) -> dict[str, Any]:
    """Two ways beside each other. ``ratio``: the median over rounds of the ratio within a round, which a machine that
    is slow for a while does not move."""
    return {
        "what": what,
        "unit": unit,
        "of": of,
        "over": over,
        "ratio": _short(statistics.median(a / b for a, b in zip(figures[of], figures[over], strict=True))),
        "medians": {name: _short(statistics.median(figures[name])) for name in (of, over)},
        "figures": {name: [_short(value) for value in figures[name]] for name in (of, over)},
    }


def machine(precision: str) -> dict[str, Any]:
    """Where and with what it was measured; part of every result."""
    return {
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "device": device(),
        "versions": versions(),
    }


def _short(value: float) -> float:
    """To four digits: the others are noise."""
    return float(f"{value:.4g}")


def write(path: Path | None, result: Mapping[str, Any]) -> None:
    """Prints the result, and writes it where it is to be kept."""
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if path is not None:
        write_text(path, text)
