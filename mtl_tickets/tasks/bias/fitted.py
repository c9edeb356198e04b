"""Bias models that are learned from the rows: a logistic regression on a few features.

Published, a bias model is fitted on the very rows it is asked about, which is harmless for a handful of features. A
model with thousands of them would recite the labels; with ``folds`` every row is answered by a model that has not seen
it, nor any row that looks the same to it. The folds follow from what the rows say and not from their order.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.tasks.bias.base import BiasModel
from mtl_tickets.tasks.sources import Rows

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

SEED = 0  # of the folds: part of what a bias model is, not of a run
Features = Any
"""[rows, features], a numpy array or a sparse matrix of scipy, which ships no types."""


class FittedBias(BiasModel):
    """Base: a subclass says what it sees of a row (``features``, ``seen``) and, if it likes, which labels are one."""

    folds: pydantic.PositiveInt = pydantic.Field(
        1, description="each row is answered by a model fitted on the other folds; 1: fitted on all rows, as published"
    )
    C: pydantic.PositiveFloat = pydantic.Field(1.0, description="inverse of the penalty, as scikit-learn has it")
    balanced: bool = pydantic.Field(False, description="rare labels weigh more, so that all labels weigh the same")

    def features(self, train: Rows, questions: Rows) -> Features:
        """What the model sees of ``questions``; where words are counted, those of ``train`` are. No label is used."""
        raise NotImplementedError

    def seen(self, rows: Rows) -> Sequence[str | tuple[str, ...]]:
        """The text of each row that the model sees. Rows with the same text are in the same fold."""
        raise NotImplementedError

    def sides(self, spec: TaskSpec) -> np.ndarray:
        """int64 [classes]: the class of the regression that each label belongs to."""
        return np.arange(len(spec.labels))

    def log_probs(self, spec: TaskSpec, rows: Rows) -> np.ndarray:
        sides = self.sides_of(spec, rows)
        labels, features = sides[np.asarray(rows.labels)], self.features(rows, rows)
        classes = int(sides.max()) + 1
        if self.folds == 1:
            return expanded(self._answers(features, labels, features, classes), sides)
        fold = folds_of(self.seen(rows), labels, self.folds, f"{spec.name}: bias model {self.kind!r}")
        answers = np.empty((len(rows), classes))
        for k in range(int(fold.max()) + 1):
            held = fold == k
            answers[held] = self._answers(features[~held], labels[~held], features[held], classes)
        return expanded(answers, sides)

    def answers(self, spec: TaskSpec, train: Rows, questions: Rows) -> np.ndarray:
        """float64 [questions, classes]: log-probabilities of rows that the model is not fitted on, by all of
        ``train``."""
        sides = self.sides_of(spec, train)
        labels, features = sides[np.asarray(train.labels)], self.features(train, train)
        asked = self.features(train, questions)
        return expanded(self._answers(features, labels, asked, int(sides.max()) + 1), sides)

    def sides_of(self, spec: TaskSpec, rows: Rows) -> np.ndarray:
        """:meth:`sides`, for a task and rows the model can be fitted on; else ConfigError or DataError."""
        self.require_task(spec, rows)
        if rows.labels is None:
            rule = f"bias model {self.kind!r} is fitted on labels"
            raise DataError(Problem(rule, file=rows.file or spec.name, found="an unlabelled split"))
        return self.sides(spec)

    def _answers(self, features: Features, labels: np.ndarray, asked: Features, classes: int) -> np.ndarray:
        """float64 [asked, classes]. A class without a row has the probability 1 / (rows + classes), the rule of
        succession: 0 has no logarithm."""
        present = np.unique(labels)
        rest = math.log1p(-(classes - len(present)) / (len(labels) + classes))
        answers = np.full((asked.shape[0], classes), -math.log(len(labels) + classes))
        answers[:, present] = rest + self._regression(features, labels, asked)
        return answers

    def _regression(self, features: Features, labels: np.ndarray, asked: Features) -> np.ndarray:
        """float64 [asked, labels that occur]."""
        from scipy.special import log_softmax
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(labels)) == 1:
            return np.zeros((asked.shape[0], 1))
        weight = "balanced" if self.balanced else None
        # a tolerance at which the order of the rows no longer shows
        model = LogisticRegression(C=self.C, class_weight=weight, tol=1e-5, max_iter=1000)
        logits = model.fit(features, labels).decision_function(asked)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], 1)
        # from the logits, where predict_log_proba takes the logarithm of a probability that may have become 0
        return log_softmax(logits, axis=1)


def expanded(answers: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """float64 [rows, labels] from log-probabilities [rows, sides]: the labels of one side share it equally
    (METHODS 3.4: log p_non - log 2 each for neutral and contradiction)."""
    return answers[:, sides] - np.log(np.bincount(sides))[sides]


def folds_of(seen: Sequence[str | tuple[str, ...]], labels: np.ndarray, folds: int, what: str) -> np.ndarray:
    """int64 [rows]: the fold of each row, 0 to at most ``folds`` - 1.

    Rows with the same text count once, by their most frequent label. The texts of each label are dealt in turn, in an
    order drawn once for all, so that folds differ by at most one text of each label. Fewer texts than folds make fewer
    folds, with a warning, which a label with fewer texts than folds gets too. Raises DataError where there is only one
    text.
    """
    votes: dict[str | tuple[str, ...], Counter[int]] = {}
    for text, label in zip(seen, labels.tolist(), strict=True):
        votes.setdefault(text, Counter())[label] += 1
    texts = sorted(votes)
    if len(texts) < 2:
        rule = f"folds need at least two different texts of {len(seen)} rows"
        raise DataError(Problem(rule, file=what, found=len(texts), hint="folds: 1 fits the model on all rows"))
    if len(texts) < folds:
        logger.warning("%s has %d different texts and is fitted in as many folds, not %d", what, len(texts), folds)
        folds = len(texts)
    # of labels that are equally frequent, the first
    label = np.array([min(votes[text], key=lambda one: (-votes[text][one], one)) for text in texts])
    shuffled = np.random.default_rng(SEED).permutation(len(texts))
    dealt = shuffled[np.argsort(label[shuffled], kind="stable")]
    fold_of_text = np.empty(len(texts), dtype=np.int64)
    fold_of_text[dealt] = np.arange(len(texts)) % folds
    few = {int(one): int(count) for one, count in zip(*np.unique(label, return_counts=True), strict=True)}
    for one, count in few.items():
        if count < folds:
            logger.warning(
                "%s: class %d has %d different texts for %d folds, too few to learn from", what, one, count, folds
            )
    by_text = dict(zip(texts, fold_of_text.tolist(), strict=True))
    return np.array([by_text[text] for text in seen], dtype=np.int64)
