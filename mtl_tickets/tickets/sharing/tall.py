"""Tall masks: what of the multi-task weights a task needs, from how far the task alone and all together went.

Wang et al. 2024, "Localizing Task Information for Improved Model Merging and Compression", arXiv 2405.07813, section 3:
of the weights of a multi-task model those are a task's for which |θ_t - θ_0| > λ |θ_mtl - θ_t|, with θ_0 the pretrained
weights, θ_t those of the task's own fine-tuning. Deviations: their θ_mtl is a sum of task vectors, ours is trained on
all tasks together (``dense``); theirs is a mask of single weights put on at the end, ours a ticket of units to train
through: a unit's score is the share of its weights that are the task's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

import numpy as np
import pydantic

from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, SharingRule, Tally
from mtl_tickets.tickets.space import Units


@RULES.register("tall")
class Tall(SharingRule):
    """Every task keeps the units whose weights in the multi-task model are its own (tall masks, Wang et al. 2024)."""

    scored_by: ClassVar = "tall"
    kind: Literal["tall"] = "tall"
    threshold: float = pydantic.Field(0.4, ge=0, description="λ: how far the task's own way must stand out")
    budget: Literal["own", "free"] = pydantic.Field(
        "own",
        description="own: as many units of each pool as the task's own ticket; free: units most of whose weights are "
        "the task's",
    )

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        return {task: 1.0}

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        # shares of weights are on one scale as they are
        return poll.scores[voter].values

    def keep(self, task: str, tally: Tally, voters: Collection[str], poll: Poll) -> Units:
        if self.budget == "own":
            return self.redrawn(task, tally, poll)
        return {part: np.asarray(share > 0.5) for part, share in tally.items()}
