import dataclasses

import numpy as np
import pytest

from mtl_tickets.tickets.draw import Budget, draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.sharing import parse_rule
from mtl_tickets.tickets.sharing.operator import Poll
from tests.tickets.sharing.test_operator import world
from tests.tickets.worlds import BASE, LARGE, NEURONS, SMALL, WEIGHTS, scores_of


def adaptive(kappa, *given):
    return parse_rule({"kind": "adaptive", "kappa": kappa})(*given)


@pytest.mark.parametrize("kappa", [0, 1e-12])
@pytest.mark.parametrize("allocation", ["layer_normalised", "global", "per_matrix"])
@pytest.mark.parametrize("space", [SMALL, BASE, LARGE, NEURONS, WEIGHTS])
def test_without_borrowing_every_task_keeps_its_own(space, allocation, kappa):
    tickets, scores, rows = world(space)
    tickets = {task: draw(scores[task], Budget.of(tickets[task]), 2, allocation) for task in tickets}
    assert adaptive(kappa, tickets, scores, rows) == tickets


@pytest.mark.parametrize("kappa", [0, 1, 1e3, 1e9])
@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS, WEIGHTS])
def test_budgets_never_change(space, kappa):
    tickets, scores, rows = world(space)
    shared = adaptive(kappa, tickets, scores, rows)
    assert {task: Budget.of(ticket) for task, ticket in shared.items()} == {
        task: Budget.of(ticket) for task, ticket in tickets.items()
    }


def test_the_formula_by_hand():
    tickets, scores, rows = world(BASE)
    kappa, task = 500.0, "cola"
    s = {name: value.normalised() for name, value in scores.items()}
    a = {name: max(0.0, s[task].rank_agreement(s[name])) for name in s if name != task}
    rule = parse_rule({"kind": "adaptive", "kappa": kappa})
    poll = Poll(tickets, scores, rows)
    tally = poll.add({u: (w, rule.ballot(task, u, poll)) for u, w in rule.weights(task, poll).items()})
    for part in BASE.parts:
        numerator = rows[task] * s[task].values[part] + kappa * sum(a[u] * s[u].values[part] for u in a)
        np.testing.assert_allclose(tally[part], numerator / (rows[task] + kappa * sum(a.values())), rtol=1e-12)


def test_small_tasks_borrow_from_friends_and_large_tasks_do_not():
    truth, noise = scores_of(BASE, 1), [scores_of(BASE, seed) for seed in (2, 3)]
    noisy = [
        Scores(BASE, {part: truth.values[part] + 0.5 * other.values[part] for part in truth.values}) for other in noise
    ]
    scores = {"small": noisy[0], "large": noisy[1], "foe": truth.reversed()}
    tickets = {task: draw(values, {"heads": 60, "ffn": 4}) for task, values in scores.items()}
    shared = adaptive(1000, tickets, scores, {"small": 100, "large": 10**7, "foe": 10})
    assert shared["large"] == tickets["large"]
    assert shared["foe"] == tickets["foe"]  # agrees with nobody
    assert shared["small"] != tickets["small"]
    assert shared["small"].jaccard(tickets["large"]) > tickets["small"].jaccard(tickets["large"])


def test_a_task_without_rows_or_friends_keeps_its_own():
    one = scores_of(SMALL, 1)
    scores = {"a": one, "b": one.reversed()}
    tickets = {task: draw(values, {"heads": 4, "ffn": 1}) for task, values in scores.items()}
    assert adaptive(1000, tickets, scores, {"a": 0, "b": 0}) == tickets


def test_protection_and_budget_of_the_own_draw_are_kept():
    tickets, scores, rows = world(BASE)
    tickets = {task: draw(scores[task], {"heads": 84}, min_heads=4) for task in tickets}
    for ticket in adaptive(1e6, tickets, scores, rows).values():
        assert ticket.units["heads"].sum(axis=1).min() >= 4
        assert ticket.dropped("heads") == 84


def test_a_ticket_of_unknown_origin_is_redrawn_layer_normalised():
    tickets, scores, rows = world(BASE)
    bare = {task: dataclasses.replace(ticket, about=type(ticket.about)()) for task, ticket in tickets.items()}
    assert adaptive(100, bare, scores, rows) == adaptive(100, tickets, scores, rows)
