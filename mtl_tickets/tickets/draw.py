"""Draw: scores + budget -> ticket. Ladders of nested draws, and the published (defective) random control.

Every draw drops exactly as many units as its budget says, lowest score first, equal scores in the order of the units.
Because the order does not depend on the budget, draws on the same scores are nested: a ladder. Inside a base the units
that it drops fall before all others, whatever their scores: a draw keeps a subset of what the base keeps.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence

import numpy as np

from mtl_tickets.errors import Problem, TicketError, nearest
from mtl_tickets.tickets.budget import Allocation, Budget, LadderSettings, ladder_budgets
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin

__all__ = ["Allocation", "Budget", "LadderSettings", "draw", "ladder", "ladder_budgets", "reference_random_ticket"]


def draw(
    scores: Scores,
    budget: Mapping[str, int],
    min_heads: int = 1,
    allocation: Allocation = "layer_normalised",
    within: Ticket | None = None,
) -> Ticket:
    """The ticket that drops the ``budget`` units of lowest score from each pool.

    The ``min_heads`` best heads of every layer are protected. Allocations:

    * ``layer_normalised``: pools are ranked after :meth:`Scores.normalised`, as published for Super Tickets;
    * ``global``: pools are ranked by the scores as they are;
    * ``per_matrix``: every layer (or matrix) loses the same fraction; what cannot be divided goes by Sainte-Laguë's
      rule, which never takes a unit back when the budget grows.

    ``within``: the base that the ticket must lie inside. What it drops counts towards the budget, protected are the
    best heads among those it keeps, fractions are of what it keeps, and scores of other units decide nothing.

    A budget that protection does not allow is capped, as published, and ``ticket.about.note`` says so. One that
    exceeds the pool, is less than what the base drops, or names a pool the space does not have, is a
    :class:`TicketError`.
    """
    if allocation not in typing.get_args(Allocation):
        known = list(typing.get_args(Allocation))
        raise TicketError(Problem("unknown allocation", found=allocation, hint=nearest(allocation, known)))
    space, budget = scores.space, Budget(budget)
    budget.check(space)
    if within is not None:
        scores = scores.inside(within)
        _check_inside(budget, within)
    ranked = (scores.normalised() if allocation == "layer_normalised" else scores).values
    kept: dict[str, np.ndarray] = {}
    notes = []
    for pool, parts in space.pools.items():
        base = None if within is None else [within.units[p] for p in parts]
        # a protected unit ranks above everything
        values = [
            np.where(best_heads(ranked[p], min_heads, within), np.inf, ranked[p]) if p == "heads" else ranked[p]
            for p in parts
        ]
        rows = [space.rows(p) for p in parts] if allocation == "per_matrix" else None
        groups, there = _grouped(values, rows), None if base is None else _grouped(base, rows)
        # what the base drops takes no part in the ranking
        ranks = groups if there is None else [g[inside] for g, inside in zip(groups, there, strict=True)]
        outside = sum(group.size for group in groups) - sum(group.size for group in ranks)
        asked = budget.get(pool, 0)
        count = min(asked, outside + sum(int(np.isfinite(group).sum()) for group in ranks))
        if count < asked:
            notes.append(f"asked to drop {asked} {pool}, dropped {count}: {min_heads} a layer protected")
        shares = _shares(ranks, count - outside)
        marked = [_lowest(group, share) for group, share in zip(ranks, shares, strict=True)]
        if there is not None:
            marked = [_with_outside(inside, lowest) for inside, lowest in zip(there, marked, strict=True)]
        dropped = np.concatenate(marked)
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


def ladder(scores: Scores, settings: LadderSettings, within: Ticket | None = None) -> list[Ticket]:
    """The draws of rungs 1, 2, ...: nested, each keeping a subset of what the rung before (and a base) keeps.

    The controls are ladders too: of ``Scores.random(space, seed)`` and of ``scores.reversed()``. They have the same
    protection and, rung by rung, exactly the same sizes.
    """
    budgets = ladder_budgets(scores.space, settings, within)
    return [draw(scores, budget, settings.min_heads, settings.allocation, within) for budget in budgets]


def best_heads(values: np.ndarray, count: int, within: Ticket | None = None) -> np.ndarray:
    """Marks the ``count`` highest values of each row of ``[L, H]``; of equal ones those a draw would drop last.

    ``within``: of the heads that this ticket keeps, all of them where they are fewer.
    """
    if within is not None:
        values = np.where(within.units["heads"], values, -np.inf)
    marked = np.zeros(values.shape, dtype=bool)
    order = np.argsort(values, axis=-1, kind="stable")
    np.put_along_axis(marked, order[:, max(0, values.shape[1] - count) :], True, axis=-1)
    return marked if within is None else marked & within.units["heads"]


def reference_random_ticket(
    space: UnitSpace, budget: Mapping[str, int], seed: int, within: Ticket | None = None
) -> Ticket:
    """The random control as published, defects included; for ``compat: reference`` only.

    Units are sampled WITH replacement, so that fewer are dropped than asked for; a head's layer is its number divided
    by the number of layers (not of heads), so that BERT-large never loses a head above layer 16 and numbers collide;
    no head is protected. A number that decodes to no layer at all (more heads than layers) drops nothing. Inside a
    base, ``within``, so many fewer are sampled as the base drops already; one that it drops is hit without effect.
    """
    if not isinstance(space, StructuredSpace):
        raise TicketError(Problem("the published control drops heads and blocks", found=space.describe()))
    budget = Budget(budget)
    budget.check(space)
    base = Ticket.dense(space) if within is None else within
    _check_inside(budget, base)
    generator = np.random.default_rng(seed)
    units = {part: kept.copy() for part, kept in base.units.items()}
    heads, ffn = units["heads"], units["ffn"]
    numbers = generator.integers(0, heads.size, budget.get("heads", 0) - base.dropped("heads"))
    numbers = numbers[numbers // space.layers < space.layers]
    heads[numbers // space.layers, numbers % space.heads] = False
    ffn[generator.integers(0, space.layers, budget.get("ffn", 0) - base.dropped("ffn"))] = False
    note = f"published control: {int((~heads).sum())} heads and {int((~ffn).sum())} blocks dropped"
    about = TicketOrigin(kind="random", score="random", seed=seed, budget=dict(budget), note=note)
    return Ticket(space, units, about)


def _check_inside(budget: Budget, base: Ticket) -> None:
    """Raises :class:`TicketError` for every pool of which ``budget`` drops less than ``base`` does."""
    too_little = [
        Problem(f"must be at least {gone}, which the base drops", place=f"budget.{pool}", found=budget.get(pool, 0))
        for pool, gone in Budget.of(base).items()
        if budget.get(pool, 0) < gone
    ]
    if too_little:
        raise TicketError(too_little)


def _grouped(arrays: Sequence[np.ndarray], rows: Sequence[int] | None) -> list[np.ndarray]:
    """The arrays of a pool's parts, flat: what is ranked together. ``rows``: of how many layers each part is; None: all
    parts are one group."""
    if rows is None:
        return [np.concatenate([array.ravel() for array in arrays])]
    return [row for array, count in zip(arrays, rows, strict=True) for row in array.reshape(count, -1)]


def _with_outside(inside: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Marks what is not ``inside`` and, of what is, the ``lowest``."""
    marked = ~inside
    marked[inside] = lowest
    return marked


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
