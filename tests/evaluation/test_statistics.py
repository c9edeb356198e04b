import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.statistics import (
    ENUMERATED,
    differences,
    holm,
    minimum_detectable,
    paired_test,
    power_of,
    seed_mean,
    seeds_needed,
    sign_flip,
    wilcoxon,
)

A = {1: 81.3, 2: 80.1, 3: 82.7, 4: 80.9, 5: 81.8, 6: 79.6}
B = {1: 80.2, 2: 80.4, 3: 80.9, 4: 79.3, 5: 80.5, 6: 79.2}


def by_seed(values):
    return dict(enumerate(values, 1))


# -- means over seeds --------------------------------------------------------------------------------------------------


def test_a_mean_has_students_interval():
    found = seed_mean(list(A.values()), level=0.9)
    assert (found.n, found.mean, found.sd) == (
        6,
        pytest.approx(np.mean(list(A.values()))),
        pytest.approx(np.std(list(A.values()), ddof=1)),
    )
    low, high = stats.t.interval(0.9, 5, found.mean, found.sd / math.sqrt(6))
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert found.mean in found.interval and high + 0.1 not in found.interval


@pytest.mark.parametrize(("values", "sd"), [([80.0], None), ([80.0, 80.0], 0.0), ([0.1 + 0.2, 0.3, 0.3], 0.0)])
def test_without_spread_a_mean_promises_nothing(values, sd):
    found = seed_mean(values)
    assert found.mean == pytest.approx(values[-1]) and found.sd == sd and found.interval is None


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    random = np.random.default_rng(1)
    covered = sum(80.0 in seed_mean(random.normal(80, 2, 5), level=0.9).interval for _ in range(400))
    assert stats.binomtest(covered, 400, 0.9).pvalue > 0.01


# -- paired tests over seeds -------------------------------------------------------------------------------------------


def test_the_tests_are_those_of_scipy():
    a, b = np.array(list(A.values())), np.array(list(B.values()))
    found, expected = paired_test(A, B), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert (found.t, found.df, found.p) == (pytest.approx(expected.statistic), 5, pytest.approx(expected.pvalue))
    assert (found.interval.low, found.interval.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)
    flips = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False)
    assert found.p_sign_flip == pytest.approx(flips.pvalue)


def test_effect_size_is_cohens_for_pairs_with_hedges_correction():
    found = paired_test(A, B)
    assert found.d_z == pytest.approx(found.difference / found.sd)
    assert found.d_z == pytest.approx(found.t / math.sqrt(6))
    assert found.g_z == pytest.approx(found.d_z * (1 - 3 / (4 * 5 - 1)), rel=0.005)
    assert paired_test(by_seed([1.0, 2.0]), by_seed([0.0, 0.5])).g_z is None


def test_hedges_correction_removes_the_bias():
    random = np.random.default_rng(2)
    found = [paired_test(by_seed(random.normal(1.0, 1.0, 6)), by_seed(np.zeros(6))) for _ in range(600)]
    d_z, g_z = ([getattr(test, name) for test in found] for name in ("d_z", "g_z"))
    error = np.std(g_z) / math.sqrt(600)
    assert abs(np.mean(g_z) - 1.0) < 2.5 * error
    assert np.mean(d_z) > 1.0 + 2.5 * error


def test_swapping_the_methods_changes_signs_alone():
    one, two = paired_test(A, B), paired_test(B, A)
    assert (two.difference, two.t, two.d_z, two.g_z) == (-one.difference, -one.t, -one.d_z, -one.g_z)
    assert (two.p, two.p_sign_flip, two.p_wilcoxon, two.sd) == (one.p, one.p_sign_flip, one.p_wilcoxon, one.sd)
    assert (two.interval.low, two.interval.high) == pytest.approx((-one.interval.high, -one.interval.low))


def test_scores_are_paired_by_seed_and_not_by_position():
    assert paired_test(dict(reversed(A.items())), B) == paired_test(A, B)


