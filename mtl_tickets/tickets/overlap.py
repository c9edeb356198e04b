"""Overlap: how alike the tickets of several tasks are. Plain lists and dicts, ready for JSON, tables and plots."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.space import UnitSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket


def jaccard_matrix(tickets: Mapping[str, Ticket], part: str | None = None) -> dict[str, dict[str, float]]:
    """task -> task -> units both keep / units either keeps, over ``part`` or over all units."""
    _checked(tickets)
    return {one: {two: tickets[one].jaccard(tickets[two], part) for two in tickets} for one in tickets}


def agreement_by_layer(tickets: Mapping[str, Ticket]) -> dict[str, list[dict[str, float]]]:
    """part -> for each of its layers the fraction of units that are ``equal`` (all tasks keep the unit, or none
    does), kept by ``all`` and kept by ``none``. A part that has no layers of its own (a matrix) counts as one.

    Feed-forward blocks are one unit a layer, so that their fractions are 0 or 1.
    """
    space = _checked(tickets)
    result = {}
    for part, votes in _votes(tickets).items():
        rows = len(votes) if part == "ffn" else space.rows(part)
        result[part] = [
            {
                "equal": float(np.mean((row == 0) | (row == len(tickets)))),
                "all": float(np.mean(row == len(tickets))),
                "none": float(np.mean(row == 0)),
            }
            for row in votes.reshape(rows, -1)
        ]
    return result


def kept_by_count(tickets: Mapping[str, Ticket]) -> dict[str, list[int]]:
    """part -> how many units are kept by 0, 1, ..., all tasks."""
    _checked(tickets)
    return {
        part: np.bincount(votes.ravel(), minlength=len(tickets) + 1).tolist() for part, votes in _votes(tickets).items()
    }


def clusters(tickets: Mapping[str, Ticket], similarity: float) -> list[list[str]]:
    """Groups of tasks with similar tickets, by average linkage on the Jaccard similarity.

    The two most similar groups are joined for as long as the mean similarity of their members is at least
    ``similarity``. Names are sorted, and ties go to the first names, so the order of ``tickets`` does not matter.
    """
    _checked(tickets)
    names = sorted(tickets)
    alike = {frozenset((one, two)): tickets[one].jaccard(tickets[two]) for one, two in itertools.combinations(names, 2)}
    groups = [[name] for name in names]
    while len(groups) > 1:
        linkage = {
            (i, j): float(np.mean([alike[frozenset((one, two))] for one in groups[i] for two in groups[j]]))
            for i, j in itertools.combinations(range(len(groups)), 2)
        }
        (i, j), closest = max(linkage.items(), key=lambda item: (item[1], (-item[0][0], -item[0][1])))
        if closest < similarity:
            break
        groups[i] = sorted(groups[i] + groups.pop(j))
        groups.sort()
    return groups


def overlap(tickets: Mapping[str, Ticket], similarity: float = 0.8) -> dict[str, Any]:
    """All of this file in one JSON-able value."""
    _checked(tickets)
    return {
        "tasks": list(tickets),
        "remaining_percent": {task: ticket.remaining_percent() for task, ticket in tickets.items()},
        "jaccard": jaccard_matrix(tickets),
        "layers": agreement_by_layer(tickets),
        "kept_by_count": kept_by_count(tickets),
        "clusters": clusters(tickets, similarity),
    }


def _votes(tickets: Mapping[str, Ticket]) -> dict[str, np.ndarray]:
    """part -> int array of its shape: how many tickets keep each unit."""
    space = _checked(tickets)
    votes = {part: np.zeros(shape, dtype=np.int64) for part, shape in space.parts.items()}
    for ticket in tickets.values():
        for part in votes:
            votes[part] += ticket.units[part]
    return votes


def _checked(tickets: Mapping[str, Ticket]) -> UnitSpace:
    if not tickets:
        raise TicketError(Problem("needs at least one ticket"))
    first, *others = tickets
    for other in others:
        require_equal(tickets[first].space, tickets[other].space, f"the tickets of {first} and {other}")
    return tickets[first].space
