"""How an experiment names its encoder and says what heads read of it."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from mtl_tickets.model.pooling import Pooling
from mtl_tickets.settings import Settings


class EncoderSettings(Settings):
    """Which pretrained encoder, and how its text and attention are set."""

    name: str = "playground"
    weights: Literal["pretrained", "random"] = pydantic.Field(
        "pretrained", description="random: the same shape and tokenizer with weights drawn from the seed, as a baseline"
    )
    max_length: pydantic.PositiveInt = 128
    attention: Literal["sdpa", "eager", "packed"] = pydantic.Field(
        "sdpa", description="packed: sdpa without padding, the tokens of a batch in one row, in training"
    )
    pooling: Pooling = pydantic.Field(
        "pooler",
        description="what heads read: the pooler's output as published, the first token, the mean, or texts: the mean, "
        "and of a pair, whose texts are then read apart, both means, their difference and product, or aligned: that of "
        "the embeddings too, and of a pair each token beside the other text's tokens it is like",
    )
    dropout: Annotated[float, pydantic.Field(ge=0, lt=1)] | None = pydantic.Field(
        None, description="inside the encoder; None: as it is configured. Heads have the task's head_dropout"
    )
