import math

import numpy as np
import pytest
from scipy import stats

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation import row_tests
from mtl_tickets.evaluation.row_tests import mcnemar, paired_bootstrap
from mtl_tickets.evaluation.statistics import sign_flip
from mtl_tickets.tasks.metrics import METRICS

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 120)


def answers(share, seeds=2, labels=LABELS, random=RANDOM):
    """Right for ``share`` of the rows, else anything."""
    shape = (seeds, len(labels))
    return np.where(random.random(shape) < share, labels, random.integers(0, 3, shape))


A, B = answers(0.8), answers(0.6)


# -- McNemar -----------------------------------------------------------------------------------------------------------


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
    one, two = mcnemar(A == LABELS, B == LABELS), mcnemar(B == LABELS, A == LABELS)
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


# -- the bootstrap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accuracy", "f1", "f1_macro", "mcc", "pearson"])
def test_metrics_of_many_resamples_at_once_are_the_metrics(name):
    a, b, labels = A[:, :25], B[:, :25], LABELS[:25]
    if name == "pearson":
        noise = np.random.default_rng(3).normal(size=(2, 2, 25))
        labels = labels / 3 + 100.0
        a, b = labels + noise[0], labels + 3 * noise[1]
    at_once = paired_bootstrap(name, a, b, labels, resamples=39)
    one_by_one = paired_bootstrap(METRICS.get(name).function, a, b, labels, resamples=39)
    assert at_once.a == pytest.approx(np.mean([METRICS.get(name)(row, labels) for row in a]))
    assert at_once.p == one_by_one.p
    for field in ("a", "b", "difference", "sd"):
        assert getattr(at_once, field) == pytest.approx(getattr(one_by_one, field))
    for field in ("interval", "bca"):
        one, two = getattr(at_once, field), getattr(one_by_one, field)
        assert (one.low, one.high) == pytest.approx((two.low, two.high))


def test_few_rows_in_which_metrics_are_undefined_count_as_the_metrics_do():
    labels = np.array([0, 1, 1, 0, 0])
    a, b = np.array([0, 1, 0, 0, 0]), np.array([0, 0, 1, 0, 1])
    for name in ("f1", "f1_macro", "mcc", "pearson"):
        at_once = paired_bootstrap(name, a, b, labels, resamples=59)
        one_by_one = paired_bootstrap(METRICS.get(name), a, b, labels, resamples=59)
        assert (at_once.undefined > 0) == (name != "f1_macro") and one_by_one.undefined == 0
        assert at_once.p == one_by_one.p
        assert at_once.interval.low == pytest.approx(one_by_one.interval.low)
        assert at_once.interval.high == pytest.approx(one_by_one.interval.high)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_intervals_are_those_of_scipy(method):
    def difference(x, y, labels):
        return np.corrcoef(x, labels)[0, 1] - np.corrcoef(y, labels)[0, 1]

    random = np.random.default_rng(4)
    labels = random.normal(size=60)
    a, b = labels + random.normal(size=60), labels + 2 * random.normal(size=60)
    expected = stats.bootstrap(
        (a, b, labels), difference, paired=True, vectorized=False, n_resamples=3_000, method=method, rng=random
    )
    found = paired_bootstrap("pearson", a, b, labels, resamples=20_000)
    interval = found.interval if method == "percentile" else found.bca
    ends = expected.confidence_interval
    assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high), abs=0.25 * found.sd)
    assert found.sd == pytest.approx(expected.standard_error, rel=0.1)


def test_bca_follows_the_skew_as_that_of_scipy_does():
    random = np.random.default_rng(8)
    values = random.exponential(size=25) ** 2
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=random).confidence_interval
    found = paired_bootstrap(
        lambda predictions, labels: predictions.mean(), values, np.zeros(25), np.zeros(25), resamples=9_999
    )
    assert (found.bca.low, found.bca.high) == pytest.approx(
        (expected.low, expected.high), abs=0.2 * found.sd
    )  # of chance
    assert found.bca.high > found.interval.high + 0.3 * found.sd


def test_p_and_interval_never_disagree():
    random = np.random.default_rng(5)
    outcomes = set()
    for share in np.linspace(0.5, 0.8, 30):
        a, b = answers(share, 1, LABELS, random), answers(0.6, 1, LABELS, random)
        found = paired_bootstrap("accuracy", a, b, LABELS, resamples=199, level=0.9)
        outcomes.add(found.p <= 0.1 + 1e-12)
        assert (found.p <= 0.1 + 1e-12) == (0.0 not in found.interval)
    assert outcomes == {True, False}


def test_intervals_cover_and_p_errs_as_often_as_they_say():
    # accuracy on 100 rows: 0.75 and 0.65 in truth; p is of the same methods, moved to differ by nothing
    random = np.random.default_rng(6)
    labels = np.ones(100, dtype=np.int64)
    covered, corrected, false, runs = 0, 0, 0, 300
    for run in range(runs):
        a, b, c = (random.random((3, 1, 100)) < np.array([0.75, 0.65, 0.75])[:, None, None]).astype(np.int64)
        found = paired_bootstrap("accuracy", a, b, labels, resamples=399, seed=run)
        covered += 0.1 in found.interval
        corrected += 0.1 in found.bca
        false += paired_bootstrap("accuracy", a, c, labels, resamples=399, seed=run).p <= 0.05
    for count in (covered, corrected):
        assert 0.91 < count / runs < 0.985
    assert 0.015 < false / runs < 0.09


