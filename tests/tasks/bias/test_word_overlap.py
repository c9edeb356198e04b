"""Word overlap: features by hand, labels that share a side, a bias that was planted, and the known bias of MNLI."""

import math
from pathlib import Path

import numpy as np
import pytest
from bias_rows import planted, rows, task

from mtl_tickets.errors import ConfigError, DataError
from mtl_tickets.settings import member_of
from mtl_tickets.tasks.bias import BIAS_MODELS
from mtl_tickets.tasks.bias.word_overlap import FEATURES, WordOverlap, overlap_features, words_of
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import load_task

VECTORS = "5 2\nthe 1 0\ncat 0 2\nDog 0 3\ndog 1 0\nsat 3 4\n"  # fox has none


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    file = tmp_path / "vectors.vec"
    file.write_text(VECTORS)
    return file


def features(premise: str, hypothesis: str, vectors: Path | None = None) -> dict[str, float]:
    return dict(zip(FEATURES, overlap_features([premise], [hypothesis], vectors)[0].tolist(), strict=True))


def test_words_are_words_and_marks_as_written() -> None:
    assert words_of("The dog's café, it didn’t... 3.5!") == [
        *("The", "dog's", "café", ",", "it", "didn’t", ".", ".", ".", "3", ".", "5", "!")
    ]
    assert words_of(" \u2028\t") == []


@pytest.mark.parametrize(
    ("premise", "hypothesis", "in_a_row", "all_in", "share_in", "longer_by"),
    [
        ("The big cat sat .", "big Cat", 1, 1, 1, 3),
        ("the big cat sat", "the cat", 0, 1, 1, 2),
        ("the big cat sat", "cat big", 0, 1, 1, 2),
        ("the cat", "the cat", 1, 1, 1, 1),
        ("the cat", "the dog the fox", 0, 0, 0.5, 1),
        ("cat", "cat cat cat dog", 0, 0, 0.75, 1),
        ("cat", "cat cat", 0, 1, 1, 1),
        ("catalogue sat here", "cat", 0, 0, 0, 2),
        ("the cat", "", 1, 1, 1, 2),
        ("", "cat", 0, 0, 0, 1),
    ],
)
def test_what_is_shared(
    premise: str, hypothesis: str, in_a_row: int, all_in: int, share_in: float, longer_by: int
) -> None:
    found = features(premise, hypothesis)
    assert (found["in_a_row"], found["all_in"], found["share_in"]) == (in_a_row, all_in, share_in)
    assert found["log_shorter"] == pytest.approx(math.log(longer_by))


def test_best_cosines_by_hand(vectors: Path) -> None:
    found = features("The cat", "the sat cat", vectors)
    # the-the 1, sat-(the 0.6, cat 0.8), cat-cat 1
    assert [found["mean_best"], found["lowest_best"], found["second_lowest_best"]] == pytest.approx([2.8 / 3, 0.8, 1])
    # as written before lower case
    assert features("cat", "Dog", vectors)["lowest_best"] == pytest.approx(1)
    assert features("cat", "dog", vectors)["lowest_best"] == pytest.approx(0)
    assert features("cat", "DOG", vectors)["lowest_best"] == pytest.approx(0)


def test_words_without_a_vector_count_in_the_mean_only(vectors: Path) -> None:
    found = features("the fox", "the fox", vectors)
    assert [found["mean_best"], found["lowest_best"], found["second_lowest_best"]] == pytest.approx([0.5, 1, 0])
    assert found["all_in"] == 1
    both = overlap_features(["the fox", "fox", "the"], ["fox", "the", ""], vectors)
    assert not both[:, 4:].any()


def test_by_spelling_words_are_like_themselves_and_like_their_forms() -> None:
    found = features("some Walking dogs", "walking DOGS")
    assert [found["mean_best"], found["lowest_best"], found["second_lowest_best"]] == pytest.approx([1, 1, 1])
    near, far = features("walking", "walked"), features("walking", "zebu")
    assert 1 > near["lowest_best"] > 0.3 > far["lowest_best"] == 0


def test_a_pair_is_seen_the_same_whatever_stands_beside_it() -> None:
    some = planted(200, seed=3)
    together = overlap_features(*some.texts)
    alone = np.concatenate([overlap_features([a], [b]) for a, b in zip(*some.texts, strict=True)])
    assert np.allclose(together, alone, atol=1e-12)


def test_the_planted_bias_is_found() -> None:
    train, held = planted(600, seed=0), planted(300, seed=1)
    spec, model = task(), WordOverlap(against="entailment")
    for answers, asked in ((model.log_probs(spec, train), train), (model.answers(spec, train, held), held)):
        entailed = np.exp(answers[:, 1]) > 0.5
        assert (entailed == (np.asarray(asked.labels) == 1)).mean() > 0.95


