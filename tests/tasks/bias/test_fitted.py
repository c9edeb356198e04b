"""Folds: every row in one, dealt by label and by text."""

import subprocess
import sys

import numpy as np
from bias_rows import drawn

from mtl_tickets.tasks.bias.fitted import expanded, folds_of


def test_folds_are_stratified_by_text_and_do_not_depend_on_the_order() -> None:
    texts = drawn(203, 5, seed=0)
    labels = np.random.default_rng(0).choice(3, size=203, p=[0.7, 0.2, 0.1])
    fold = folds_of(texts, labels, 4, "t")
    assert set(fold.tolist()) == {0, 1, 2, 3}
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(fold)) <= 1
    order = np.random.default_rng(1).permutation(203)
    again = folds_of([texts[i] for i in order], labels[order], 4, "t")
    assert np.array_equal(again, fold[order])


def test_equal_texts_share_a_fold_whatever_their_labels() -> None:
    texts = ["a", "b", "c", "a", "d", "b"]
    fold = folds_of(texts, np.array([0, 1, 0, 1, 1, 1]), 2, "t")
    assert fold[0] == fold[3] and fold[1] == fold[5]


def test_sides_are_shared_equally() -> None:
    answers = np.log(np.array([[0.4, 0.6], [0.9, 0.1]]))
    assert np.allclose(np.exp(expanded(answers, np.array([0, 1, 0]))), [[0.2, 0.6, 0.2], [0.45, 0.1, 0.45]])
    assert np.allclose(expanded(answers, np.array([0, 1])), answers)


def test_settings_are_known_without_loading_what_fits_them() -> None:
    code = "import sys; from mtl_tickets.tasks.bias import BIAS_MODELS; BIAS_MODELS.names(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "mtl_tickets.tasks.bias.word_overlap" in loaded
    assert not {"sklearn", "scipy", "torch", "transformers"} & set(loaded)
