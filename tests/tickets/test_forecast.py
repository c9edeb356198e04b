import itertools
import json

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.chance import chance_overlap
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.forecast import forecast
from mtl_tickets.tickets.scores import Scores
from tests.tickets.worlds import BASE, SMALL, scores_of

BUDGET = {"heads": 60, "ffn": 4}


def world():
    """Friends share most of their scores, the foe ranks against them, the stranger knows nothing of them."""
    truth, stranger = scores_of(BASE, 1), scores_of(BASE, 9)
    near = [
        Scores(
            BASE, {part: truth.normalised().values[part] + 0.1 * noise.normalised().values[part] for part in BASE.parts}
        )
        for noise in (scores_of(BASE, 2), scores_of(BASE, 3))
    ]
    scores = {"friend": near[0], "other": near[1], "foe": truth.reversed(), "stranger": stranger}
    return {task: draw(values, BUDGET) for task, values in scores.items()}, scores


def evidence(**directions):
    generator = np.random.default_rng(0)
    base = {part: generator.normal(size=shape) for part, shape in BASE.parts.items()}
    return {task: {part: sign * values for part, values in base.items()} for task, sign in directions.items()}


def verdicts(*args, **kwargs):
    return {frozenset(pair["tasks"]): pair["verdict"] for pair in forecast(*args, **kwargs)}


def test_friends_share_and_foes_do_not():
    found = verdicts(*world())
    assert found[frozenset(("friend", "other"))] == "share"
    assert found[frozenset(("friend", "foe"))] == found[frozenset(("other", "foe"))] == "do not share"
    assert len(found) == 6


def test_tickets_and_ranks_that_contradict_each_other_are_no_evidence():
    tickets, scores = world()
    pair = {task: tickets[task] for task in ("friend", "other")}
    against = {"friend": scores["friend"], "other": scores["foe"]}
    assert set(verdicts(pair, against).values()) == {"no evidence"}
    apart = {"friend": tickets["friend"], "other": tickets["foe"]}
    assert set(verdicts(apart, scores).values()) == {"no evidence"}
    assert set(verdicts(apart, scores, agreement=0.999).values()) == {"do not share"}


def test_opposing_gradients_decide_alone():
    tickets, scores = world()
    pair = {task: tickets[task] for task in ("friend", "other")}
    assert set(verdicts(pair, scores, evidence(friend=1, other=-1)).values()) == {"do not share"}
    assert set(verdicts(pair, scores, evidence(friend=1, other=2)).values()) == {"share"}
    assert set(verdicts(pair, scores, evidence(friend=1, other=2), cosine=1.1).values()) == {"do not share"}
    unlike = {task: tickets[task] for task in ("friend", "foe")}  # agreeing gradients excuse nothing
    assert set(verdicts(unlike, scores, evidence(friend=1, foe=1)).values()) == {"do not share"}


def test_a_verdict_comes_with_its_numbers_and_a_sentence():
    tickets, scores = world()
    directions = evidence(friend=1, other=1, foe=-1, stranger=1)
    found = forecast(tickets, scores, directions, within="layer", level=0.1)
    for pair in found:
        one, two = pair["tasks"]
        chance = chance_overlap(tickets[one], tickets[two], within="layer", level=0.1)
        assert (pair["jaccard"], pair["jaccard_high"], pair["jaccard_p"]) == tuple(
            chance[name] for name in ("jaccard", "high", "p_more")
        )
        assert pair["cosine"] == pytest.approx(-1 if "foe" in pair["tasks"] else 1)
        assert pair["reason"].startswith("Their ") and pair["reason"].endswith(".")
        assert all(value <= pair["conflicting"][pool] for pool, value in pair["opposed"].items())
    assert json.loads(json.dumps(found)) == found


def test_the_order_of_tasks_changes_nothing():
    tickets, scores = world()
    expected = forecast(tickets, scores)
    for order in itertools.permutations(tickets):
        assert forecast({task: tickets[task] for task in order}, scores) == expected


def test_what_is_missing_or_does_not_fit_is_named():
    tickets, scores = world()
    with pytest.raises(TicketError, match=r"foe: needs the scores[^\n]*\nstranger: needs the scores"):
        forecast(tickets, {task: scores[task] for task in ("friend", "other")})
    with pytest.raises(TicketError, match="foe: needs signed evidence"):
        forecast(tickets, scores, evidence(friend=1, other=1, stranger=1))
    with pytest.raises(TicketError, match="the scores of foe"):
        forecast(tickets, {**scores, "foe": scores_of(SMALL, 1)})
    with pytest.raises(TicketError, match="at least one ticket"):
        forecast({}, {})
