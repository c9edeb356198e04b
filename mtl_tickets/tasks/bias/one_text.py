"""What one of two texts gives away: claim-only (FEVER), hypothesis-only (SRNets, METHODS 3.4).

Deviations: the published model max-pools word embeddings of the claim, this one counts words, for which no embeddings
need to be at hand; and it answers each row from the other folds, since words enough can recite labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.tasks.bias.base import BIAS_MODELS
from mtl_tickets.tasks.bias.fitted import Features, FittedBias
from mtl_tickets.tasks.sources import Rows

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec


@BIAS_MODELS.register("one_text")
class OneText(FittedBias):
    """A bag of the words of one text: claim-only, hypothesis-only."""

    kind: Literal["one_text"] = "one_text"
    text: Literal[1, 2] = pydantic.Field(1, description="which text is read: 1 for FEVER's claim, 2 for a hypothesis")
    folds: pydantic.PositiveInt = pydantic.Field(
        5, description="each row is answered by a model fitted on the other folds; 1: fitted on all rows"
    )
    C: pydantic.PositiveFloat = pydantic.Field(0.3, description="inverse of the penalty, as scikit-learn has it")

    def task_problems(self, spec: TaskSpec, rows: Rows) -> list[Problem]:
        if self.text <= len(rows.texts):
            return []
        rule = f"bias model {self.kind!r} must read a text that the task has ({len(rows.texts)} a row)"
        return [Problem(rule, file=spec.name, place="text", found=self.text)]

    def seen(self, rows: Rows) -> Sequence[str]:
        return rows.texts[self.text - 1]

    def features(self, train: Rows, questions: Rows) -> Features:
        """float64 [questions, words], sparse: 1 where a word occurs. Words that only one row of ``train`` has do not
        count."""
        import scipy.sparse as sp
        from sklearn.feature_extraction.text import CountVectorizer

        counter = CountVectorizer(
            binary=True, lowercase=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]", min_df=2, dtype=np.float64
        )
        try:
            counter.fit(self.seen(train))
        except ValueError:  # no word is left: only the shares of the labels can be learned
            return sp.csr_matrix((len(questions), 1), dtype=np.float64)
        return counter.transform(self.seen(questions)).tocsr()
