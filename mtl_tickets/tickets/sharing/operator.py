"""The sharing operator, of which every rule is a row.

For each receiving task t: the *voters* cast *ballots*, the ballots are added up with the voters' *weights* to one
number per unit, the tally, and from the tally units are *kept*::

    tally_t = sum over voters u of weight_t(u) * ballot(u)        kept_t = keep(t, tally_t)

A rule says who votes with what weight (:meth:`SharingRule.weights`), what a ballot is (a task's ticket, 1 for each
unit it keeps, or its normalised scores) and what is kept. Two things hold for all rules, because the operator sees to
them: the result does not depend, to the last bit, on the order of the tasks; and every layer keeps at least one head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.settings import Settings
from mtl_tickets.tickets.budget import Allocation, Budget
from mtl_tickets.tickets.draw import best_heads, draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, Units, UnitSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket

Tally = dict[str, np.ndarray]
"""Part name -> float64 array of the part's shape."""


@dataclass(frozen=True)
class Poll:
    """What a rule may know: every task's ticket, scores and number of training rows, in the order of their names.

    Raises :class:`TicketError` where a task lacks one of the three, or unit spaces differ.
    """

    tickets: Mapping[str, Ticket]
    scores: Mapping[str, Scores]
    rows: Mapping[str, int]

    def __post_init__(self) -> None:
        tasks = sorted(set(self.tickets) | set(self.scores) | set(self.rows))
        given: dict[str, Mapping[str, object]] = {"tickets": self.tickets, "scores": self.scores, "rows": self.rows}
        problems = [
            Problem(f"sharing needs {what} of every task", place=task)
            for task in tasks
            for what, values in given.items()
            if task not in values
        ]
        problems += [
            Problem("the training rows of a task must be at least 0", place=task, found=count)
            for task, count in self.rows.items()
            if count < 0
        ]
        if not tasks:
            problems.append(Problem("sharing needs at least one task"))
        if problems:
            raise TicketError(problems)
        for name, values in given.items():
            object.__setattr__(self, name, {task: values[task] for task in tasks})
        for task in tasks:
            require_equal(self.space, self.tickets[task].space, f"the tickets of {tasks[0]} and {task}")
            require_equal(self.space, self.scores[task].space, f"the ticket of {tasks[0]} and the scores of {task}")

    @property
    def tasks(self) -> list[str]:
        return list(self.tickets)

    @property
    def space(self) -> UnitSpace:
        return next(iter(self.tickets.values())).space

    @cached_property
    def normalised(self) -> dict[str, Scores]:
        """The normalised scores of every task: on one scale, so that they can be added."""
        return {task: scores.normalised() for task, scores in self.scores.items()}

    @cached_property
    def agreement(self) -> dict[tuple[str, str], float]:
        """The affinity of two tasks: max(0, rank agreement of their normalised scores)."""
        pairs = [(t, u) for t in self.tasks for u in self.tasks if t < u]
        found = {pair: max(0.0, self.normalised[pair[0]].rank_agreement(self.normalised[pair[1]])) for pair in pairs}
        return found | {(u, t): value for (t, u), value in found.items()}

    @cached_property
    def summed_heads(self) -> np.ndarray:
        """[L, H]: the normalised scores of the heads, added over all tasks."""
        return self.add({task: (1.0, self.normalised[task].values) for task in self.tasks})["heads"]

    def add(self, ballots: Mapping[str, tuple[float, Units]]) -> Tally:
        """The weighted sum of ballots. Floating-point sums depend on their order; this one is that of task names."""
        tally = {part: np.zeros(shape) for part, shape in self.space.parts.items()}
        for task in sorted(ballots):
            weight, ballot = ballots[task]
            for part in tally:
                tally[part] += weight * ballot[part]
        return tally