def test_p_of_the_t_test_is_uniform_where_nothing_differs():
    random = np.random.default_rng(3)
    values = [paired_test(by_seed(x), by_seed(y)).p for x, y in random.normal(80, 2, (500, 2, 5))]
    assert stats.kstest(values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("test", [sign_flip, wilcoxon])
def test_exact_tests_are_conservative_and_no_more_than_their_steps_demand(test):
    # with 8 seeds there are 2^7 pairs of mirrored assignments: p is a multiple of 1/128, 6/128 the last below 0.05
    random = np.random.default_rng(4)
    values = np.array([test(row) for row in random.standard_t(3, (1000, 8))])
    assert np.allclose(values * 128, np.round(values * 128))
    rejected = int(np.sum(values <= 0.05))
    assert stats.binomtest(rejected, 1000, 0.05, alternative="greater").pvalue > 0.01
    assert stats.binomtest(rejected, 1000, 0.02, alternative="greater").pvalue < 0.01


@pytest.mark.parametrize("n", [2, 5, 9])
def test_exact_tests_never_go_below_what_n_seeds_can_show(n):
    far = np.linspace(10, 11, n)
    assert sign_flip(far) == wilcoxon(far) == 2.0 ** (1 - n)


def test_sign_flips_are_counted_by_hand():
    values = [3.0, -1.0, 0.5, 2.0]
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=4)
    ]
    assert sign_flip(values) == np.mean([found >= 4.5 for found in sums])


def test_many_seeds_are_sampled_repeatably_and_near_the_exact_p():
    values = np.random.default_rng(5).normal(0.45, 1.0, ENUMERATED)
    longer = np.append(values, 0.0)  # a difference of 0 changes no sum, and makes it one too many to enumerate
    assert sign_flip(longer) == sign_flip(longer)
    assert sign_flip(longer) == pytest.approx(sign_flip(values), abs=0.004)
    assert sign_flip(np.linspace(1, 2, 40)) == 1 / 100_000


def test_wilcoxon_is_exact_with_ties_and_zeros():
    values = np.array([1.0, 1.0, -1.0, 2.0, 3.0, 0.0, 2.0])
    method = stats.PermutationMethod(n_resamples=10_000)
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method=method).pvalue)


def test_wilcoxon_of_many_seeds_is_that_of_scipy():
    values = np.random.default_rng(6).normal(0.3, 1.0, 30)
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_identical_scores_are_told_from_tested_ones(n):
    scores = by_seed(np.linspace(80, 81, n))
    found = paired_test(scores, scores)
    assert found.identical
    assert (found.difference, found.sd, found.p, found.p_sign_flip, found.p_wilcoxon) == (0.0, 0.0, 1.0, 1.0, 1.0)
    assert (found.t, found.d_z, found.g_z, found.interval) == (None, None, None, None)


@pytest.mark.filterwarnings("error")
def test_differences_without_spread_show_what_n_seeds_can_show_and_no_more():
    # 0.3 apart, but for rounding: t would be near infinity
    a = by_seed([80.1, 81.7, 79.3, 80.4, 82.9])
    found = paired_test({seed: value + 0.3 for seed, value in a.items()}, a)
    assert not found.identical
    assert found.difference == pytest.approx(0.3)
    assert (found.sd, found.p, found.p_sign_flip, found.p_wilcoxon) == (0.0, 0.0625, 0.0625, 0.0625)
    assert (found.t, found.d_z, found.g_z, found.interval) == (None, None, None, None)


def test_rounding_is_no_difference():
    a = {1: 0.1 + 0.2, 2: 80.0, 3: 1 / 3}
    b = {1: 0.3, 2: 80.0 + 1e-13, 3: 1 - 2 / 3}
    assert paired_test(a, b).identical


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({1: 80.0, 2: 81.0}, {1: 80.0, 3: 81.0}, "the same seeds; found 'seeds .1, 2. and .1, 3.'"),
        ({1: 80.0, 2: 81.0}, {1: 80.0}, "the same seeds"),
        ({}, {}, "at least one"),
        ({1: 80.0, 2: math.nan}, {1: 80.0, 2: 81.0}, "finite"),
        ({1: 80.0}, {1: 81.0}, "two seeds or more; found 1"),
    ],
)
def test_what_cannot_be_paired_is_an_error(a, b, message):
    with pytest.raises(InputError, match=message):
        paired_test(a, b)


def test_a_single_seed_still_has_a_difference():
    assert differences({7: 81.5}, {7: 80.0}).tolist() == [1.5]


