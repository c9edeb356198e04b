"""Weighted sharing: the scores of all tasks, each weighted by its training rows; every task draws at its own budget."""

from __future__ import annotations

from typing import Literal

import pydantic

from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, ScoreVote


@RULES.register("weighted")
class Weighted(ScoreVote):
    """One ranking for all tasks, scores weighted by data size; every task draws from it at its own budget."""

    kind: Literal["weighted"] = "weighted"
    power: float = pydantic.Field(
        1.0, ge=0, le=1, description="weight = rows ** power: 1 counts every row, 0 every task alike"
    )

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        weights = {voter: float(rows) ** self.power for voter, rows in poll.rows.items()}
        total = sum(weights.values())
        if total == 0:
            return dict.fromkeys(poll.tasks, 1 / len(poll.tasks))
        return {voter: weight / total for voter, weight in weights.items()}
