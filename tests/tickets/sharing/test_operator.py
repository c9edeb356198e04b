"""What holds for every rule, present and future."""

import itertools

import numpy as np
import pytest

from mtl_tickets.errors import ConfigError, TicketError
from mtl_tickets.tickets.draw import Budget, draw
from mtl_tickets.tickets.sharing import RULES, SharingRule, parse_rule
from mtl_tickets.tickets.sharing.operator import Poll, ScoreVote, SizedVote
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, NEURONS, SMALL, WEIGHTS, scores_of, ticket_of

STRUCTURED_ONLY = {"layerwise"}
# by default these worlds' tickets are too different to form groups
TELLING = {"cluster": {"groups": 2}}
SIZED = [
    {"kind": name, "budget": "own", **TELLING.get(name, {})} for name, rule in RULES if issubclass(rule, SizedVote)
]
KEEPING_BUDGETS = [{"kind": name} for name, rule in RULES if issubclass(rule, ScoreVote)] + SIZED
EVERY_RULE = [{"kind": name} for name in RULES.names()] + SIZED
# what these vote with is raw: a ranking of its own, which another draw's normalisation may have ranked otherwise
RANKING_APART = ("tall", "learned")
NO_CONTROL = [rule for rule in EVERY_RULE if rule["kind"] not in ("dense", "random", "losing", *RANKING_APART)]


def rule_name(rule):
    return str(parse_rule(rule))


def fitting(rules):
    """Every rule with every space that it has something to say about."""
    spaces = {"small": SMALL, "base": BASE, "neurons": NEURONS, "weights": WEIGHTS}
    return [
        pytest.param(rule, space, id=f"{rule_name(rule)}-{name}")
        for rule in rules
        for name, space in spaces.items()
        if name != "weights" or rule["kind"] not in STRUCTURED_ONLY
    ]


def world(space, seed=0, tasks=("rte", "mnli", "cola", "sst2")):
    scores = {task: scores_of(space, 10 * seed + i, task=task) for i, task in enumerate(tasks)}
    budgets = [Budget.fractions(space, dict.fromkeys(space.pools, (i + 1) / 8)) for i in range(len(tasks))]
    tickets = {task: draw(scores[task], budget) for task, budget in zip(tasks, budgets, strict=True)}
    return tickets, scores, {task: 37 * 7**i for i, task in enumerate(tasks)}


def reordered(mapping, order):
    return {key: mapping[key] for key in order}


@pytest.mark.parametrize("rule", EVERY_RULE, ids=rule_name)
@pytest.mark.parametrize("space", [SMALL, BASE, NEURONS])
def test_every_layer_keeps_a_head_and_every_task_gets_a_ticket(rule, space):
    for seed in range(3):
        tickets, scores, rows = world(space, seed)
        shared = parse_rule(rule)(tickets, scores, rows)
        assert list(shared) == list(tickets)
        for task, ticket in shared.items():
            assert ticket.units["heads"].any(axis=1).all()
            assert ticket.about.task == task
            assert f"sharing: {rule_name(rule)}" in ticket.about.note


@pytest.mark.parametrize("rule", EVERY_RULE, ids=rule_name)
def test_even_tickets_without_heads_end_with_one_in_every_layer(rule):
    _, scores, rows = world(BASE)
    few = {task: ticket_of(BASE, seed, kept=0.05) for seed, task in enumerate(scores)}
    assert not any(ticket.units["heads"].any(axis=1).all() for ticket in few.values())
    assert all(t.units["heads"].any(axis=1).all() for t in parse_rule(rule)(few, scores, rows).values())


@pytest.mark.parametrize(("rule", "space"), fitting(KEEPING_BUDGETS))
@pytest.mark.parametrize("allocation", ["layer_normalised", "global", "per_matrix"])
def test_budgets_are_kept_exactly(rule, space, allocation):
    tickets, scores, rows = world(space)
    tickets = {task: draw(scores[task], Budget.of(tickets[task]), 1, allocation) for task in tickets}
    shared = parse_rule(rule)(tickets, scores, rows)
    assert {task: Budget.of(ticket) for task, ticket in shared.items()} == {
        task: Budget.of(ticket) for task, ticket in tickets.items()
    }
    assert rule["kind"] == "adaptive" or shared != tickets


@pytest.mark.parametrize(("rule", "space"), fitting(SIZED))
def test_budgets_of_tickets_that_nobody_drew_are_kept_too(rule, space):
    _, scores, rows = world(space)
    tickets = {}
    for seed, task in enumerate(scores):
        units = {part: kept.copy() for part, kept in ticket_of(space, seed, kept=0.3 + seed / 8).units.items()}
        if "heads" in units:
            units["heads"][:, seed] = True
        tickets[task] = Ticket(space, units)
    shared = parse_rule(rule)(tickets, scores, rows)
    assert all(Budget.of(shared[task]) == Budget.of(tickets[task]) for task in tickets)


@pytest.mark.parametrize("rule", SIZED, ids=rule_name)
def test_free_is_the_default_and_leaves_no_trace(rule):
    given = world(SMALL)
    plain = parse_rule({key: value for key, value in rule.items() if key != "budget"})
    assert parse_rule({**rule, "budget": "free"}) == plain
    assert "budget" not in plain.non_defaults() and "budget=own" in rule_name(rule)
    assert plain(*given) != parse_rule(rule)(*given)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=rule_name)
@pytest.mark.parametrize("space", [SMALL, WEIGHTS])
def test_the_order_of_tasks_changes_nothing(rule, space):
    if space is WEIGHTS and rule["kind"] in STRUCTURED_ONLY:
        with pytest.raises(TicketError, match="layers"):
            parse_rule(rule)(*world(space))
        return
    tickets, scores, rows = world(space)
    expected = parse_rule(rule)(tickets, scores, rows)
    for order in itertools.permutations(tickets):
        shared = parse_rule(rule)(reordered(tickets, order), reordered(scores, order[::-1]), reordered(rows, order))
        assert list(shared) == list(order)
        assert shared == expected


@pytest.mark.parametrize("rule", EVERY_RULE, ids=rule_name)
def test_the_tally_is_bitwise_the_same_in_every_order(rule):
    given = world(SMALL, tasks=("a", "b", "c", "d", "e"))
    rule = parse_rule(rule)

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


@pytest.mark.parametrize("rule", NO_CONTROL, ids=rule_name)
def test_tasks_that_agree_on_everything_keep_everything(rule):
    tickets, scores, rows = world(BASE)
    same = dict.fromkeys(tickets, tickets["cola"])
    shared = parse_rule(rule)(same, dict.fromkeys(tickets, scores["cola"]), rows)
    assert all(ticket == tickets["cola"] for ticket in shared.values())


@pytest.mark.parametrize("rule", NO_CONTROL, ids=rule_name)
def test_a_task_alone_keeps_its_ticket(rule):
    rule = {key: value for key, value in rule.items() if key != "groups"}
    tickets, scores, rows = (reordered(part, ["cola"]) for part in world(BASE))
    assert parse_rule(rule)(tickets, scores, rows) == tickets


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
