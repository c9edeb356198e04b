"""What a report says of sub-networks: how good those of every size are, and how tickets do on other tasks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from mtl_tickets.evaluation.matching import Highest
from mtl_tickets.report.tables import spread

# the metric of curves of overfitting
GAP = "gap"


@dataclass(frozen=True)
class Subnetwork:
    """The sub-networks of one kind and size on one task, by seed: what is ``dropped``, in % of what can be, the
    parameters ``kept``, in % of all, and a score or a loss. ``percent``: the size in the name of the stage. ``matches``
    and ``reaches`` as in :mod:`mtl_tickets.evaluation.matching`; None with one seed."""

    kind: str
    percent: str
    dropped: tuple[float, ...]
    kept: tuple[float, ...]
    values: tuple[float, ...]
    matches: bool | None
    reaches: bool | None

    @property
    def mean_dropped(self) -> float:
        return statistics.fmean(self.dropped)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        return spread(self.values)


@dataclass(frozen=True)
class Curve:
    """The sub-networks of a task (or, named ``average``, of all), each kind from the largest to the smallest, beside
    the ``full`` model, by seed. ``names``: kind -> what people call it. ``highest`` and ``strictest``: kind -> the
    highest sparsity that matches, or reaches the full model's mean; empty with one seed, and of the average."""

    task: str
    metric: str
    """``score``; ``loss``, of which less is better; or ``gap``: the score on training rows less that on dev rows."""
    full: tuple[float, ...]
    found: tuple[Subnetwork, ...]
    names: Mapping[str, str]
    highest: Mapping[str, Highest]
    strictest: Mapping[str, Highest]

    @property
    def kinds(self) -> tuple[str, ...]:
        there = {item.kind for item in self.found}
        return tuple(kind for kind in self.names if kind in there)

    def of(self, kind: str) -> list[Subnetwork]:
        return [item for item in self.found if item.kind == kind]

    def ends(self, kind: str) -> list[Subnetwork]:
        """The largest and the smallest, which sentences are about."""
        found = self.of(kind)
        return found if len(found) < 3 else [found[0], found[-1]]

    @property
    def mean(self) -> float:
        """Of the full model."""
        return statistics.fmean(self.full)

    @property
    def spread(self) -> float | None:
        return spread(self.full)

    @property
    def less_is_better(self) -> bool:
        return self.metric == "loss"


@dataclass(frozen=True)
class Moved:
    """A ticket on one target: the score less that of the full model, in points by seed. ``as_good``: at least as good
    as the target's own ticket on the mean, None where the target has none. ``own``: it is that ticket."""

    target: str
    differences: tuple[float, ...]
    as_good: bool | None
    own: bool

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)


@dataclass(frozen=True)
class Source:
    """A ticket on every target. ``control``: it was found on no task. ``universal``: it matches on every target; None
    with one seed."""

    name: str
    control: bool
    cells: tuple[Moved, ...]
    universal: bool | None

    @property
    def as_good(self) -> int | None:
        """Targets on which it is at least as good as their own tickets, its own not counted; None where no target has
        one."""
        known = [cell.as_good for cell in self.cells if not cell.own and cell.as_good is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Transfer:
    """The tickets of one size, found on ``sources`` and tried on ``targets``."""

    percent: str
    targets: tuple[str, ...]
    sources: tuple[Source, ...]
