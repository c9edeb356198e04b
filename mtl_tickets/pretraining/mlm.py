"""Masked-language modelling (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1).

Of a sequence's tokens a share is to be predicted; of these 80 % are replaced by [MASK], 10 % by a random token, 10 %
stay. Deviations: no next-sentence prediction; sequences are cut from the running text and reach over documents
(FULL-SENTENCES of Liu et al. 2019, https://arxiv.org/abs/1907.11692); masks are drawn anew in every pass; the number
of predicted tokens is the same in every sequence. Vocabulary logits are computed for the predicted tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MASKED, REPLACED = 0.8, 0.1

# the modules between an encoder's last hidden states and its vocabulary logits, one after the other
HEADS = {
    "bert": ("cls",),
    "roberta": ("lm_head",),
    "xlm-roberta": ("lm_head",),
    "electra": ("generator_predictions", "generator_lm_head"),
    "distilbert": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
}


@dataclass(frozen=True)
class SpecialIds:
    """What masking must know of a tokenizer. ``ordinary``: int64, all ids that are no special token."""

    cls: int
    sep: int
    mask: int
    special: np.ndarray
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialIds:
        special = np.unique(np.asarray(tokenizer.all_special_ids, dtype=np.int64))
        ordinary = np.setdiff1d(np.arange(len(tokenizer)), special)
        return cls(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id, special, ordinary)


@dataclass
class MaskedBatch:
    """B sequences of S tokens of which M are to be predicted.

    ``input_ids``: int64 [B, S]. ``positions``: int64 [M], places in the flattened B * S. ``labels``: int64 [M], the
    tokens that stood there. ``count``: M, over all processes. ``weight`` is 0 for the stand-in of a process that has
    no sequence of this batch.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    count: int
    weight: float = 1.0

    def to(self, device: torch.device) -> MaskedBatch:
        if device.type == "cpu":
            return self

        def move(tensor: torch.Tensor) -> torch.Tensor:
            pinned = tensor.pin_memory() if device.type == "cuda" else tensor
            return pinned.to(device, non_blocking=True)

        return MaskedBatch(move(self.input_ids), move(self.positions), move(self.labels), self.count, self.weight)


