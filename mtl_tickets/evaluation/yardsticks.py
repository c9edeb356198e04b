"""What any encoder has to beat: the majority answer, and a bag of words without an encoder.

Both see the same training rows as the models they stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from mtl_tickets.registry import Registry
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spec import TaskSpec

# (task, training rows, rows to answer) -> predictions as metrics want them
Yardstick = Callable[[TaskSpec, Rows, Rows], np.ndarray]
YARDSTICKS: Registry[Yardstick] = Registry("yardstick", __name__)


@YARDSTICKS.register("majority")
def majority(task: TaskSpec, train: Rows, questions: Rows) -> np.ndarray:
    """The most frequent training label; for regression the mean (whose correlation is 0)."""
    labels = np.asarray(train.labels)
    count = len(questions.texts[0])
    if task.kind == "regression":
        return np.full(count, labels.mean(), dtype=np.float64)
    return np.full(count, np.bincount(labels).argmax())


@YARDSTICKS.register("bag_of_words")
def bag_of_words(task: TaskSpec, train: Rows, questions: Rows) -> np.ndarray:
    """Logistic (for regression: ridge) regression on words; pairs by shared words, words of one side, and overlap.

    Where there is nothing to learn from, no word in two texts or one label only, it is the majority.
    """
    counter = CountVectorizer(binary=True, lowercase=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]", min_df=2)
    labels = np.asarray(train.labels)
    try:
        counter.fit([text for texts in train.texts for text in texts])
    except ValueError:  # the vocabulary is empty
        return majority(task, train, questions)
    if len(np.unique(labels)) == 1:
        return majority(task, train, questions)
    features = _features(counter, train.texts)
    if task.kind == "regression":
        return Ridge(alpha=3.0).fit(features, labels).predict(_features(counter, questions.texts))
    model = LogisticRegression(C=0.3, max_iter=300)
    return model.fit(features, labels).predict(_features(counter, questions.texts))


def _features(counter: CountVectorizer, texts: Sequence[Sequence[str]]) -> sp.csr_matrix:
    words = [counter.transform(side) for side in texts]
    if len(words) == 1:
        return words[0]
    first, second = words
    shared = first.multiply(second)
    sizes = np.stack([np.asarray(m.sum(1)).ravel() for m in (first, second, shared)], 1) + 1e-9
    a, b, both = sizes.T
    overlap = np.stack([both / a, both / b, both / (a + b - both), both / np.sqrt(a * b)], 1)
    # the overlap columns carry most of what a bag of words knows of a pair: scaled so that the penalty spares them
    return sp.hstack([shared, first - shared, second - shared, sp.csr_matrix(5.0 * overlap)]).tocsr()