def test_swapping_the_methods_changes_signs_alone():
    one, two = paired_bootstrap("mcc", A, B, LABELS), paired_bootstrap("mcc", B, A, LABELS)
    assert (one.difference, one.p) == (-two.difference, two.p)
    assert (one.interval.low, one.interval.high) == pytest.approx((-two.interval.high, -two.interval.low))
    assert (one.bca.low, one.bca.high) == pytest.approx((-two.bca.high, -two.bca.low))


def test_copies_of_a_seed_add_no_evidence():
    one = paired_bootstrap("f1", A[0], B[0], LABELS)
    five = paired_bootstrap("f1", np.tile(A[0], (5, 1)), np.tile(B[0], (5, 1)), LABELS)
    assert five.seeds == 5 and five.p == one.p
    assert five.sd == pytest.approx(one.sd)


def test_the_seed_decides_and_the_size_of_chunks_does_not(monkeypatch):
    whole = paired_bootstrap("accuracy", A, B, LABELS, resamples=99, seed=1)
    assert paired_bootstrap("accuracy", A, B, LABELS, resamples=99, seed=2) != whole
    monkeypatch.setattr(row_tests, "CELLS", 7 * len(LABELS))
    assert paired_bootstrap("accuracy", A, B, LABELS, resamples=99, seed=1) == whole


def test_any_function_of_rows_will_do():
    chances = np.random.default_rng(7).dirichlet([1, 1, 1], (2, 2, len(LABELS)))

    def likelihood(predictions, labels):
        return float(np.mean(np.log(predictions[np.arange(len(labels)), labels])))

    found = paired_bootstrap(likelihood, *chances, LABELS, resamples=99)
    assert found.a == pytest.approx(np.mean([likelihood(p, LABELS) for p in chances[0]]))
    assert found.interval.low < found.difference < found.interval.high


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["mcc", METRICS.get("mcc")])
def test_constant_predictions_have_no_matthews_and_count_as_0(metric):
    constant, labels = np.zeros((2, 40), dtype=np.int64), LABELS[:40]
    found = paired_bootstrap(metric, A[:, :40], constant, labels, resamples=99)
    assert (found.b, found.difference, found.p) == (0.0, found.a, 0.02)
    assert found.undefined == (99 if metric == "mcc" else 0)  # the function answers 0 itself
    both = paired_bootstrap(metric, constant, constant, labels, resamples=99)
    assert (both.difference, both.sd, both.p, both.bca) == (0.0, 0.0, 1.0, None)


@pytest.mark.filterwarnings("error")
def test_a_broken_model_counts_as_0():
    broken = np.where(np.arange(len(LABELS)) == 3, np.nan, LABELS)
    found = paired_bootstrap("pearson", LABELS + A[0], broken, LABELS, resamples=99)
    assert (found.b, found.undefined) == (0.0, 99) and math.isfinite(found.interval.low)


def test_a_function_may_refuse_a_resample_but_not_all_rows():
    def picky(predictions, labels):
        if len(np.unique(labels)) < 2:
            raise ValueError("two classes are needed")
        return float(np.mean(predictions == labels))

    labels = np.array([0, 0, 0, 0, 1])
    found = paired_bootstrap(picky, labels, np.zeros(5), labels, resamples=499)
    assert found.undefined / 499 == pytest.approx(0.8**5, abs=0.08)
    with pytest.raises(ValueError, match="two classes"):
        paired_bootstrap(picky, labels, labels, np.zeros(5), resamples=99)


@pytest.mark.parametrize(("a", "b", "difference", "p"), [(LABELS, LABELS, 0.0, 1.0), (LABELS, LABELS + 1, 1.0, 0.01)])
def test_all_right_or_all_wrong_is_no_p_of_0(a, b, difference, p):
    found = paired_bootstrap("accuracy", a, b, LABELS, resamples=199)
    assert (found.difference, found.sd, found.p, found.bca) == (difference, 0.0, p, None)
    assert (found.interval.low, found.interval.high) == (difference, difference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions_a": A[:, 1:]}, "shapes .2, 119. and .2, 120. for 120 rows"),
        ({"predictions_b": B[:1]}, "each seed"),
        ({"labels": LABELS[1:]}, "every labelled row"),
        ({"labels": LABELS[:0], "predictions_a": A[:, :0], "predictions_b": B[:, :0]}, "two labelled rows"),
        ({"metric": "mse"}, "more must be better"),
        ({"metric": "acuracy"}, "accuracy"),
        ({"resamples": 38}, "at least 39 resamples; found 38"),
        ({"level": 1.0}, "level: must be between 0 and 1"),
    ],
)
def test_the_bootstrap_refuses_what_does_not_fit(change, message):
    given = {"metric": "accuracy", "predictions_a": A, "predictions_b": B, "labels": LABELS, "resamples": 39}
    paired_bootstrap(**given)
    with pytest.raises(InputError, match=message):
        paired_bootstrap(**given | change)
