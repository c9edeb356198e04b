"""Word embeddings from counts, for an encoder's word embeddings to start from.

A word's embedding is its row of a truncated singular value decomposition of the matrix of positive pointwise mutual
information with its neighbours (Levy and Goldberg 2014, "Neural word embedding as implicit matrix factorization").
Contexts are smoothed with exponent 0.75 and singular values taken to the power 0.5, as Levy, Goldberg and Dagan 2015
recommend ("Improving distributional similarity with lessons learned from word embeddings", sections 3.1 and 3.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np

WINDOW = 5
SMOOTHING = 0.75
SINGULAR_POWER = 0.5
# tokens counted at once: about 40 * window bytes each
CHUNK = 1 << 20
# each iteration reads the matrix twice; these embeddings gain nothing from more
ITERATIONS = 2


def ppmi_embeddings(
    ids: np.ndarray,
    ends: np.ndarray,
    vocabulary: int,
    width: int,
    *,
    window: int = WINDOW,
    seed: int = 0,
    std: float,
) -> np.ndarray:
    """Embeddings of all words of a text, float32 [vocabulary, width]; a pure function of the arguments.

    ``ids``: the text, integers [tokens] in [0, vocabulary). ``ends``: where its documents end, ascending [documents];
    what follows the last end is a document too, and an end behind the text is none. Two words occur together where
    they are at most ``window`` places apart in one document.

    The words that occur have embeddings of mean 0, and their entries the standard deviation ``std``; columns beyond
    the rank of the matrix are 0. Words that never occur have random normal rows of the same deviation, and so have all
    where no two words are informative of each other.

    Raises ValueError for ids outside the vocabulary, or where ``width``, ``window`` or ``std`` is not positive.
    """
    if width < 1 or window < 1 or not std > 0:
        raise ValueError(f"width, window and std must be positive, not {width}, {window} and {std}")
    rows = np.random.default_rng(seed).standard_normal((vocabulary, width)) * std
    matrix = positive_information(cooccurrences(ids, ends, vocabulary, window))
    known = np.flatnonzero(np.diff(matrix.indptr))
    if len(known):
        found = _leading(matrix[known], min(width, len(known)), seed)
        # what all words share tells none from another
        found -= found.mean(axis=0)
        deviation = found.std() * np.sqrt(found.shape[1] / width)
        if deviation > 0:
            rows[known] = 0
            rows[known, : found.shape[1]] = found * (std / deviation)
    return rows.astype(np.float32)


def cooccurrences(ids: np.ndarray, ends: np.ndarray, vocabulary: int, window: int) -> Any:
    """How often each two words occur together: a symmetric sparse matrix [vocabulary, vocabulary] of float64 counts."""
    from scipy import sparse

    ends = np.asarray(ends, dtype=np.int64)
    ends = np.append(ends[ends < len(ids)], len(ids))
    shape = (vocabulary, vocabulary)
    following = sparse.csr_matrix(shape, dtype=np.float64)
    for start in range(0, len(ids), CHUNK):
        # the words of this chunk, and those that may follow its last
        words = np.asarray(ids[start : start + CHUNK + window]).astype(np.int64)
        if words.min() < 0 or words.max() >= vocabulary:
            raise ValueError(f"ids must be in [0, {vocabulary}), found {words.min()} to {words.max()}")
        places = np.arange(start, min(start + CHUNK, len(ids)))
        left = ends[np.searchsorted(ends, places, side="right")] - places
        first, second = [], []
        for distance in range(1, window + 1):
            here = np.flatnonzero(left > distance)
            first.append(words[here])
            second.append(words[here + distance])
        pair = (np.concatenate(first), np.concatenate(second))
        following += sparse.csr_matrix((np.ones(len(pair[0])), pair), shape)
    return (following + following.T).tocsr()


def positive_information(counts: Any) -> Any:
    """The positive pointwise mutual information of words (rows) with smoothed contexts (columns), sparse float32.

    ``counts``: a symmetric sparse matrix of counts. Entries of 0 are not stored.
    """
    from scipy import sparse

    counts = sparse.coo_matrix(counts)
    total = np.asarray(counts.sum(axis=1)).reshape(-1)
    context = total**SMOOTHING
    context /= context.sum() or 1.0
    # log p(word, context) / (p(word) p(context))
    with np.errstate(divide="ignore"):
        information = np.log(counts.data) - np.log(total)[counts.row] - np.log(context)[counts.col]
    positive = information > 0
    kept = (counts.row[positive], counts.col[positive])
    return sparse.csr_matrix((information[positive].astype(np.float32), kept), counts.shape)


def _leading(matrix: Any, width: int, seed: int) -> np.ndarray:
    """The left factor of the truncated decomposition, float64 [rows, width]."""
    from sklearn.utils.extmath import randomized_svd

    left, singular, _ = randomized_svd(matrix, width, n_iter=ITERATIONS, random_state=seed)
    return np.asarray(left, dtype=np.float64) * np.asarray(singular, dtype=np.float64) ** SINGULAR_POWER
