"""The sharing operator, of which every rule is a row.

For each receiving task t: the *voters* cast *ballots*, the ballots are added up with the voters' *weights* to one
number per unit, the tally, and from the tally units are *kept*::

    tally_t = sum over voters u of weight_t(u) * ballot(u)        kept_t = keep(t, tally_t)

A rule says who votes with what weight (:meth:`SharingRule.weights`), what a ballot is (a task's ticket, 1 for each
unit it keeps, or its normalised scores) and what is kept: the units whose tally passes a threshold, or, drawn from the
tally (:meth:`SharingRule.redrawn`), exactly as many as t's own ticket has. Two things hold for all rules, because the
operator sees to them: the result does not depend, to the last bit, on the order of the tasks; and every layer keeps at
least one head. Inside a base, a ticket that all tasks' tickets lie inside, no rule gives a unit that the base drops,
and what scores say of such units decides nothing; a layer keeps a head where the base has one.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import pydantic

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.settings import InvalidSetting, Settings
from mtl_tickets.tickets.affinity import rank_agreement_matrix
from mtl_tickets.tickets.budget import Allocation, Budget
from mtl_tickets.tickets.draw import best_heads, draw
from mtl_tickets.tickets.linkage import Merge, agglomeration
from mtl_tickets.tickets.overlap import jaccard_matrix
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, Units, UnitSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket

Tally = dict[str, np.ndarray]
"""Part name -> float64 array of the part's shape."""


@dataclass(frozen=True)
class Poll:
    """What a rule may know: every task's ticket, scores and number of training rows, in the order of their names.

    ``within`` is the base they live inside, None the whole encoder; scores are 0 outside it.

    Raises :class:`TicketError` where a task lacks one of the three, unit spaces differ, or a ticket keeps a unit that
    the base drops.
    """

    tickets: Mapping[str, Ticket]
    scores: Mapping[str, Scores]
    rows: Mapping[str, int]
    seed: int = 0
    """Of the run: what a rule draws at random is another draw in another run."""
    within: Ticket | None = None

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
        if self.within is not None:
            self._move_inside(self.within)

    def _move_inside(self, base: Ticket) -> None:
        require_equal(base.space, self.space, "the base and the tickets inside it")
        outside = {
            task: sum(kept for kept, _ in (ticket - base).counts().values()) for task, ticket in self.tickets.items()
        }
        problems = [
            Problem("a ticket must lie inside the base", place=task, found=f"{count} units that the base drops")
            for task, count in outside.items()
            if count
        ]
        if problems:
            raise TicketError(problems)
        object.__setattr__(self, "scores", {task: scores.inside(base) for task, scores in self.scores.items()})

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
    def rank_agreement(self) -> dict[str, dict[str, float]]:
        """task -> task -> rank agreement of their normalised scores, -1 to 1."""
        return rank_agreement_matrix(self.scores, self.within)

    @cached_property
    def agreement(self) -> dict[tuple[str, str], float]:
        """The affinity of two different tasks: max(0, rank agreement of their normalised scores)."""
        pairs = [(t, u) for t in self.tasks for u in self.tasks if t != u]
        return {(t, u): max(0.0, self.rank_agreement[t][u]) for t, u in pairs}

    @cached_property
    def merges(self) -> list[Merge]:
        """How tasks with similar tickets grow into groups: average linkage on the Jaccard similarity."""
        return agglomeration(jaccard_matrix(self.tickets))

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
    scored_by: ClassVar[Literal["importance", "tall", "learned"]] = "importance"
    """Which scores it is given: the tasks' importance scores, or what must be found out for it (see the rule)."""

    def __call__(
        self,
        tickets: Mapping[str, Ticket],
        scores: Mapping[str, Scores],
        rows: Mapping[str, int],
        seed: int = 0,
        within: Ticket | None = None,
    ) -> dict[str, Ticket]:
        """The shared ticket of every task, in the order of ``tickets``. ``rows`` are the tasks' training rows, ``seed``
        is the run's, ``within`` the base that all tickets lie inside."""
        poll = Poll(tickets, scores, rows, seed, within)
        return {task: self._shared(task, poll) for task in tickets}

    def __str__(self) -> str:
        """``majority(k=3)``: what records and reports call the rule."""
        settings = ", ".join(f"{name}={value}" for name, value in self.non_defaults().items() if name != "kind")
        kind = type(self).model_fields["kind"].default
        return f"{kind}({settings})" if settings else kind

    @property
    def name(self) -> str:
        """``majority-k-3``: the rule in the names of stages and folders; as it stands, its kind."""
        settings = [f"{name}-{value}" for name, value in self.non_defaults().items() if name != "kind"]
        kind = type(self).model_fields["kind"].default
        return re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join([kind, *settings])) if settings else kind

    @abstractmethod
    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        """Who votes on the ticket of ``task``, and how much each vote weighs."""

    @abstractmethod
    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        """What ``voter`` says about each unit when asked for the ticket of ``task``."""

    @abstractmethod
    def keep(self, task: str, tally: Tally, voters: Collection[str], poll: Poll) -> Units:
        """The units kept, from the tally of the ballots of ``voters``."""

    @staticmethod
    def redrawn(task: str, tally: Tally, poll: Poll) -> Units:
        """The units of highest tally, drawn as the task's own ticket was: as many of each pool, exactly.

        Protection and allocation are those its origin records (at least one head a layer; layer-normalised where it
        records none), so that a tally that ranks the units as the task itself does gives the ticket it had. Only a
        ticket with fewer heads than layers grows: to one head a layer. Never is a unit kept that the base drops.
        """
        mine = poll.tickets[task]
        # tallies are on one scale already: normalising them again would rank them otherwise
        allocation: Allocation = "per_matrix" if mine.about.allocation == "per_matrix" else "global"
        least = max(1, 1 if mine.about.min_heads is None else mine.about.min_heads)
        return draw(Scores(poll.space, tally), Budget.of(mine), least, allocation, poll.within).units

    @staticmethod
    def on_one_scale(scores: Scores, ticket: Ticket) -> Units:
        """Scores that can be added to another task's without changing how they rank in ``ticket``'s own draw."""
        return scores.normalised("pool" if ticket.about.allocation == "global" else "layer").values

    def _shared(self, task: str, poll: Poll) -> Ticket:
        weights = self.weights(task, poll)
        tally = poll.add({voter: (weight, self.ballot(task, voter, poll)) for voter, weight in weights.items()})
        units = self.keep(task, tally, weights, poll)
        if poll.within is not None:
            units = {part: kept & poll.within.units[part] for part, kept in units.items()}
        units, repaired = _with_a_head_in_each_layer(units, poll)
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

    def keep(self, task: str, tally: Tally, voters: Collection[str], poll: Poll) -> Units:
        return {part: votes >= self.needed(len(voters)) for part, votes in tally.items()}


