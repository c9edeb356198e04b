"""Affinity: how far tasks agree on what matters, by the ranks of their scores and by the signs of their gradients.

Plain lists and dicts, ready for JSON, tables and plots. *Signed evidence* of a task is a mapping part -> array of the
part's shape, or of that shape with further axes (several numbers a unit): gradients with respect to gates or weights,
say, averaged over the task's rows at one and the same encoder. What matters to a unit is only its direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.overlap import by_layer
from mtl_tickets.tickets.scores import Scores, _centred_ranks
from mtl_tickets.tickets.space import UnitSpace, require_equal

Evidence = Mapping[str, np.ndarray]
"""Part name -> signed real numbers, one or several for each unit of the part. Parts may be left out."""


def rank_agreement_matrix(scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """task -> task -> rank agreement (:meth:`Scores.rank_agreement`) of the normalised scores, -1 to 1.

    Normalised, because so are the rankings that tickets are drawn from; the order of ``scores`` does not matter. A task
    agrees with itself.
    """
    checked_scores(scores)
    ranked = {task: value.normalised() for task, value in scores.items()}
    matrix: dict[str, dict[str, float]] = {task: {task: 1.0} for task in scores}
    for one, two in itertools.combinations(sorted(scores), 2):
        matrix[one][two] = matrix[two][one] = ranked[one].rank_agreement(ranked[two])
    return {one: {two: matrix[one][two] for two in scores} for one in scores}


def gradient_agreement(evidence: Mapping[str, Evidence], space: UnitSpace) -> dict[str, dict[str, dict[str, Any]]]:
    """task -> task -> how far their signed evidence points the same way::

        {"cosine": c, "sign_agreement": s, "parts": {part: {"cosine": c, "sign_agreement": s, "layers": [{...}]}}}

    ``cosine`` is taken over all numbers at once, so that large parts and large numbers decide; ``sign_agreement`` is
    the fraction of numbers with equal signs minus the fraction with opposite signs, to which every number counts
    alike. Both are -1 to 1, and 0 where one of the two is all zeros. Raises :class:`TicketError` with all problems
    where parts, shapes or numbers do not fit ``space`` or each other.
    """
    arrays = checked_evidence(evidence, space)
    matrix: dict[str, dict[str, dict[str, Any]]] = {task: {} for task in arrays}
    for one, two in itertools.combinations_with_replacement(arrays, 2):
        matrix[one][two] = matrix[two][one] = _agreement(arrays[one], arrays[two], space)
    return {one: {two: matrix[one][two] for two in arrays} for one in arrays}


def unit_cosines(one: Evidence, two: Evidence, space: UnitSpace) -> dict[str, Any]:
    """part -> nested lists of the part's shape: the cosine of the two tasks' evidence about each unit, -1 to 1.

    For evidence of one number a unit that is the product of the signs: 1, 0 or -1.
    """
    arrays = checked_evidence({"one": one, "two": two}, space)
    return {part: values.tolist() for part, values in _unit_cosines(arrays["one"], arrays["two"], space).items()}


def conflict_units(
    scores: Mapping[str, Scores],
    top: float = 0.25,
    bottom: float = 0.25,
    evidence: Mapping[str, Evidence] | None = None,
    limit: int = 20,
) -> list[dict[str, Any]]:
    """For every pair of tasks the units that one ranks in its ``top`` share and the other in its ``bottom`` share::

        {"tasks": [a, b], "conflicting": {pool: how many}, "expected": {pool: how many by chance},
         "opposed": {pool: how many of them have evidence that points apart} or None without ``evidence``,
         "units": [{"part": p, "index": [..], "top": task, "bottom": task, "ranks": {task: 0..1}, "cosine": c or None}]}

    Ranks are those of the normalised scores within the pool, 0 lowest and 1 highest; equal scores share their mean
    rank. ``units`` are the ``limit`` of them that are ranked farthest apart. Pairs and pools come in a fixed order, so
    that the order of ``scores`` does not matter. ``expected`` is for independent rankings.
    """
    space = checked_scores(scores)
    shares = {"top": top, "bottom": bottom}
    wrong = [
        Problem("must be a share between 0 and 0.5", place=name, found=share)
        for name, share in shares.items()
        if not 0 < share <= 0.5
    ]
    if wrong:
        raise TicketError(wrong)
    arrays = None if evidence is None else checked_evidence(evidence, space, needed=scores)
    ranks = {task: _pool_ranks(values.normalised()) for task, values in scores.items()}
    result = []
    for one, two in itertools.combinations(sorted(scores), 2):
        cosines = None if arrays is None else _unit_cosines(arrays[one], arrays[two], space)
        result.append(_conflicts({one: ranks[one], two: ranks[two]}, space, top, bottom, cosines, limit))
    return result


def checked_scores(scores: Mapping[str, Scores]) -> UnitSpace:
    """The one unit space of the scores; :class:`TicketError` where there are none, or several spaces."""
    if not scores:
        raise TicketError(Problem("needs the scores of at least one task"))
    first, *others = scores
    for other in others:
        require_equal(scores[first].space, scores[other].space, f"the scores of {first} and {other}")
    return scores[first].space


def checked_evidence(
    evidence: Mapping[str, Evidence], space: UnitSpace, needed: Mapping[str, object] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """task -> part, in the order of ``space`` -> float64 ``[units, numbers]``; :class:`TicketError` with all problems.

    Every task of ``needed`` must be there, and all tasks must have the same parts with the same numbers a unit.
    """
    problems = [
        Problem("needs signed evidence of every task", place=task) for task in needed or () if task not in evidence
    ]
    if not evidence:
        problems.append(Problem("needs the signed evidence of at least one task"))
    arrays: dict[str, dict[str, np.ndarray]] = {}
    form: dict[str, tuple[int, ...]] | None = None
    for task, of_task in evidence.items():
        given = {part: np.asarray(array) for part, array in of_task.items()}
        for part, array in given.items():
            place, shape = f"{task}.{part}", space.parts.get(part)
            if shape is None:
                problems.append(Problem(f"the unit space has no such part; it has {list(space.parts)}", place=place))
            elif array.shape[: len(shape)] != shape or array.size == 0:
                rule = f"must have the shape {list(shape)}, or more axes behind it"
                problems.append(Problem(rule, place=place, found=list(array.shape)))
            elif array.dtype.kind not in "iuf" or not np.isfinite(array).all():
                problems.append(Problem("must be finite real numbers", place=place, found=str(array.dtype)))
        shapes = {part: array.shape for part, array in given.items()}
        form = shapes if form is None else form
        if not given or shapes != form:
            rule = "must have at least one part, and the same parts and shapes as every other task"
            problems.append(Problem(rule, place=task, found={part: list(shape) for part, shape in shapes.items()}))
        if not problems:
            sizes = space.sizes
            arrays[task] = {p: given[p].astype(np.float64).reshape(sizes[p], -1) for p in space.parts if p in given}
    if problems:
        raise TicketError(problems)
    return arrays


def _agreement(one: Evidence, two: Evidence, space: UnitSpace) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for part in one:
        mine, theirs = by_layer(space, one[part]), by_layer(space, two[part])
        layers = [_direction([pair]) for pair in zip(mine, theirs, strict=True)]
        parts[part] = {**_direction([(mine, theirs)]), "layers": layers}
    return {**_direction([(one[part], two[part]) for part in one]), "parts": parts}


def _direction(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    product, mine, theirs = (sum(float(np.sum(p[i] * p[j])) for p in pairs) for i, j in ((0, 1), (0, 0), (1, 1)))
    length = float(np.sqrt(mine) * np.sqrt(theirs))
    signs = sum(float(np.sum(np.sign(x) * np.sign(y))) for x, y in pairs)
    return {
        "cosine": float(np.clip(product / length, -1, 1)) if length else 0.0,
        "sign_agreement": signs / sum(x.size for x, _ in pairs),
    }


def _unit_cosines(one: Evidence, two: Evidence, space: UnitSpace) -> dict[str, np.ndarray]:
    """part -> array of its shape, from the arrays of :func:`checked_evidence`."""
    cosines = {}
    for part, mine in one.items():
        x, y = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (mine, two[part]))
        cosines[part] = np.clip(np.sum(x * y, axis=1), -1, 1).reshape(space.parts[part])
    return cosines


def _pool_ranks(scores: Scores) -> dict[str, np.ndarray]:
    """pool -> (rank - 1/2) / units for every unit of the pool, flat in the order of its parts."""
    ranks = {}
    for pool, parts in scores.space.pools.items():
        centred = _centred_ranks(np.concatenate([scores.values[part].ravel() for part in parts]))
        ranks[pool] = 0.5 + centred / len(centred)
    return ranks


def _conflicts(
    ranks: Mapping[str, Mapping[str, np.ndarray]],
    space: UnitSpace,
    top: float,
    bottom: float,
    cosines: Mapping[str, np.ndarray] | None,
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
        unknown = {part: np.full(space.parts[part], np.nan) for part in parts}
        cosine = np.concatenate([{**unknown, **(cosines or {})}[part].ravel() for part in parts])
        opposed[pool] = int((clash & (cosine < 0)).sum())
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
                "cosine": None if np.isnan(cosine[unit]) else float(cosine[unit]),
            }
            listed.append((float(apart[unit]), entry))
    listed.sort(key=lambda item: -item[0])  # stable: of equals the pools' and units' order
    return {
        "tasks": [one, two],
        "conflicting": conflicting,
        "expected": expected,
        "opposed": None if cosines is None else opposed,
        "units": [unit for _, unit in listed[:limit]],
    }


def _place(unit: int, parts: tuple[str, ...], space: UnitSpace) -> tuple[str, list[int]]:
    """The part and the index in it of a unit that is numbered through its pool."""
    for part in parts:
        if unit < space.sizes[part]:
            return part, [int(i) for i in np.unravel_index(unit, space.parts[part])]
        unit -= space.sizes[part]
    raise IndexError(unit)
