"""How alike two words are: the cosine of their vectors, read from a file or counted from their spelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.tasks.sources.base import Findings, require_file

NGRAMS = (2, 4)  # characters, the blanks around a word among them


@dataclass(frozen=True)
class WordVectors:
    """``units``: [words, width], dense or sparse, rows of length 1. ``known``: bool [words], False where a word has no
    vector; its row is 0."""

    units: Any
    known: np.ndarray

    def cosines(self, words: np.ndarray, others: np.ndarray) -> np.ndarray:
        """float64 [words, others], of int64 indices."""
        product = self.units[words] @ self.units[others].T
        return np.asarray(product if isinstance(product, np.ndarray) else product.todense(), dtype=np.float64)


def spelled(words: Sequence[str]) -> WordVectors:
    """Counts of character n-grams, 2 to 4 characters, of the words in lower case."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    if not words:
        return WordVectors(np.zeros((0, 1)), np.zeros(0, dtype=bool))
    counter = CountVectorizer(analyzer="char_wb", ngram_range=NGRAMS, lowercase=False, dtype=np.float64)
    units = normalize(counter.fit_transform([word.lower() for word in words])).tocsr()
    return WordVectors(units, np.ones(len(words), dtype=bool))


def read_vectors(path: Path, words: Sequence[str]) -> WordVectors:
    """The vectors of ``words`` from a text file in the format of fastText (a first line with two counts) or GloVe.

    A line is a word and its numbers, with blanks between. The file is read line by line and only the lines of these
    words are kept: as written, or else in lower case. A word that stands twice has its first vector.

    Raises DataError for a file that is not there or holds none of the words, and for a line of one of them that has
    another width than the first line or a value that is no finite number.
    """
    wanted = [(_bytes(word), _bytes(word.lower())) for word in words]
    spellings = {spelling for pair in wanted for spelling in pair}
    findings, found, width = Findings(), dict[bytes, np.ndarray](), 0
    with open(require_file(path), "rb") as file:
        for place, line in enumerate(file, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if place == 1 else line
            if width == 0:
                fields = line.split()
                header = len(fields) == 2 and all(field.isdigit() for field in fields)
                width = int(fields[1]) if header else len(fields) - 1
                if width < 1:
                    rule = "must begin with two counts, or with a word and its numbers"
                    raise DataError(
                        Problem(rule, file=str(path), place="line 1", found=line.decode("utf-8", "replace"))
                    )
                if header:
                    continue
            # some words of GloVe have blanks inside: the numbers are counted from the end
            if line.partition(b" ")[0] not in spellings:
                continue
            word, *numbers = line.rstrip().rsplit(b" ", width)
            if word in spellings and word not in found:
                found[word] = _vector(numbers, width, f"line {place}", str(path), findings)
    findings.raise_if_any()
    if words and not found:
        raise DataError(Problem("must hold vectors of the task's words", file=str(path), found="none of them"))
    units = np.zeros((len(words), max(width, 1)), dtype=np.float32)
    for i, (written, lower) in enumerate(wanted):
        vector = found.get(written, found.get(lower))
        if vector is not None:
            units[i] = vector
    length = np.sqrt(np.einsum("wd,wd->w", units, units, dtype=np.float64))[:, None]
    known = length[:, 0] > 0
    return WordVectors(np.divide(units, length, out=units, where=length > 0, casting="same_kind"), known)


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


def _vector(numbers: list[bytes], width: int, place: str, file: str, findings: Findings) -> np.ndarray:
    """float32 [width]; nothing where the line is bad."""
    try:
        with np.errstate(over="ignore"):
            vector = np.array([float(number) for number in numbers]).astype(np.float32)
    except ValueError:
        vector = np.array([np.nan])
    if len(numbers) != width:
        findings.add(Problem(f"must have {width} numbers like the first line", file, place, len(numbers)))
    elif not np.isfinite(vector).all():
        text = b" ".join(numbers).decode("utf-8", "replace")
        findings.add(Problem("must be finite numbers", file, place, text))
    else:
        return vector
    return np.zeros(0, dtype=np.float32)
