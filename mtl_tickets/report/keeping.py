"""What the tickets of runs keep, and what tasks have in common, over seeds."""

from __future__ import annotations

import functools
import operator
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_tickets.report.data import Conflict, Join, Pair, RuleMask, SharedBy, TaskGradient, TaskTicket, Tickets
from mtl_tickets.report.runs import Run
from mtl_tickets.tickets.space import StructuredSpace

if TYPE_CHECKING:
    from mtl_tickets.tickets.gradients import GradientProducts
    from mtl_tickets.tickets.ticket import Ticket

OWN = "own"
SETS = 16

OfRuns = Sequence[Mapping[str, "Ticket"]]


def tickets_of(runs: Sequence[Run], rule: str = OWN) -> Tickets | None:
    """The tickets of ``rule`` and what they have in common; None where some run has not drawn them yet. In a finished
    run they must be there."""
    there = [set(run.ticket_rules) for run in runs]
    if not runs or any(rule not in rules and not run.finished for run, rules in zip(runs, there, strict=True)):
        return None
    found = [run.tickets(rule) for run in runs]
    space = next(iter(found[0].values())).space
    gradients = _all_gradients(runs)
    rules = [rule, *sorted(set.intersection(*there) - {rule, "dense"})]
    return Tickets(
        rule,
        space.describe(),
        tuple(run.seed for run in runs),
        tuple(_task_ticket(task, [tickets[task] for tickets in found]) for task in runs[0].learned),
        tuple(_mask(name, found if name == rule else [run.tickets(name) for run in runs]) for name in rules),
        tuple(_pairs(runs, found, gradients)),
        tuple(_joins(found)),
        tuple(_sets(found)),
        {pool: sum(space.sizes[part] for part in parts) for pool, parts in space.pools.items()},
        tuple(_gradients(runs[0].learned, gradients)),
    )


def _task_ticket(task: str, tickets: Sequence[Ticket]) -> TaskTicket:
    heads, ffn = _shares(tickets)
    counts = [ticket.counts() for ticket in tickets]
    structured = isinstance(tickets[0].space, StructuredSpace)
    parts = list(counts[0]) if structured else []  # a space of weights has hundreds of matrices
    notes = (ticket.about.note for ticket in tickets)
    return TaskTicket(
        task,
        tuple(ticket.remaining_percent() for ticket in tickets),
        {part: tuple(of_seed[part][0] for of_seed in counts) for part in parts},
        {part: counts[0][part][1] for part in parts},
        heads,
        ffn,
        tuple(dict.fromkeys(note for note in notes if note)),
    )


def _mask(rule: str, of_runs: OfRuns) -> RuleMask:
    heads, ffn = _shares([ticket for tickets in of_runs for ticket in tickets.values()])
    return RuleMask(rule, heads, ffn, tuple(map(needed_percent, of_runs)))


def needed_percent(tickets: Mapping[str, Ticket]) -> float:
    """The parameters, in %, that any of the tickets keeps."""
    return functools.reduce(operator.or_, tickets.values()).remaining_percent()


def _shares(tickets: Sequence[Ticket]) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """The share of tickets that keep each head and each block."""
    if not isinstance(tickets[0].space, StructuredSpace):
        return (), ()
    heads, ffn = (np.mean([ticket.units[part] for ticket in tickets], axis=0) for part in ("heads", "ffn"))
    return tuple(tuple(map(float, layer)) for layer in heads), tuple(map(float, ffn))


def _all_gradients(runs: Sequence[Run]) -> list[GradientProducts]:
    """Of every run, or none at all: means must be over the same seeds."""
    found = [products for run in runs if (products := run.gradients()) is not None]
    return found if len(found) == len(runs) else []


def _gradients(tasks: Sequence[str], gradients: Sequence[GradientProducts]) -> list[TaskGradient]:
    from mtl_tickets.tickets.gradients import half_agreement

    if not gradients:
        return []
    halves = [half_agreement(products) for products in gradients]
    rows = [products.about.rows or {} for products in gradients]
    return [
        TaskGradient(
            task, tuple(of_run.get(task, 0) for of_run in rows), tuple(of_run[task]["cosine"] for of_run in halves)
        )
        for task in tasks
    ]