# -- many comparisons --------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # 4 x 0.01, 3 x 0.012 raised to it, 2 x 0.04, 1 x 0.5
    found = holm({"c": 0.04, "a": 0.01, "d": 0.5, "b": 0.012})
    assert found == pytest.approx({"c": 0.08, "a": 0.04, "d": 0.5, "b": 0.04})
    assert list(found) == ["c", "a", "d", "b"]


def test_holm_is_monotone_never_below_raw_and_blind_to_order():
    random = np.random.default_rng(7)
    for _ in range(20):
        raw = dict(enumerate(random.beta(0.4, 2.0, 9)))
        raw[3] = raw[4]
        found = holm(raw)
        assert all(raw[name] <= found[name] <= min(1.0, 9 * raw[name]) for name in raw)
        ordered = [found[name] for name in sorted(raw, key=raw.get)]
        assert ordered == sorted(ordered) and found[3] == found[4]
        shuffled = {name: raw[name] for name in random.permutation(9).tolist()}
        assert holm(shuffled) == found


def test_holm_bounds_the_chance_of_any_false_finding():
    random = np.random.default_rng(8)
    false = sum(min(holm(dict(enumerate(random.random(6)))).values()) <= 0.05 for _ in range(1000))
    assert stats.binomtest(false, 1000, 0.05, alternative="greater").pvalue > 0.01


def test_holm_of_one_or_none_changes_nothing():
    assert holm({"a": 0.03}) == {"a": 0.03} and holm({}) == {}


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p(p):
    with pytest.raises(InputError, match="b: a p must be in"):
        holm({"a": 0.5, "b": p})


# -- what n seeds can show ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "alpha", "power"), [(2, 0.05, 0.8), (5, 0.05, 0.8), (5, 0.05 / 80, 0.9), (50, 0.01, 0.5)]
)
def test_the_detectable_difference_has_the_power_asked_for(seeds, alpha, power):
    least = minimum_detectable(seeds, 1.7, alpha, power)
    assert power_of(least, 1.7, seeds, alpha) == pytest.approx(power, abs=1e-6)
    assert power_of(0.9 * least, 1.7, seeds, alpha) < power < power_of(1.1 * least, 1.7, seeds, alpha)
    assert minimum_detectable(seeds, 3.4, alpha, power) == pytest.approx(2 * least)


def test_power_is_what_simulation_finds():
    sd, seeds = 0.8, 5
    least = minimum_detectable(seeds, sd)
    draws = np.random.default_rng(9).normal(least, sd, (20_000, seeds))
    found = stats.ttest_1samp(draws, 0.0, axis=1)
    share = np.mean((found.pvalue <= 0.05) & (found.statistic > 0))
    assert share == pytest.approx(0.8, abs=0.01)


def test_no_difference_is_found_with_half_of_alpha_on_either_side():
    assert power_of(0.0, 1.0, 5, alpha=0.05) == pytest.approx(0.025)
    assert power_of(-1.0, 1.0, 5) == power_of(1.0, 1.0, 5)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_the_tables(effect, seeds):
    # sample sizes of the paired t test, two-sided, alpha 0.05, power 0.8, as in tables of power
    assert seeds_needed(2 * effect, 2.0) == seeds
    assert seeds_needed(-2 * effect, 2.0) == seeds


@pytest.mark.parametrize("seeds", [2, 3, 7, 30])
def test_seeds_needed_and_the_detectable_difference_are_inverse(seeds):
    least = minimum_detectable(seeds, 1.0)
    assert seeds_needed(least * 1.0001, 1.0) == seeds
    assert seeds_needed(least * 0.9999, 1.0) == seeds + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimum_detectable(1, 1.0), "two seeds"),
        (lambda: minimum_detectable(5, 0.0), "standard deviation above 0"),
        (lambda: minimum_detectable(5, 1.0, alpha=1.5), "alpha: must be between 0 and 1; found 1.5"),
        (lambda: minimum_detectable(5, 1.0, power=1.0), "power: must be above alpha / 2"),
        (lambda: power_of(1.0, 1.0, 1), "two seeds"),
        (lambda: seeds_needed(0.0, 1.0), "other than 0"),
        (lambda: seeds_needed(1.0, math.nan), "standard deviation above 0"),
        (lambda: seed_mean([1.0, 2.0], level=95), "level: must be between 0 and 1; found 95"),
    ],
)
def test_power_that_does_not_exist_is_an_error(call, message):
    with pytest.raises(InputError, match=message):
        call()
