import itertools

import pytest

from mtl_tickets.tickets.draw import Budget
from mtl_tickets.tickets.sharing import parse_rule
from tests.tickets.sharing.test_operator import world
from tests.tickets.worlds import BASE, WEIGHTS


@pytest.mark.parametrize("space", [BASE, WEIGHTS])
@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_one_ranking_and_own_budgets(space, power):
    tickets, scores, rows = world(space)
    shared = parse_rule({"kind": "weighted", "power": power})(tickets, scores, rows)
    assert {task: Budget.of(t) for task, t in shared.items()} == {task: Budget.of(t) for task, t in tickets.items()}
    by_size = sorted(shared.values(), key=lambda t: t.density())
    assert all(small <= large for small, large in itertools.pairwise(by_size))


def test_a_task_with_all_the_rows_decides_alone():
    tickets, scores, rows = world(BASE)
    shared = parse_rule("weighted")(tickets, scores, {**dict.fromkeys(rows, 0), "cola": 10})
    assert shared["cola"] == tickets["cola"]
    assert parse_rule("weighted")(tickets, scores, dict.fromkeys(rows, 0)) == parse_rule(
        {"kind": "weighted", "power": 0}
    )(tickets, scores, rows)
