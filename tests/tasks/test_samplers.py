import numpy as np
import pytest

from mtl_tickets.errors import InputError
from mtl_tickets.tasks.samplers import SAMPLERS, interleave

ROWS = {"a": 1000, "b": 100, "c": 10}


def test_the_samplers_are_there():
    assert SAMPLERS.names() == ["given", "proportional", "quota", "sqrt", "temperature", "uniform"]


@pytest.mark.parametrize("name", ["given", "proportional", "sqrt", "temperature", "uniform"])
def test_quotas_always_add_up_to_all_rows(name):
    for oversample in (False, True):
        quotas = SAMPLERS.get(name)(oversample=oversample).quotas(ROWS)
        assert sum(quotas.values()) == sum(ROWS.values())
        assert min(quotas.values()) >= 1
        assert oversample or quotas == ROWS


def test_weights_between_proportional_and_uniform():
    def share_of_smallest(name, **settings):
        weights = SAMPLERS.get(name)(**settings).weights(ROWS)
        return weights[2] / weights.sum()

    shares = [
        share_of_smallest("proportional"),
        share_of_smallest("temperature", temperature=1.5),
        share_of_smallest("sqrt"),
        share_of_smallest("temperature", temperature=5),
        share_of_smallest("uniform"),
    ]
    assert shares == sorted(shares)
    assert share_of_smallest("temperature", temperature=1) == pytest.approx(shares[0])
    assert share_of_smallest("temperature", temperature=2) == pytest.approx(shares[2])


def test_oversampling_by_given_weights():
    sampler = SAMPLERS.get("given")(given={"a": 1, "b": 1, "c": 2}, oversample=True)
    assert sampler.quotas({"a": 50, "b": 25, "c": 25}) == {"a": 25, "b": 25, "c": 50}


def test_a_quota_is_taken_as_it_is():
    sampler = SAMPLERS.get("quota")(quota={"a": 30, "c": 25})
    assert sampler.quotas(ROWS) == {"a": 30, "b": 100, "c": 25}
    np.testing.assert_array_equal(sampler.weights(ROWS), [30, 100, 25])


def test_interleaving_keeps_every_item():
    rng = np.random.default_rng(0)
    order = interleave(np.array([5, 0, 3]), np.array([1.0, 1.0, 9.0]), rng)
    assert np.bincount(order, minlength=3).tolist() == [5, 0, 3]


def test_first_draw_follows_the_weights():
    rng = np.random.default_rng(0)
    first = [interleave(np.array([4, 4]), np.array([3.0, 1.0]), rng)[0] for _ in range(4000)]
    # 3 to 1 within four standard deviations of a binomial
    assert abs(np.mean(first) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_unknown_sampler_names_the_nearest():
    with pytest.raises(InputError, match="proportional"):
        SAMPLERS.get("proportinal")
