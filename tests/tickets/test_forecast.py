import itertools
import json

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.chance import chance_overlap
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.forecast import forecast
from mtl_tickets.tickets.gradients import gradient_agreement
from mtl_tickets.tickets.scores import Scores
from tests.tickets.worlds import BASE, SMALL, halves_of, products_of, scores_of

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


def gradients(noise=0.1, **directions):
    """Tasks whose halves have one direction, by so much of it, and noise."""
    generator = np.random.default_rng(0)
    base = {part: generator.normal(size=(*shape, 5)) for part, shape in BASE.parts.items()}
    return products_of(
        BASE,
        {
            task: [
                {part: sign * values + noise * generator.normal(size=values.shape) for part, values in base.items()}
                for _ in range(2)
            ]
            for task, sign in directions.items()
        },
    )


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
    assert set(verdicts(pair, scores, gradients(friend=1, other=-1)).values()) == {"do not share"}
    assert set(verdicts(pair, scores, gradients(friend=1, other=2)).values()) == {"share"}
    assert set(verdicts(pair, scores, gradients(friend=1, other=2), cosine=1.1).values()) == {"do not share"}
    unlike = {task: tickets[task] for task in ("friend", "foe")}  # agreeing gradients excuse nothing
    assert set(verdicts(unlike, scores, gradients(friend=1, foe=1)).values()) == {"do not share"}


def test_noise_opposes_nothing():
    tickets, scores = world()
    pair = {task: tickets[task] for task in ("friend", "other")}
    one, two = halves_of(BASE, 1, noise=0), halves_of(BASE, 2, noise=0)
    # the one's halves pull both ways, and a little more against the other
    torn = [{p: -1.2 * v for p, v in two[0].items()}, {p: v + one[0][p] for p, v in two[0].items()}]
    (found,) = forecast(pair, scores, products_of(BASE, {"friend": torn, "other": two}))
    assert found["cosine"] < 0 and not found["oppose"]
    assert found["halves"]["friend"] < 0 < found["halves"]["other"]
    assert found["verdict"] == "share" and "do not oppose beyond what may be noise" in found["reason"]


def test_a_verdict_comes_with_its_numbers_and_a_sentence():
    tickets, scores = world()
    products = gradients(friend=1, other=1, foe=-1, stranger=1)
    found = forecast(tickets, scores, products, within="layer", level=0.1)
    for pair in found:
        one, two = pair["tasks"]
        chance = chance_overlap(tickets[one], tickets[two], within="layer", level=0.1)
        assert (pair["jaccard"], pair["jaccard_high"], pair["jaccard_p"]) == tuple(
            chance[name] for name in ("jaccard", "high", "p_more")
        )
        assert pair["cosine"] == gradient_agreement(products)[one][two]["cosine"]
        assert pair["cosine"] == pytest.approx(-1 if "foe" in pair["tasks"] else 1, abs=0.02)
        assert pair["oppose"] == ("foe" in pair["tasks"])
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
    with pytest.raises(TicketError, match="foe: needs the gradients"):
        forecast(tickets, scores, gradients(friend=1, other=1, stranger=1))
    with pytest.raises(TicketError, match="the scores of foe"):
        forecast(tickets, {**scores, "foe": scores_of(SMALL, 1)})
    with pytest.raises(TicketError, match="tickets of at least one task"):
        forecast({}, {})
