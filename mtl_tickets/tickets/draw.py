"""Draw: scores + budget -> ticket. Ladders of nested draws, and the published (defective) random control.

Every draw drops exactly as many units as its budget says, lowest score first, equal scores in the order of the units.
Because the order does not depend on the budget, draws on the same scores are nested: a ladder.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

import numpy as np

from mtl_tickets.errors import Problem, TicketError, nearest
from mtl_tickets.tickets.budget import Allocation, Budget, LadderSettings, ladder_budgets
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin

__all__ = ["Allocation", "Budget", "LadderSettings", "draw", "ladder", "ladder_budgets", "reference_random_ticket"]


def draw(
    scores: Scores, budget: Mapping[str, int], min_heads: int = 1, allocation: Allocation = "layer_normalised"
) -> Ticket:
    """The ticket that drops the ``budget`` units of lowest score from each pool.

    The ``min_heads`` best heads of every layer are protected. Allocations:

    * ``layer_normalised``: pools are ranked after :meth:`Scores.normalised`, as published for Super Tickets;
    * ``global``: pools are ranked by the scores as they are;
    * ``per_matrix``: every layer (or matrix) loses the same fraction; what cannot be divided goes by Sainte-Laguë's
      rule, which never takes a unit back when the budget grows.

    A budget that protection does not allow is capped, as published, and ``ticket.about.note`` says so. One that
    exceeds the pool, or names a pool the space does not have, is a :class:`TicketError`.
    """
    if allocation not in typing.get_args(Allocation):
        known = list(typing.get_args(Allocation))
        raise TicketError(Problem("unknown allocation", found=allocation, hint=nearest(allocation, known)))
    space, budget = scores.space, Budget(budget)
    budget.check(space)
    ranked = (scores.normalised() if allocation == "layer_normalised" else scores).values
    kept: dict[str, np.ndarray] = {}
    notes = []
    for pool, parts in space.pools.items():
        # a protected unit ranks above everything
        values = [
            np.where(best_heads(ranked[p], min_heads), np.inf, ranked[p]) if p == "heads" else ranked[p] for p in parts
        ]
        if allocation == "per_matrix":
            groups = [row for p, value in zip(parts, values, strict=True) for row in value.reshape(space.rows(p), -1)]
        else:
            groups = [np.concatenate([value.ravel() for value in values])]
        asked = budget.get(pool, 0)
        count = min(asked, sum(int(np.isfinite(group).sum()) for group in groups))
        if count < asked:
            notes.append(f"asked to drop {asked} {pool}, dropped {count}: {min_heads} a layer protected")
        shares = _shares(groups, count)
        dropped = np.concatenate([_lowest(group, share) for group, share in zip(groups, shares, strict=True)])
        ends = np.cumsum([value.size for value in values])[:-1]
        for part, piece in zip(parts, np.split(dropped, ends), strict=True):
            kept[part] = ~piece.reshape(space.parts[part])
    origin = scores.about
    about = TicketOrigin(
        task=origin.task,
        score=origin.score,
        seed=origin.seed,
        encoder=origin.encoder,
        weight_hash=origin.weight_hash,
        kind=origin.kind,
        budget=dict(budget),
        allocation=allocation,
        min_heads=min_heads,
        note="; ".join(notes) or None,
    )
    return Ticket(space, kept, about)


def ladder(scores: Scores, settings: LadderSettings) -> list[Ticket]:
    """The draws of rungs 1, 2, ...: nested, each keeping a subset of what the rung before keeps.

    The controls are ladders too: of ``Scores.random(space, seed)`` and of ``scores.reversed()``. They have the same
    protection and, rung by rung, exactly the same sizes.
    """
    budgets = ladder_budgets(scores.space, settings)
    return [draw(scores, budget, settings.min_heads, settings.allocation) for budget in budgets]


def best_heads(values: np.ndarray, count: int) -> np.ndarray:
    """Marks the ``count`` highest values of each row of ``[L, H]``; of equal ones those a draw would drop last."""
    marked = np.zeros(values.shape, dtype=bool)
    order = np.argsort(values, axis=-1, kind="stable")
    np.put_along_axis(marked, order[:, max(0, values.shape[1] - count) :], True, axis=-1)
    return marked


def reference_random_ticket(space: UnitSpace, budget: Mapping[str, int], seed: int) -> Ticket:
    """The random control as published, defects included; for ``compat: reference`` only.

    Units are sampled WITH replacement, so that fewer are dropped than asked for; a head's layer is its number divided
    by the number of layers (not of heads), so that BERT-large never loses a head above layer 16 and numbers collide;
    no head is protected. A number that decodes to no layer at all (more heads than layers) drops nothing.
    """
    if not isinstance(space, StructuredSpace):
        raise TicketError(Problem("the published control drops heads and blocks", found=space.describe()))
    Budget(budget).check(space)
    generator = np.random.default_rng(seed)
    heads = np.ones((space.layers, space.heads), dtype=bool)
    numbers = generator.integers(0, heads.size, budget.get("heads", 0))
    numbers = numbers[numbers // space.layers < space.layers]
    heads[numbers // space.layers, numbers % space.heads] = False
    ffn = np.ones(space.layers, dtype=bool)
    ffn[generator.integers(0, space.layers, budget.get("ffn", 0))] = False
    rest = {part: np.ones(shape, dtype=bool) for part, shape in space.parts.items() if part not in ("heads", "ffn")}
    note = f"published control: {int((~heads).sum())} heads and {int((~ffn).sum())} blocks dropped"
    about = TicketOrigin(kind="random", score="random", seed=seed, budget=dict(budget), note=note)
    return Ticket(space, {"heads": heads, "ffn": ffn, **rest}, about)


def _lowest(values: np.ndarray, count: int) -> np.ndarray:
    """Marks the ``count`` lowest of flat ``values``, the first ones among equals, in linear time."""
    if count == 0:
        return np.zeros(values.shape, dtype=bool)
    limit = np.partition(values, count - 1)[count - 1]
    marked = values < limit
    marked[np.flatnonzero(values == limit)[: count - int(marked.sum())]] = True
    return marked


def _shares(groups: list[np.ndarray], count: int) -> list[int]:
    """How many of ``count`` units each group loses: equal fractions of the groups' sizes, by Sainte-Laguë's rule.

    The j-th unit of a group of n claims the place (j - 1/2) / n; the first ``count`` claims win.
    Protected (infinite) units claim nothing.
    """
    if len(groups) == 1:
        return [count]
    claims = [(np.arange(int(np.isfinite(group).sum())) + 0.5) / group.size for group in groups]
    won = _lowest(np.concatenate(claims), count)
    return [int(piece.sum()) for piece in np.split(won, np.cumsum([len(claim) for claim in claims])[:-1])]
