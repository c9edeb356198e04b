from __future__ import annotations

import numpy as np
import pytest

from mtl_tickets.pretraining import ppmi
from mtl_tickets.pretraining.ppmi import cooccurrences, positive_information, ppmi_embeddings

WORDS = 40


@pytest.fixture(scope="module")
def text() -> tuple[np.ndarray, np.ndarray]:
    """Documents of two subjects: words 0 to 9 with 20 to 24, words 10 to 19 with 25 to 29; none from 30 on."""
    rng = np.random.default_rng(0)
    documents = []
    for number in range(400):
        subject = number % 2
        document = rng.integers(10, size=20) + 10 * subject
        document[::2] = rng.integers(5, size=10) + 20 + 5 * subject
        documents.append(document)
    return np.concatenate(documents), np.cumsum([len(document) for document in documents])


def cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def test_counts_are_those_of_a_plain_loop(monkeypatch):
    rng = np.random.default_rng(1)
    ids, ends = rng.integers(6, size=100), np.array([3, 40, 41, 77])
    expected = np.zeros((7, 7))
    document = np.searchsorted(ends, np.arange(100), side="right")
    for a in range(100):
        for b in range(100):
            if 0 < abs(a - b) <= 3 and document[a] == document[b]:
                expected[ids[a], ids[b]] += 1
    assert np.array_equal(cooccurrences(ids, ends, 7, 3).toarray(), expected)
    # pairs that reach over the edge of a chunk are counted too
    monkeypatch.setattr(ppmi, "CHUNK", 8)
    assert np.array_equal(cooccurrences(ids, ends, 7, 3).toarray(), expected)


def test_words_of_different_documents_never_occur_together():
    ids, ends = np.array([0, 1, 2, 3, 2, 3]), np.array([2, 6])
    counts = cooccurrences(ids, ends, 4, 5).toarray()
    assert counts[:2, :2].any() and counts[2:, 2:].any()
    assert not counts[:2, 2:].any() and not counts[2:, :2].any()
    # without the ends they do
    assert cooccurrences(ids, np.array([], dtype=int), 4, 5).toarray()[1, 2] == 2


def test_information_is_the_formula():
    counts = np.array([[0.0, 4.0, 1.0], [4.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    word = counts.sum(axis=1) / counts.sum()
    context = counts.sum(axis=0) ** 0.75 / (counts.sum(axis=0) ** 0.75).sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(0, np.log(counts / counts.sum() / np.outer(word, context)))
    assert (expected > 0).any() and (expected[counts > 0] == 0).any()
    np.testing.assert_allclose(positive_information(counts).toarray(), expected, rtol=1e-6)


def test_the_words_that_occur_have_mean_0_and_the_deviation_asked_for(text):
    for std in (0.02, 0.5):
        rows = ppmi_embeddings(*text, WORDS, 8, std=std)
        assert rows.shape == (WORDS, 8) and rows.dtype == np.float32
        assert rows[:30].std() == pytest.approx(std, rel=1e-5)
        np.testing.assert_allclose(rows[:30].mean(axis=0), 0, atol=1e-6)


def test_words_that_never_occur_have_random_rows_of_the_same_deviation(text):
    rows = ppmi_embeddings(*text, 3000, 8, std=0.1)
    unseen = rows[30:]
    assert unseen.std() == pytest.approx(0.1, rel=0.05)
    assert unseen.mean() == pytest.approx(0, abs=0.01)
    assert len(np.unique(unseen)) > 0.99 * unseen.size


def test_the_same_arguments_give_the_same_bytes(text):
    first, second = (ppmi_embeddings(*text, WORDS, 8, seed=3, std=0.1) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert not np.allclose(first[30:], ppmi_embeddings(*text, WORDS, 8, seed=4, std=0.1)[30:])


# two directions tell the subjects apart and 30 are all there are: between these, where to cut is a matter of chance
@pytest.mark.parametrize("width", [2, 30])
def test_renaming_the_words_renames_the_rows_up_to_a_rotation(text, width):
    ids, ends = text
    order = np.random.default_rng(2).permutation(30)
    rows = ppmi_embeddings(ids, ends, 30, width, std=0.1)
    renamed = ppmi_embeddings(order[ids], ends, 30, width, std=0.1)
    np.testing.assert_allclose((renamed @ renamed.T)[np.ix_(order, order)], rows @ rows.T, atol=1e-5 * width)


def test_words_that_behave_alike_have_near_vectors(text):
    near = cosines(ppmi_embeddings(*text, 30, 8, std=0.1))
    subject = np.isin(np.arange(30), np.r_[0:10, 20:25])
    same = (subject[:, None] == subject) & ~np.eye(30, dtype=bool)
    assert near[same].min() > near[subject][:, ~subject].max()


def test_columns_beyond_the_rank_are_0(text):
    rows = ppmi_embeddings(*text, WORDS, 64, std=0.1)
    assert not rows[:30, 30:].any() and rows[30:, 30:].all()
    assert rows[:30].std() == pytest.approx(0.1, rel=1e-5)


def test_a_text_that_tells_nothing_gives_random_rows():
    for ids in (np.array([], dtype=int), np.array([1]), np.zeros(50, dtype=int)):
        rows = ppmi_embeddings(ids, np.array([len(ids)]), 200, 16, std=0.1)
        assert rows.std() == pytest.approx(0.1, rel=0.1)


def test_what_makes_no_sense_is_refused(text):
    for vocabulary, width, window, std in ((29, 8, 5, 0.1), (30, 0, 5, 0.1), (30, 8, 0, 0.1), (30, 8, 5, 0.0)):
        with pytest.raises(ValueError):
            ppmi_embeddings(*text, vocabulary, width, window=window, std=std)


def test_a_part_of_a_text_is_counted_like_the_whole_of_a_shorter_one():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30, size=400)
    ends = np.array([100, 250, 333, 400])
    part = ppmi_embeddings(ids[:300], ends, 30, 4, std=1.0)
    np.testing.assert_array_equal(part, ppmi_embeddings(ids[:300], np.array([100, 250]), 30, 4, std=1.0))
