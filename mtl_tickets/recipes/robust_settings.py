"""What the recipe ``robust`` compares, as settings: which sub-network of which model, found with which loss."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from mtl_tickets.settings import Settings
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.optim import OptimiserSettings

Loss = Literal["standard", "product_of_experts", "reweighting", "confidence"]
# what stages call them
CODES: dict[Loss, str] = {
    "standard": "std",
    "product_of_experts": "poe",
    "reweighting": "reweight",
    "confidence": "confreg",
}
# what tables call them
SHORT: dict[Loss, str] = {
    "standard": "standard",
    "product_of_experts": "PoE",
    "reweighting": "reweighting",
    "confidence": "conf. reg.",
}


class RobustCompat(Settings):
    """Published defects (METHODS 3.8), off by default. ``compat: reference`` is all of them."""

    stays_first: bool = pydantic.Field(False, description="defect 1: a rising mask is saved with its first sparsity")
    alias_rewind: bool = pydantic.Field(False, description="defect 3: iterative pruning rewinds nothing")
    full_horizon: bool = pydantic.Field(
        False, description="defect 4: the learning rate of each round falls as if all rounds were one training"
    )


class MaskTrainSettings(Settings):
    """How masks are trained, and how long the rounds of iterative pruning are. Batches are those of fine-tuning."""

    epochs: pydantic.PositiveInt = 5
    optimiser: OptimiserSettings = OptimiserSettings(lr=5e-5, weight_decay=0.0, warm_up=0.1)
    reset_every: pydantic.PositiveInt = pydantic.Field(
        1000, description="steps after which thresholds are set so that the sparsity is exact again"
    )
    epochs_per_round: pydantic.PositiveInt = pydantic.Field(1, description="of iterative pruning")

    def on(self, settings: TrainSettings) -> TrainSettings:
        return settings.model_copy(update={"epochs": self.epochs, "optimiser": self.optimiser})


class After(Settings):
    """A sub-network of a model that was fine-tuned with the loss ``full``, found with ``loss``."""

    method: Literal["masks", "imp"] = pydantic.Field(
        "masks", description="masks: mask training, the weights frozen; imp: iterative pruning, they train on"
    )
    full: Loss = "standard"
    loss: Loss = "product_of_experts"

    @property
    def name(self) -> str:
        return f"{self.method}-{CODES[self.full]}-{CODES[self.loss]}"

    @property
    def heading(self) -> str:
        of = "" if self.full == "standard" else f" of {SHORT[self.full]}"
        return f"{'IMP' if self.method == 'imp' else 'masks'}{of}, {SHORT[self.loss]}"


class Isolated(Settings):
    """A sub-network, found with product of experts, rewound to the pretrained weights and fine-tuned with ``loss``."""

    ticket: Literal["masks", "imp"] = pydantic.Field(
        "masks", description="masks: mask training after standard fine-tuning; imp: iterative pruning with rewinding"
    )
    loss: Loss = "product_of_experts"

    @property
    def name(self) -> str:
        return f"isolated-{self.ticket}-{CODES[self.loss]}"

    @property
    def heading(self) -> str:
        return f"alone ({'IMP' if self.ticket == 'imp' else 'masks'}), {SHORT[self.loss]}"


class Rising(Settings):
    """A mask training from the sparsity ``first`` to ``last``; with equal ones, the constant it is compared with."""

    first: float = pydantic.Field(0.7, gt=0, lt=1)
    last: float = pydantic.Field(0.9, gt=0, lt=1)
    full: Loss = "standard"
    loss: Loss = "product_of_experts"

    @pydantic.model_validator(mode="after")
    def _rises(self) -> Self:
        if self.first > self.last:
            raise ValueError("first must not be above last")
        return self

    @property
    def name(self) -> str:
        kind = "constant" if self.first == self.last else f"from{round(100 * self.first)}"
        return f"{kind}-{CODES[self.full]}-{CODES[self.loss]}"

    @property
    def heading(self) -> str:
        how = "constant" if self.first == self.last else f"from {round(100 * self.first)} %"
        return f"masks {how}, {SHORT[self.loss]}"
