"""Linkage: how tasks grow, most alike first, into groups. The one agglomeration behind groups and dendrograms.

Not scipy's: there, what happens between equally similar groups depends on the order in which the tasks are given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from mtl_tickets.errors import Problem, TicketError


class Merge(TypedDict):
    """Two groups that become one."""

    groups: list[list[str]]
    """The two, each sorted, the one with the first name first."""
    similarity: float
    """The mean similarity of a task of the one to a task of the other."""
    height: float
    """1 - similarity: where a dendrogram joins the two."""


def agglomeration(alike: Mapping[str, Mapping[str, float]]) -> list[Merge]:
    """Every merge from single tasks to one group, in order, by average linkage: one fewer than there are tasks.

    ``alike`` is symmetric, task -> task -> similarity, 1 for equal. Names are sorted, and ties go to the first names,
    so that the order of ``alike`` does not matter.
    """
    groups = [[name] for name in sorted(alike)]
    merges: list[Merge] = []
    while len(groups) > 1:
        linkage = {
            (i, j): float(np.mean([alike[one][two] for one in groups[i] for two in groups[j]]))
            for i, j in itertools.combinations(range(len(groups)), 2)
        }
        (i, j), closest = max(linkage.items(), key=lambda item: (item[1], (-item[0][0], -item[0][1])))
        merges.append({"groups": [groups[i], groups[j]], "similarity": closest, "height": 1 - closest})
        groups[i] = sorted(groups[i] + groups.pop(j))
        groups.sort()
    return merges


def cut(
    tasks: Iterable[str], merges: Sequence[Merge], *, similarity: float | None = None, groups: int | None = None
) -> list[list[str]]:
    """The groups, sorted, after the merges of at least ``similarity``, or after as many as leave exactly ``groups``.

    Raises :class:`TicketError` unless one of the two is given, and where there are fewer tasks than ``groups``.
    """
    found = [[task] for task in sorted(tasks)]
    if groups is not None and similarity is None:
        if not 1 <= groups <= len(found):
            rule = f"there are {len(found)} tasks to form groups of"
            raise TicketError(
                Problem(rule, place="groups", found=groups, hint=f"1 to {len(found)} groups are possible")
            )
        done = merges[: len(found) - groups]
    elif similarity is not None and groups is None:
        least = similarity
        done = list(itertools.takewhile(lambda merge: merge["similarity"] >= least, merges))
    else:
        raise TicketError(Problem("give either similarity or groups", found=(similarity, groups)))
    for merge in done:
        one, two = merge["groups"]
        found = [group for group in found if group not in (one, two)] + [sorted(one + two)]
    return sorted(found)
