"""Budgets: how many units a draw drops; and the settings of a ladder, which is a list of budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Literal

import pydantic

from mtl_tickets.errors import Problem, TicketError, nearest
from mtl_tickets.settings import InvalidSetting, Settings
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket

Allocation = Literal["layer_normalised", "global", "per_matrix"]


class Budget(Mapping[str, int]):
    """Pool -> number of units to DROP; immutable. Pools that are not named lose nothing.

    ``Budget({"heads": 14, "ffn": 1})``; for single weights ``Budget({"weights": 59_000_000})``.
    """

    def __init__(self, dropped: Mapping[str, int]):
        wrong = [
            Problem("must be a whole number of at least 0", place=f"budget.{pool}", found=number)
            for pool, number in dropped.items()
            if isinstance(number, bool) or not isinstance(number, int) or number < 0
        ]
        if wrong:
            raise TicketError(wrong)
        self._dropped = dict(dropped)

    @classmethod
    def of(cls, ticket: Ticket) -> Budget:
        """What ``ticket`` has dropped."""
        pools = ticket.space.pools.items()
        return cls({pool: sum(ticket.dropped(part) for part in parts) for pool, parts in pools})

    @classmethod
    def fractions(cls, space: UnitSpace, fractions: Mapping[str, float], within: Ticket | None = None) -> Budget:
        """Pool -> the fraction of its units to drop; the number is rounded down, without floating-point accidents.

        ``within``: of the units that this base keeps, in addition to those it drops, which every pool loses.
        """
        sizes = pool_sizes(space)
        known = {pool: exact(fraction) for pool, fraction in fractions.items() if _known(pool, sizes)}
        return cls._inside(space, known, within)

    @classmethod
    def _inside(cls, space: UnitSpace, fractions: Mapping[str, Fraction], within: Ticket | None) -> Budget:
        sizes, gone = pool_sizes(space), {}
        if within is not None:
            require_equal(space, within.space, "what is drawn from and the base it is drawn inside")
            gone = {pool: number for pool, number in cls.of(within).items() if number}
        more = {pool: math.floor((sizes[pool] - gone.get(pool, 0)) * fraction) for pool, fraction in fractions.items()}
        return cls({pool: gone.get(pool, 0) + more.get(pool, 0) for pool in dict.fromkeys([*more, *gone])})

    def check(self, space: UnitSpace) -> None:
        """Raises :class:`TicketError` where the budget names an unknown pool or drops more units than there are."""
        sizes = pool_sizes(space)
        too_much = [
            Problem(f"only {sizes[pool]} units can be dropped", place=f"budget.{pool}", found=number)
            for pool, number in self.items()
            if _known(pool, sizes) and number > sizes[pool]
        ]
        if too_much:
            raise TicketError(too_much)

    def __getitem__(self, pool: str) -> int:
        return self._dropped[pool]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dropped)

    def __len__(self) -> int:
        return len(self._dropped)

    def __hash__(self) -> int:
        return hash(frozenset(self._dropped.items()))

    def __repr__(self) -> str:
        return f"Budget({self._dropped})"


class LadderSettings(Settings):
    """The rungs of a ladder: which budgets are drawn, and how.

    ``coupled`` is the published sweep (Super Tickets, Liang et al. 2021): rung k drops floor(all heads · step · k)
    heads and floor(layers · step · k / 1.2) feed-forward blocks, that is k blocks for BERT-base and for BERT-large.
    ``free`` lists the fraction dropped at each rung, for each pool by itself.
    """

    kind: Literal["coupled", "free"] = "coupled"
    rungs: int = pydantic.Field(8, ge=1, description="how many rungs; with kind: free the lists decide")
    step: float | None = pydantic.Field(
        None, gt=0, le=1, description="heads dropped per rung, as a fraction; default 0.1, from 24 layers on 0.05"
    )
    heads: tuple[float, ...] = pydantic.Field((), description="kind: free; fraction of heads dropped at each rung")
    ffn: tuple[float, ...] = pydantic.Field((), description="kind: free; fraction of feed-forward blocks dropped")
    neurons: tuple[float, ...] = pydantic.Field((), description="kind: free; fraction of neurons dropped")
    weights: tuple[float, ...] = pydantic.Field((), description="kind: free; fraction of single weights dropped")
    allocation: Allocation = pydantic.Field(
        "layer_normalised",
        description="layer_normalised: heads compete after dividing by their layer's norm; global: as scored; "
        "per_matrix: every layer or matrix loses the same fraction",
    )
    min_heads: int = pydantic.Field(1, ge=0, description="the best heads of a layer that are never dropped")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> LadderSettings:
        lists = self._lists()
        problems = []
        if self.kind == "coupled":
            problems += [Problem("only with kind: free", place=pool, found=list(lists[pool])) for pool in lists]
            if self.step is not None and self.rungs * exact(self.step) > 1:
                problems.append(Problem(f"{self.rungs} rungs must drop at most all heads", "", "step", self.step))
        else:
            if self.step is not None:
                problems.append(Problem("only with kind: coupled", place="step", found=self.step))
            lengths = {pool: len(fractions) for pool, fractions in lists.items()}
            if not lists:
                problems.append(Problem("kind: free needs at least one list: heads, ffn, neurons or weights"))
            elif len(set(lengths.values())) > 1:
                problems.append(Problem("all lists must have one entry per rung", found=lengths))
            elif self.rungs not in (8, *lengths.values()):
                problems.append(Problem("the lists decide how many rungs there are", "", "rungs", self.rungs))
            for pool, fractions in lists.items():
                if list(fractions) != sorted(fractions) or not all(0 <= fraction <= 1 for fraction in fractions):
                    rule = "must be fractions between 0 and 1 in ascending order"
                    problems.append(Problem(rule, place=pool, found=list(fractions)))
        if problems:
            raise InvalidSetting(problems)
        return self

    def _lists(self) -> dict[str, tuple[float, ...]]:
        lists = {"heads": self.heads, "ffn": self.ffn, "neurons": self.neurons, "weights": self.weights}
        return {pool: fractions for pool, fractions in lists.items() if fractions}


def ladder_budgets(space: UnitSpace, settings: LadderSettings, within: Ticket | None = None) -> list[Budget]:
    """The budgets of the rungs 1, 2, ... of a ladder over ``space``, each at least as large as the one before.

    Inside a base, ``within``, a rung drops its fractions of the units that the base keeps, in addition to what the base
    drops: its "all heads" and "layers" are the heads and blocks of the base.
    """
    if settings.kind == "free":
        lists = settings._lists()
        budgets = [
            Budget.fractions(space, dict(zip(lists, rung, strict=True)), within)
            for rung in zip(*lists.values(), strict=True)
        ]
    elif isinstance(space, StructuredSpace):
        step = exact(settings.step if settings.step is not None else 0.1 if space.layers < 24 else 0.05)
        blocks_per_head = 1 / exact(1.2)
        budgets = [
            Budget._inside(space, {"heads": step * k, "ffn": step * k * blocks_per_head}, within)
            for k in range(1, settings.rungs + 1)
        ]
    else:
        hint = "use kind: free with weights: [0.1, 0.2, ...]"
        raise TicketError(Problem("a coupled ladder drops heads and blocks", found=space.describe(), hint=hint))
    for budget in budgets:
        budget.check(space)
    return budgets


def pool_sizes(space: UnitSpace) -> dict[str, int]:
    """Pool -> number of units in it."""
    sizes = space.sizes
    return {pool: sum(sizes[part] for part in parts) for pool, parts in space.pools.items()}


def exact(fraction: float) -> Fraction:
    """The decimal fraction somebody meant: 0.1 is 1/10 here, so that 10 % of 30 is 3 and never 2."""
    return Fraction(fraction).limit_denominator(1_000_000)


def _known(pool: str, sizes: Mapping[str, int]) -> bool:
    if pool not in sizes:
        raise TicketError(Problem("the unit space has no such pool", "", "budget", pool, nearest(pool, list(sizes))))
    return True
