"""What holds for every rule, present and future."""

import itertools

import numpy as np
import pytest

from mtl_tickets.errors import ConfigError, TicketError
from mtl_tickets.tickets.draw import Budget, draw
from mtl_tickets.tickets.sharing import RULES, SharingRule, parse_rule
from mtl_tickets.tickets.sharing.operator import Poll
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, NEURONS, SMALL, WEIGHTS, scores_of

STRUCTURED_ONLY = {"layerwise"}


def world(space, seed=0, tasks=("rte", "mnli", "cola", "sst2")):
    scores = {task: scores_of(space, 10 * seed + i, task=task) for i, task in enumerate(tasks)}
    budgets = [Budget.fractions(space, dict.fromkeys(space.pools, (i + 1) / 8)) for i in range(len(tasks))]
    tickets = {task: draw(scores[task], budget) for task, budget in zip(tasks, budgets, strict=True)}
    return tickets, scores, {task: 37 * 7**i for i, task in enumerate(tasks)}


def reordered(mapping, order):
    return {key: mapping[key] for key in order}


@pytest.mark.parametrize("name", RULES.names())
@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS])
def test_every_layer_keeps_a_head_and_every_task_gets_a_ticket(name, space):
    for seed in range(3):
        tickets, scores, rows = world(space, seed)
        shared = parse_rule(name)(tickets, scores, rows)
        assert list(shared) == list(tickets)
        for task, ticket in shared.items():
            assert ticket.units["heads"].any(axis=1).all()
            assert ticket.about.task == task
            assert f"sharing: {name}" in ticket.about.note


@pytest.mark.parametrize("name", RULES.names())
@pytest.mark.parametrize("space", [SMALL, WEIGHTS])
def test_the_order_of_tasks_changes_nothing(name, space):
    if space is WEIGHTS and name in STRUCTURED_ONLY:
        with pytest.raises(TicketError, match="layers"):
            parse_rule(name)(*world(space))
        return
    tickets, scores, rows = world(space)
    expected = parse_rule(name)(tickets, scores, rows)
    for order in itertools.permutations(tickets):
        shared = parse_rule(name)(reordered(tickets, order), reordered(scores, order[::-1]), reordered(rows, order))
        assert list(shared) == list(order)
        assert shared == expected


@pytest.mark.parametrize("name", RULES.names())
def test_the_tally_is_bitwise_the_same_in_every_order(name):
    given = world(SMALL, tasks=("a", "b", "c", "d", "e"))
    rule = parse_rule(name)

    def tally(order, task):
        poll = Poll(*(reordered(part, order) for part in given))
        weights = rule.weights(task, poll)
        return poll.add(
            {voter: (weights[voter], rule.ballot(task, voter, poll)) for voter in order if voter in weights}
        )

    for task in "ace":
        expected = tally("abcde", task)
        for order in ("edcba", "badce", "cdeab"):
            assert all(expected[part].tobytes() == value.tobytes() for part, value in tally(order, task).items())


@pytest.mark.parametrize("name", sorted(set(RULES.names()) - {"dense", "random", "losing"}))
def test_tasks_that_agree_on_everything_keep_everything(name):
    tickets, scores, rows = world(BASE)
    same = dict.fromkeys(tickets, tickets["cola"])
    shared = parse_rule(name)(same, dict.fromkeys(tickets, scores["cola"]), rows)
    assert all(ticket == tickets["cola"] for ticket in shared.values())


@pytest.mark.parametrize("name", sorted(set(RULES.names()) - {"dense", "random", "losing"}))
def test_a_task_alone_keeps_its_ticket(name):
    tickets, scores, rows = (reordered(part, ["cola"]) for part in world(BASE))
    assert parse_rule(name)(tickets, scores, rows) == tickets


def test_the_best_head_of_all_tasks_is_put_back():
    _, scores, rows = world(SMALL)
    bare = ~Ticket.dense(SMALL)
    shared = parse_rule("own")(dict.fromkeys(scores, bare), scores, rows)
    summed = sum(s.normalised().values["heads"] for s in scores.values())
    for ticket in shared.values():
        assert (np.argmax(summed, axis=1) == np.argmax(ticket.units["heads"], axis=1)).all()
        assert ticket.counts() == {"heads": (3, 12), "ffn": (0, 3)}
        assert "best head put back in layers [0, 1, 2]" in ticket.about.note


def test_every_input_that_is_missing_is_named_at_once():
    tickets, scores, rows = world(SMALL)
    del scores["rte"], rows["mnli"]
    with pytest.raises(TicketError) as caught:
        parse_rule("own")(tickets, scores, rows)
    assert [str(p) for p in caught.value.problems] == [
        "mnli: sharing needs rows of every task",
        "rte: sharing needs scores of every task",
    ]
    with pytest.raises(TicketError, match="at least one task"):
        parse_rule("own")({}, {}, {})


def test_tasks_with_different_spaces_cannot_share():
    tickets, scores, rows = world(SMALL)
    with pytest.raises(TicketError, match=r"cola and rte.*layers = 12 instead of 3"):
        parse_rule("own")({**tickets, "rte": Ticket.dense(BASE)}, scores, rows)
    with pytest.raises(TicketError, match="scores of rte"):
        parse_rule("own")(tickets, {**scores, "rte": scores_of(BASE, 1)}, rows)


def test_rules_are_read_from_names_mappings_and_rules():
    majority = parse_rule({"kind": "majority", "k": 3})
    assert isinstance(majority, SharingRule)
    assert str(majority) == "majority(k=3)"
    assert parse_rule(majority) == majority
    assert str(parse_rule("majority")) == "majority"
    assert parse_rule("adaptive") == parse_rule({"kind": "adaptive", "kappa": 1000})


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("majorty", "did you mean 'majority'"),
        ({"kind": "Adaptve"}, "did you mean 'adaptive'"),
        ({"kind": "adaptive", "kapa": 1}, "kapa: unknown key.*did you mean 'kappa'"),
        ({"kind": "adaptive", "kappa": -1}, "kappa: must be greater than or equal to 0"),
        ({"kind": "adaptive", "kappa": float("inf")}, "kappa: must be a finite number"),
        ({"k": 3}, "kind: this key is required"),
        (3, "must be a mapping"),
    ],
)
def test_what_is_no_rule_is_refused(value, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse_rule(value)


def test_every_rule_describes_itself_in_a_line():
    assert all(summary.endswith(".") and len(summary) < 120 for summary in RULES.summaries().values())
    assert {"dense", "own", "union", "intersection", "majority", "adaptive"} <= set(RULES.names())
