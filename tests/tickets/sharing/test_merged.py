import numpy as np
import pytest

from mtl_tickets.errors import ConfigError, TicketError
from mtl_tickets.tickets.overlap import clusters
from mtl_tickets.tickets.sharing import parse_rule
from tests.tickets.sharing.test_operator import world
from tests.tickets.sharing.test_votes import shared, tickets_with_heads
from tests.tickets.worlds import BASE, NEURONS, SMALL, WEIGHTS, ticket_of


@pytest.mark.parametrize("space", [BASE, NEURONS])
@pytest.mark.parametrize("merge", ["union", "majority", "intersection"])
def test_layerwise_is_shared_below_and_own_above(space, merge):
    tickets = tickets_with_heads(space, 4)
    merged = shared(merge, tickets)
    result = shared({"kind": "layerwise", "depth": 1 / 3, "merge": merge}, tickets)
    below = space.layers // 3
    for task, ticket in result.items():
        for part in space.parts:
            assert (ticket.units[part][:below] == merged[task].units[part][:below]).all()
            assert (ticket.units[part][below:] == tickets[task].units[part][below:]).all()


def test_layerwise_runs_from_own_to_merged():
    tickets = tickets_with_heads(BASE, 4)
    assert shared({"kind": "layerwise", "depth": 0}, tickets) == tickets
    assert shared({"kind": "layerwise", "depth": 1}, tickets) == shared("union", tickets)


def test_clusters_share_one_ticket_each():
    tickets = tickets_with_heads(BASE, 2)
    near = {part: units.copy() for part, units in tickets["t0"].units.items()}
    near["heads"][0] ^= np.arange(12) == 3
    tickets["t9"] = type(tickets["t0"])(BASE, near)
    result = shared("cluster", tickets)
    assert result["t0"] == result["t9"] == tickets["t0"] | tickets["t9"]
    assert result["t1"] == tickets["t1"]
    assert shared({"kind": "cluster", "similarity": 0}, tickets) == shared("union", tickets)
    assert shared({"kind": "cluster", "similarity": 1}, tickets) == tickets


def test_a_cluster_merges_by_the_votes_of_its_members_only():
    tickets, scores, rows = world(BASE)
    tickets = {"cola": tickets["cola"], "rte": tickets["cola"], "mnli": ~ticket_of(BASE, 5), "sst2": tickets["cola"]}
    result = parse_rule({"kind": "cluster", "merge": "intersection"})(tickets, scores, rows)
    assert result["rte"] == tickets["cola"]


@pytest.mark.parametrize("merge", ["union", "majority", "intersection"])
@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS, WEIGHTS])
def test_groups_run_from_the_merged_ticket_to_own(space, merge):
    given = world(space)
    assert parse_rule({"kind": "cluster", "groups": 1, "merge": merge})(*given) == parse_rule(merge)(*given)
    assert parse_rule({"kind": "cluster", "groups": 4, "merge": merge})(*given) == given[0]


@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS, WEIGHTS])
def test_groups_at_ones_own_budget_run_from_the_vote_of_all_to_own(space):
    given = world(space)
    sized = {count: parse_rule({"kind": "cluster", "groups": count, "budget": "own"})(*given) for count in (1, 4)}
    assert sized[1] == parse_rule({"kind": "union", "budget": "own"})(*given)
    assert sized[4] == given[0]


@pytest.mark.parametrize("count", range(1, 6))
def test_there_are_exactly_as_many_groups_as_asked_for(count):
    tickets = tickets_with_heads(BASE, 5)
    result = shared({"kind": "cluster", "groups": count}, tickets)
    assert len(set(result.values())) == count
    for group in clusters(tickets, groups=count):
        assert len({result[task] for task in group}) == 1
        assert all(tickets[task] <= result[task] for task in group)


def test_more_groups_than_tasks_are_refused():
    with pytest.raises(TicketError, match=r"groups: there are 3 tasks.*found 4.*1 to 3 groups"):
        shared({"kind": "cluster", "groups": 4}, tickets_with_heads(SMALL, 3))


def test_groups_stand_instead_of_similarity():
    rule = parse_rule({"kind": "cluster", "groups": 3})
    assert str(rule) == "cluster(groups=3)"
    assert parse_rule(rule.model_dump(mode="json")) == rule  # resolved settings write the unused default, too
    with pytest.raises(ConfigError, match="similarity: only without groups"):
        parse_rule({"kind": "cluster", "groups": 3, "similarity": 0.5})
    with pytest.raises(ConfigError, match="groups: must be greater than 0"):
        parse_rule({"kind": "cluster", "groups": 0})


@pytest.mark.parametrize("space", [BASE, NEURONS])
def test_layerwise_at_ones_own_budget_is_still_own_above(space):
    tickets = tickets_with_heads(space, 4)
    result = shared({"kind": "layerwise", "depth": 1 / 3, "budget": "own"}, tickets)
    below = space.layers // 3
    for task, ticket in result.items():
        assert all((ticket.units[part][below:] == tickets[task].units[part][below:]).all() for part in space.parts)
    assert any(result[task] != tickets[task] for task in tickets)
    assert shared({"kind": "layerwise", "depth": 1, "budget": "own"}, tickets) == shared(
        {"kind": "union", "budget": "own"}, tickets
    )
    assert shared({"kind": "layerwise", "depth": 0, "budget": "own"}, tickets) == tickets


def test_a_merge_that_decides_nothing_is_refused():
    for kind in ("cluster", "layerwise"):
        with pytest.raises(ConfigError, match="merge: has no effect with budget: own"):
            parse_rule({"kind": kind, "merge": "majority", "budget": "own"})
    assert str(parse_rule({"kind": "cluster", "groups": 2, "budget": "own"})) == "cluster(budget=own, groups=2)"
