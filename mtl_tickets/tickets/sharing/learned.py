"""Learned tickets: a number for each task and unit, trained together with the encoder, decides what the task keeps.

Gates trained by gradient are those of Louizos et al. 2018 (arXiv 1712.01312, hard concrete) and of straight-through
masks (Mallya et al. 2018, arXiv 1801.06519). Straight-through here: the forward pass sees the ticket that the numbers
draw at the task's own budget, gradients go to the numbers as if they were the gates. So the budget holds exactly at
every step without a penalty to tune, and what is trained is what will be served, while hard concrete trains through
gates between 0 and 1. The start is what ``adaptive`` gives; a term that pulls a unit's numbers of all tasks towards
each other stands for sharing. Afterwards, as for every rule, the tickets are drawn and the encoder is trained from its
pretrained weights: the joint training is paid on top. Neither source shares among tasks: that part is ours.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

import pydantic

from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, SharingRule, Tally
from mtl_tickets.tickets.space import Units


@RULES.register("learned")
class Learned(SharingRule):
    """Tickets are trained with the encoder, by straight-through gates, from the adaptive ones; at the task's budget."""

    scored_by: ClassVar = "learned"
    kind: Literal["learned"] = "learned"
    kappa: float = pydantic.Field(1000.0, ge=0, allow_inf_nan=False, description="of the adaptive tickets at the start")
    gate_lr: pydantic.PositiveFloat = pydantic.Field(0.01, description="peak learning rate of the numbers")
    overlap: float = pydantic.Field(
        0.1, ge=0, description="weight of the term that pulls the numbers of all tasks together"
    )

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        return {task: 1.0}

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        return poll.scores[voter].values

    def keep(self, task: str, tally: Tally, voters: Collection[str], poll: Poll) -> Units:
        return self.redrawn(task, tally, poll)
