"""What one training of a recipe does differently from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.settings import Settings
from mtl_tickets.training.loop import TrainSettings


class TrainOverride(Settings):
    """What one task (or the multi-task training) does differently."""

    epochs: pydantic.PositiveInt | None = None
    lr: pydantic.PositiveFloat | None = None
    batch_size: pydantic.PositiveInt | None = None

    def on(self, settings: TrainSettings) -> TrainSettings:
        optimiser = settings.optimiser.model_copy(update={"lr": self.lr} if self.lr else {})
        batches = settings.batches.model_copy(update={"size": self.batch_size} if self.batch_size else {})
        epochs = self.epochs or settings.epochs
        return settings.model_copy(update={"epochs": epochs, "optimiser": optimiser, "batches": batches})


class MultiOverride(TrainOverride):
    """What the multi-task training does differently."""

    as_single: bool = pydantic.Field(
        False,
        description="every task's rows are seen as often as in its own single-task training, so that both have the "
        "same budget; decides epochs and sampler",
    )

    @pydantic.model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.as_single and self.epochs is not None:
            raise ValueError("as_single decides the epochs: give one of the two")
        return self


def sizes_without_effect(overrides: Mapping[str, TrainOverride], tokens: int) -> list[Problem]:
    """A problem for each override, by the place of its settings, that asks for a number of rows a batch where
    ``tokens`` decide it."""
    return [
        Problem(
            f"has no effect beside train.batches.tokens ({tokens}), which decides how many rows are in a batch",
            place=f"{place}.batch_size",
            found=override.batch_size,
            hint="leave out one of them",
        )
        for place, override in overrides.items()
        if override.batch_size is not None
    ]
