import math

import numpy as np
import pytest
from scipy import stats

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation import row_tests
from mtl_tickets.evaluation.row_tests import RowSet, enough_resamples, paired_bootstrap, resample, row_seed
from mtl_tickets.tasks.metrics import METRICS

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 120)


def answers(share, seeds=2, labels=LABELS, random=RANDOM):
    """Right for ``share`` of the rows, else anything."""
    shape = (seeds, len(labels))
    return np.where(random.random(shape) < share, labels, random.integers(0, 3, shape))


A, B = answers(0.8), answers(0.6)


# -- the bootstrap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accuracy", "f1", "f1_macro", "mcc", "pearson", "spearman"])
def test_metrics_of_many_resamples_at_once_are_the_metrics(name):
    a, b, labels = A[:, :25], B[:, :25], LABELS[:25]
    if name in ("pearson", "spearman"):
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
    for name in ("f1", "f1_macro", "mcc", "pearson", "spearman"):
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
    for name in ("pearson", "spearman"):
        for wrong in (broken, np.where(np.isnan(broken), np.inf, broken)):
            found = paired_bootstrap(name, LABELS + A[0], wrong, LABELS, resamples=99)
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


# -- several methods on several tasks ----------------------------------------------------------------------------------


def row_sets(shares, seeds=2, random=0, **more):
    """Methods that are right for a share of the rows, on a task of two splits, one of two metrics, and one of none."""
    chance = np.random.default_rng(random)
    shapes = {("mnli", "dev_matched"): 60, ("mnli", "dev_mismatched"): 50, ("rte", "dev"): 40, ("stsb", "dev"): 45}
    metrics = {"mnli": ("accuracy",), "rte": ("f1", "accuracy"), "stsb": ("pearson", "spearman")}
    sets = []
    for (task, split), rows in shapes.items():
        labels = chance.integers(0, 2, rows)
        made = {name: answers(share, seeds, labels, chance) for name, share in shares.items()}
        if task == "stsb":
            labels = labels + chance.random(rows).round(1)
            made = {name: 4 * labels * shares[name] + chance.normal(size=(seeds, rows)) for name in made}
        sets.append(RowSet(task, split, metrics[task], labels, made | more))
    return sets


SHARES = {"dense": 0.6, "own": 0.7, "adaptive": 0.95}


def test_one_method_on_one_task_is_the_paired_bootstrap():
    sets = row_sets(SHARES)
    mixed, rte = resample(sets, resamples=199), sets[2]
    alone = paired_bootstrap(
        lambda answers, labels: (METRICS.get("f1")(answers, labels) + METRICS.get("accuracy")(answers, labels)) / 2,
        rte.answers["own"],
        rte.answers["dense"],
        rte.labels,
        resamples=199,
        seed=row_seed(0, "rte", "dev"),
    )
    found = mixed.on_task("rte", "own", "dense")
    assert (found.p, found.rows, found.seeds) == (alone.p, 40, 2)
    assert (found.difference, found.sd) == (pytest.approx(alone.difference), pytest.approx(alone.sd))
    assert (found.interval.low, found.interval.high) == pytest.approx((alone.interval.low, alone.interval.high))
    assert (found.bca.low, found.bca.high) == pytest.approx((alone.bca.low, alone.bca.high))


def test_the_average_is_that_of_the_tasks_and_a_task_that_of_its_splits():
    sets = row_sets(SHARES)
    found = resample(sets, resamples=199)
    on_tasks = [found.on_task(task, "own", "dense") for task in ("mnli", "rte", "stsb")]
    average = found.on_average("own", "dense")
    assert average.difference == pytest.approx(np.mean([task.difference for task in on_tasks]))
    assert (average.a, average.b) == pytest.approx(tuple(np.mean([(task.a, task.b) for task in on_tasks], 0)))
    assert average.rows == sum(task.rows for task in on_tasks) == 195
    # tasks are drawn independently of each other
    assert average.sd == pytest.approx(np.sqrt(sum(task.sd**2 for task in on_tasks)) / 3, rel=0.2)
    right = [[np.mean(s.answers[name] == s.labels) for s in sets[:2]] for name in ("own", "dense")]
    assert on_tasks[0].difference == pytest.approx(np.mean(right[0]) - np.mean(right[1]))
    assert found.score("mnli", "own") == pytest.approx(np.mean(right[0]))