class SizedVote(TicketVote):
    """A family of rules: ticket votes that change the sizes of tickets, unless they are asked not to.

    ``budget: free`` is the plain vote: a ticket is as large as the votes make it. ``budget: own`` compares rules at
    equal remaining parameters: every task keeps exactly as many units of each pool as its own ticket has, those with
    the most votes first; between equal votes the normalised scores of the voters, added up, decide. The threshold then
    decides nothing, so that union, majority and intersection of the same voters are one rule, and the settings that
    choose among them (``thresholds``) are refused.
    """

    thresholds: ClassVar[tuple[str, ...]] = ()
    """The settings that say how many votes a unit needs."""

    budget: Literal["free", "own"] = pydantic.Field(
        "free",
        description="free: every unit with enough votes; own: as many units of each pool as the task's own ticket, "
        "those with the most votes first",
    )

    @pydantic.model_validator(mode="after")
    def _no_threshold_without_effect(self) -> SizedVote:
        idle = [name for name in self.thresholds if name in self.non_defaults()] if self.budget == "own" else []
        if idle:
            rule = "has no effect with budget: own, which keeps the units with the most votes"
            raise InvalidSetting(Problem(rule, place=name, found=getattr(self, name)) for name in idle)
        return self

    def keep(self, task: str, tally: Tally, voters: Collection[str], poll: Poll) -> Units:
        if self.budget == "free":
            return super().keep(task, tally, voters, poll)
        opinions = {voter: (1.0, self.on_one_scale(poll.scores[voter], poll.tickets[task])) for voter in voters}
        return self.redrawn(task, _ranks(tally, poll.add(opinions), poll.space), poll)


class ScoreVote(SharingRule):
    """A family of rules: voters cast their scores, and the ticket is drawn anew at the task's own budget.

    A task that hears only itself keeps exactly the ticket it had.
    """

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        return self.on_one_scale(poll.scores[voter], poll.tickets[task])

    def keep(self, task: str, tally: Tally, voters: Collection[str], poll: Poll) -> Units:
        return self.redrawn(task, tally, poll)


def _ranks(first: Tally, second: Tally, space: UnitSpace) -> Tally:
    """For each unit its rank in its pool by ``first``, among equals by ``second``; equal in both is equal in rank."""
    ranks: Tally = {}
    for parts in space.pools.values():
        keys = [np.concatenate([values[part].ravel() for part in parts]) for values in (second, first)]
        order = np.lexsort(keys)
        new = np.any([np.diff(key[order], prepend=np.nan) != 0 for key in keys], axis=0)
        ranked = np.empty(len(order))
        ranked[order] = np.cumsum(new)
        ends = np.cumsum([first[part].size for part in parts])[:-1]
        ranks |= {p: piece.reshape(space.parts[p]) for p, piece in zip(parts, np.split(ranked, ends), strict=True)}
    return ranks


def _with_a_head_in_each_layer(units: Units, poll: Poll) -> tuple[Units, list[int]]:
    """Gives every layer without heads its best one by the summed normalised scores of all tasks; and says which.

    Inside a base the best one that the base keeps, where there is one.
    """
    if not isinstance(poll.space, StructuredSpace):
        return units, []
    headless = units["heads"].sum(axis=1) == 0
    best = best_heads(poll.summed_heads, 1, poll.within) & headless[:, None]
    return {**units, "heads": units["heads"] | best}, np.flatnonzero(best.any(axis=1)).tolist()
