"""How a running text becomes sequences: chunks of equal length, by themselves or two neighbours together, or pairs of
passages.

Every sequence is named by its number. Which tokens of the text it holds is fixed, so what is held out of training is a
matter of numbers; what is drawn anew each time (the second passage of a pair) follows from the generator given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.pretraining.text import TokenText

# what ``Rows.follows`` says of a sequence that holds one passage
NO_PAIR = -100
# a drawn passage is as long as the true one, or one of this many next shorter or longer ones
NEIGHBOURS = 4


@dataclass(frozen=True)
class SpecialIds:
    """What making sequences and masking them must know of a tokenizer. ``ordinary``: int64, all ids that are no special
    token."""

    cls: int
    sep: int
    mask: int
    special: np.ndarray
    ordinary: np.ndarray
    pad: int = 0

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialIds:
        special = np.unique(np.asarray(tokenizer.all_special_ids, dtype=np.int64))
        ordinary = np.setdiff1d(np.arange(len(tokenizer)), special)
        first, last, mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
        return cls(first, last, mask, special, ordinary, tokenizer.pad_token_id or 0)


@dataclass(frozen=True)
class Rows:
    """B sequences of at most S tokens, [CLS] first.

    ``ids``: int64 [B, S]. ``real``: bool [B, S], False on padding; None where there is none. ``types``: int64 [B, S],
    0 in the first passage and 1 in the second; None where all are 0. ``follows``: int64 [B], 1 where the second passage
    follows the first in the text, 0 where it is drawn, ``NO_PAIR`` where there is one passage; None: no pairs in one
    sequence.
    """

    ids: np.ndarray
    real: np.ndarray | None = None
    types: np.ndarray | None = None
    follows: np.ndarray | None = None


class Sequences(Protocol):
    """``sizes``: int64 [sequences], the tokens of text in each. ``spans``: int64 [sequences, 2], from where to where
    in the text. ``rows_each``: rows that a sequence fills."""

    rows_each: int
    sizes: np.ndarray
    spans: np.ndarray

    def pool(self, numbers: np.ndarray) -> Any:
        """What passages may be drawn from, where the sequences in use are ``numbers``."""
        ...

    def rows(self, numbers: np.ndarray, pool: Any, rng: np.random.Generator) -> Rows:
        """The sequences of these ``numbers``; other passages are drawn from those of ``pool``."""
        ...


class Packed:
    """Chunks of a running text, one after the other, over the ends of documents (FULL-SENTENCES of Liu et al. 2019,
    https://arxiv.org/abs/1907.11692): chunk ``i`` is the tokens from ``i * (length - 2)`` on, between [CLS] and [SEP].
    """

    rows_each = 1

    def __init__(self, text: TokenText, special: SpecialIds, length: int):
        self.ids, self.special, self.content = text.ids, special, length - 2
        starts = np.arange(len(text.ids) // self.content) * self.content
        self.spans = np.stack([starts, starts + self.content], axis=1)
        self.sizes = np.full(len(starts), self.content)

    def pool(self, numbers: np.ndarray) -> None:
        return None

    def rows(self, numbers: np.ndarray, pool: None, rng: np.random.Generator) -> Rows:
        tokens = np.empty((len(numbers), self.content + 2), dtype=np.int64)
        tokens[:, 0], tokens[:, -1] = self.special.cls, self.special.sep
        tokens[:, 1:-1] = self.ids[np.asarray(numbers)[:, None] * self.content + np.arange(self.content)]
        return Rows(tokens)


class Neighbours:
    """Chunks as :class:`Packed` has them, two that follow each other for one sequence: a row each, side by side."""

    rows_each = 2

    def __init__(self, text: TokenText, special: SpecialIds, length: int):
        self.chunks = Packed(text, special, length)
        even = len(self.chunks.spans) // 2 * 2
        self.spans = np.stack([self.chunks.spans[0:even:2, 0], self.chunks.spans[1:even:2, 1]], axis=1)
        self.sizes = 2 * self.chunks.sizes[0:even:2]

    def pool(self, numbers: np.ndarray) -> None:
        return None

    def rows(self, numbers: np.ndarray, pool: None, rng: np.random.Generator) -> Rows:
        return self.chunks.rows(np.add.outer(2 * np.asarray(numbers), (0, 1)).reshape(-1), pool, rng)


class PassagePairs:
    """Two passages of a document, [CLS] A [SEP] B [SEP]; half the time B is drawn from another sequence.

    This is next-sentence prediction (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1) with the lines
    of a text for sentences: consecutive lines of one document fill a sequence, and the line end nearest to its middle
    parts A from B. A line longer than half a sequence counts as several. What is left of a document as a single line
    is a sequence of one passage. Deviations: the split is the same in every pass, what is drawn is not; and the drawn
    passage is about as long as the true one, or lengths would tell them apart.

    Raises :class:`DataError` where no document has two lines.
    """

    rows_each = 1

    def __init__(self, text: TokenText, special: SpecialIds, length: int):
        self.ids, self.special, self.room = text.ids, special, length - 3
        pieces, document = _pieces(text, max(1, self.room // 2))
        begins = _filled(pieces, document, self.room)
        lasts = np.append(begins[1:], len(pieces)) - 1
        starts, stops = pieces[begins, 0], pieces[lasts, 1]
        self.spans = np.stack([starts, stops], axis=1)
        self.sizes = stops - starts
        self.splits = _middles(pieces[:, 1], begins, lasts, starts + stops)
        self.paired = self.splits < stops
        if not self.paired.any():
            rule = "next-sentence prediction needs a document of two lines, or of a line longer than half a sequence"
            raise DataError(Problem(rule, hint="a document ends at a blank line, one of a pack is one line"))

    def pool(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs among ``numbers`` by the length of their second passage, and these lengths."""
        pairs = numbers[self.paired[numbers]]
        lengths = self.spans[pairs, 1] - self.splits[pairs]
        order = np.argsort(lengths, kind="stable")
        return pairs[order], lengths[order]

    def rows(self, numbers: np.ndarray, pool: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> Rows:
        """Where no other pair is in ``pool`` nothing is drawn."""
        numbers = np.asarray(numbers)
        pairs, lengths = pool
        drawn = rng.random(len(numbers)) < 0.5
        own = self.spans[numbers, 1] - self.splits[numbers]
        low = np.maximum(np.searchsorted(lengths, own, side="left") - NEIGHBOURS, 0)
        high = np.minimum(np.searchsorted(lengths, own, side="right") + NEIGHBOURS, len(pairs))
        # one draw for each row, wanted or not: a row's passage does not depend on the others' coins
        others = pairs[rng.integers(low, high)] if len(pairs) else numbers
        follows = np.where(self.paired[numbers], np.where(drawn & (others != numbers), 0, 1), NO_PAIR)
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for number, other, truth in zip(numbers, others, follows, strict=True):
            (start, stop), split = self.spans[number], self.splits[number]
            second = self.ids[split:stop]
            if truth == 0:
                second = self.ids[self.splits[other] : self.spans[other, 1]][: self.room - (split - start)]
            rows.append((self.ids[start:split], second))
        return self._padded(rows, follows)

    def _padded(self, rows: list[tuple[np.ndarray, np.ndarray]], follows: np.ndarray) -> Rows:
        # a passage alone has one [SEP]
        longest = max(2 + len(a) + (len(b) + 1 if len(b) else 0) for a, b in rows)
        ids = np.full((len(rows), longest), self.special.pad, dtype=np.int64)
        types = np.zeros_like(ids)
        real = np.zeros(ids.shape, dtype=bool)
        for row, (first, second) in enumerate(rows):
            middle = 1 + len(first)
            end = middle + 1 + (len(second) + 1 if len(second) else 0)
            ids[row, 0], ids[row, 1:middle], ids[row, middle] = self.special.cls, first, self.special.sep
            if len(second):
                ids[row, middle + 1 : end - 1], ids[row, end - 1] = second, self.special.sep
                types[row, middle + 1 : end] = 1
            real[row, :end] = True
        return Rows(ids, real, types, follows)


def held_spans(tokens: int, share: float, grain: int) -> np.ndarray:
    """int64 [stretches, 2]: what is held out of a text of ``tokens``, about ``share`` of it, spread over the text.

    Each stretch is of several sequences of about ``grain`` tokens, for neighbours are of one document and a single one
    would be easier to predict from what was trained on. Edges lie on multiples of ``grain``; at least one sequence is
    held out where there are two.
    """
    number = tokens // grain
    wanted = min(round(share * number) if share else 0, number - 1)
    if share and wanted == 0 and number > 1:
        wanted = 1
    if wanted <= 0:
        return np.empty((0, 2), dtype=np.int64)
    stretches = max(1, min(100, wanted // 8))
    starts = np.array([number * (2 * i + 1) // (2 * stretches) for i in range(stretches)])
    sizes = np.diff([wanted * i // stretches for i in range(stretches + 1)])
    return np.stack([starts, np.minimum(starts + sizes, number)], axis=1) * grain


def parted(sequences: Sequences, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the sequences to train on and of those held out.

    A sequence that lies partly in a stretch of ``held`` (int64 [stretches, 2]) is neither.
    """
    if not len(held):
        return np.arange(len(sequences.spans)), np.empty(0, dtype=np.int64)
    starts, stops = sequences.spans[:, 0], sequences.spans[:, 1]
    # the first stretch that ends after the sequence starts is the only one that can hold it
    stretch = np.searchsorted(held[:, 1], starts, side="right")
    near = held[np.minimum(stretch, len(held) - 1)]
    inside = (stretch < len(held)) & (near[:, 0] <= starts) & (stops <= near[:, 1])
    apart = (stretch == len(held)) | (stops <= near[:, 0])
    return np.flatnonzero(apart), np.flatnonzero(inside)


def _pieces(text: TokenText, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Lines, cut where they have more than ``most`` tokens: int64 [pieces, 2], and int64 [pieces], their documents."""
    document = np.searchsorted(text.ends, text.lines, side="left")
    starts = np.empty_like(text.lines)
    # empty documents in front
    starts[:1] = [text.ends[number - 1] if number else 0 for number in document[:1]]
    # a document's first line starts behind the [SEP] of the one before
    starts[1:] = np.where(document[1:] > document[:-1], text.ends[document[1:] - 1], text.lines[:-1])
    counts = -(-(text.lines - starts) // most)
    owner = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = starts[owner] + place * most
    return np.stack([begins, np.minimum(begins + most, text.lines[owner])], axis=1), document[owner]


def _filled(pieces: np.ndarray, document: np.ndarray, room: int) -> np.ndarray:
    """The first piece of every sequence: pieces are taken while they are of one document and fit into ``room``."""
    begins: list[int] = []
    start, current = 0, -1
    for number, (begin, stop, owner) in enumerate(zip(*pieces.T.tolist(), document.tolist(), strict=True)):
        if owner != current or stop - start > room:
            begins.append(number)
            start, current = begin, owner
    return np.array(begins, dtype=np.int64)


def _middles(ends: np.ndarray, begins: np.ndarray, lasts: np.ndarray, doubled: np.ndarray) -> np.ndarray:
    """For each run of pieces ``begins[i]`` to ``lasts[i]`` the inner end nearest to ``doubled[i] / 2``; of a run of one
    piece the end."""
    inner = np.maximum(begins, lasts - 1)
    above = np.clip(np.searchsorted(2 * ends, doubled), begins, inner)
    below = np.maximum(above - 1, begins)
    nearer = np.abs(2 * ends[below] - doubled) <= np.abs(2 * ends[above] - doubled)
    return ends[np.where(nearer, below, above)]
