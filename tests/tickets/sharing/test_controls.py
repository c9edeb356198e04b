import pytest

from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.sharing import parse_rule
from tests.tickets.sharing.test_operator import reordered, world
from tests.tickets.worlds import BASE, NEURONS, WEIGHTS


@pytest.mark.parametrize("name", ["random", "losing"])
@pytest.mark.parametrize("space", [BASE, NEURONS, WEIGHTS])
def test_controls_have_exactly_the_size_of_the_ticket(name, space):
    tickets, scores, rows = world(space)
    pool_counts = {
        task: {pool: sum(t.dropped(p) for p in parts) for pool, parts in space.pools.items()}
        for task, t in tickets.items()
    }
    for task, ticket in parse_rule(name)(tickets, scores, rows).items():
        assert {p: sum(ticket.dropped(x) for x in parts) for p, parts in space.pools.items()} == pool_counts[task]
        assert ticket != tickets[task]
        assert ticket.about.kind == name


def test_losing_is_the_draw_on_reversed_scores():
    tickets, scores, rows = world(BASE)
    for task, ticket in parse_rule("losing")(tickets, scores, rows).items():
        assert ticket == draw(scores[task].reversed(), tickets[task].about.budget)


def test_random_depends_on_seed_and_task_but_not_on_the_company():
    given = world(BASE)
    shared = parse_rule("random")(*given)
    alone = parse_rule("random")(*(reordered(part, ["cola"]) for part in given))
    assert alone["cola"] == shared["cola"]
    assert parse_rule({"kind": "random", "seed": 1})(*given)["cola"] != shared["cola"]
    same_size = dict.fromkeys(given[0], given[0]["cola"])
    assert len(set(parse_rule("random")(same_size, *given[1:]).values())) == len(same_size)
