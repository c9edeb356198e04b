import itertools
import json

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.affinity import conflict_units, rank_agreement_matrix
from mtl_tickets.tickets.gradients import opposed_units, unit_cosines
from mtl_tickets.tickets.scores import Scores
from tests.tickets.worlds import BASE, NEURONS, SMALL, SPACES, WEIGHTS, against, halves_of, products_of, scores_of

# ---------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_rank_agreement_is_that_of_the_normalised_scores_and_keeps_its_sign(space):
    scores = {"b": scores_of(space, 1), "a": scores_of(space, 2), "c": scores_of(space, 1).reversed()}
    matrix = rank_agreement_matrix(scores)
    assert list(matrix) == list(matrix["a"]) == ["b", "a", "c"]
    assert matrix["a"]["b"] == matrix["b"]["a"] == scores["a"].normalised().rank_agreement(scores["b"].normalised())
    assert matrix["b"]["c"] == pytest.approx(-1)
    assert all(matrix[task][task] == 1 for task in scores)
    assert json.loads(json.dumps(matrix)) == matrix


# ------------------------------------------------------------------------------------------------------------ conflicts


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_conflicts_are_what_one_ranks_high_and_the_other_low(space):
    scores = {"b": scores_of(space, 1), "a": scores_of(space, 2)}
    (pair,) = conflict_units(scores, top=0.3, bottom=0.4, limit=10**6)
    assert pair["tasks"] == ["a", "b"]
    for pool, parts in space.pools.items():
        flat = {t: np.concatenate([s.normalised().values[p].ravel() for p in parts]) for t, s in scores.items()}
        rank = {task: (np.argsort(np.argsort(values)) + 0.5) / len(values) for task, values in flat.items()}
        clash = [(rank[x] >= 0.7) & (rank[y] <= 0.4) for x, y in itertools.permutations("ab")]
        assert pair["conflicting"][pool] == sum(int(found.sum()) for found in clash)
        high, low = (rank["a"] >= 0.7).sum(), (rank["a"] <= 0.4).sum()
        assert pair["expected"][pool] == pytest.approx(2 * high * low / len(rank["a"]))
    assert len(pair["units"]) == sum(pair["conflicting"].values())
    for unit in pair["units"]:
        values = {task: value.normalised().values[unit["part"]][tuple(unit["index"])] for task, value in scores.items()}
        assert unit["ranks"][unit["top"]] >= 0.7
        assert unit["ranks"][unit["bottom"]] <= 0.4
        part = scores[unit["top"]].normalised().values[unit["part"]]
        assert values[unit["top"]] > np.median(part) or space is WEIGHTS
    apart = [abs(unit["ranks"]["a"] - unit["ranks"]["b"]) for unit in pair["units"]]
    assert apart == sorted(apart, reverse=True)
    assert conflict_units(scores, 0.3, 0.4, limit=2)[0]["units"] == pair["units"][:2]


def test_reversed_scores_conflict_in_all_they_can_and_equal_ones_in_nothing():
    one = scores_of(BASE, 1)
    same, foe, flat = one, one.reversed(), Scores(BASE, {p: np.ones(shape) for p, shape in BASE.parts.items()})
    found = {tuple(p["tasks"]): p["conflicting"] for p in conflict_units({"a": one, "b": same, "c": foe, "d": flat})}
    assert found["a", "b"] == found["a", "d"] == {"heads": 0, "ffn": 0}
    assert found["a", "c"] == {"heads": 72, "ffn": 6}


@pytest.mark.parametrize("space", [SMALL, NEURONS], ids=["small", "neurons"])
def test_gradients_that_oppose_are_counted_among_the_conflicts(space):
    one, mine = scores_of(space, 1), halves_of(space, 1)
    scores = {"a": one, "b": one.reversed()}
    agree = conflict_units(scores, 0.5, 0.5, products_of(space, {"a": mine, "b": mine}))[0]
    oppose = conflict_units(scores, 0.5, 0.5, products_of(space, {"a": mine, "b": against(mine)}))[0]
    assert set(agree["opposed"].values()) == {0}
    assert oppose["opposed"] == oppose["conflicting"]
    assert [unit["cosine"] for unit in oppose["units"]] == pytest.approx([-1] * len(oppose["units"]))
    without = conflict_units(scores)[0]
    assert without["opposed"] is None and {unit["cosine"] for unit in without["units"]} == {None}


def test_a_conflict_s_gradients_are_those_of_its_unit():
    scores = {"a": scores_of(BASE, 1), "b": scores_of(BASE, 2)}
    products = products_of(BASE, {"a": halves_of(BASE, 1), "b": halves_of(BASE, 2)})
    (pair,) = conflict_units(scores, products=products, limit=1000)
    cosines, oppose = unit_cosines(products, "a", "b"), opposed_units(products, "a", "b")
    found = dict.fromkeys(BASE.parts, 0)
    for unit in pair["units"]:
        index = tuple(unit["index"])
        assert unit["cosine"] == cosines[unit["part"]][index]
        found[unit["part"]] += bool(oppose[unit["part"]][index])
    assert pair["opposed"] == found
    assert 0 < sum(found.values()) < len(pair["units"])


def test_the_order_of_tasks_changes_no_conflict():
    scores = {task: scores_of(BASE, seed) for seed, task in enumerate("abc")}
    products = products_of(BASE, {task: halves_of(BASE, seed) for seed, task in enumerate("abc")})
    expected = conflict_units(scores, products=products)
    assert json.loads(json.dumps(expected)) == expected
    for order in itertools.permutations("abc"):
        assert conflict_units({task: scores[task] for task in order}, products=products) == expected


def test_conflicts_without_scores_shares_or_gradients_are_refused():
    scores = {"a": scores_of(SMALL, 1), "b": scores_of(SMALL, 2)}
    with pytest.raises(TicketError, match=r"top: must be a share[^\n]*\nbottom: must be a share"):
        conflict_units(scores, top=0, bottom=0.6)
    with pytest.raises(TicketError, match="b: needs the gradients"):
        conflict_units(scores, products=products_of(SMALL, {"a": halves_of(SMALL, 1)}))
    with pytest.raises(TicketError, match="gradients and what they stand beside"):
        conflict_units(scores, products=products_of(NEURONS, {task: halves_of(NEURONS, 1) for task in "ab"}))
    with pytest.raises(TicketError, match="at least one task"):
        conflict_units({})
    with pytest.raises(TicketError, match="scores of a and b"):
        conflict_units({**scores, "b": scores_of(BASE, 1)})
