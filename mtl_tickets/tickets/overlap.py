"""Overlap: how alike the tickets of several tasks are. Plain lists and dicts, ready for JSON, tables and plots."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_tickets.tickets.linkage import agglomeration, cut
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, common_space
from mtl_tickets.tickets.ticket import Ticket


def jaccard_matrix(tickets: Mapping[str, Ticket], part: str | None = None) -> dict[str, dict[str, float]]:
    """task -> task -> units both keep / units either keeps, over ``part`` or over all units."""
    common_space(tickets, "tickets")
    pairs = itertools.combinations_with_replacement(tickets, 2)
    alike = {frozenset(pair): tickets[pair[0]].jaccard(tickets[pair[1]], part) for pair in pairs}
    return {one: {two: alike[frozenset((one, two))] for two in tickets} for one in tickets}


def agreement_by_layer(tickets: Mapping[str, Ticket]) -> dict[str, list[dict[str, float]]]:
    """part -> for each of its layers the fraction of units that are ``equal`` (all tasks keep the unit, or none
    does), kept by ``all`` and kept by ``none``. A part that has no layers of its own (a matrix) counts as one.

    Feed-forward blocks are one unit a layer, so that their fractions are 0 or 1.
    """
    space = common_space(tickets, "tickets")
    result = {}
    for part, votes in _votes(tickets).items():
        result[part] = [
            {
                "equal": float(np.mean((row == 0) | (row == len(tickets)))),
                "all": float(np.mean(row == len(tickets))),
                "none": float(np.mean(row == 0)),
            }
            for row in by_layer(space, votes)
        ]
    return result


def kept_by_count(tickets: Mapping[str, Ticket]) -> dict[str, list[int]]:
    """part -> how many units are kept by 0, 1, ..., all tasks."""
    common_space(tickets, "tickets")
    return {
        part: np.bincount(votes.ravel(), minlength=len(tickets) + 1).tolist() for part, votes in _votes(tickets).items()
    }


def kept_by_set(tickets: Mapping[str, Ticket], top: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """pool -> the sets of tasks that share units, ``{"tasks": [...], "units": how many exactly these tasks keep}``.

    The largest counts come first, of equals the smaller sets; only the first ``top`` sets are given. The empty set,
    units that no task keeps, is one of them, and sets without units are none: without ``top`` the counts add up to the
    units of the pool.
    """
    space = common_space(tickets, "tickets")
    result = {}
    for pool, parts in space.pools.items():
        counts: Counter[tuple[str, ...]] = Counter()
        for part in parts:
            counts.update(_units_by_set(tickets, part))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
        result[pool] = [{"tasks": list(tasks), "units": units} for tasks, units in ordered[:top]]
    return result


def clusters(
    tickets: Mapping[str, Ticket], similarity: float | None = None, groups: int | None = None
) -> list[list[str]]:
    """Groups of tasks with similar tickets, by average linkage on the Jaccard similarity.

    The two most similar groups are joined for as long as the mean similarity of their members is at least
    ``similarity``, or until there are ``groups`` groups. The order of ``tickets`` does not matter.
    Raises :class:`TicketError` unless one of the two is given, and where there are fewer tasks than ``groups``.
    """
    return cut(tickets, agglomeration(jaccard_matrix(tickets)), similarity=similarity, groups=groups)


def overlap(tickets: Mapping[str, Ticket], similarity: float = 0.8) -> dict[str, Any]:
    """All of this file in one JSON-able value; of the sets of tasks the 20 with the most units of each pool."""
    alike = jaccard_matrix(tickets)
    merges = agglomeration(alike)
    return {
        "tasks": list(tickets),
        "remaining_percent": {task: ticket.remaining_percent() for task, ticket in tickets.items()},
        "jaccard": alike,
        "layers": agreement_by_layer(tickets),
        "kept_by_count": kept_by_count(tickets),
        "kept_by_set": kept_by_set(tickets, top=20),
        "merges": merges,
        "clusters": cut(tickets, merges, similarity=similarity),
    }


def by_layer(space: UnitSpace, values: np.ndarray) -> np.ndarray:
    """The values of a part's units as ``[layers, units]``; one layer where the space has none."""
    return values.reshape(space.layers if isinstance(space, StructuredSpace) else 1, -1)


def _units_by_set(tickets: Mapping[str, Ticket], part: str) -> dict[tuple[str, ...], int]:
    """The set of tasks, sorted -> how many units of ``part`` exactly they keep."""
    found: list[tuple[str, ...]] = [()]
    number = np.zeros(next(iter(tickets.values())).units[part].size, dtype=np.int64)  # of each unit's set in `found`
    for task in sorted(tickets):
        number = 2 * number + tickets[task].units[part].ravel()
        there = np.flatnonzero(np.bincount(number, minlength=1))
        found = [found[code // 2] + ((task,) if code % 2 else ()) for code in there.tolist()]
        number = np.searchsorted(there, number)
    return dict(zip(found, np.bincount(number).tolist(), strict=True))


def _votes(tickets: Mapping[str, Ticket]) -> dict[str, np.ndarray]:
    """part -> int array of its shape: how many tickets keep each unit."""
    space = common_space(tickets, "tickets")
    votes = {part: np.zeros(shape, dtype=np.int64) for part, shape in space.parts.items()}
    for ticket in tickets.values():
        for part in votes:
            votes[part] += ticket.units[part]
    return votes
