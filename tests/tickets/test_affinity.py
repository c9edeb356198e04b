import itertools
import json

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.affinity import conflict_units, gradient_agreement, rank_agreement_matrix, unit_cosines
from mtl_tickets.tickets.scores import Scores
from tests.tickets.worlds import BASE, NEURONS, SMALL, SPACES, WEIGHTS, scores_of

STRUCTURED = {"small": SMALL, "base": BASE, "neurons": NEURONS}


def gradients(space, seed, *further):
    generator = np.random.default_rng(seed)
    return {part: generator.normal(size=(*shape, *further)) for part, shape in space.parts.items()}


def negated(evidence):
    return {part: -values for part, values in evidence.items()}


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


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("further", [(), (7,), (2, 3)], ids=str)
@pytest.mark.parametrize("space", [SMALL, NEURONS, WEIGHTS], ids=["small", "neurons", "weights"])
def test_the_cosine_is_that_of_everything_laid_end_to_end(space, further):
    evidence = {"a": gradients(space, 1, *further), "b": gradients(space, 2, *further)}
    found = gradient_agreement(evidence, space)["a"]["b"]
    x, y = (np.concatenate([values.ravel() for values in of_task.values()]) for of_task in evidence.values())
    assert found["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found["sign_agreement"] == pytest.approx(np.mean(np.sign(x) == np.sign(y)) * 2 - 1)
    for part, of_part in found["parts"].items():
        x, y = (of_task[part] for of_task in evidence.values())
        assert of_part["cosine"] == pytest.approx(np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y))
        assert len(of_part["layers"]) == (1 if space is WEIGHTS else 3)
        if space is not WEIGHTS:
            x, y = x[1].ravel(), y[1].ravel()
            assert of_part["layers"][1]["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_only_the_direction_of_evidence_counts():
    one, zero = gradients(BASE, 1, 3), {part: np.zeros((*shape, 3)) for part, shape in BASE.parts.items()}
    louder = {part: 1e6 * values for part, values in one.items()}
    found = gradient_agreement({"a": one, "b": louder, "c": negated(one), "d": zero}, BASE)
    expected = {"b": 1, "c": -1, "d": 0}
    assert {task: found["a"][task]["sign_agreement"] for task in expected} == expected
    assert {task: found["a"][task]["cosine"] for task in expected} == pytest.approx(expected)
    assert found["a"]["b"] == found["b"]["a"]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("further", [(), (1,)], ids=str)
def test_the_cosine_of_a_unit_with_one_number_is_a_sign(further):
    one, two = gradients(NEURONS, 1, *further), gradients(NEURONS, 2, *further)
    one["heads"][0, 0] = 0
    for part, values in unit_cosines(one, two, NEURONS).items():
        signs = np.sign(one[part]) * np.sign(two[part])
        np.testing.assert_allclose(values, signs.reshape(NEURONS.parts[part]))


def test_the_cosine_of_a_unit_with_several_numbers():
    one, two = gradients(SMALL, 1, 5), gradients(SMALL, 2, 5)
    x, y = one["heads"][2, 1], two["heads"][2, 1]
    assert unit_cosines(one, two, SMALL)["heads"][2][1] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_evidence_that_does_not_fit_is_refused_with_all_problems():
    good = gradients(SMALL, 1)
    bad = {"heads": np.zeros((3, 5)), "fnn": np.zeros(3), "ffn": np.array([1, np.nan, 2])}
    with pytest.raises(TicketError) as caught:
        gradient_agreement({"a": good, "b": bad}, SMALL)
    text = str(caught.value)
    assert all(name in text for name in ("b.heads: must have the shape [3, 4]", "b.fnn: ", "b.ffn: must be finite"))
    with pytest.raises(TicketError, match="b: must have at least one part, and the same"):
        gradient_agreement({"a": good, "b": {"heads": good["heads"]}}, SMALL)
    with pytest.raises(TicketError, match="at least one task"):
        gradient_agreement({}, SMALL)


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


def test_signs_that_oppose_are_counted_among_the_conflicts():
    one, mine = scores_of(SMALL, 1), gradients(SMALL, 1)
    scores = {"a": one, "b": one.reversed()}
    agree = conflict_units(scores, 0.5, 0.5, {"a": mine, "b": mine})[0]
    oppose = conflict_units(scores, 0.5, 0.5, {"a": mine, "b": negated(mine)})[0]
    assert agree["opposed"] == {"heads": 0, "ffn": 0}
    assert oppose["opposed"] == oppose["conflicting"]
    assert {unit["cosine"] for unit in oppose["units"]} == {-1}
    assert conflict_units(scores)[0]["opposed"] is None
    heads = conflict_units(scores, 0.5, 0.5, {task: {"heads": mine["heads"]} for task in "ab"})[0]
    assert {unit["cosine"] for unit in heads["units"]} == {1, None}


def test_the_order_of_tasks_changes_no_conflict():
    scores = {task: scores_of(BASE, seed) for seed, task in enumerate("abc")}
    evidence = {task: gradients(BASE, seed) for seed, task in enumerate("abc")}
    expected = conflict_units(scores, evidence=evidence)
    assert json.loads(json.dumps(expected)) == expected
    for order in itertools.permutations("abc"):
        assert conflict_units({t: scores[t] for t in order}, evidence={t: evidence[t] for t in order}) == expected


def test_conflicts_without_scores_shares_or_evidence_are_refused():
    scores = {"a": scores_of(SMALL, 1), "b": scores_of(SMALL, 2)}
    with pytest.raises(TicketError, match=r"top: must be a share[^\n]*\nbottom: must be a share"):
        conflict_units(scores, top=0, bottom=0.6)
    with pytest.raises(TicketError, match="b: needs signed evidence"):
        conflict_units(scores, evidence={"a": gradients(SMALL, 1)})
    with pytest.raises(TicketError, match="at least one task"):
        conflict_units({})
    with pytest.raises(TicketError, match="scores of a and b"):
        conflict_units({**scores, "b": scores_of(BASE, 1)})
