"""Controls: tickets of exactly the size of each task's own, drawn at random or from the wrong end."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Literal

import pydantic

from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, ScoreVote
from mtl_tickets.tickets.space import Units


class Control(ScoreVote):
    """Only the task itself votes."""

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        return {task: 1.0}


@RULES.register("random")
class Random(Control):
    """Control: every task gets a random ticket of the size of its own."""

    makes: ClassVar = "random"
    kind: Literal["random"] = "random"
    seed: int = pydantic.Field(0, ge=0, description="tasks and runs draw apart, whatever other tasks there are")

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        name = hashlib.sha256(f"{poll.seed}/{self.seed}/{task}".encode()).digest()
        return Scores.random(poll.space, int.from_bytes(name[:8])).values


@RULES.register("losing")
class Losing(Control):
    """Control: every task gets its lowest-scoring ticket of the size of its own."""

    makes: ClassVar = "losing"
    kind: Literal["losing"] = "losing"

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        return self.on_one_scale(poll.scores[task].reversed(), poll.tickets[task])
