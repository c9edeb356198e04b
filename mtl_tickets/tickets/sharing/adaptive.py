"""Adaptive sharing: small tasks borrow evidence about units from the tasks that agree with them.

Shrinkage of each task's scores s_t towards those of its neighbours, all normalised::

    s~_t = (n_t s_t + kappa sum_u a_tu s_u) / (n_t + kappa sum_u a_tu),   a_tu = max(0, rank agreement of s_t and s_u)

with n_t the training rows of t and kappa in rows: a task that agrees perfectly counts as much evidence as kappa rows
of one's own. Then the ticket is drawn anew at t's own budget. Tasks with many rows keep their own ticket, a task that
agrees with nobody borrows nothing, no budget changes, and kappa = 0 is ``own``. Not from a paper: the form is the
usual empirical-Bayes shrinkage of a mean.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, ScoreVote


@RULES.register("adaptive")
class Adaptive(ScoreVote):
    """Small tasks borrow scores from the tasks that agree with them, at their own budget (the default)."""

    kind: Literal["adaptive"] = "adaptive"
    kappa: float = pydantic.Field(
        1000.0, ge=0, allow_inf_nan=False, description="rows of evidence a task that agrees perfectly is worth"
    )

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        borrowed = {
            other: self.kappa * poll.agreement[task, other]
            for other in poll.tasks
            if other != task and self.kappa * poll.agreement[task, other] > 0
        }
        own = float(poll.rows[task])
        evidence = own + sum(borrowed.values())
        if evidence == 0:  # no rows and no friends: there is only one's own opinion
            return {task: 1.0}
        return {voter: weight / evidence for voter, weight in {task: own, **borrowed}.items()}
