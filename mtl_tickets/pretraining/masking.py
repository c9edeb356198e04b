"""Batches of sequences with tokens to be predicted, for the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mtl_tickets.pretraining.sequences import NO_PAIR, Rows, Sequences, SpecialIds
from mtl_tickets.tasks.batches import moved_to

MASKED, REPLACED = 0.8, 0.1
# sequences of like length share a batch: within this many batches they are sorted by length
BUCKETED_BATCHES = 50


@dataclass
class MaskedBatch:
    """B sequences of S tokens of which M are to be predicted.

    ``input_ids``: int64 [B, S]. ``positions``: int64 [M], places in the flattened B * S. ``labels``: int64 [M], the
    tokens that stood there. ``count``: M, over all processes. ``weight`` is 0 for the stand-in of a process that has
    no sequence of this batch. ``rows`` and ``tokens`` (padding left out): the share of the whole batch's that are here.
    ``attention_mask``: int64 [B, S]; None where nothing is padding. ``token_type_ids`` and
    ``follows``: as :class:`Rows` has them. ``pairs``: what the objective beside is the mean over, over all processes:
    sequences with two passages, or rows that have a neighbour.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    count: int
    weight: float = 1.0
    rows: float = 1.0
    tokens: float = 1.0
    attention_mask: torch.Tensor | None = None
    token_type_ids: torch.Tensor | None = None
    follows: torch.Tensor | None = None
    pairs: int = 0

    def halves(self) -> tuple[MaskedBatch, MaskedBatch] | None:
        """Its sequences in two batches of the same ``count``, whose losses add up to its own; None of one sequence, and
        where rows are told from all others of their batch."""
        half = len(self.input_ids) // 2
        if half == 0 or (self.pairs and self.follows is None):
            return None
        return self._part(0, half), self._part(half, len(self.input_ids))

    def _part(self, first: int, last: int) -> MaskedBatch:
        rows, length = self.input_ids.shape
        inside = (self.positions >= first * length) & (self.positions < last * length)
        here = slice(first, last)

        def part(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor[here]

        mask = part(self.attention_mask)
        share = (last - first) / rows
        tokens = share if mask is None else float(mask.sum() / self.attention_mask.sum())  # type: ignore[union-attr]
        return replace(
            self,
            input_ids=self.input_ids[here],
            positions=self.positions[inside] - first * length,
            labels=self.labels[inside],
            rows=self.rows * share,
            tokens=self.tokens * tokens,
            attention_mask=mask,
            token_type_ids=part(self.token_type_ids),
            follows=part(self.follows),
        )

    def to(self, device: torch.device) -> MaskedBatch:
        if device.type == "cpu":
            return self
        tensors = {name: value for name, value in vars(self).items() if torch.is_tensor(value)}
        moved: dict[str, Any] = {name: moved_to(device, value) for name, value in tensors.items()}
        return replace(self, **moved)


class MaskedBatches:
    """Batches of the sequences whose numbers are ``chosen``, ``size`` a batch, without end.

    A pass goes over each sequence once, in an order that is a pure function of (seed, pass); what is predicted is a
    pure function of (seed, pass, batch). The last batch of a pass may be smaller. Sequences of unequal length are
    sorted by length within stretches of ``BUCKETED_BATCHES`` batches. ``rank`` and ``world``: each process takes its
    share of every batch.
    """

    def __init__(
        self,
        sequences: Sequences,
        chosen: np.ndarray,
        special: SpecialIds,
        size: int,
        seed: int,
        mask_share: float = 0.15,
        rank: int = 0,
        world: int = 1,
    ):
        self.sequences, self.chosen, self.special = sequences, np.asarray(chosen), special
        self.size, self.seed, self.mask_share = size, seed, mask_share
        self.rank, self.world = rank, world
        self.pool = sequences.pool(self.chosen)
        self.per_pass = -(-len(self.chosen) // size)
        self.pass_tokens = int(sequences.sizes[self.chosen].sum())
        self._order: tuple[int, np.ndarray] | None = None

    def tokens_in(self, batches: int) -> int:
        """Tokens of text in this many batches from the first on; special tokens that frame a sequence do not count."""
        passes, rest = divmod(batches, self.per_pass)
        return passes * self.pass_tokens + (int(self._seen(passes)[rest - 1]) if rest else 0)

    def batches_for(self, tokens: int) -> int:
        """The fewest batches, from the first on, that hold at least ``tokens`` tokens of text."""
        passes, rest = divmod(tokens, self.pass_tokens)
        return passes * self.per_pass + (int(np.searchsorted(self._seen(passes), rest)) + 1 if rest else 0)

    def _seen(self, turn: int) -> np.ndarray:
        """int64 [batches]: tokens of pass ``turn`` up to the end of each batch."""
        sizes = self.sequences.sizes[self.order(turn)]
        return np.add.reduceat(sizes, np.arange(0, len(sizes), self.size)).cumsum()

    def order(self, turn: int) -> np.ndarray:
        """The numbers of the sequences in the order of pass ``turn``."""
        if self._order is None or self._order[0] != turn:
            rng = np.random.default_rng([self.seed, turn])
            self._order = (turn, self._bucketed(rng.permutation(self.chosen), rng))
        return self._order[1]

    def _bucketed(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sizes = self.sequences.sizes[order]
        if (sizes == sizes[0]).all():
            return order
        batches: list[np.ndarray] = []
        stretch = BUCKETED_BATCHES * self.size
        for start in range(0, len(order), stretch):
            some = order[start : start + stretch]
            some = some[np.argsort(sizes[start : start + stretch], kind="stable")]
            cut = [some[i : i + self.size] for i in range(0, len(some), self.size)]
            # a batch that is not full stays the last of its pass
            full = len(cut) - (len(cut[-1]) < self.size)
            batches += [cut[i] for i in rng.permutation(full)] + cut[full:]
        return np.concatenate(batches)

    def batch(self, number: int) -> MaskedBatch:
        """Batch ``number``, counted over all passes."""
        turn, place = divmod(number, self.per_pass)
        chosen = self.order(turn)[place * self.size : (place + 1) * self.size]
        rng = np.random.default_rng([self.seed, turn, 1 + place])
        rows = self.sequences.rows(chosen, self.pool, rng)
        inputs, predicted = mask_tokens(rows.ids, self.special, self.mask_share, rng, rows.real)
        count = int(predicted.sum())
        mine = np.arange(len(chosen))[self.rank :: self.world]
        weight = 1.0 if len(mine) else 0.0
        each = self.sequences.rows_each
        # a sequence's rows stay together
        mine = np.add.outer((mine if len(mine) else np.arange(1)) * each, np.arange(each)).reshape(-1)
        positions = np.flatnonzero(predicted[mine])

        def part(array: np.ndarray | None) -> torch.Tensor | None:
            return None if array is None else torch.from_numpy(array[mine])

        return MaskedBatch(
            torch.from_numpy(inputs[mine]),
            torch.from_numpy(positions),
            torch.from_numpy(rows.ids[mine].reshape(-1)[positions]),
            # a text of nothing but special tokens has nothing to predict; the loop divides by count
            max(1, count),
            weight,
            len(mine) / len(inputs),
            len(mine) / len(inputs) if rows.real is None else float(rows.real[mine].sum() / rows.real.sum()),
            part(None if rows.real is None else rows.real.astype(np.int64)),
            part(rows.types),
            part(rows.follows),
            _pairs(rows, each),
        )

    def one_pass(self) -> Iterator[MaskedBatch]:
        for number in range(self.per_pass):
            yield self.batch(number)


def _pairs(rows: Rows, each: int) -> int:
    if rows.follows is not None:
        return int((rows.follows != NO_PAIR).sum())
    return len(rows.ids) if each > 1 else 0


class Course:
    """Parts of a pre-training one after the other, each some number of batches, in ``legs`` legs of like size.

    What the loop calls an epoch is a leg, after which it reports.
    """

    def __init__(self, parts: Sequence[tuple[MaskedBatches, int]], legs: int = 1):
        self.parts = [(source, batches) for source, batches in parts if batches]
        self.batches = sum(batches for _, batches in self.parts)
        # no leg is empty
        self.legs = min(legs, self.batches)
        self._edges = [self.batches * leg // self.legs for leg in range(self.legs + 1)]

    def batches_in(self, epoch: int) -> int:
        return self._edges[epoch + 1] - self._edges[epoch]

    def iterate(self, epoch: int, start: int = 0) -> Iterator[MaskedBatch]:
        for number in range(self._edges[epoch] + start, self._edges[epoch + 1]):
            yield self.batch(number)

    def batch(self, number: int) -> MaskedBatch:
        """Batch ``number``, counted over all parts."""
        for source, batches in self.parts:
            if number < batches:
                return source.batch(number)
            number -= batches
        raise IndexError(number)

    def part_after(self, epoch: int) -> MaskedBatches:
        """What leg ``epoch`` ends with."""
        left = self._edges[epoch + 1]
        for source, batches in self.parts:
            if left <= batches:
                return source
            left -= batches
        raise IndexError(epoch)

    def tokens_after(self, epoch: int) -> int:
        """Tokens of text seen when leg ``epoch`` is over."""
        left, tokens = self._edges[epoch + 1], 0
        for source, batches in self.parts:
            tokens += source.tokens_in(min(left, batches))
            left -= min(left, batches)
        return tokens


def mask_tokens(
    tokens: np.ndarray, special: SpecialIds, share: float, rng: np.random.Generator, real: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws what is to be predicted. ``tokens``: int64 [B, S]. ``real``: bool [B, S], False on padding.

    Returns the inputs, int64 [B, S], and bool [B, S], True where a token is to be predicted: in every row the rounded
    share of the tokens between the first [CLS] and the last [SEP], fewer where a row has fewer ordinary tokens; never
    a special one.
    """
    draw = rng.random(tokens.shape)
    draw[np.isin(tokens, special.special)] = 2.0
    if real is None:
        wanted = np.full(len(tokens), tokens.shape[1])
    else:
        draw[~real] = 2.0
        wanted = real.sum(axis=1)
    wanted = np.maximum(1, np.round(share * (wanted - 2)).astype(np.int64))
    most = int(wanted.max())
    lowest = np.argpartition(draw, most - 1, axis=1)[:, :most]
    if (wanted < most).any():
        within = np.argsort(np.take_along_axis(draw, lowest, axis=1), axis=1)
        lowest = np.take_along_axis(lowest, within, axis=1)
    predicted = np.zeros(tokens.shape, dtype=bool)
    taken = (np.take_along_axis(draw, lowest, axis=1) < 1.0) & (np.arange(most) < wanted[:, None])
    np.put_along_axis(predicted, lowest, taken, axis=1)
    what = rng.random(tokens.shape)
    random_tokens = special.ordinary[rng.integers(len(special.ordinary), size=tokens.shape)]
    inputs = np.where(predicted & (what < MASKED), special.mask, tokens)
    inputs = np.where(predicted & (what >= MASKED) & (what < MASKED + REPLACED), random_tokens, inputs)
    return inputs, predicted
