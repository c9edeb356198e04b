"""What follows the optimiser step: how much is pruned, and how often the student's layer stands in for the teacher's
(SPD, Huang et al., ACL 2022, arXiv 2110.08190; METHODS 5.2). Pure functions of the step.

A training has three parts: weights are dropped, with the replacing rate constant; the rate rises to 1; the student is
trained alone. Deviations: parts are shares of the training, whatever its length (published: 30 epochs of it, and a
batch of 32, are written into the code); the last update is the first part's last step, so that the target is reached
always, and the rate is 1 from the third part on under every schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.settings import InvalidSetting, Settings


class PhaseSettings(Settings):
    """The parts of a student's training, as shares of its steps. What these leave is the third part."""

    prune: float = pydantic.Field(0.5, gt=0, le=1, description="weights are dropped, the replacing rate is constant")
    replace: float = pydantic.Field(1 / 6, ge=0, lt=1, description="the replacing rate rises to 1")
    restart: bool = pydantic.Field(
        True, description="behind the pruning the learning rate falls a second time, from its peak on"
    )

    @pydantic.model_validator(mode="after")
    def _within_the_training(self) -> Self:
        if self.prune + self.replace > 1 + 1e-9:
            rule = "prune and replace together must be no more than 1, the whole training"
            raise InvalidSetting(Problem(rule, place="replace", found=self.replace))
        return self

    def of(self, steps: int) -> Phases:
        """In a training of so many steps; at least the first one prunes."""
        pruned = min(steps, max(1, round(self.prune * steps)))
        alone = min(steps, max(pruned, round((self.prune + self.replace) * steps)))
        return Phases(pruned, alone, steps, (pruned,) if self.restart and pruned < steps else ())


@dataclass(frozen=True)
class Phases:
    """Optimiser steps: the last update of what is pruned comes after step ``pruned``, from ``alone`` steps on there is
    only the student; ``restarts``: steps after which the learning rate starts anew."""

    pruned: int
    alone: int
    steps: int
    restarts: tuple[int, ...]


class ReplacingSettings(Settings):
    """With which probability a layer is the student's."""

    kind: Literal["constant", "linear", "mixed"] = pydantic.Field(
        "mixed",
        description="until the student is alone: mixed: constant while weights are dropped, then rising to 1; linear: "
        "rising from the first step on; constant: then 1 at once",
    )
    start: float = pydantic.Field(0.8, ge=0, le=1, description="the probability in the first step")


def replacing_rate(step: int, phases: Phases, settings: ReplacingSettings, constant: bool = False) -> float:
    """The probability during the step before which there were ``step`` ones; 1 from ``phases.alone`` on.

    ``constant``: published defect 3 (METHODS 5.4), it never changes.
    """
    if constant:
        return settings.start
    if step >= phases.alone:
        return 1.0
    begin = {"constant": phases.alone, "linear": 0, "mixed": phases.pruned}[settings.kind]
    if step <= begin:
        return settings.start
    return settings.start + (1 - settings.start) * ((step - begin) / (phases.alone - begin))


def cubic(first: float, last: float, share: float) -> float:
    """The sparsity after this share of a course from ``first`` to ``last``: last + (first - last) (1 - share)³ (Zhu and
    Gupta 2017, arXiv 1710.01878; METHODS 3.6, 5.2). At its end it is ``last`` itself."""
    return last if share >= 1 else last + (first - last) * (1 - share) ** 3


def updates_by(step: int, steps: int, updates: int, miss: bool = False) -> int:
    """How many of ``updates`` are done after ``step`` optimiser steps: evenly spread over ``steps``, the last with the
    last. Where there are fewer steps than updates some are left out, never the last.

    ``miss``: published defect 7, one after every ``steps // updates`` steps, but none with the last step.
    """
    if miss:
        return min(updates, min(step, steps - 1) // max(1, steps // updates))
    return min(step, steps) * updates // steps


def sparsity_by(step: int, phases: Phases, target: float, updates: int, miss: bool = False) -> float:
    """The share that is to be dropped after ``step`` optimiser steps."""
    return cubic(0.0, target, updates_by(step, phases.pruned, updates, miss) / updates)
