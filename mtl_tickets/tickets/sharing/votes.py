"""Rules in which tickets vote on each unit: dense, own, union, intersection, majority.

They are one rule with another number of votes needed. ``dense`` is the multi-task baseline without tickets (MT-DNN,
Liu et al. 2019); ``own`` is the ticket sharing of Super Tickets (Liang et al. 2021, section 3), in which weights are
shared wherever tickets overlap and no ticket changes. With ``budget: own`` the last three are one rule: every
task keeps as many units as its own ticket has, those that most tasks keep.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import pydantic

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, SizedVote, TicketVote


@RULES.register("dense")
class Dense(TicketVote):
    """Nobody votes and everything is kept: one dense encoder for all tasks (MT-DNN)."""

    makes: ClassVar = "dense"
    kind: Literal["dense"] = "dense"

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        return {}

    def needed(self, voters: int) -> int:
        return 0


@RULES.register("own")
class Own(TicketVote):
    """Every task keeps its own ticket (the paper's ticket sharing)."""

    makes: ClassVar = None
    kind: Literal["own"] = "own"

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        return {task: 1.0}

    def needed(self, voters: int) -> int:
        return 1


@RULES.register("union")
class Union(SizedVote):
    """One ticket for all tasks: what any task keeps."""

    kind: Literal["union"] = "union"

    def needed(self, voters: int) -> int:
        return 1


@RULES.register("intersection")
class Intersection(SizedVote):
    """One ticket for all tasks: what every task keeps."""

    kind: Literal["intersection"] = "intersection"

    def needed(self, voters: int) -> int:
        return voters


@RULES.register("majority")
class Majority(SizedVote):
    """One ticket for all tasks: what at least k tasks keep, by default more than half."""

    thresholds: ClassVar = ("k",)
    kind: Literal["majority"] = "majority"
    k: pydantic.PositiveInt | None = pydantic.Field(None, description="votes needed; default: more than half")

    def needed(self, voters: int) -> int:
        if self.k is not None and self.k > voters:
            rule = f"there are only {voters} tasks to vote, so no unit could be kept"
            raise TicketError(Problem(rule, place="majority.k", found=self.k))
        return voters // 2 + 1 if self.k is None else self.k
