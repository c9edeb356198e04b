import re

import numpy as np
import pytest

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.row_tests import RowSet, paired_bootstrap, resample
from mtl_tickets.evaluation.statistics import holm, minimum_detectable, paired_test
from mtl_tickets.evaluation.verdicts import compare, compare_all, compare_all_on_rows, verdict_on_rows

DENSE = {1: 80.0, 2: 81.0, 3: 79.5, 4: 80.5, 5: 80.2}


def moved(by, scores=DENSE):
    """``scores`` with one number of ``by`` added for each seed."""
    return {seed: value + by[i % len(by)] for i, (seed, value) in enumerate(scores.items())}


BETTER = moved([1.0, 1.4, 1.2, 1.1, 1.3])
UNCLEAR = moved([1.0, -1.2, 0.8, -0.3, 0.2])


def verdict(scores, other=DENSE, **options):
    return compare("adaptive", scores, "dense", other, **options).verdict


def test_better():
    found = verdict(BETTER, where="on rte")
    assert found.outcome == "better" and str(found) == found.sentence
    assert found.sentence == (
        "adaptive is better than dense by 1.2 points on rte (95 % interval 1.0 to 1.4, p < 0.001, 5 seeds)"
    )


def test_worse_is_better_swapped():
    found = compare("dense", DENSE, "adaptive", BETTER, where="on rte").verdict
    assert found.outcome == "worse"
    assert found.sentence == verdict(BETTER, where="on rte").sentence.replace(
        "adaptive is better than dense", "dense is worse than adaptive"
    )


def test_not_shown_says_what_would_be_missed():
    contrast = compare("adaptive", UNCLEAR, "dense", DENSE, power=0.9)
    assert contrast.verdict.outcome == "not shown"
    assert contrast.verdict.sentence == (
        "not shown: adaptive scores 0.1 points above dense (95 % interval -1.0 to 1.2, p = 0.814, 5 seeds); "
        "5 seeds find true differences reliably (90 % of the time) only from 1.7 points up"
    )
    assert contrast.detectable == minimum_detectable(5, contrast.test.sd, 0.05, 0.9)
    assert "0.1 points below adaptive" in compare("dense", DENSE, "adaptive", UNCLEAR).verdict.sentence


def test_equal_means_are_not_equal_methods():
    found = verdict(moved([1.0, -1.0], dict(list(DENSE.items())[:4])), dict(list(DENSE.items())[:4]))
    assert found.outcome == "not shown"
    assert found.sentence.startswith(
        "not shown: adaptive and dense have the same mean (95 % interval -1.8 to 1.8, p = 1"
    )


def test_the_same_scores_are_a_fact_and_no_test_result():
    found = verdict(dict(DENSE), where="on rte")
    assert found.outcome == "same scores"
    assert (
        found.sentence
        == "adaptive and dense have the same score on rte with each of 5 seeds: there is no difference to test"
    )


def test_one_seed_is_not_tested():
    contrast = compare("adaptive", {1: 81.26}, "dense", {1: 80.0})
    assert (contrast.test, contrast.p, contrast.detectable) == (None, None, None)
    assert contrast.difference == pytest.approx(1.26)
    assert contrast.verdict.outcome == "one seed"
    assert contrast.verdict.sentence == (
        "adaptive scores 1.3 points above dense with one seed: a test over seeds is impossible, so nothing is shown"
    )
    assert compare("adaptive", {1: 80.0}, "dense", {1: 80.0}).verdict.outcome == "one seed"


def test_differences_without_spread_say_so():
    found = verdict(moved([0.3]))
    assert found.outcome == "not shown"
    assert found.sentence == (
        "not shown: adaptive scores 0.3 points above dense (p = 0.0625, 5 seeds, the same difference with each); "
        "5 seeds without spread give no p below 0.0625"
    )
    seven = {seed: 80.0 + seed for seed in range(7)}
    assert verdict(moved([-0.3], seven), seven).outcome == "worse"


def test_no_number_but_0_reads_as_0_and_no_interval_as_a_point():
    assert "by 0.02 points (95 % interval 0.01 to 0.03" in verdict(moved([0.02, 0.03, 0.01, 0.02])).sentence
    assert (
        "by 0.013 points (95 % interval 0.011 to 0.015" in verdict(moved([0.012, 0.015, 0.011, 0.013, 0.014])).sentence
    )
    assert not re.search(r"\b0\.0 points", verdict(moved([0.02, -0.9, 0.9, 0.01, 0.0])).sentence)


