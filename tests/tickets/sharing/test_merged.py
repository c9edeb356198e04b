import numpy as np
import pytest

from mtl_tickets.tickets.sharing import parse_rule
from tests.tickets.sharing.test_operator import world
from tests.tickets.sharing.test_votes import shared, tickets_with_heads
from tests.tickets.worlds import BASE, NEURONS, ticket_of


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