class SharingRule(Settings):
    """A row of the operator. Subclasses have a ``kind`` with a default and register under it."""

    makes: ClassVar[Literal["shared", "dense", "random", "losing"] | None] = "shared"
    """The kind of the tickets it gives; None where a task's ticket stays what it was."""

    def __call__(
        self, tickets: Mapping[str, Ticket], scores: Mapping[str, Scores], rows: Mapping[str, int]
    ) -> dict[str, Ticket]:
        """The shared ticket of every task, in the order of ``tickets``. ``rows`` are the tasks' training rows."""
        poll = Poll(tickets, scores, rows)
        return {task: self._shared(task, poll) for task in tickets}

    def __str__(self) -> str:
        """``majority(k=3)``: what records and reports call the rule."""
        settings = ", ".join(f"{name}={value}" for name, value in self.non_defaults().items() if name != "kind")
        kind = type(self).model_fields["kind"].default
        return f"{kind}({settings})" if settings else kind

    @abstractmethod
    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        """Who votes on the ticket of ``task``, and how much each vote weighs."""

    @abstractmethod
    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        """What ``voter`` says about each unit when asked for the ticket of ``task``."""

    @abstractmethod
    def keep(self, task: str, tally: Tally, voters: int, poll: Poll) -> Units:
        """The units kept, from the tally of ``voters`` ballots."""

    def _shared(self, task: str, poll: Poll) -> Ticket:
        weights = self.weights(task, poll)
        tally = poll.add({voter: (weight, self.ballot(task, voter, poll)) for voter, weight in weights.items()})
        units, repaired = _with_a_head_in_each_layer(self.keep(task, tally, len(weights), poll), poll)
        about = poll.tickets[task].about
        if self.makes is not None:
            about = replace(about, kind=self.makes)
        notes = [about.note, f"sharing: {self}", f"best head put back in layers {repaired}" if repaired else None]
        return Ticket(poll.space, units, replace(about, task=task, note="; ".join(note for note in notes if note)))


class TicketVote(SharingRule):
    """A family of rules: voters cast their tickets, and a unit is kept that at least :meth:`needed` of them keep."""

    @abstractmethod
    def needed(self, voters: int) -> int:
        """How many votes keep a unit."""

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        return dict.fromkeys(poll.tasks, 1.0)

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        return poll.tickets[voter].units

    def keep(self, task: str, tally: Tally, voters: int, poll: Poll) -> Units:
        return {part: votes >= self.needed(voters) for part, votes in tally.items()}


class ScoreVote(SharingRule):
    """A family of rules: voters cast their scores, and the ticket is drawn anew at the task's own budget.

    The draw is that of the task's own ticket: same number of units in each pool, same protection and allocation (as
    its origin records them; layer-normalised where it does not), so that a task that hears only itself keeps exactly
    the ticket it had.
    """

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        return self.on_one_scale(poll.scores[voter], poll.tickets[task])

    def keep(self, task: str, tally: Tally, voters: int, poll: Poll) -> Units:
        mine = poll.tickets[task]
        # the ballots are normalised already: normalising their sum again would rank it otherwise
        allocation: Allocation = "per_matrix" if mine.about.allocation == "per_matrix" else "global"
        least = max(1, 1 if mine.about.min_heads is None else mine.about.min_heads)
        return draw(Scores(poll.space, tally), Budget.of(mine), least, allocation).units

    @staticmethod
    def on_one_scale(scores: Scores, ticket: Ticket) -> Units:
        """Scores that can be added to another task's without changing how they rank in ``ticket``'s own draw."""
        return scores.normalised("pool" if ticket.about.allocation == "global" else "layer").values


def _with_a_head_in_each_layer(units: Units, poll: Poll) -> tuple[Units, list[int]]:
    """Gives every layer without heads its best one by the summed normalised scores of all tasks; and says which."""
    if not isinstance(poll.space, StructuredSpace):
        return units, []
    headless = units["heads"].sum(axis=1) == 0
    best = best_heads(poll.summed_heads, 1) & headless[:, None]
    return {**units, "heads": units["heads"] | best}, np.flatnonzero(headless).tolist()