@pytest.mark.parametrize("scores", [BETTER, UNCLEAR, dict(DENSE), moved([0.3])])
def test_no_sentence_claims_significance_or_equality(scores):
    assert not re.search("significan|equal|no difference between", verdict(scores).sentence)


@pytest.mark.parametrize("other", [{}, {1: 80.0}, {1: 80.0, 2: 80.0, 3: 80.0, 4: 80.0, 6: 80.0}])
def test_seeds_that_do_not_pair_are_an_error(other):
    with pytest.raises(InputError, match="same seeds"):
        compare("adaptive", BETTER, "dense", other)


# -- families ----------------------------------------------------------------------------------------------------------


def study(seeds=5, tasks=("cola", "rte", "sst2"), random=0):
    noise = np.random.default_rng(random)
    gains = {"own": 0.0, "dense": 0.0, "adaptive": 2.0, "losing": -3.0}
    return {
        task: {
            method: {seed: 80 + gain + float(noise.normal(0, 0.5)) for seed in range(seeds)}
            for method, gain in gains.items()
        }
        for task in tasks
    }


def test_every_method_is_held_against_the_baseline_on_every_task_and_the_average():
    scores = study()
    found = compare_all(scores, "dense")
    assert list(found.average) == ["own", "adaptive", "losing"] and list(found.tasks) == ["cola", "rte", "sst2"]
    assert {method: contrast.verdict.outcome for method, contrast in found.average.items()} == {
        "own": "not shown",
        "adaptive": "better",
        "losing": "worse",
    }
    assert "on the average of 3 tasks (95 % interval" in str(found.average["adaptive"].verdict)
    assert "Holm-corrected p" in str(found.average["adaptive"].verdict)
    assert " on rte (" in str(found.tasks["rte"]["own"].verdict)
    for method, contrast in found.average.items():
        on_tasks = [found.tasks[task][method].difference for task in scores]
        assert contrast.difference == pytest.approx(np.mean(on_tasks))
        assert contrast.mean_a == pytest.approx(np.mean([found.tasks[task][method].mean_a for task in scores]))


def test_each_family_is_corrected_by_itself():
    scores = study()
    found = compare_all(scores, "dense")
    raw = {(t, m): paired_test(scores[t][m], scores[t]["dense"]).p for t in scores for m in found.average}
    assert {(t, m): found.tasks[t][m].p for t in scores for m in found.average} == holm(raw)
    assert {m: c.p for m, c in found.average.items()} == holm({m: c.test.p for m, c in found.average.items()})
    assert {c.family for c in found.average.values()} == {3}
    assert {c.family for by_method in found.tasks.values() for c in by_method.values()} == {9}


def test_order_of_tasks_methods_and_seeds_changes_no_verdict():
    scores = study()
    turned = {
        task: {method: dict(reversed(by_seed.items())) for method, by_seed in reversed(by_method.items())}
        for task, by_method in reversed(scores.items())
    }
    one, two = compare_all(scores, "dense"), compare_all(turned, "dense")
    for method in one.average:
        assert str(one.average[method].verdict) == str(two.average[method].verdict)
        assert all(str(one.tasks[t][method].verdict) == str(two.tasks[t][method].verdict) for t in scores)


def test_what_only_the_correction_hides_is_said():
    scores = {"rte": {"dense": DENSE, "adaptive": moved([0.3, 1.2, 0.7, 1.6, 0.2]), "own": UNCLEAR, "union": UNCLEAR}}
    alone = compare("adaptive", scores["rte"]["adaptive"], "dense", DENSE)
    assert alone.verdict.outcome == "better"
    contrast = compare_all(scores, "dense").average["adaptive"]
    assert contrast.verdict.outcome == "not shown" and contrast.p == pytest.approx(3 * alone.p)
    assert "it would be shown but for the 2 other comparisons of the family" in contrast.verdict.sentence
    assert contrast.detectable == minimum_detectable(5, contrast.test.sd, 0.05 / 3)


def test_families_without_any_true_difference_err_as_rarely_as_they_say():
    random = np.random.default_rng(1)
    false, uncorrected, runs = 0, 0, 120
    for _ in range(runs):
        scores = {method: dict(enumerate(random.normal(80, 1, 5))) for method in ("dense", "a", "b", "c", "d")}
        contrasts = compare_all({"rte": scores}, "dense").average.values()
        false += any(contrast.p <= 0.05 for contrast in contrasts)
        uncorrected += any(contrast.test.p <= 0.05 for contrast in contrasts)
    assert false / runs < 0.08 < uncorrected / runs


