"""What holds for every rule inside a base, present and future."""

import itertools
import re

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.draw import Budget, draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.sharing import parse_rule
from mtl_tickets.tickets.sharing.operator import Poll
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.sharing.test_operator import (
    EVERY_RULE,
    KEEPING_BUDGETS,
    NO_CONTROL,
    fitting,
    reordered,
    rule_name,
    world,
)
from tests.tickets.worlds import BASE, NEURONS, SMALL, base_of, distorted, scores_of, ticket_of

ALLOCATIONS = ("layer_normalised", "global", "per_matrix")


def world_in(base, seed=0, tasks=("rte", "mnli", "cola", "sst2"), allocation="layer_normalised"):
    space = base.space
    scores = {task: scores_of(space, 10 * seed + i, task=task) for i, task in enumerate(tasks)}
    budgets = [Budget.fractions(space, dict.fromkeys(space.pools, (i + 1) / 8), base) for i in range(len(tasks))]
    tickets = {
        task: draw(scores[task], budget, allocation=allocation, within=base)
        for task, budget in zip(tasks, budgets, strict=True)
    }
    return tickets, scores, {task: 37 * 7**i for i, task in enumerate(tasks)}


def without_heads_in(base, layer):
    units = {part: kept.copy() for part, kept in base.units.items()}
    units["heads"][layer] = False
    return Ticket(base.space, units)


@pytest.mark.parametrize(("rule", "space"), fitting(EVERY_RULE))
def test_no_rule_gives_a_unit_that_the_base_drops(rule, space):
    for seed in range(3):
        base = base_of(space, seed)
        tickets, scores, rows = world_in(base, seed)
        shared = parse_rule(rule)(tickets, scores, rows, seed, base)
        assert list(shared) == list(tickets)
        assert all(ticket <= base for ticket in shared.values())
        if "heads" in space.parts:
            assert all(ticket.units["heads"].any(axis=1).all() for ticket in shared.values())


@pytest.mark.parametrize("rule", EVERY_RULE, ids=rule_name)
@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS])
def test_layers_end_with_a_head_exactly_where_the_base_has_one(rule, space):
    base = without_heads_in(base_of(space, 1), 1)
    _, scores, rows = world_in(base)
    few = {task: ticket_of(space, seed, kept=0.05) & base for seed, task in enumerate(scores)}
    assert any(not t.units["heads"].any(axis=1).all(where=base.units["heads"].any(axis=1)) for t in few.values())
    for ticket in parse_rule(rule)(few, scores, rows, 0, base).values():
        assert ticket <= base
        assert (ticket.units["heads"].any(axis=1) == base.units["heads"].any(axis=1)).all()
        assert not re.search(r"put back in layers \[(.*, )?1[,\]]", ticket.about.note)


@pytest.mark.parametrize(("rule", "space"), fitting(KEEPING_BUDGETS))
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_budgets_are_kept_exactly_inside_a_base(rule, space, allocation):
    base = base_of(space, 4)
    tickets, scores, rows = world_in(base, allocation=allocation)
    shared = parse_rule(rule)(tickets, scores, rows, 0, base)
    assert {task: Budget.of(ticket) for task, ticket in shared.items()} == {
        task: Budget.of(ticket) for task, ticket in tickets.items()
    }


@pytest.mark.parametrize(("rule", "space"), fitting(EVERY_RULE))
def test_the_whole_encoder_is_a_base_that_changes_nothing(rule, space):
    tickets, scores, rows = world(space)
    plain, inside = (parse_rule(rule)(tickets, scores, rows, 5, base) for base in (None, Ticket.dense(space)))
    assert plain == inside
    assert all(plain[task].about == inside[task].about for task in tickets)


def test_what_rules_may_know_is_bitwise_the_same_in_the_whole_encoder():
    given = world(NEURONS)
    plain, inside = Poll(*given, 0), Poll(*given, 0, Ticket.dense(NEURONS))
    assert plain.agreement == inside.agreement and plain.merges == inside.merges
    assert plain.summed_heads.tobytes() == inside.summed_heads.tobytes()
    for task in plain.tasks:
        for part in NEURONS.parts:
            assert plain.normalised[task].values[part].tobytes() == inside.normalised[task].values[part].tobytes()


