"""Masked-language modelling, and beside it next-sentence prediction (Devlin et al. 2019,
https://arxiv.org/abs/1810.04805, section 3.1) or a contrast of neighbouring texts.

Of a sequence's tokens a share is to be predicted; of these 80 % are replaced by [MASK], 10 % by a random token, 10 %
stay. Deviations: masks are drawn anew in every pass; the number of predicted tokens is the same in every sequence of
one length. Vocabulary logits are computed for the predicted tokens alone.

The contrast is InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4) with the batch's other
texts as negatives, between the means of two neighbouring texts' vectors, as Contriever contrasts two cuts of a document
(Izacard et al. 2022, https://arxiv.org/abs/2112.09118, section 3.1). Deviations: the two texts do not overlap, and are
read with the masks of masked-language modelling on: one pass serves both objectives.
"""

from __future__ import annotations

from dataclasses import dataclass
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


# cosines are divided by it: 0.05, as Gao et al. 2021 (https://arxiv.org/abs/2104.08821, section 3) and Contriever
TEMPERATURE = 0.05


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


def likeness(hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states [B, S, width] -> [B, B], the cosines of the rows' mean vectors over the temperature, float32; -inf
    on the diagonal."""
    vectors = F.normalize(hidden.float().mean(dim=1), dim=1)
    return (vectors @ vectors.T / TEMPERATURE).fill_diagonal_(-torch.inf)


class MaskedLanguageModel(nn.Module):
    """A transformers masked-language model that computes logits where they are asked for.

    ``network`` is any ``AutoModelForMaskedLM``. Where the head of its architecture is known (``HEADS``), hidden states
    are gathered before the head; elsewhere all logits are computed and then gathered: the same numbers, more work. On
    BERT form without dropout, hidden states come from :mod:`mtl_tickets.pretraining.lean`.
    ``next_sentence``: also predict whether passages follow each other; the head is drawn from ``seed``. ``contrast``:
    tell a row's neighbour from all others of the batch; rows 2i and 2i + 1 are neighbours.
    """

    def __init__(self, network: nn.Module, next_sentence: bool = False, seed: int = 0, contrast: bool = False):
        super().__init__()
        self.network = network
        self.contrast = contrast
        config = network.config
        self.head = HEADS.get(config.model_type)  # type: ignore[union-attr,arg-type]
        self.types = getattr(config, "type_vocab_size", 0) >= 2
        self.next_sentence: NextSentence | None = None
        if next_sentence:
            self.next_sentence = NextSentence(config.hidden_size, initializer_range(config), seed)  # type: ignore[union-attr,arg-type]

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        every_layer: bool = False,
    ) -> tuple[Any, ...]:
        """Logits [M, vocabulary] at the ``positions`` [M] of the flattened ``input_ids`` [B, S], and of the objective
        beside: [B, 2], whether the second passage follows the first, or [B, B], which row is the neighbour; else None.

        ``every_layer``: there is a third, what each layer gives, first to last, a tuple of [B, S, width]; the output of
        the embeddings is not among them. ``positions`` may then be None, for no logits at all (None).
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.types:
            inputs["token_type_ids"] = token_type_ids
        if self.head is None:
            wanted_states = self.next_sentence is not None or self.contrast or every_layer
            output = self.network(**inputs, output_hidden_states=wanted_states)
            layers = output.hidden_states[1:] if wanted_states else None
            logits = None if positions is None else output.logits.flatten(0, 1)[positions]
            answer = logits, self._beside(None if layers is None else layers[-1])
            return (*answer, layers) if every_layer else answer
        if every_layer:
            layers = self._every_layer(inputs)
            states = layers[-1]
            if positions is None:
                return None, self._beside(states), layers
            hidden = states.flatten(0, 1)[positions]
        elif lean.applies_to(self.network):
            assert positions is not None, "only with every_layer"
            # of the last layer what is asked for; the first token of each sequence tells whether its passages follow
            firsts = torch.arange(len(input_ids), device=input_ids.device) * input_ids.shape[1]
            wanted = positions if self.next_sentence is None else torch.cat([positions, firsts])
            kinds, dtype = inputs.get("token_type_ids"), _precision(input_ids)
            encoder: Any = self.network.base_model
            where = None if self.contrast else wanted
            hidden = lean.hidden_states(encoder, input_ids, where, attention_mask, kinds, dtype)
            states = hidden.view(*input_ids.shape, -1) if self.contrast else hidden[len(positions) :, None]
            hidden = hidden[positions] if self.contrast else hidden[: len(positions)]
        else:
            states = self.network.base_model(**inputs)[0]  # type: ignore[operator]
            hidden = states.flatten(0, 1)[positions]
        for name in self.head:
            hidden = getattr(self.network, name)(hidden)
        answer = hidden, self._beside(states)
        return (*answer, layers) if every_layer else answer

    def _every_layer(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        encoder: Any = self.network.base_model
        if not lean.applies_to(self.network):
            return tuple(encoder(**inputs, output_hidden_states=True).hidden_states[1:])
        ids, mask, kinds = inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids")
        return lean.every_layer(encoder, ids, mask, kinds, _precision(ids))

    def _beside(self, states: torch.Tensor | None) -> torch.Tensor | None:
        """``states``: [B, S, width]; for next-sentence prediction the first place is enough."""
        if states is None:
            return None
        if self.contrast:
            return likeness(states)
        return None if self.next_sentence is None else self.next_sentence(states[:, 0])


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """What lies between the encoder and the vocabulary, and the vocabulary's biases; not the vocabulary matrix, which
    is the word embeddings' where the two are tied. TAMT trains it beside masks (METHODS 2.2)."""
    vocabulary: Any = network.get_output_embeddings()  # type: ignore[operator]
    # by what they are and not by name: while masks are on, a tied matrix has another name
    others = {id(parameter) for parameter in network.base_model.parameters()} | {id(vocabulary.weight)}  # type: ignore[union-attr]
    return [parameter for parameter in network.parameters() if id(parameter) not in others]


def _precision(tensor: torch.Tensor) -> torch.dtype:
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


def losses_of(model: nn.Module, batch: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Summed over a batch, in nats: the negative log-likelihood of the predicted tokens, and of the truth of the
    objective beside (None where the model has none)."""
    tokens, beside = model(batch.input_ids, batch.positions, batch.attention_mask, batch.token_type_ids)
    loss = F.cross_entropy(tokens.float(), batch.labels, reduction="sum")
    if beside is None or not batch.pairs:
        return loss, None
    truth = batch.follows
    if truth is None:
        truth = torch.arange(len(beside), device=beside.device) ^ 1
    return loss, F.cross_entropy(beside.float(), truth, ignore_index=NO_PAIR, reduction="sum")


@dataclass(frozen=True)
class MaskedLoss:
    """The loop's objective, which it divides by ``batch.count``: the mean over tokens plus ``weight`` times the mean of
    the objective beside; BERT's next-sentence prediction has weight 1."""

    weight: float = 1.0

    def __call__(self, model: nn.Module, batch: MaskedBatch) -> torch.Tensor:
        loss, beside = losses_of(model, batch)
        return loss if beside is None else loss + beside * (self.weight * batch.count / max(1, batch.pairs))


@torch.no_grad()
def held_out_losses(model: MaskedLanguageModel, batches: MaskedBatches, device: torch.device) -> dict[str, float]:
    """Means over one pass, dropout off; the masks are the same at every call. ``held_out_loss``: nats per predicted
    token; where the model has an objective beside, ``held_out_next_sentence``: nats per pair, or ``held_out_contrast``:
    nats per text, told from those of its batch."""
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
    names = ("held_out_loss", "held_out_contrast" if model.contrast else "held_out_next_sentence")
    return {name: total / count for name, total, count in zip(names, totals, counts, strict=True) if count}
