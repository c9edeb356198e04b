"""How much of the hypothesis stands in the premise (Clark et al. 2019, https://arxiv.org/abs/1909.03683, section 4 and
their published code; used by SRNets for MNLI and QQP; METHODS 3.4).

Deviations. Words are found by a regular expression, not by NLTK's tokenizer. Without a file of word vectors, two words
are as alike as their spellings: the cosine of their counts of character n-grams, where the authors take 300-dimensional
fastText vectors. The regression is solved by L-BFGS, which leaves the intercept out of the penalty, not by liblinear;
the features are as published, not standardised, since it converges on them. A hypothesis without words, at which the
published code divides by zero, is all in the premise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic

from mtl_tickets.errors import Problem, nearest
from mtl_tickets.tasks.bias.base import BIAS_MODELS
from mtl_tickets.tasks.bias.fitted import FittedBias
from mtl_tickets.tasks.bias.similarity import WordVectors, read_vectors, spelled
from mtl_tickets.tasks.sources import Rows

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

FEATURES = ("in_a_row", "all_in", "share_in", "log_shorter", "mean_best", "lowest_best", "second_lowest_best")
AT_ONCE = 64  # pairs whose words are compared at a time: a product of small matrices, little memory
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@BIAS_MODELS.register("word_overlap")
class WordOverlap(FittedBias):
    """How much of the hypothesis stands in the premise, for pairs."""

    kind: Literal["word_overlap"] = "word_overlap"
    hypothesis: Literal[1, 2] = pydantic.Field(2, description="which text is the hypothesis; the other is the premise")
    against: str | None = pydantic.Field(
        None,
        description="the label told from all others, which share the rest equally (published: entailment); None: every "
        "label for itself",
    )
    vectors: Path | None = pydantic.Field(
        None, description="word vectors, a text file in the format of fastText or GloVe; None: by spelling"
    )
    C: pydantic.PositiveFloat = pydantic.Field(100.0, description="inverse of the penalty, as scikit-learn has it")
    balanced: bool = pydantic.Field(True, description="rare labels weigh more, so that all labels weigh the same")

    def files(self) -> dict[str, Path]:
        return {} if self.vectors is None else {"vectors": self.vectors}

    def task_problems(self, spec: TaskSpec, rows: Rows) -> list[Problem]:
        problems = []
        if len(rows.texts) != 2:
            problems.append(Problem(f"bias model {self.kind!r} needs pairs of texts", spec.name, found=len(rows.texts)))
        if self.against is not None and self.against not in spec.labels:
            rule = "must be one of the task's labels"
            problems.append(Problem(rule, spec.name, "against", self.against, nearest(self.against, spec.labels)))
        return problems

    def sides(self, spec: TaskSpec) -> np.ndarray:
        if self.against is None:
            return super().sides(spec)
        return np.array([int(label == self.against) for label in spec.labels])

    def seen(self, rows: Rows) -> list[tuple[str, ...]]:
        return list(zip(*rows.texts, strict=True))

    def features(self, train: Rows, questions: Rows) -> np.ndarray:
        hypotheses, premises = questions.texts[self.hypothesis - 1], questions.texts[2 - self.hypothesis]
        return overlap_features(premises, hypotheses, self.vectors)


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, as written."""
    return _WORD.findall(text)


def overlap_features(premises: Sequence[str], hypotheses: Sequence[str], vectors: Path | None = None) -> np.ndarray:
    """float64 [pairs, 7], by :data:`FEATURES`; a word as often as it occurs, case does not count.

    The hypothesis is a contiguous sub-sequence of the premise; all its words are in it; the share of its words that
    are; log(max(words of the premise - words of the hypothesis, 1)). Then, of the best cosine of each word of the
    hypothesis to a word of the premise, the mean, the lowest and the second lowest: words without a vector are left
    out, but count as 0 in the mean, and what is not there is 0.
    """
    pairs = [
        (words_of(premise), words_of(hypothesis)) for premise, hypothesis in zip(premises, hypotheses, strict=True)
    ]
    index = {
        word: i for i, word in enumerate(dict.fromkeys(word for pair in pairs for words in pair for word in words))
    }
    alike = spelled(list(index)) if vectors is None else read_vectors(vectors, list(index))
    ids = [tuple(np.array([index[word] for word in words], dtype=np.int64) for words in pair) for pair in pairs]
    features = np.zeros((len(pairs), len(FEATURES)))
    for i, pair in enumerate(pairs):
        features[i, :4] = _shared([word.lower() for word in pair[0]], [word.lower() for word in pair[1]])
    for start in range(0, len(ids), AT_ONCE):
        some = [tuple(words[alike.known[words]] for words in pair) for pair in ids[start : start + AT_ONCE]]
        for i, best in enumerate(_best_cosines(some, alike), start=start):
            if len(best):
                features[i, 4:6] = best.sum() / len(pairs[i][1]), best[0]
            if len(best) > 1:
                features[i, 6] = best[1]
    return features


def _shared(premise: list[str], hypothesis: list[str]) -> tuple[float, float, float, float]:
    known, size, room = set(premise), len(hypothesis), len(premise) - len(hypothesis)
    found = sum(word in known for word in hypothesis)
    in_a_row = any(premise[i : i + size] == hypothesis for i in range(room + 1))
    return float(in_a_row), float(found == size), found / size if size else 1.0, float(np.log(max(room, 1)))


def _best_cosines(pairs: Sequence[tuple[np.ndarray, ...]], alike: WordVectors) -> list[np.ndarray]:
    """For each (premise, hypothesis) of int64 indices of known words: float64 [words of the hypothesis], lowest first;
    empty where one of the two has no word."""
    others, theirs = np.unique(np.concatenate([pair[0] for pair in pairs]), return_inverse=True)
    words, ours = np.unique(np.concatenate([pair[1] for pair in pairs]), return_inverse=True)
    cosines = alike.cosines(words, others)
    best = []
    a = b = 0
    for premise, hypothesis in pairs:
        block = cosines[np.ix_(ours[b : b + len(hypothesis)], theirs[a : a + len(premise)])]
        best.append(np.sort(block.max(1)) if block.size else np.zeros(0))
        a, b = a + len(premise), b + len(hypothesis)
    return best
