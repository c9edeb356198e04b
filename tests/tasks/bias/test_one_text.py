"""One text: it finds what the text gives away, and with folds it does not recite labels."""

import logging
import math

import numpy as np
import pytest
from bias_rows import WORDS, drawn, rows, task

from mtl_tickets.errors import ConfigError, DataError
from mtl_tickets.tasks.bias import bias_report
from mtl_tickets.tasks.bias.one_text import OneText

TWO = task(["no", "yes"])


def test_with_folds_random_labels_say_nothing_and_without_they_are_recited() -> None:
    labels = np.random.default_rng(1).integers(2, size=1000)
    # words that two rows each have: enough of them to learn any labels by heart
    many = [f"w{i}" for i in range(5000)]
    recited = rows(drawn(1000, 12, seed=0, words=many), labels=labels)
    by_heart = bias_report(OneText(folds=1, C=10).log_probs(TWO, recited), labels)
    assert by_heart["accuracy"] > 0.95 and by_heart["mean_true_probability"] > 0.9
    assert bias_report(OneText(folds=5, C=10).log_probs(TWO, recited), labels)["accuracy"] < 0.56
    # few words and many rows: nothing is left to say
    plain = rows(drawn(1000, 3, seed=0), labels=labels)
    honest = bias_report(OneText().log_probs(TWO, plain), labels)
    assert honest["mean_max_probability"] < 0.58
    assert abs(honest["mean_true_probability"] - 0.5) < 0.02


def test_a_word_that_gives_the_label_away_is_found_in_the_text_asked_for() -> None:
    labels = np.random.default_rng(1).integers(2, size=400).tolist()
    giving = [text + (" not" if label else "") for text, label in zip(drawn(400, 4, seed=0), labels, strict=True)]
    pairs = rows(drawn(400, 4, seed=2), giving, labels=labels)
    assert bias_report(OneText(text=2).log_probs(TWO, pairs), labels)["accuracy"] > 0.99
    assert bias_report(OneText(text=1).log_probs(TWO, pairs), labels)["accuracy"] < 0.6


def test_the_same_text_is_never_its_own_witness() -> None:
    """Every claim stands twice (with two pieces of evidence); its own copy must not answer it."""
    labels = np.random.default_rng(1).integers(2, size=300).tolist()
    claims = drawn(300, 6, seed=0, words=[f"w{i}" for i in range(2000)])
    twice = rows(claims + claims, drawn(600, 3, seed=4), labels=labels + labels)
    answers = OneText(C=10).log_probs(TWO, twice)
    assert bias_report(answers, labels + labels)["accuracy"] < 0.6
    assert np.allclose(answers[:300], answers[300:])


def test_the_order_of_rows_does_not_matter() -> None:
    labels = np.random.default_rng(1).integers(3, size=200)
    some = rows(drawn(200, 4, seed=0), labels=labels)
    order = np.random.default_rng(2).permutation(200)
    for folds in (1, 5):
        one = OneText(folds=folds).log_probs(task(), some)
        two = OneText(folds=folds).log_probs(task(), some.select(order))
        assert np.allclose(np.exp(one[order]), np.exp(two), atol=1e-3), folds
        assert np.allclose(np.exp(one).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("texts", [["..", "!!", "??", ",,"], ["one", "two", "three", "four"], ["", "", "", " "]])
def test_without_words_in_common_the_shares_of_the_labels_are_said(texts: list[str]) -> None:
    answers = OneText(folds=1).log_probs(TWO, rows(texts, labels=[0, 0, 0, 1]))
    assert np.allclose(np.exp(answers), [0.75, 0.25], atol=1e-3)


def test_a_class_without_rows_is_unlikely_and_finite() -> None:
    some = rows(drawn(40, 3, seed=0), labels=[0, 2] * 20)
    answers = OneText(folds=1).log_probs(task(), some)
    assert np.allclose(np.exp(answers).sum(1), 1, atol=1e-12)
    assert np.allclose(answers[:, 1], math.log(1 / 43))
    alone = OneText(folds=1).log_probs(TWO, rows(drawn(3, 3, seed=0), labels=[1, 1, 1]))
    assert np.allclose(np.exp(alone), [1 / 5, 4 / 5])


def test_few_rows_make_fewer_folds_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answers = OneText().log_probs(TWO, rows(WORDS[:3], labels=[0, 1, 0]))
    assert "t: bias model 'one_text' has 3 different texts and is fitted in as many folds, not 5" in caplog.text
    assert "class 1 has 1 different texts for 3 folds" in caplog.text
    # the second row's model has seen class 0 alone, twice: class 1 has 1 / (2 + 2)
    assert np.allclose(np.exp(answers[1]), [3 / 4, 1 / 4])
    with pytest.raises(DataError, match=r"folds need at least two different texts of 2 rows; found 1; folds: 1 fits"):
        OneText().log_probs(TWO, rows(["same", "same"], labels=[0, 1]))


def test_a_text_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^t: text: bias model 'one_text' must read a text that the task has \(1 a row\); found 2$"
    ):
        OneText(text=2).log_probs(TWO, rows(["a"], labels=[0]))
