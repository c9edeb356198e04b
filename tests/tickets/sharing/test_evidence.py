"""Rules that vote with what was found out for them: tall and learned."""

import numpy as np
import pytest

from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.sharing import parse_rule
from tests.tickets.worlds import BASE, SMALL, scores_of

BUDGET = {"heads": 3, "ffn": 1}
TASKS = ("a", "b", "c")


def world(space=SMALL):
    tickets = {task: draw(scores_of(space, i), BUDGET) for i, task in enumerate(TASKS)}
    given = {task: Scores.random(space, 10 + i) for i, task in enumerate(TASKS)}
    return tickets, given, dict.fromkeys(TASKS, 100)


@pytest.mark.parametrize("kind", ["tall", "learned"])
@pytest.mark.parametrize("space", [SMALL, BASE], ids=["small", "base"])
def test_the_highest_are_kept_at_the_task_s_own_budget(kind, space):
    tickets, given, rows = world(space)
    for task, ticket in parse_rule(kind)(tickets, given, rows).items():
        assert ticket == draw(given[task], BUDGET, 1, "global")
        assert ticket.dropped("heads") == 3 and ticket.dropped("ffn") == 1


def test_free_tall_tickets_keep_what_is_mostly_the_task_s():
    tickets, given, rows = world()
    shared = parse_rule({"kind": "tall", "budget": "free"})(tickets, given, rows)
    for task, ticket in shared.items():
        mostly = given[task].values["heads"] > 0.5
        # but for a head that a layer would lack
        assert np.array_equal(ticket.units["heads"][mostly.any(1)], mostly[mostly.any(1)])
        assert ticket.units["heads"].any(1).all()
        assert np.array_equal(ticket.units["ffn"], given[task].values["ffn"] > 0.5)


def test_they_say_which_scores_they_want():
    assert parse_rule("tall").scored_by == "tall"
    assert parse_rule("learned").scored_by == "learned"
    assert parse_rule("adaptive").scored_by == "importance"


def test_a_rule_s_name_fits_into_a_path_and_tells_variants_apart():
    variants = [
        "union",
        {"kind": "union", "budget": "own"},
        {"kind": "tall", "threshold": 0.25},
        {"kind": "majority", "k": 2},
    ]
    names = [parse_rule(rule).name for rule in variants]
    assert names == ["union", "union-budget-own", "tall-threshold-0.25", "majority-k-2"]
