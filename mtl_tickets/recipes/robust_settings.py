"""The settings of the recipe ``robust``: which sub-networks of which models are compared, found with which loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic

from mtl_tickets.errors import Problem, nearest
from mtl_tickets.files import file_digest
from mtl_tickets.recipes.base import FULL, AddedRows, RecipeSettings, percent, sparsity_problems
from mtl_tickets.recipes.compat import Compat
from mtl_tickets.recipes.imp import PrunableSettings
from mtl_tickets.recipes.overrides import TrainOverride
from mtl_tickets.recipes.pruning_rounds import STEP
from mtl_tickets.recipes.run_directory import Input
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.settings import InvalidSetting, Settings, one_of
from mtl_tickets.tasks.bias import BIAS_MODELS
from mtl_tickets.tasks.data import SelectionSettings
from mtl_tickets.tasks.sources.base import require_file
from mtl_tickets.tickets.budget import exact
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.optim import OptimiserSettings

if TYPE_CHECKING:
    AnyBias = Any
else:
    AnyBias = one_of(BIAS_MODELS)

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


class RobustCompat(Compat):
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
        kind = "constant" if self.first == self.last else f"from{percent(self.first)}"
        return f"{kind}-{CODES[self.full]}-{CODES[self.loss]}"

    @property
    def heading(self) -> str:
        how = "constant" if self.first == self.last else f"from {percent(self.first)} %"
        of = "" if self.full == "standard" else f" of {SHORT[self.full]}"
        return f"masks {how}{of}, {SHORT[self.loss]}"


class RobustSettings(RecipeSettings):
    """What can be set, and what is compared then."""

    bias: dict[str, AnyBias] = pydantic.Field({}, description="task -> the model of its bias")
    added: dict[str, tuple[AddedRows, ...]] = pydantic.Field(
        {}, description="task -> challenge sets whose rows are added to its training rows: the upper bound"
    )
    anneal: tuple[pydantic.NonNegativeFloat, pydantic.NonNegativeFloat] = pydantic.Field(
        (1.0, 1.0), description="power of the bias at the first and at the last step; as published, 1 throughout"
    )
    train: TrainSettings = TrainSettings(epochs=3, optimiser=OptimiserSettings(lr=5e-5, weight_decay=0.0, warm_up=0.1))
    masks: MaskTrainSettings = MaskTrainSettings()
    per_task: dict[str, TrainOverride] = pydantic.Field(
        {}, description="epochs, lr, batch_size of fine-tuning single tasks"
    )
    prunable: PrunableSettings = PrunableSettings()
    classifier: bool = pydantic.Field(True, description="mask training masks the task head's matrix, too")
    sparsities: tuple[float, ...] = pydantic.Field((0.5, 0.7), min_length=1)
    full: tuple[Loss, ...] = pydantic.Field(
        ("standard", "product_of_experts", "reweighting", "confidence"),
        description="losses that the full model is fine-tuned with; standard is always among them",
    )
    after: tuple[After, ...] = pydantic.Field(
        tuple(After(loss=loss) for loss in CODES), description="sub-networks of fine-tuned models"
    )
    isolated: tuple[Isolated, ...] = pydantic.Field((), description="sub-networks fine-tuned from pretrained weights")
    untrained: tuple[Loss, ...] = pydantic.Field((), description="masks over pretrained weights and a random head")
    rising: tuple[Rising, ...] = pydantic.Field((), description="mask trainings whose sparsity rises")
    starts: tuple[float, ...] = pydantic.Field(
        (), description="parts of the standard fine-tuning after which a mask is trained with product_of_experts"
    )
    keep_models: bool = pydantic.Field(
        False, description="keep full models and sub-networks as models for use, but those of iterative pruning"
    )
    selection: SelectionSettings = SelectionSettings()
    yardsticks: tuple[Literal["majority", "bag_of_words"], ...] = ("majority", "bag_of_words")
    compat: RobustCompat = RobustCompat()

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = [*sparsity_problems("sparsities", self.sparsities), *sparsity_problems("starts", self.starts)]
        pruned = any(item.method == "imp" for item in self.after) or any(i.ticket == "imp" for i in self.isolated)
        for place, value in enumerate(self.sparsities):
            if pruned and (exact(value) % exact(STEP) or value < 2 * STEP):
                rule = "must be a multiple of 0.1 and at least 0.2 where imp prunes"
                problems.append(Problem(rule, place=f"sparsities.{place}", found=value))
        for place, item in enumerate(self.rising):
            problems += sparsity_problems(f"rising.{place}.first", (item.first,))
            problems += sparsity_problems(f"rising.{place}.last", (item.last,))
        names = [*self._names()]
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(Problem("each sub-network may stand only once", found=name))
        if problems:
            raise InvalidSetting(problems)
        return self

    def misfits(self, tasks: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str, Any, str]]:
        learned = [name for name, spec in tasks.items() if spec.head is None]
        found: list[tuple[tuple[str | int, ...], str, Any, str]] = [
            (("bias", name), "must be one of the tasks", name, nearest(name, learned))
            for name in self.bias
            if name not in learned
        ]
        found += [
            (("bias", name), "a task of regression has no model of its bias", name, "")
            for name in self.bias
            if name in learned and tasks[name].kind == "regression"
        ]
        found += [
            (("bias",), f"task {name} needs a model of its bias for the losses asked for", sorted(self.bias), "")
            for name in learned
            if name not in self.bias and self.all_losses != {"standard"}
        ]
        for name, several in self.added.items():
            if name not in learned:
                found.append((("added", name), "must be one of the tasks", name, nearest(name, learned)))
                continue
            if tasks[name].kind == "regression":
                found.append((("added", name), "rows are added to tasks of classification", name, ""))
                continue
            if name in self.bias and self.bias[name].files().get("file") is not None:
                rule, others = (
                    "a file has the bias of the task's own rows, not of added ones",
                    [a.task for a in several],
                )
                found.append((("added", name), rule, others, "have the bias from another kind of model"))
            asked = {other: spec for other, spec in tasks.items() if spec.head == name}
            for place, added in enumerate(several):
                at: tuple[str | int, ...] = ("added", name, place)
                if added.task not in asked:
                    rule = f"must be one of the tasks that are answered by the head of {name}"
                    found.append(((*at, "task"), rule, added.task, nearest(added.task, list(asked))))
                    continue
                spec = asked[added.task]
                labelled = [split for split, kind in spec.splits.items() if kind == "labelled"]
                if added.split not in labelled:
                    rule, hint = f"must be a labelled split of {added.task}", nearest(added.split, labelled)
                    found.append(((*at, "split"), rule, added.split, hint))
                elif added.split in spec.dev_splits:
                    rule = f"{added.task} is reported on this split, and what is reported is not trained on"
                    hint = "report in its task file says on which"
                    found.append(((*at, "split"), rule, added.split, hint))
        return found

    def inputs(self, bench: Workbench) -> list[Input]:
        return [
            Input(f"bias of {task}, {field}", str(file), file_digest(require_file(file)))
            for task, model in self.bias.items()
            for field, file in model.files().items()
        ]

    @property
    def added_rows(self) -> Mapping[str, Sequence[AddedRows]]:
        return self.added

    # -- what is compared ---------------------------------------------------------------------------------------------

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Of the full models that are needed, the standard one first."""
        wanted: list[Loss] = ["standard", *self.full]
        wanted += [item.full for item in self.after]
        wanted += [item.full for item in self.rising]
        return tuple(dict.fromkeys(wanted))

    @property
    def all_losses(self) -> set[Loss]:
        """Of full models and sub-networks."""
        found = {*self.losses, *self.untrained}
        found |= {item.loss for item in self.after} | {item.loss for item in self.isolated}
        found |= {item.loss for item in self.rising}
        return found | ({"product_of_experts"} if self.isolated or self.starts else set())

    def _names(self) -> Iterable[str]:
        yield from (item.name for item in self.after)
        yield from (item.name for item in self.isolated)
        for loss in self.untrained:
            yield f"untrained-{CODES[loss]}"
        for rise in self.rising:
            yield f"{rise.name}/{percent(rise.last)}"

    @property
    def stages(self) -> tuple[str, ...]:
        return ("yardsticks", "full", "after", "isolated", "untrained", "rising", "starts")

    def columns(self) -> dict[str, str]:
        headings = {f"yardstick/{name}": name.replace("_", " ") for name in self.yardsticks} | {FULL: "full model"}
        headings |= {f"full-{CODES[loss]}": f"full, {SHORT[loss]}" for loss in self.losses[1:]}
        kinds = {item.name: item.heading for item in self.after}
        kinds |= {item.name: item.heading for item in self.isolated}
        kinds |= {f"untrained-{CODES[loss]}": f"untrained, {SHORT[loss]}" for loss in self.untrained}
        for sparsity in self.sparsities:
            size = percent(sparsity)
            headings |= {f"{kind}/{size}": f"{heading} {size} %" for kind, heading in kinds.items()}
        for rise in self.rising:
            headings[f"{rise.name}/{percent(rise.last)}"] = f"{rise.heading} {percent(rise.last)} %"
        for start in self.starts:
            for sparsity in self.sparsities:
                name = f"start{percent(start)}-poe/{percent(sparsity)}"
                headings[name] = f"masks at {percent(start)} % of fine-tuning, PoE {percent(sparsity)} %"
        return headings
