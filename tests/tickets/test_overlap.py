import json

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.overlap import (
    agreement_by_layer,
    clusters,
    jaccard_matrix,
    kept_by_count,
    kept_by_set,
    overlap,
)
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, SMALL, SPACES, ticket_of


def ticket(*rows, ffn="###"):
    units = {"heads": np.array([[c == "#" for c in row] for row in rows]), "ffn": np.array([c == "#" for c in ffn])}
    return Ticket(SMALL, units)


A = ticket("####", "####", "##..")
B = ticket("####", "####", "#...")
C = ticket("#...", "...#", "..##", ffn="#..")


def test_jaccard_by_hand():
    matrix = jaccard_matrix({"a": A, "b": B, "c": C})
    assert matrix["a"]["b"] == matrix["b"]["a"] == 12 / 13
    assert matrix["a"]["a"] == 1
    assert matrix["a"]["c"] == (2 + 0 + 1) / (10 + 2 + 3)
    assert jaccard_matrix({"a": A, "c": C}, "ffn")["a"]["c"] == 1 / 3


def test_agreement_by_layer_by_hand():
    layers = agreement_by_layer({"a": A, "b": B})
    assert layers["heads"] == [
        {"equal": 1.0, "all": 1.0, "none": 0.0},
        {"equal": 1.0, "all": 1.0, "none": 0.0},
        {"equal": 0.75, "all": 0.25, "none": 0.5},
    ]
    assert [layer["equal"] for layer in agreement_by_layer({"a": A, "c": C})["ffn"]] == [1, 0, 0]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_unit_is_counted_once(space):
    tickets = {str(seed): ticket_of(space, seed) for seed in range(4)}
    counts = kept_by_count(tickets)
    assert {part: sum(histogram) for part, histogram in counts.items()} == space.sizes
    kept = {part: sum(t.counts()[part][0] for t in tickets.values()) for part in space.parts}
    assert {part: sum(k * n for k, n in enumerate(histogram)) for part, histogram in counts.items()} == kept
    assert all(len(histogram) == 5 for histogram in counts.values())


def test_the_sets_that_keep_units_by_hand():
    sets = kept_by_set({"b": B, "c": C, "a": A})
    assert sets["ffn"] == [{"tasks": ["a", "b"], "units": 2}, {"tasks": ["a", "b", "c"], "units": 1}]
    assert sets["heads"] == [
        {"tasks": ["a", "b"], "units": 7},
        {"tasks": ["c"], "units": 2},
        {"tasks": ["a", "b", "c"], "units": 2},
        {"tasks": ["a"], "units": 1},
    ]


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_sets_count_every_unit_once_and_agree_with_the_tickets(space, count):
    tickets = {f"t{seed:02}": ticket_of(space, seed) for seed in range(count)}
    sets = kept_by_set(tickets)
    for pool, parts in space.pools.items():
        assert sum(entry["units"] for entry in sets[pool]) == sum(space.sizes[part] for part in parts)
        units = [entry["units"] for entry in sets[pool]]
        assert units == sorted(units, reverse=True) and min(units) > 0
        for task, ticket in tickets.items():
            kept = sum(ticket.counts()[part][0] for part in parts)
            assert sum(entry["units"] for entry in sets[pool] if task in entry["tasks"]) == kept
    assert kept_by_set(dict(reversed(tickets.items()))) == sets
    assert kept_by_set(tickets, top=2) == {pool: entries[:2] for pool, entries in sets.items()}


def test_clusters_join_the_similar_and_ignore_the_order():
    near = {name: ticket_of(BASE, 1) for name in ("x", "a")}
    far = {name: ticket_of(BASE, 2) for name in ("m", "b")}
    expected = [["a", "x"], ["b", "m"]]
    assert clusters({**near, **far}, 0.9) == clusters(dict(reversed({**near, **far}.items())), 0.9) == expected
    assert clusters({**near, **far}, 0) == [["a", "b", "m", "x"]]
    assert clusters({"a": A, "b": B, "c": C}, 1) == [["a"], ["b"], ["c"]]


def test_clusters_are_always_a_partition():
    tickets = {str(seed): ticket_of(SMALL, seed) for seed in range(7)}
    found = [clusters(tickets, similarity) for similarity in np.linspace(0, 1, 11)]
    found += [clusters(tickets, groups=count) for count in range(1, 8)]
    assert all(sorted(name for group in groups for name in group) == sorted(tickets) for groups in found)
    assert [len(groups) for groups in found[11:]] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_whole_overlap_is_json(space):
    report = overlap({"a": ticket_of(space, 1), "b": ticket_of(space, 2)})
    assert json.loads(json.dumps(report)) == report


def test_what_has_no_overlap_is_refused():
    with pytest.raises(TicketError, match="at least one"):
        overlap({})
    with pytest.raises(TicketError, match="tickets of a and b"):
        overlap({"a": A, "b": ticket_of(BASE, 1)})