def test_the_other_labels_share_the_rest_equally() -> None:
    train = planted(200, seed=0)
    answers = WordOverlap(against="entailment").log_probs(task(), train)
    assert answers.dtype == np.float64 and answers.shape == (200, 3)
    assert np.allclose(np.exp(answers).sum(1), 1, atol=1e-12)
    assert np.array_equal(answers[:, 0], answers[:, 2])
    two = WordOverlap().log_probs(task(["no", "yes"]), rows(*train.texts, labels=[int(y == 1) for y in train.labels]))
    assert np.allclose(answers[:, 0], two[:, 0] - math.log(2))
    assert np.allclose(answers[:, 1], two[:, 1])


def test_without_a_label_to_tell_all_are_told_apart() -> None:
    answers = WordOverlap().log_probs(task(), planted(200, seed=0))
    assert np.allclose(np.exp(answers).sum(1), 1, atol=1e-12)
    assert not np.allclose(answers[:, 0], answers[:, 2])


def test_the_order_of_rows_does_not_matter() -> None:
    train = planted(300, seed=5)
    order = np.random.default_rng(0).permutation(len(train))
    for folds in (1, 4):
        model = WordOverlap(against="entailment", folds=folds)
        one, two = model.log_probs(task(), train), model.log_probs(task(), train.select(order))
        assert np.allclose(np.exp(one[order]), np.exp(two), atol=1e-3), folds


def test_the_hypothesis_may_be_the_first_text() -> None:
    train = planted(200, seed=0)
    turned = rows(train.texts[1], train.texts[0], labels=train.labels)
    expected = WordOverlap(against="entailment").log_probs(task(), train)
    assert np.array_equal(WordOverlap(against="entailment", hypothesis=1).log_probs(task(), turned), expected)


def test_what_it_cannot_do_is_refused() -> None:
    model = WordOverlap(against="entailmnet")
    with pytest.raises(ConfigError) as error:
        model.log_probs(task(), rows(["a cat"], labels=[1]))
    assert [str(problem) for problem in error.value.problems] == [
        "t: bias model 'word_overlap' needs pairs of texts; found 1",
        "t: against: must be one of the task's labels; found 'entailmnet'; did you mean 'entailment'?",
    ]
    regression = task(kind="regression", labels=[], metrics=["pearson"])
    with pytest.raises(
        ConfigError, match=r"^t: kind: bias model 'word_overlap' needs a classification task; found 're"
    ):
        WordOverlap().log_probs(regression, rows(["a"], ["b"], labels=[1]))
    with pytest.raises(DataError, match=r"^t.tsv: bias model 'word_overlap' is fitted on labels; found 'an unlabelled"):
        WordOverlap().log_probs(task(), rows(["a"], ["b"]))


def test_settings_are_checked_by_kind() -> None:
    assert member_of(BIAS_MODELS, "word_overlap") == WordOverlap()
    assert member_of(BIAS_MODELS, {"kind": "word_overlap", "against": "entailment"}).C == 100
    with pytest.raises(ConfigError, match="unknown bias model; found 'word_overlaps'; did you mean 'word_overlap'"):
        member_of(BIAS_MODELS, "word_overlaps")
    with pytest.raises(ConfigError, match="hypothesis"):
        member_of(BIAS_MODELS, {"kind": "word_overlap", "hypothesis": 3})


@pytest.mark.real
def test_overlap_says_entailment_of_mnli_and_of_nearly_all_of_hans(shared: Path) -> None:
    """The known bias: better than the majority on MNLI, and wrong on HANS where the answer is non-entailment."""
    mnli, hans = load_task("mnli"), load_task("hans")
    glue = DataSettings(source="folder", root=shared / "data" / "glue")
    train = read_rows(mnli, "train", glue).select(np.arange(2000))
    held = read_rows(mnli, "dev_matched", glue).select(np.arange(2000))
    model = WordOverlap(against="entailment")

    truth = np.asarray(held.labels) == mnli.labels.index("entailment")
    entailed = np.exp(model.answers(mnli, train, held)[:, 0]) > 0.5
    assert (entailed == truth).mean() > max(truth.mean(), 1 - truth.mean())
    assert (entailed[truth].mean() + (1 - entailed[~truth].mean())) / 2 > 0.6

    everything = read_rows(hans, "dev", DataSettings(source="folder", root=shared / "data" / "ood"))
    lines = (shared / "data/ood/HANS/hans_regenerated.tsv").read_text().splitlines()
    columns = lines[0].split("\t")
    heuristic = [lines[line - 1].split("\t")[columns.index("heuristic")] for line in everything.lines]
    wrong = (np.array(heuristic) == "lexical_overlap") & (np.asarray(everything.labels) == 1)
    asked = everything.select(np.flatnonzero(wrong)[:2000])
    assert (np.exp(model.answers(mnli, train, asked)[:, 0]) > 0.5).mean() > 0.95
