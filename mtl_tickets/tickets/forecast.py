"""Forecast: which pairs of tasks should not share, from their tickets, scores and gradients alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.affinity import conflict_units, rank_agreement_matrix
from mtl_tickets.tickets.chance import Within, chance_overlap
from mtl_tickets.tickets.gradients import GradientProducts, gradient_agreement, half_agreement, opposed
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import common_space, require_equal
from mtl_tickets.tickets.ticket import Ticket

Verdict = Literal["share", "no evidence", "do not share"]


def forecast(
    tickets: Mapping[str, Ticket],
    scores: Mapping[str, Scores],
    products: GradientProducts | None = None,
    *,
    level: float = 0.025,
    agreement: float = 0.0,
    cosine: float = 0.0,
    within: Within = "pool",
) -> list[dict[str, Any]]:
    """For every pair of tasks a verdict, the numbers it was made from and the reason in one sentence. The rule:

    * **do not share** where gradients oppose, or where tickets overlap no more than by chance (Jaccard up to the null's
      upper bound at ``level``) *and* rank agreement is at most ``agreement``;
    * **share** where tickets overlap more than by chance, rank agreement is above ``agreement`` and gradients, where
      given, do not oppose;
    * **no evidence** otherwise: tickets and ranks contradict each other.

    Gradients oppose where their cosine is below ``cosine``, that of each half of the one task's rows with each half of
    the other's is so too, and the two halves of each task agree (:func:`mtl_tickets.tickets.gradients.opposed`): one
    unlucky draw of rows must not decide. For gradients at the end of a training on all tasks, ``cosine`` should be
    :func:`mtl_tickets.tickets.gradients.balance`.

    A heuristic, made to be argued with. It is not from a paper, and its thresholds are not tuned. Tickets of one
    encoder overlap because some units matter to any task, so that "share" comes easily; scores and gradients are taken
    at one point of one training and carry its noise; pairs say nothing of groups. What would validate it are paired
    trainings: every pair of tasks trained together and apart, with equal budgets and several seeds, and the verdicts
    compared with the gains measured. Conflicting units are reported beside the verdict and do not enter it.

    Raises :class:`TicketError` where a task lacks scores or, where ``products`` are given, gradients.
    """
    space = common_space(tickets, "tickets")
    problems = [Problem("needs the scores of every task", place=task) for task in tickets if task not in scores]
    if problems:
        raise TicketError(problems)
    scores = {task: scores[task] for task in sorted(tickets)}
    for task in scores:
        require_equal(space, scores[task].space, f"the tickets and the scores of {task}")
    ranks = rank_agreement_matrix(scores)
    conflicts = {
        tuple(pair["tasks"]): pair for pair in conflict_units(scores, products=products, below=cosine, limit=0)
    }
    gradients = None if products is None else gradient_agreement(products)
    halves = None if products is None else half_agreement(products)
    found = []
    for one, two in itertools.combinations(scores, 2):
        chance = chance_overlap(tickets[one], tickets[two], within=within, level=level)
        numbers = {
            "jaccard": chance["jaccard"],
            "jaccard_high": chance["high"],
            "jaccard_p": chance["p_more"],
            "rank_agreement": ranks[one][two],
            "cosine": None if gradients is None else gradients[one][two]["cosine"],
            "halves": None if halves is None else {task: halves[task]["cosine"] for task in (one, two)},
            "oppose": None if products is None else opposed(products, one, two, cosine),
        }
        verdict, reason = _verdict(numbers, agreement, cosine)
        clashes = {name: conflicts[one, two][name] for name in ("conflicting", "expected", "opposed")}
        found.append({"tasks": [one, two], "verdict": verdict, "reason": reason, **numbers, **clashes})
    return found


def _verdict(numbers: Mapping[str, Any], agreement: float, cosine: float) -> tuple[Verdict, str]:
    overlapping = numbers["jaccard"] > numbers["jaccard_high"]
    agreeing = numbers["rank_agreement"] > agreement
    tickets = (
        f"tickets overlap {'more than' if overlapping else 'no more than'} by chance "
        f"(Jaccard {numbers['jaccard']:.2f}, chance up to {numbers['jaccard_high']:.2f})"
    )
    ranks = (
        f"rankings {'agree' if agreeing else 'do not agree'} "
        f"({numbers['rank_agreement']:.2f}, {'above' if agreeing else 'not above'} {agreement:g})"
    )
    if numbers["oppose"]:
        said = f"cosine {numbers['cosine']:.2f}, below {cosine:.2g} between all halves of their rows"
        return "do not share", f"Their gradients oppose ({said})."
    if not overlapping and not agreeing:
        return "do not share", f"Their {tickets}, and their {ranks}."
    if overlapping and agreeing:
        gradients = ""
        if numbers["cosine"] is not None:
            noise = " beyond what may be noise" if numbers["cosine"] < cosine else ""
            gradients = f", and their gradients (cosine {numbers['cosine']:.2f}) do not oppose{noise}"
        return "share", f"Their {tickets}, their {ranks}{gradients}."
    return "no evidence", f"Their {tickets}, but their {ranks}."
