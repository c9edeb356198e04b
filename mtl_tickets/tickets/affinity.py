"""Affinity: how far tasks agree on what matters, by the ranks of their scores, unit by unit where they do not.

Plain lists and dicts, ready for JSON, tables and plots. How far their gradients agree is in
:mod:`mtl_tickets.tickets.gradients`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.gradients import GradientProducts, opposed_units, unit_cosines
from mtl_tickets.tickets.scores import Scores, centred_ranks
from mtl_tickets.tickets.space import UnitSpace, common_space
from mtl_tickets.tickets.ticket import Ticket


def rank_agreement_matrix(scores: Mapping[str, Scores], within: Ticket | None = None) -> dict[str, dict[str, float]]:
    """task -> task -> rank agreement (:meth:`Scores.rank_agreement`) of the normalised scores, -1 to 1.

    Normalised, because so are the rankings that tickets are drawn from; the order of ``scores`` does not matter. A task
    agrees with itself. ``within``: over the units that this ticket keeps.
    """
    common_space(scores, "scores")
    ranked = {task: value.normalised() for task, value in scores.items()}
    matrix: dict[str, dict[str, float]] = {task: {task: 1.0} for task in scores}
    for one, two in itertools.combinations(sorted(scores), 2):
        matrix[one][two] = matrix[two][one] = ranked[one].rank_agreement(ranked[two], within)
    return {one: {two: matrix[one][two] for two in scores} for one in scores}


def conflict_units(
    scores: Mapping[str, Scores],
    top: float = 0.25,
    bottom: float = 0.25,
    products: GradientProducts | None = None,
    limit: int = 20,
    below: float = 0.0,
) -> list[dict[str, Any]]:
    """For every pair of tasks the units that one ranks in its ``top`` share and the other in its ``bottom`` share::

        {"tasks": [a, b], "conflicting": {pool: how many}, "expected": {pool: how many by chance},
         "opposed": {pool: how many of them have gradients that oppose} or None without ``products``,
         "units": [{"part": p, "index": [..], "top": task, "bottom": task, "ranks": {task: 0..1},
                    "cosine": of the gradients, or None}]}

    Ranks are those of the normalised scores within the pool, 0 lowest and 1 highest; equal scores share their mean
    rank. ``units`` are the ``limit`` of them that are ranked farthest apart. Pairs and pools come in a fixed order, so
    that the order of ``scores`` does not matter. ``expected`` is for independent rankings. When the gradients of a unit
    oppose, :func:`mtl_tickets.tickets.gradients.opposed` says; a cosine that is less than ``below`` is not enough.
    """
    space = common_space(scores, "scores")
    shares = {"top": top, "bottom": bottom}
    wrong = [
        Problem("must be a share between 0 and 0.5", place=name, found=share)
        for name, share in shares.items()
        if not 0 < share <= 0.5
    ]
    if wrong:
        raise TicketError(wrong)
    if products is not None:
        products.require(scores, space)
    ranks = {task: _pool_ranks(values.normalised()) for task, values in scores.items()}
    result = []
    for one, two in itertools.combinations(sorted(scores), 2):
        gradients = None
        if products is not None:
            gradients = unit_cosines(products, one, two), opposed_units(products, one, two, below)
        result.append(_conflicts({one: ranks[one], two: ranks[two]}, space, top, bottom, gradients, limit))
    return result


def _pool_ranks(scores: Scores) -> dict[str, np.ndarray]:
    """pool -> (rank - 1/2) / units for every unit of the pool, flat in the order of its parts."""
    ranks = {}
    for pool, parts in scores.space.pools.items():
        centred = centred_ranks(np.concatenate([scores.values[part].ravel() for part in parts]))
        ranks[pool] = 0.5 + centred / len(centred)
    return ranks


def _conflicts(
    ranks: Mapping[str, Mapping[str, np.ndarray]],
    space: UnitSpace,
    top: float,
    bottom: float,
    gradients: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] | None,
    limit: int,
) -> dict[str, Any]:
    one, two = ranks
    conflicting, expected, opposed = {}, {}, {}
    listed: list[tuple[float, dict[str, Any]]] = []
    for pool, parts in space.pools.items():
        high = {task: ranks[task][pool] >= 1 - top for task in ranks}
        low = {task: ranks[task][pool] <= bottom for task in ranks}
        clash = (high[one] & low[two]) | (low[one] & high[two])
        conflicting[pool] = int(clash.sum())
        chance = int(high[one].sum()) * int(low[two].sum()) + int(low[one].sum()) * int(high[two].sum())
        expected[pool] = chance / clash.size
        if gradients is not None:
            cosine, against = (np.concatenate([values[part].ravel() for part in parts]) for values in gradients)
            opposed[pool] = int((clash & against).sum())
        apart = np.abs(ranks[one][pool] - ranks[two][pool])
        found = np.flatnonzero(clash)
        for unit in found[np.argsort(-apart[found], kind="stable")][:limit].tolist():
            upper, lower = (one, two) if high[one][unit] else (two, one)
            part, index = _place(unit, parts, space)
            entry = {
                "part": part,
                "index": index,
                "top": upper,
                "bottom": lower,
                "ranks": {task: float(ranks[task][pool][unit]) for task in (one, two)},
                "cosine": None if gradients is None else float(cosine[unit]),
            }
            listed.append((float(apart[unit]), entry))
    listed.sort(key=lambda item: -item[0])  # stable: of equals the pools' and units' order
    return {
        "tasks": [one, two],
        "conflicting": conflicting,
        "expected": expected,
        "opposed": None if gradients is None else opposed,
        "units": [unit for _, unit in listed[:limit]],
    }


def _place(unit: int, parts: tuple[str, ...], space: UnitSpace) -> tuple[str, list[int]]:
    """The part and the index in it of a unit that is numbered through its pool."""
    for part in parts:
        if unit < space.sizes[part]:
            return part, [int(i) for i in np.unravel_index(unit, space.parts[part])]
        unit -= space.sizes[part]
    raise IndexError(unit)
