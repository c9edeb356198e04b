"""What a pre-training is: text, vocabulary, shape or start, and how long. Loads no torch, so that help is fast."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pydantic

from mtl_tickets.settings import Settings

Share = Annotated[float, pydantic.Field(ge=0, le=1)]

# the word that stands for the generated text among the names of files
PLAYGROUND_TEXT = "playground"


class ShapeSettings(Settings):
    """The shape of a BERT that starts from random weights."""

    layers: pydantic.PositiveInt = 4
    hidden: pydantic.PositiveInt = pydantic.Field(256, description="width of a token's vector")
    heads: pydantic.PositiveInt = pydantic.Field(8, description="attention heads in a layer")
    intermediate: pydantic.PositiveInt | None = pydantic.Field(
        None, description="neurons of a feed-forward block; None: four times hidden"
    )
    positions: pydantic.PositiveInt = pydantic.Field(512, description="longest sequence the encoder can ever read")
    dropout: Share = pydantic.Field(0.1, description="saved with the encoder: what fine-tuning uses")
    initializer_range: pydantic.PositiveFloat | None = pydantic.Field(
        None,
        description="standard deviation of the weights at the start; None: 0.02 * sqrt(768 / hidden), which is BERT's "
        "0.02 at BERT's width: narrow encoders hardly learn from 0.02",
    )

    @pydantic.model_validator(mode="after")
    def _heads_divide_hidden(self) -> ShapeSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads; {self.hidden} is no multiple of {self.heads}")
        return self

    @property
    def start_range(self) -> float:
        return self.initializer_range or 0.02 * math.sqrt(768 / self.hidden)


class PretrainSettings(Settings):
    """Everything that decides which encoder comes out."""

    text: tuple[str, ...] = pydantic.Field(
        min_length=1,
        description="files (.txt, .txt.xz: a paragraph on a line, a blank line between documents; .u16, .u16.xz: token "
        "ids of the tokenizer's vocabulary), patterns such as packs/*.u16.xz, or the word playground",
    )
    playground_tokens: pydantic.PositiveInt = pydantic.Field(
        1_000_000, description="size of the generated text, in words and punctuation marks"
    )

    packs_vocabulary: str | None = pydantic.Field(
        None,
        description="the vocab.txt that .u16 packs were made with, where it is not the tokenizer's: they are turned "
        "back into words",
    )
    tokenizer: str | None = pydantic.Field(
        None, description="a folder, a name on the hub or a vocab.txt; None: the start's, or one trained on the text"
    )
    vocabulary_size: int = pydantic.Field(8192, ge=100, description="word pieces, where the vocabulary is trained")
    lower_case: bool = pydantic.Field(True, description="where the vocabulary is trained or is a vocab.txt")

    start: str | None = pydantic.Field(
        None, description="a folder or a name on the hub to go on from; None: random weights of the shape given"
    )
    shape: ShapeSettings = ShapeSettings()
    init_embeddings: Literal["normal", "ppmi"] = pydantic.Field(
        "normal",
        description="ppmi: word embeddings start from counts, a truncated SVD of the positive pointwise mutual "
        "information of neighbouring words in the same text",
    )
    init_attention: Literal["normal", "neighbours"] = pydantic.Field(
        "normal", description="neighbours: the first layer's heads start by looking at the tokens 1, 2, ... places away"
    )

    tokens: pydantic.PositiveInt = pydantic.Field(
        10_000_000, description="tokens of text to train on; a text that is shorter is gone through again"
    )
    minutes: pydantic.PositiveFloat | None = pydantic.Field(
        None, description="about how long to train at most; turned into tokens by the speed measured at the start"
    )
    stop_after: pydantic.PositiveInt | None = pydantic.Field(
        None,
        description="end at the report nearest to so many tokens, while learning rate and lengths go as planned for "
        "all tokens: for an encoder that another pre-training goes on from",
    )
    length: int = pydantic.Field(128, ge=5, description="tokens in a sequence, [CLS] and [SEP] included")
    short_length: int | None = pydantic.Field(
        None, ge=5, description="train on sequences this short first: more tokens a second, and easier at the start"
    )
    short_share: Share = pydantic.Field(0.9, description="share of the tokens seen in short sequences, where there are")
    next_sentence: bool = pydantic.Field(
        False,
        description="sequences are two passages of a document and the encoder also learns whether the second one "
        "follows the first; without it a sequence is the next tokens of the running text",
    )
    contrast: pydantic.NonNegativeFloat = pydantic.Field(
        0.0,
        description="the weight of an objective beside: sequences that follow each other in the text are told from the "
        "others of the batch by the mean of their vectors, which makes the mean tell what a text is about; 0: none",
    )
    batch_size: pydantic.PositiveInt = pydantic.Field(
        64, description="sequences in a batch; of short ones as many more as give the same number of tokens"
    )
    accumulate: pydantic.PositiveInt = pydantic.Field(1, description="batches whose gradients make one step")
    lr: pydantic.PositiveFloat | None = pydantic.Field(
        None, description="peak learning rate; None: 1e-3 from random weights, 1e-4 from a start"
    )
    optimiser: Literal["adamw", "muon"] = pydantic.Field(
        "adamw", description="muon: for the weights of linear layers, and AdamW for the rest; learns more from a token"
    )
    muon_lr: pydantic.PositiveFloat = pydantic.Field(0.01, description="peak learning rate of what Muon trains")
    warm_up: Share = pydantic.Field(0.06, description="share of the steps over which the learning rate rises")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: pydantic.NonNegativeFloat = 0.01
    dropout: Share | None = pydantic.Field(
        0.0,
        description="while pre-training; not saved. 0 learns more from text that is seen once or twice (Geiping and "
        "Goldstein 2022, section 4.3) and is much faster on a CPU. None: as the encoder is configured (BERT: 0.1)",
    )
    mask_share: float = pydantic.Field(0.15, gt=0, lt=1, description="share of a sequence's tokens to be predicted")
    held_out: float = pydantic.Field(0.01, ge=0, le=0.5, description="share of the text kept out of training")

    mixed_precision: Literal["no", "bf16", "fp16"] | None = pydantic.Field(
        None, description="None: as the accelerator given; with none given, no"
    )
    seed: pydantic.NonNegativeInt = 0
    reports: pydantic.PositiveInt = pydantic.Field(20, description="points of the loss curve")
    checkpoint_seconds: pydantic.NonNegativeFloat = pydantic.Field(
        60.0, description="seconds between checkpoints; 0: after every step"
    )

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> PretrainSettings:
        if self.start is not None and self.shape != ShapeSettings():
            raise ValueError("a start has its own shape: give start or shape, not both")
        if self.start is not None and (self.init_embeddings, self.init_attention) != ("normal", "normal"):
            raise ValueError("a start has its own weights: init_embeddings and init_attention are for new encoders")
        if self.next_sentence and self.contrast:
            raise ValueError("next_sentence and contrast exclude each other: a batch has one form")
        if self.contrast and self.batch_size < 4:
            raise ValueError(f"contrast needs a batch_size of at least 4, two pairs; found {self.batch_size}")
        if self.start is None and self.length > self.shape.positions:
            raise ValueError(f"length must not exceed shape.positions; {self.length} > {self.shape.positions}")
        if self.short_length is not None and self.short_length >= self.length:
            raise ValueError(f"short_length must be below length; {self.short_length} >= {self.length}")
        return self

    @property
    def short_batch_size(self) -> int:
        """Sequences in a batch of short ones."""
        return max(1, self.batch_size * self.length // (self.short_length or self.length))

    @property
    def peak_lr(self) -> float:
        return self.lr if self.lr is not None else (1e-3 if self.start is None else 1e-4)

    def deciding(self) -> dict[str, Any]:
        """The settings without those that change how a pre-training runs and not what comes out, JSON-able."""
        return self.model_dump(mode="json", exclude={"checkpoint_seconds"})

    def course(self) -> dict[str, Any]:
        """What decides the weights after every step; two trainings of one course differ in where they stop alone."""
        return {name: value for name, value in self.deciding().items() if name != "stop_after"}

    @property
    def trains_vocabulary(self) -> bool:
        return self.tokenizer is None and self.start is None