def test_one_seed_gives_no_family():
    found = compare_all(study(seeds=1), "dense")
    assert {c.verdict.outcome for c in found.average.values()} == {"one seed"}
    assert all(c.p is None for by_method in found.tasks.values() for c in by_method.values())


def test_all_that_does_not_fit_is_named_at_once():
    scores = study()
    del scores["rte"]["own"]
    del scores["sst2"]["adaptive"][3]
    with pytest.raises(InputError) as error:
        compare_all(scores, "dense")
    assert [problem.place for problem in error.value.problems] == ["rte", "sst2: adaptive"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "at least one task"),
        ({"rte": {"own": DENSE}}, "baseline 'dense'"),
        ({"rte": {"dense": DENSE}}, "another method"),
    ],
)
def test_a_comparison_needs_a_task_a_baseline_and_another_method(scores, message):
    with pytest.raises(InputError, match=message):
        compare_all(scores, "dense")


# -- rows --------------------------------------------------------------------------------------------------------------


def rows(share_a, share_b, seeds=1, count=1000):
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, count)
    a, b = (np.where(random.random((seeds, count)) < share, labels, 1 - labels) for share in (share_a, share_b))
    return paired_bootstrap("accuracy", a, b, labels, resamples=999)


def test_rows_are_told_in_points_with_their_number():
    found = verdict_on_rows("adaptive", "dense", rows(0.9, 0.8, seeds=3), where="on rte")
    assert found.outcome == "better"
    assert re.fullmatch(
        r"adaptive is better than dense by \d+\.\d points on rte "
        r"\(95 % interval \d+\.\d to \d+\.\d, p = 0.002, 1,000 rows, mean of 3 seeds\)",
        found.sentence,
    )
    assert verdict_on_rows("dense", "adaptive", rows(0.8, 0.9)).outcome == "worse"


def test_rows_may_show_nothing_alone_or_after_correction():
    found = rows(0.8, 0.8)
    assert verdict_on_rows("a", "b", found).outcome == "not shown"
    sure = rows(0.9, 0.8)
    corrected = verdict_on_rows("a", "b", sure, p=0.06, family=30)
    assert corrected.outcome == "not shown" and "but for the 29 other comparisons" in corrected.sentence


def test_rows_answered_alike_are_the_same_scores():
    found = verdict_on_rows("own", "dense", rows(1.0, 1.0), where="on rte")
    assert found.outcome == "same scores"
    assert found.sentence == "own and dense have the same score on rte however the 1,000 rows are resampled"


def answered(tasks=("cola", "rte", "sst2"), count=300):
    random = np.random.default_rng(3)
    sets = []
    for task in tasks:
        labels = random.integers(0, 2, count)
        made = {
            name: np.where(random.random((1, count)) < share, labels, 1 - labels)
            for name, share in {"own": 0.8, "dense": 0.8, "adaptive": 0.9, "losing": 0.6}.items()
        }
        sets.append(RowSet(task, "dev", ("accuracy",), labels, made | {"twin": made["dense"]}))
    return resample(sets, resamples=4_999)


def test_on_rows_too_every_method_is_held_against_the_baseline_in_two_families():
    methods = ["own", "adaptive", "losing", "twin"]
    resampled = answered()
    found = compare_all_on_rows(resampled, "dense", methods)
    outcomes = ["not shown", "better", "worse", "same scores"]
    assert [found.average[method].verdict.outcome for method in methods] == outcomes
    raw = {m: resampled.on_average(m, "dense").p for m in methods}
    assert {m: found.average[m].p for m in methods} == holm(raw)
    raw = {(t, m): resampled.on_task(t, m, "dense").p for t in resampled.tasks for m in methods}
    assert {(t, m): found.tasks[t][m].p for t, m in raw} == holm(raw)
    assert {c.family for c in found.average.values()} == {4}
    assert {c.family for by_method in found.tasks.values() for c in by_method.values()} == {12}
    sentence = found.average["adaptive"].verdict.sentence
    assert re.fullmatch(
        r"adaptive is better than dense by \d+\.\d points on the average of 3 tasks "
        r"\(95 % interval \d+\.\d to \d+\.\d, Holm-corrected p = 0\.00\d+, 900 rows, one seed\)",
        sentence,
    )
    assert " on rte (" in found.tasks["rte"]["own"].verdict.sentence
    assert "however the 300 rows are resampled" in found.tasks["rte"]["twin"].verdict.sentence


def test_on_rows_unknown_methods_are_named():
    with pytest.raises(InputError) as error:
        compare_all_on_rows(answered(("rte",), 20), "sparse", ["own", "unoin"])
    assert [problem.found for problem in error.value.problems] == ["sparse", "unoin"]
