import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mtl_tickets.errors import InputError
from mtl_tickets.tasks.metrics import METRICS, compute, score
from mtl_tickets.tasks.spec import load_task

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 2, 200)
ANSWERS = np.where(RANDOM.random(200) < 0.3, 1 - LABELS, LABELS)
MANY = RANDOM.integers(0, 4, 200)
MANY_ANSWERS = np.where(RANDOM.random(200) < 0.5, RANDOM.integers(0, 4, 200), MANY)
VALUES = RANDOM.normal(size=200).astype(np.float32)
GUESSES = (VALUES + RANDOM.normal(size=200)).astype(np.float32)

EXPECTED = [
    ("accuracy", ANSWERS, LABELS, sk.accuracy_score(LABELS, ANSWERS)),
    ("accuracy", MANY_ANSWERS, MANY, sk.accuracy_score(MANY, MANY_ANSWERS)),
    ("f1", ANSWERS, LABELS, sk.f1_score(LABELS, ANSWERS)),
    ("f1_macro", MANY_ANSWERS, MANY, sk.f1_score(MANY, MANY_ANSWERS, average="macro")),
    ("mcc", ANSWERS, LABELS, sk.matthews_corrcoef(LABELS, ANSWERS)),
    ("mcc", MANY_ANSWERS, MANY, sk.matthews_corrcoef(MANY, MANY_ANSWERS)),
    ("pearson", GUESSES, VALUES, stats.pearsonr(VALUES, GUESSES).statistic),
    ("spearman", GUESSES, VALUES, stats.spearmanr(VALUES, GUESSES).statistic),
    ("mse", GUESSES, VALUES, sk.mean_squared_error(VALUES, GUESSES)),
    ("mae", GUESSES, VALUES, sk.mean_absolute_error(VALUES, GUESSES)),
]


@pytest.mark.parametrize(("name", "answers", "labels", "expected"), EXPECTED)
def test_metrics_are_those_of_the_libraries(
    name: str, answers: np.ndarray, labels: np.ndarray, expected: float
) -> None:
    assert METRICS.get(name)(answers, labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", METRICS.names())
@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.filterwarnings("error")
def test_metrics_of_constant_answers_are_numbers(name: str, rows: int) -> None:
    zeros = np.zeros(rows, dtype=np.int64)
    varied = np.arange(rows) % 2
    for answers, labels in ((zeros, zeros), (zeros, varied), (varied, zeros)):
        assert math.isfinite(METRICS.get(name)(answers, labels))


@pytest.mark.parametrize("name", ["f1", "mcc", "pearson", "spearman"])
def test_a_model_that_always_says_the_same_gets_nothing(name: str) -> None:
    assert METRICS.get(name)(np.zeros(6, dtype=np.int64), np.arange(6) % 2) == 0.0


def test_a_broken_model_gets_nothing() -> None:
    broken = np.array([1.0, np.nan, np.inf])
    assert METRICS.get("pearson")(broken, np.arange(3.0)) == 0.0
    assert METRICS.get("spearman")(broken, np.arange(3.0)) == 0.0


def test_the_positive_class_of_f1_is_label_one() -> None:
    answers, labels = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])
    assert METRICS.get("f1")(answers, labels) == pytest.approx(2 / 3)


def test_a_score_is_the_mean_of_the_metrics_times_100() -> None:
    spec = load_task("mrpc")
    values = compute(spec, ANSWERS, LABELS)
    assert list(values) == ["accuracy", "f1"]
    assert score(spec, values) == pytest.approx(50 * (values["accuracy"] + values["f1"]))


def test_errors_are_no_part_of_a_score() -> None:
    spec = load_task("stsb").model_copy(update={"metrics": ["mse", "pearson"]})
    assert score(spec, {"mse": 17.0, "pearson": 0.5}) == 50.0


def test_answers_and_labels_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="found 2 and 3"):
        METRICS.get("accuracy")(np.zeros(2), np.zeros(3))


def test_an_unknown_metric_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'spearman'"):
        METRICS.get("spaerman")


def test_every_metric_says_what_it_is() -> None:
    assert all(METRICS.summaries().values())
    assert METRICS.summaries()["mcc"] == "Matthews correlation coefficient."


def test_f1_without_any_positive_row_is_nothing() -> None:
    none = np.zeros(4, dtype=np.int64)
    assert METRICS.get("f1")(none, none) == 0.0
