import json

import numpy as np
import pytest
import scipy.stats
from safetensors.numpy import save_file

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.scores import ScoreOrigin, Scores
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, SMALL, SPACES, WEIGHTS, base_of, scores_of


def test_heads_are_normalised_by_layer_and_blocks_over_layers():
    scores = scores_of(BASE, 1)
    normalised = scores.normalised().values
    np.testing.assert_allclose(np.linalg.norm(normalised["heads"], axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(normalised["ffn"]), 1, rtol=1e-12)
    assert (np.argsort(normalised["ffn"]) == np.argsort(scores.values["ffn"])).all()
    np.testing.assert_allclose(
        normalised["heads"][3] * np.linalg.norm(scores.values["heads"][3]), scores.values["heads"][3]
    )


@pytest.mark.real
def test_normalisation_is_that_of_the_published_code(shared):
    expected = json.loads((shared / "conformance" / "super_tickets_importance" / "expected.json").read_text())["fixed"]
    raw = {"heads": np.array(expected["head"]), "ffn": np.array(expected["ffn"])}
    normalised = Scores(SMALL, raw).normalised().values
    np.testing.assert_allclose(normalised["heads"], expected["head_norm"], rtol=1e-6)
    np.testing.assert_allclose(normalised["ffn"], expected["ffn_norm"], rtol=1e-6)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_normalising_a_pool_changes_no_order_within_it(space):
    scores = scores_of(space, 1)
    normalised = scores.normalised("pool")
    for parts in space.pools.values():
        before, after = (np.concatenate([s.values[part].ravel() for part in parts]) for s in (scores, normalised))
        assert (np.argsort(before) == np.argsort(after)).all()
        assert np.linalg.norm(after) == pytest.approx(1)


def test_a_layer_without_any_importance_stays_finite():
    values = {"heads": np.zeros((3, 4)), "ffn": np.zeros(3)}
    assert (Scores(SMALL, values).normalised().values["heads"] == 0).all()


def test_reversing_twice_gives_the_scores_back():
    scores = scores_of(SMALL, 1)
    losing = scores.reversed()
    assert losing.about.kind == "losing"
    assert losing.reversed().about == scores.about
    for part, value in scores.values.items():
        assert (losing.values[part] == -value).all()
        assert (losing.reversed().values[part] == value).all()


def test_random_scores_depend_on_the_seed_alone():
    one, same, other = Scores.random(BASE, 5), Scores.random(BASE, 5), Scores.random(BASE, 6)
    assert one.about == ScoreOrigin(score="random", kind="random", seed=5)
    assert all((one.values[part] == same.values[part]).all() for part in one.values)
    assert (one.values["heads"] != other.values["heads"]).all()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_rank_agreement_is_spearmans(space):
    one, two = scores_of(space, 1), scores_of(space, 2)
    sizes = {part: size for part, size in space.sizes.items() if size >= 3}
    rho = {part: scipy.stats.spearmanr(one.values[part].ravel(), two.values[part].ravel()).statistic for part in sizes}
    expected = sum(rho[part] * size for part, size in sizes.items()) / sum(sizes.values())
    assert one.rank_agreement(two) == pytest.approx(expected, abs=1e-12)
    assert one.rank_agreement(two) == two.rank_agreement(one)
    assert one.rank_agreement(one) == 1
    assert one.rank_agreement(one.reversed()) == -1


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_rank_agreement_inside_a_base_is_that_of_its_units_alone(space):
    one, two, base = scores_of(space, 1), scores_of(space, 2), base_of(space, 3)
    alone = WeightSpace({part: (int(kept.sum()),) for part, kept in base.units.items()})
    small = [Scores(alone, {part: s.values[part][kept] for part, kept in base.units.items()}) for s in (one, two)]
    assert one.rank_agreement(two, base) == pytest.approx(small[0].rank_agreement(small[1]), abs=1e-12)
    assert one.rank_agreement(two, Ticket.dense(space)) == one.rank_agreement(two)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_scores_inside_a_base_say_nothing_of_other_units(space):
    scores, base = scores_of(space, 1, task="rte"), base_of(space, 3)
    inside = scores.inside(base)
    assert inside.about == scores.about
    for part, kept in base.units.items():
        assert (inside.values[part][kept] == scores.values[part][kept]).all() and (
            inside.values[part][~kept] == 0
        ).all()
    with pytest.raises(TicketError, match="must have the same unit space"):
        scores.inside(Ticket.dense(StructuredSpace.of(layers=1, heads=1, hidden=2, intermediate=2, total=99)))


def test_rank_agreement_with_ties_and_constants():
    one = Scores(SMALL, {"heads": np.arange(12).reshape(3, 4) // 3, "ffn": np.ones(3)})
    two = Scores(SMALL, {"heads": np.arange(12).reshape(3, 4) % 5, "ffn": np.arange(3)})
    rho = scipy.stats.spearmanr(one.values["heads"].ravel(), two.values["heads"].ravel()).statistic
    assert one.rank_agreement(two) == pytest.approx(rho * 12 / 15)


def test_parts_too_small_to_rank_are_left_out():
    two_layers = StructuredSpace.of(layers=2, heads=4, hidden=32, intermediate=64, total=60_000)
    one, two = scores_of(two_layers, 1), scores_of(two_layers, 1).reversed()
    two = Scores(two_layers, {**two.values, "ffn": one.values["ffn"]})
    assert one.rank_agreement(two) == -1
    tiny = StructuredSpace.of(layers=1, heads=2, hidden=32, intermediate=64, total=60_000)
    assert scores_of(tiny, 1).rank_agreement(scores_of(tiny, 1)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_cannot_be_ranked_are_refused(bad):
    heads = np.ones((3, 4))
    heads[1, 1] = bad
    with pytest.raises(TicketError, match="heads: must be finite"):
        Scores(SMALL, {"heads": heads, "ffn": np.ones(3)})


@pytest.mark.parametrize("heads", [np.ones((3, 4), bool), np.ones((3, 4), complex), np.full((3, 4), "1"), np.ones(12)])
def test_what_is_no_score_is_refused(heads):
    with pytest.raises(TicketError, match="heads"):
        Scores(SMALL, {"heads": heads, "ffn": np.ones(3)})


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_round_trip_is_exact(space, tmp_path):
    scores = scores_of(space, 1, task="rte", rows=2490, agreement=0.9, weight_hash="abc")
    loaded = Scores.load(scores.save(tmp_path / "rte"), space=space, weight_hash="abc")
    assert loaded.about == scores.about
    assert all((loaded.values[part] == scores.values[part]).all() for part in space.parts)


def test_damaged_files_are_refused(tmp_path):
    file = scores_of(SMALL, 1).save(tmp_path / "rte")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(TicketError, match="damaged"):
        Scores.load(file)
    save_file({"heads": np.ones(3)}, file)
    with pytest.raises(TicketError, match=r"mtl_tickets\.scores"):
        Scores.load(file)
    with pytest.raises(TicketError, match="kind of unit space"):
        Scores.load(scores_of(WEIGHTS, 1).save(tmp_path / "w"), space=SMALL)