def test_neither_the_order_of_tasks_and_methods_nor_other_methods_matter():
    sets = row_sets(SHARES)
    turned = [RowSet(s.task, s.split, s.metrics, s.labels, dict(reversed(s.answers.items()))) for s in reversed(sets)]
    fewer = [RowSet(s.task, s.split, s.metrics, s.labels, {k: s.answers[k] for k in ("own", "dense")}) for s in sets]
    one, *others = (resample(these, resamples=199) for these in (sets, turned, fewer))

    def compared(found):
        return found.on_average("own", "dense"), found.on_task("stsb", "own", "dense")

    for other in others:
        for a, b in zip(*map(compared, (one, other)), strict=True):
            assert a.p == b.p and a.difference == pytest.approx(b.difference)
            assert (a.interval.low, a.interval.high) == pytest.approx((b.interval.low, b.interval.high))
            assert (a.bca.low, a.bca.high) == pytest.approx((b.bca.low, b.bca.high))


def test_methods_that_answer_alike_have_the_same_scores():
    sets = [
        RowSet(s.task, s.split, s.metrics, s.labels, {**s.answers, "twin": s.answers["own"]}) for s in row_sets(SHARES)
    ]
    found = resample(sets, resamples=199)
    for result in (found.on_average("twin", "own"), *(found.on_task(task, "twin", "own") for task in found.tasks)):
        assert (result.difference, result.sd, result.p, result.bca) == (0.0, 0.0, 1.0, None)
        assert (result.interval.low, result.interval.high) == (0.0, 0.0)
    assert found.on_average("twin", "dense") == found.on_average("own", "dense")


def test_a_clear_difference_is_found_and_its_mirror_too():
    found = resample(row_sets(SHARES), resamples=999)
    better, worse = found.on_average("adaptive", "dense"), found.on_average("dense", "adaptive")
    assert better.p == worse.p == 0.002 and better.interval.low > 0
    assert worse.interval.high == -better.interval.low and worse.difference == -better.difference


def test_where_there_is_no_difference_p_is_near_uniform_and_intervals_cover_it():
    random, worlds, level = np.random.default_rng(11), 200, 0.9
    low = wrong = 0
    for number in range(worlds):
        sets = []
        for task, rows in (("a", 90), ("b", 60)):
            labels = random.integers(0, 2, rows)
            hard = random.random(rows) * 0.6 + 0.4  # rows that are hard are hard for both
            made = {name: np.where(random.random((1, rows)) < hard, labels, 1 - labels) for name in ("x", "y")}
            sets.append(RowSet(task, "dev", ("accuracy",), labels, made))
        found = resample(sets, resamples=199, level=level, seed=number).on_average("x", "y")
        wrong += 0 not in found.interval
        low += found.p <= 0.5
    assert stats.binomtest(wrong, worlds, 1 - level).pvalue > 0.01
    assert stats.binomtest(low, worlds, 0.5).pvalue > 0.01


def test_undefined_metrics_of_any_task_are_counted_and_0():
    sets = row_sets(SHARES)
    constant = RowSet("cola", "dev", ("mcc",), sets[2].labels, {n: 0 * a for n, a in sets[2].answers.items()})
    found = resample([*sets, constant], resamples=99)
    assert (found.undefined("cola"), found.undefined("mnli"), found.score("cola", "own")) == (99, 0, 0.0)
    assert found.on_average("own", "dense").undefined == 99 and found.on_task("rte", "own", "dense").undefined == 0


@pytest.mark.parametrize("comparisons", [1, 24, 112])
def test_enough_resamples_show_what_is_sure_through_a_correction(comparisons):
    assert comparisons * 2 / (enough_resamples(comparisons) + 1) <= 0.01


def test_all_that_does_not_fit_together_is_named_at_once():
    one, two, three, four = row_sets(SHARES)
    few = RowSet("rte", "dev", one.metrics, one.labels, {"dense": one.answers["dense"][:, 1:], "own": A[:1]})
    with pytest.raises(InputError) as error:
        resample([one, two, few, three, RowSet("stsb", "dev", four.metrics, four.labels[:1], four.answers)])
    places = [problem.place for problem in error.value.problems]
    assert places[:4] == ["rte, dev", "rte, dev: dense", "rte, dev: own", "rte, dev"]
    assert "only once" in str(error.value.problems[3]) and "two labelled rows" in str(error.value.problems[4])
    with pytest.raises(InputError, match="two methods"):
        resample([])


def test_methods_must_have_answered_the_same_rows():
    kept = {name: dict.fromkeys((1, 2), (A[0], LABELS)) for name in ("dense", "own", "union", "adaptive")}
    assert RowSet.of("rte", "dev", ["f1"], kept).answers["own"].shape == (2, 120)
    kept["own"][2] = A[0, 1:], LABELS[1:]
    kept["union"][1] = A[0], np.where(np.arange(120) < 2, LABELS + 1, LABELS)
    del kept["adaptive"][1]
    with pytest.raises(InputError) as error:
        RowSet.of("rte", "dev", ["f1"], kept)
    places = [problem.place for problem in error.value.problems]
    assert places == ["rte, dev: own, seed 2", "rte, dev: union, seed 1", "rte, dev: adaptive"]
    assert "2 that differ" in str(error.value.problems[1])
