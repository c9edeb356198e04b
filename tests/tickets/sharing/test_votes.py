import itertools

import numpy as np
import pytest

from mtl_tickets.errors import ConfigError, TicketError
from mtl_tickets.tickets.sharing import parse_rule
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.sharing.test_operator import world
from tests.tickets.worlds import BASE, NEURONS, SMALL, WEIGHTS, ticket_of


def tickets_with_heads(space, count):
    """Random tickets that all keep the first head of every layer, so that no rule has anything to repair."""
    tickets = {}
    for seed in range(count):
        units = {part: units.copy() for part, units in ticket_of(space, seed).units.items()}
        units["heads"][:, 0] = True
        tickets[f"t{seed}"] = Ticket(space, units)
    return tickets


def shared(rule, tickets):
    scores = world(next(iter(tickets.values())).space, tasks=tuple(tickets))[1]
    return parse_rule(rule)(tickets, scores, dict.fromkeys(tickets, 1))


@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS])
def test_union_holds_each_ticket_and_each_ticket_holds_the_intersection(space):
    tickets = tickets_with_heads(space, 5)
    union, intersection = shared("union", tickets), shared("intersection", tickets)
    for task, ticket in tickets.items():
        assert intersection[task] <= ticket <= union[task]
    a, b, *rest = tickets.values()
    everything, common = a | b, a & b
    for ticket in rest:
        everything, common = everything | ticket, common & ticket
    assert set(union.values()) == {everything}
    assert set(intersection.values()) == {common}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_majorities_are_nested_between_union_and_intersection(count):
    tickets = tickets_with_heads(BASE, count)
    by_votes = [shared({"kind": "majority", "k": k}, tickets)["t0"] for k in range(1, count + 1)]
    assert by_votes[0] == shared("union", tickets)["t0"]
    assert by_votes[-1] == shared("intersection", tickets)["t0"]
    assert all(stricter <= looser for looser, stricter in itertools.pairwise(by_votes))
    assert shared("majority", tickets)["t0"] == by_votes[count // 2]


def test_own_changes_nothing_and_keeps_what_the_ticket_is():
    tickets, scores, rows = world(BASE)
    own = parse_rule("own")(tickets, scores, rows)
    assert own == tickets
    assert {ticket.about.kind for ticket in own.values()} == {"winning"}


def test_dense_keeps_everything():
    dense = parse_rule("dense")(*world(BASE))
    assert set(dense.values()) == {Ticket.dense(BASE)}
    assert {ticket.about.kind for ticket in dense.values()} == {"dense"}


def test_a_majority_larger_than_the_number_of_tasks_is_refused():
    with pytest.raises(TicketError, match="only 3 tasks"):
        shared({"kind": "majority", "k": 4}, tickets_with_heads(SMALL, 3))


def test_an_intersection_that_empties_a_layer_is_repaired():
    tickets = {"a": ticket_of(SMALL, 1), "b": ~ticket_of(SMALL, 1)}
    for ticket in shared("intersection", tickets).values():
        assert ticket.units["heads"].sum(axis=1).tolist() == [1, 1, 1]
        assert ticket.about.kind == "shared"


@pytest.mark.parametrize("space", [SMALL, NEURONS, WEIGHTS])
def test_at_ones_own_budget_the_threshold_decides_nothing(space):
    given = world(space)
    union, majority, intersection = (
        parse_rule({"kind": kind, "budget": "own"})(*given) for kind in ("union", "majority", "intersection")
    )
    assert union == majority == intersection
    with pytest.raises(ConfigError, match="k: has no effect with budget: own"):
        parse_rule({"kind": "majority", "k": 2, "budget": "own"})


@pytest.mark.parametrize("space", [BASE, NEURONS, WEIGHTS])
def test_at_ones_own_budget_votes_come_first_and_scores_break_ties(space):
    tickets, scores, rows = world(space)
    summed = {part: sum(s.normalised().values[part] for s in scores.values()) for part in space.parts}
    votes = {part: sum(t.units[part].astype(int) for t in tickets.values()) for part in space.parts}
    for ticket in parse_rule({"kind": "union", "budget": "own"})(tickets, scores, rows).values():
        for pool, parts in space.pools.items():
            if pool == "heads":  # the best head of each layer is protected, and out of the contest
                best = np.lexsort((summed[pool], votes[pool]), axis=-1)[:, -1:]
                assert np.take_along_axis(ticket.units[pool], best, axis=1).all()
                contest = {pool: np.arange(space.heads) != best}
            else:
                contest = {part: np.ones(space.parts[part], dtype=bool) for part in parts}
            kept, dropped = (
                [(v, x) for p in parts for v, x in zip(votes[p][m[p]], summed[p][m[p]], strict=True)]
                for m in (
                    {p: contest[p] & ticket.units[p] for p in parts},
                    {p: contest[p] & ~ticket.units[p] for p in parts},
                )
            )
            assert not kept or not dropped or min(kept) > max(dropped)


def test_a_small_ticket_is_not_voted_out_of_a_layer():
    heads = {"small": np.eye(3, 4, dtype=bool)}  # one head in each layer; everybody else wants the lower two layers
    heads |= {f"t{i}": np.arange(12).reshape(3, 4) < 8 + i for i in (1, 2)}
    tickets = {task: Ticket(SMALL, {"heads": kept, "ffn": np.ones(3, dtype=bool)}) for task, kept in heads.items()}
    ticket = shared({"kind": "union", "budget": "own"}, tickets)["small"]
    assert ticket.units["heads"].sum(axis=1).tolist() == [1, 1, 1]


def test_dense_and_own_have_no_budget_to_choose():
    for name in ("dense", "own"):
        with pytest.raises(ConfigError, match="budget: unknown key"):
            parse_rule({"kind": name, "budget": "own"})
