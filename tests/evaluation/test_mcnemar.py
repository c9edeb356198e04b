"""McNemar's test: the binomial test with one seed, rows and not seeds times rows with several, and never too sure."""

import numpy as np
import pytest
from scipy import stats

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.mcnemar import mcnemar
from mtl_tickets.evaluation.statistics import sign_flip


def right(wins, losses, both=5):
    a = [1] * wins + [0] * losses + [1] * both
    b = [0] * wins + [1] * losses + [1] * both
    return np.array(a), np.array(b)


@pytest.mark.parametrize(("wins", "losses"), [(9, 2), (2, 9), (1, 0), (0, 6), (30, 22), (7, 7)])
def test_mcnemar_of_one_seed_is_the_binomial_test(wins, losses):
    found, n = mcnemar(*right(wins, losses)), wins + losses
    assert (found.wins, found.losses, found.rows, found.seeds) == (wins, losses, n + 5, 1)
    assert found.difference == pytest.approx((wins - losses) / (n + 5))
    assert found.p == pytest.approx(stats.binomtest(wins, n, 0.5).pvalue)
    expected = 1.0 if wins == losses else found.p - stats.binom.pmf(wins, n, 0.5)
    assert found.p_mid == pytest.approx(expected)


def test_mcnemar_of_several_seeds_swaps_rows_for_all_seeds_at_once():
    random = np.random.default_rng(1)
    for _ in range(10):
        a, b = random.integers(0, 2, (2, 3, 14))
        assert mcnemar(a, b).p == pytest.approx(sign_flip((a.sum(0) - b.sum(0)).astype(float)))


def test_mcnemar_does_not_take_seeds_for_rows():
    a, b = right(9, 2)
    one, five = mcnemar(a, b), mcnemar(np.tile(a, (5, 1)), np.tile(b, (5, 1)))
    assert (five.p, five.p_mid) == (pytest.approx(one.p), pytest.approx(one.p_mid))
    assert five.difference == pytest.approx(one.difference)


def test_mcnemar_swapped_has_the_same_p():
    random = np.random.default_rng(0)
    both = random.random((2, 120)) < 0.8, random.random((2, 120)) < 0.6
    one, two = mcnemar(*both), mcnemar(*reversed(both))
    assert (one.p, one.p_mid, one.wins, one.difference) == (two.p, two.p_mid, two.losses, -two.difference)


@pytest.mark.parametrize("same", [np.ones((2, 10)), np.zeros(10), np.arange(10) % 2])
def test_mcnemar_where_the_same_rows_are_right_shows_nothing(same):
    found = mcnemar(same, same)
    assert (found.p, found.p_mid, found.wins, found.losses, found.difference) == (1.0, 1.0, 0, 0, 0.0)


def test_mcnemar_never_says_0():
    found = mcnemar(np.ones(3000), np.zeros(3000))
    assert 0 < found.p < 1e-300 and 0 < found.p_mid < 1e-300


def test_mcnemar_is_conservative_and_mid_p_is_near_alpha():
    random = np.random.default_rng(2)
    tests = [mcnemar(*(random.random((2, 60)) < 0.7)) for _ in range(1000)]
    exact, mid = (int(sum(getattr(test, name) <= 0.05 for test in tests)) for name in ("p", "p_mid"))
    assert exact < mid
    assert stats.binomtest(exact, 1000, 0.05, alternative="greater").pvalue > 0.01
    assert stats.binomtest(mid, 1000, 0.05).pvalue > 0.01


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones(3), np.ones(4), "shapes .1, 3., .1, 4."),
        (np.ones((2, 3)), np.ones((1, 3)), "each seed"),
        (np.ones(0), np.ones(0), "the same rows"),
        (np.array([0, 2]), np.array([0, 1]), "right .1. or wrong .0."),
    ],
)
def test_mcnemar_refuses_what_does_not_fit(a, b, message):
    with pytest.raises(InputError, match=message):
        mcnemar(a, b)