def _pairs(runs: Sequence[Run], of_runs: OfRuns, gradients: Sequence[GradientProducts]) -> list[Pair]:
    from mtl_tickets.tickets.affinity import conflict_units
    from mtl_tickets.tickets.chance import chance_overlap
    from mtl_tickets.tickets.forecast import forecast
    from mtl_tickets.tickets.gradients import balance

    found = []
    below = balance(len(runs[0].learned))  # the gradients are taken where all tasks were trained together
    known: Sequence[GradientProducts | None] = gradients or [None] * len(runs)
    of_seeds, conflicts = [], []
    for run, tickets, products in zip(runs, of_runs, known, strict=True):
        scores = run.scores()
        of_seeds.append(forecast(tickets, scores, products, cosine=below))
        conflicts.append(conflict_units(scores, products=products, below=below, limit=1))
    for same, clashes in zip(zip(*of_seeds, strict=True), zip(*conflicts, strict=True), strict=True):
        one, two = same[0]["tasks"]
        chances = [chance_overlap(tickets[one], tickets[two]) for tickets in of_runs]
        found.append(
            Pair(
                (one, two),
                tuple(chance["jaccard"] for chance in chances),
                tuple(chance["expected"] for chance in chances),
                tuple(chance["low"] for chance in chances),
                tuple(chance["high"] for chance in chances),
                tuple(pair["rank_agreement"] for pair in same),
                tuple(pair["verdict"] for pair in same),
                tuple(pair["reason"] for pair in same),
                _conflict(clashes),
                tuple(pair["cosine"] for pair in same) if gradients else (),
            )
        )
    return found


def _conflict(of_seeds: Sequence[Mapping[str, Any]]) -> Conflict:
    known = [pair["opposed"] for pair in of_seeds if pair["opposed"] is not None]
    return Conflict(
        tuple(sum(pair["conflicting"].values()) for pair in of_seeds),
        tuple(sum(pair["expected"].values()) for pair in of_seeds),
        tuple(sum(opposed.values()) for opposed in known),
        tuple(_unit(**pair["units"][0]) if pair["units"] else None for pair in of_seeds),
    )


def _unit(part: str, index: Sequence[int], **_: Any) -> str:
    """A unit's name for people, who count from 1."""
    names = {"heads": "head", "ffn": "block", "neurons": "neuron"}
    if part not in names:
        return f"{part}{list(index)}"
    number = f" {index[1] + 1}" if len(index) > 1 else ""
    return f"{names[part]}{number} of layer {index[0] + 1}"


def _joins(of_runs: OfRuns) -> list[Join]:
    """How tasks grow into groups, by the mean overlap over seeds."""
    from mtl_tickets.tickets.linkage import agglomeration
    from mtl_tickets.tickets.overlap import jaccard_matrix

    matrices = [jaccard_matrix(tickets) for tickets in of_runs]
    alike = {
        one: {two: statistics.fmean(matrix[one][two] for matrix in matrices) for two in matrices[0]}
        for one in matrices[0]
    }
    return [
        Join((tuple(merge["groups"][0]), tuple(merge["groups"][1])), merge["similarity"])
        for merge in agglomeration(alike)
    ]


def _sets(of_runs: OfRuns) -> list[SharedBy]:
    """The sets of tasks that keep most units between them, the empty set among them."""
    from mtl_tickets.tickets.overlap import kept_by_set

    units: dict[tuple[str, ...], dict[str, float]] = {}
    for tickets in of_runs:
        for pool, sets in kept_by_set(tickets).items():
            for entry in sets:
                of_set = units.setdefault(tuple(entry["tasks"]), {})
                of_set[pool] = of_set.get(pool, 0.0) + entry["units"] / len(of_runs)
    ordered = sorted(units.items(), key=lambda item: (-sum(item[1].values()), len(item[0]), item[0]))
    return [SharedBy(tasks, of_set) for tasks, of_set in ordered[:SETS]]