def test_tasks_that_disagree_inside_a_base_do_not_agree_by_what_it_drops():
    base, one = base_of(SMALL, 4, kept=0.5), Scores.random(SMALL, 0)
    tickets, rows = dict.fromkeys("ab", base), {"a": 3, "b": 5}
    poll = Poll(tickets, {"a": one, "b": Scores(SMALL, {p: 1 - v for p, v in one.values.items()})}, rows, 0, base)
    layered = Poll(tickets, {"a": one, "b": one}, rows, 0, base)
    assert poll.rank_agreement["a"]["b"] < -0.5 and poll.agreement["a", "b"] == 0
    assert layered.agreement["a", "b"] == 1


@pytest.mark.parametrize(("rule", "space"), fitting(EVERY_RULE))
def test_scores_of_units_outside_a_base_decide_nothing(rule, space):
    base = base_of(space, 2)
    tickets, scores, rows = world_in(base)
    wild = {task: distorted(value, base, seed) for seed, (task, value) in enumerate(scores.items())}
    told, heard = (parse_rule(rule)(tickets, given, rows, 0, base) for given in (scores, wild))
    assert told == heard


@pytest.mark.parametrize(("rule", "space"), fitting(EVERY_RULE))
def test_the_order_of_tasks_changes_nothing_inside_a_base(rule, space):
    base = base_of(space, 3)
    tickets, scores, rows = world_in(base)
    expected = parse_rule(rule)(tickets, scores, rows, 0, base)
    for order in itertools.islice(itertools.permutations(tickets), 0, 24, 5):
        shared = parse_rule(rule)(*(reordered(given, order) for given in (tickets, scores, rows)), 0, base)
        assert list(shared) == list(order) and shared == expected


@pytest.mark.parametrize("rule", NO_CONTROL, ids=rule_name)
def test_tasks_that_agree_on_everything_keep_everything_inside_a_base(rule):
    base = base_of(BASE, 6)
    tickets, scores, rows = world_in(base)
    same = dict.fromkeys(tickets, tickets["cola"])
    shared = parse_rule(rule)(same, dict.fromkeys(tickets, scores["cola"]), rows, 0, base)
    assert all(ticket == tickets["cola"] for ticket in shared.values())


@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS])
def test_dense_is_the_base(space):
    base = base_of(space, 1)
    shared = parse_rule("dense")(*world_in(base), 0, base)
    assert all(ticket == base and ticket.about.kind == "dense" for ticket in shared.values())


def test_the_best_head_that_the_base_keeps_is_put_back():
    base = base_of(SMALL, 2, kept=0.5)
    _, scores, rows = world_in(base)
    bare = dict.fromkeys(scores, Ticket.dense(SMALL) ^ Ticket.dense(SMALL))
    shared = parse_rule("own")(bare, scores, rows, 0, base)
    summed = sum(scores[task].inside(base).normalised().values["heads"] for task in sorted(scores))
    best = np.argmax(np.where(base.units["heads"], summed, -1), axis=1)
    assert base.dropped("heads")
    for ticket in shared.values():
        assert (ticket.units["heads"].sum(axis=1) == 1).all()
        assert (np.argmax(ticket.units["heads"], axis=1) == best).all()


def test_random_tickets_inside_a_base_reach_all_of_it_alike():
    base = base_of(BASE, 3, kept=0.6)
    space, there = base.space, int(base.units["heads"].sum())
    budget = Budget.fractions(space, {"heads": 0.5, "ffn": 0.5}, base)
    tickets = {"a": draw(scores_of(space, 1), budget, within=base)}
    kept = sum(
        parse_rule("random")(tickets, {"a": scores_of(space, 1)}, {"a": 1}, seed, base)["a"].units["heads"].astype(int)
        for seed in range(300)
    )
    share = (space.sizes["heads"] - budget["heads"]) / there
    # binomial; the head of a layer that is protected is another one in every draw
    assert np.abs(kept[base.units["heads"]] / 300 - share).max() < 6 * np.sqrt(share * (1 - share) / 300) + 0.15
    assert kept[~base.units["heads"]].sum() == 0


def test_tickets_outside_the_base_are_named():
    base = base_of(SMALL, 1)
    tickets, scores, rows = world_in(base)
    tickets["rte"] = Ticket.dense(SMALL)
    gone = sum(base.dropped(part) for part in SMALL.parts)
    with pytest.raises(TicketError) as caught:
        parse_rule("union")(tickets, scores, rows, 0, base)
    assert [str(problem) for problem in caught.value.problems] == [
        f"rte: a ticket must lie inside the base; found '{gone} units that the base drops'"
    ]
    with pytest.raises(TicketError, match=r"the base and the tickets inside it.*layers = 3 instead of 12"):
        parse_rule("own")(*world(SMALL), 0, Ticket.dense(BASE))