class PackedBatches:
    """Batches of equally long sequences cut from a running text, for the training loop.

    ``ids``: the text, integers [tokens]; chunk ``i`` is its tokens from ``i * (length - 2)`` on, put between [CLS] and
    [SEP]. ``chunks``: the numbers of the chunks to use. A pass goes over each of them once, in an order that is a pure
    function of (seed, pass); masks are a pure function of (seed, pass, batch). The last batch of a pass may be smaller.

    The loop is given ``batches`` batches in all (default: one pass), going on from pass to pass, in ``legs`` legs of
    like size: what the loop calls an epoch is a leg, after which it reports. ``rank`` and ``world``: each process
    takes its share of every batch.
    """

    def __init__(
        self,
        ids: np.ndarray,
        chunks: np.ndarray,
        special: SpecialIds,
        length: int,
        size: int,
        seed: int,
        mask_share: float = 0.15,
        batches: int | None = None,
        legs: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        self.ids, self.chunks, self.special = ids, np.asarray(chunks), special
        self.content, self.size, self.seed, self.mask_share = length - 2, size, seed, mask_share
        self.per_pass = -(-len(self.chunks) // size)
        self.batches = self.per_pass if batches is None else batches
        # no leg is empty
        self.legs = min(legs, self.batches)
        self._edges = [self.batches * leg // self.legs for leg in range(self.legs + 1)]
        self.rank, self.world = rank, world
        self._order: tuple[int, np.ndarray] | None = None

    def batches_in(self, epoch: int) -> int:
        return self._edges[epoch + 1] - self._edges[epoch]

    def iterate(self, epoch: int, start: int = 0) -> Iterator[MaskedBatch]:
        for number in range(self._edges[epoch] + start, self._edges[epoch + 1]):
            yield self.batch(number)

    def tokens_after(self, epoch: int) -> int:
        """Tokens of text seen when leg ``epoch`` is over; [CLS] and the last [SEP] of a sequence are not counted."""
        passes, batch = divmod(self._edges[epoch + 1], self.per_pass)
        return self.content * (passes * len(self.chunks) + min(batch * self.size, len(self.chunks)))

    def order(self, number: int) -> np.ndarray:
        """The chunks in the order of pass ``number``."""
        if self._order is None or self._order[0] != number:
            self._order = (number, np.random.default_rng([self.seed, number]).permutation(self.chunks))
        return self._order[1]

    def batch(self, number: int) -> MaskedBatch:
        """Batch ``number``, counted over all passes."""
        turn, place = divmod(number, self.per_pass)
        chosen = self.order(turn)[place * self.size : (place + 1) * self.size]
        rng = np.random.default_rng([self.seed, turn, 1 + place])
        tokens = self.sequences(chosen)
        inputs, predicted = mask_tokens(tokens, self.special, self.mask_share, rng)
        count = int(predicted.sum())
        mine = np.arange(len(chosen))[self.rank :: self.world]
        weight = 1.0 if len(mine) else 0.0
        mine = mine if len(mine) else np.arange(1)
        positions = np.flatnonzero(predicted[mine])
        return MaskedBatch(
            torch.from_numpy(inputs[mine]),
            torch.from_numpy(positions),
            torch.from_numpy(tokens[mine].reshape(-1)[positions]),
            # a text of nothing but special tokens has nothing to predict; the loop divides by count
            max(1, count),
            weight,
        )

    def sequences(self, chunks: np.ndarray) -> np.ndarray:
        """[CLS] chunk [SEP], int64 [len(chunks), length]."""
        tokens = np.empty((len(chunks), self.content + 2), dtype=np.int64)
        tokens[:, 0], tokens[:, -1] = self.special.cls, self.special.sep
        tokens[:, 1:-1] = self.ids[chunks[:, None] * self.content + np.arange(self.content)]
        return tokens


def mask_tokens(
    tokens: np.ndarray, special: SpecialIds, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws what is to be predicted. ``tokens``: int64 [B, S].

    Returns the inputs, int64 [B, S], and bool [B, S], True where a token is to be predicted: the rounded share of the
    S - 2 tokens between [CLS] and [SEP] in every row, fewer where a row has fewer ordinary tokens; never a special one.
    """
    draw = rng.random(tokens.shape)
    draw[np.isin(tokens, special.special)] = 2.0
    number = max(1, round(share * (tokens.shape[1] - 2)))
    lowest = np.argpartition(draw, number - 1, axis=1)[:, :number]
    predicted = np.zeros(tokens.shape, dtype=bool)
    np.put_along_axis(predicted, lowest, np.take_along_axis(draw, lowest, axis=1) < 1.0, axis=1)
    what = rng.random(tokens.shape)
    random_tokens = special.ordinary[rng.integers(len(special.ordinary), size=tokens.shape)]
    inputs = np.where(predicted & (what < MASKED), special.mask, tokens)
    inputs = np.where(predicted & (what >= MASKED) & (what < MASKED + REPLACED), random_tokens, inputs)
    return inputs, predicted


class MaskedLanguageModel(nn.Module):
    """A transformers masked-language model that computes logits where they are asked for.

    ``network`` is any ``AutoModelForMaskedLM``. Where the head of its architecture is known (``HEADS``), hidden states
    are gathered before the head; elsewhere all logits are computed and then gathered: the same numbers, more work.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.head = HEADS.get(network.config.model_type)  # type: ignore[union-attr,arg-type]

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits [M, vocabulary] at the ``positions`` [M] of the flattened ``input_ids`` [B, S]; nothing is padding."""
        if self.head is None:
            return self.network(input_ids).logits.flatten(0, 1)[positions]
        hidden = self.network.base_model(input_ids)[0].flatten(0, 1)[positions]  # type: ignore[operator]
        for name in self.head:
            hidden = getattr(self.network, name)(hidden)
        return hidden


def masked_loss(model: nn.Module, batch: MaskedBatch) -> torch.Tensor:
    """The summed negative log-likelihood of a batch's predicted tokens, in nats: the loop's objective."""
    logits = model(batch.input_ids, batch.positions)
    return F.cross_entropy(logits.float(), batch.labels, reduction="sum")


@torch.no_grad()
def held_out_loss(model: nn.Module, batches: PackedBatches, device: torch.device) -> float:
    """Mean loss in nats per predicted token over one pass, dropout off. The masks are the same at every call."""
    training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    for epoch in range(batches.legs):
        for batch in batches.iterate(epoch):
            total += masked_loss(model, batch.to(device))
            count += batch.count
    model.train(training)
    return float(total) / count


def hold_out(chunks: int, share: float) -> np.ndarray:
    """bool [chunks], True for those kept out of training: about ``share`` of them, in stretches spread over the text.

    Neighbouring chunks are of one document, so single chunks would be easier to predict from what was trained on.
    """
    held = np.zeros(chunks, dtype=bool)
    wanted = min(round(share * chunks) if share else 0, chunks - 1)
    if share and wanted == 0 and chunks > 1:
        wanted = 1
    stretches = max(1, min(100, wanted // 8))
    for number in range(stretches):
        start = chunks * (2 * number + 1) // (2 * stretches)
        held[start : start + wanted * (number + 1) // stretches - wanted * number // stretches] = True
    return held
