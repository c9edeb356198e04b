"""Masked-language modelling, and next-sentence prediction beside it (Devlin et al. 2019,
https://arxiv.org/abs/1810.04805, section 3.1).

Of a sequence's tokens a share is to be predicted; of these 80 % are replaced by [MASK], 10 % by a random token, 10 %
stay. Deviations: masks are drawn anew in every pass; the number of predicted tokens is the same in every sequence of
one length. Vocabulary logits are computed for the predicted tokens alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mtl_tickets.model.encoders import draw_linear, initializer_range
from mtl_tickets.pretraining import lean
from mtl_tickets.pretraining.masking import MaskedBatch, MaskedBatches
from mtl_tickets.pretraining.sequences import NO_PAIR

# the modules between an encoder's last hidden states and its vocabulary logits, one after the other
HEADS = {
    "bert": ("cls",),
    "roberta": ("lm_head",),
    "xlm-roberta": ("lm_head",),
    "electra": ("generator_predictions", "generator_lm_head"),
    "distilbert": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
}


class NextSentence(nn.Module):
    """Whether the second passage follows the first: hidden states [B, width] of [CLS] -> logits [B, 2].

    It serves pre-training alone and is not saved: a task's pooler and head start anew.
    """

    def __init__(self, width: int, std: float, seed: int):
        super().__init__()
        self.dense, self.out = nn.Linear(width, width), nn.Linear(width, 2)
        draw_linear(self.dense, std, seed, "next_sentence.dense")
        draw_linear(self.out, std, seed, "next_sentence.out")

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.dense(hidden)))


class MaskedLanguageModel(nn.Module):
    """A transformers masked-language model that computes logits where they are asked for.

    ``network`` is any ``AutoModelForMaskedLM``. Where the head of its architecture is known (``HEADS``), hidden states
    are gathered before the head; elsewhere all logits are computed and then gathered: the same numbers, more work. On
    BERT form without dropout, hidden states come from :mod:`mtl_tickets.pretraining.lean`.
    ``next_sentence``: also predict whether passages follow each other; the head is drawn from ``seed``.
    """

    def __init__(self, network: nn.Module, next_sentence: bool = False, seed: int = 0):
        super().__init__()
        self.network = network
        config = network.config
        self.head = HEADS.get(config.model_type)  # type: ignore[union-attr,arg-type]
        self.types = getattr(config, "type_vocab_size", 0) >= 2
        self.next_sentence: NextSentence | None = None
        if next_sentence:
            self.next_sentence = NextSentence(config.hidden_size, initializer_range(config), seed)  # type: ignore[union-attr,arg-type]

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [M, vocabulary] at the ``positions`` [M] of the flattened ``input_ids`` [B, S], and [B, 2] of whether
        the second passage follows the first (None without ``next_sentence``)."""
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.types:
            inputs["token_type_ids"] = token_type_ids
        if self.head is None:
            output = self.network(**inputs, output_hidden_states=self.next_sentence is not None)
            logits = output.logits.flatten(0, 1)[positions]
            return logits, None if self.next_sentence is None else self.next_sentence(output.hidden_states[-1][:, 0])
        # the first token of each sequence tells whether its passages follow each other
        firsts = torch.arange(len(input_ids), device=input_ids.device) * input_ids.shape[1]
        wanted = positions if self.next_sentence is None else torch.cat([positions, firsts])
        if lean.applies_to(self.network):
            kinds, dtype = inputs.get("token_type_ids"), _precision(input_ids)
            hidden = lean.hidden_states(self.network.base_model, input_ids, wanted, attention_mask, kinds, dtype)
        else:
            hidden = self.network.base_model(**inputs)[0].flatten(0, 1)[wanted]  # type: ignore[operator]
        hidden, first = hidden[: len(positions)], hidden[len(positions) :]
        for name in self.head:
            hidden = getattr(self.network, name)(hidden)
        return hidden, None if self.next_sentence is None else self.next_sentence(first)


def _precision(tensor: torch.Tensor) -> torch.dtype:
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


def losses_of(model: nn.Module, batch: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Summed over a batch, in nats: the negative log-likelihood of the predicted tokens, and of what ``follows`` says
    (None where the model does not predict it)."""
    tokens, sentence = model(batch.input_ids, batch.positions, batch.attention_mask, batch.token_type_ids)
    loss = F.cross_entropy(tokens.float(), batch.labels, reduction="sum")
    if sentence is None or batch.follows is None:
        return loss, None
    return loss, F.cross_entropy(sentence.float(), batch.follows, ignore_index=NO_PAIR, reduction="sum")


def masked_loss(model: nn.Module, batch: MaskedBatch) -> torch.Tensor:
    """The loop's objective, which it divides by ``batch.count``: the sum of the two means, as BERT has it."""
    loss, sentence = losses_of(model, batch)
    return loss if sentence is None else loss + sentence * (batch.count / max(1, batch.pairs))


@torch.no_grad()
def held_out_losses(model: nn.Module, batches: MaskedBatches, device: torch.device) -> dict[str, float]:
    """Means over one pass, dropout off; the masks are the same at every call. ``held_out_loss``: nats per predicted
    token; ``held_out_next_sentence``: nats per pair, where the model predicts it."""
    training = model.training
    model.eval()
    totals, counts = [0.0, 0.0], [0, 0]
    for batch in batches.one_pass():
        losses = losses_of(model, batch.to(device))
        for which, (loss, count) in enumerate(zip(losses, (batch.count, batch.pairs), strict=True)):
            if loss is not None:
                totals[which] += float(loss)
                counts[which] += count
    model.train(training)
    names = ("held_out_loss", "held_out_next_sentence")
    return {name: total / count for name, total, count in zip(names, totals, counts, strict=True) if count}
