"""The settings of the recipe ``super_tickets``, and what follows from them and its compat switches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.recipes.base import RecipeSettings
from mtl_tickets.recipes.choice import ChoiceSettings
from mtl_tickets.recipes.compat import CompatSettings
from mtl_tickets.recipes.overrides import MultiOverride, TrainOverride, sizes_without_effect
from mtl_tickets.recipes.search import SearchSettings
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.scoring import ScoreSettings
from mtl_tickets.settings import InvalidSetting, one_of
from mtl_tickets.tasks.data import SelectionSettings
from mtl_tickets.tasks.samplers import Quota
from mtl_tickets.tickets.draw import LadderSettings
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.training.loop import TrainSettings

if TYPE_CHECKING:
    AnyRule = Any  # mypy cannot follow a union made from a registry
else:
    AnyRule = one_of(RULES)


class SuperTicketSettings(RecipeSettings):
    """What can be set."""

    base: Path | None = pydantic.Field(
        None,
        description="the file of a ticket for all tasks that every task's tickets live inside: of heads and blocks, or "
        "of single weights, and then every training sees the encoder through it",
    )
    train: TrainSettings = TrainSettings()
    per_task: dict[str, TrainOverride] = pydantic.Field({}, description="epochs, lr, batch_size of single tasks")
    multi: MultiOverride = MultiOverride()
    score: ScoreSettings = ScoreSettings()
    ladder: LadderSettings = LadderSettings()
    search: SearchSettings = SearchSettings()
    controls: tuple[Literal["random", "losing"], ...] = ()
    selection: SelectionSettings = SelectionSettings()
    choice: ChoiceSettings = ChoiceSettings()
    sharing: tuple[AnyRule, ...] = ("own", "adaptive")
    yardsticks: tuple[Literal["majority", "bag_of_words"], ...] = ("majority", "bag_of_words")
    gradients: int | None = pydantic.Field(
        256,
        ge=2,
        description="training rows of each task on which the tasks' gradients are compared at the dense multi-task "
        "model, for the report; None: not at all",
    )
    compat: CompatSettings = CompatSettings()

    @pydantic.field_validator("sharing")
    @classmethod
    def _each_once(cls, rules: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [rule.name for rule in rules]
        if len(set(names)) != len(names):
            raise ValueError("a sharing rule may stand only once")
        return rules

    @pydantic.model_validator(mode="after")
    def _batch_sizes_count(self) -> Self:
        tokens = self.train.batches.tokens
        if tokens is None or self.compat.fixed_batches:  # fixed batches are slices of a size, whatever tokens says
            return self
        overrides = {f"per_task.{task}": override for task, override in self.per_task.items()} | {"multi": self.multi}
        problems = sizes_without_effect(overrides, tokens)
        if problems:
            raise InvalidSetting(problems)
        return self

    @pydantic.model_validator(mode="after")
    def _all_rungs_are_there_to_borrow(self) -> Self:
        if self.choice.borrow and self.search.kind == "halving":
            rule = (
                "halving leaves a rung to the tasks it went well for, and what the others would have found is not "
                "known: with search.kind: halving it must be 0"
            )
            raise InvalidSetting([Problem(rule, place="choice.borrow", found=self.choice.borrow)])
        return self

    @pydantic.model_validator(mode="after")
    def _fixed_batches_come_once(self) -> Self:
        if self.multi.as_single and self.compat.fixed_batches:
            rule = (
                "fixed batches give every row once an epoch: leave out one of multi.as_single and compat.fixed_batches"
            )
            raise InvalidSetting([Problem(rule, place="multi.as_single", found=True)])
        return self

    @property
    def rules(self) -> dict[str, Any]:
        """The sharing rules by the names of their stages and folders: the kind, where it stands only once."""
        kinds = [rule.kind for rule in self.sharing]
        return {rule.name if kinds.count(rule.kind) > 1 else rule.kind: rule for rule in self.sharing}

    # -- settings with the compat switches applied --------------------------------------------------------------------

    def _single(self, task: str) -> TrainSettings:
        return self._batched(self.per_task.get(task, TrainOverride()).on(self.train))

    def _multi(self, bench: Workbench) -> TrainSettings:
        settings = self.multi.on(self.train)
        if self.multi.as_single:
            rows = bench.rows()
            seen = {task: rows[task] * self._single(task).epochs for task in bench.learned}
            epochs = max(1, round(sum(seen.values()) / sum(rows[task] for task in bench.learned)))
            quota = {task: max(1, round(number / epochs)) for task, number in seen.items()}
            batches = settings.batches.model_copy(update={"sampler": Quota(quota=quota)})
            settings = settings.model_copy(update={"epochs": epochs, "batches": batches})
        return self._batched(settings)

    def _batched(self, settings: TrainSettings) -> TrainSettings:
        if not self.compat.fixed_batches:
            return settings
        batches = settings.batches.model_copy(update={"fixed": True, "regime": "one_task", "tokens": None})
        return settings.model_copy(update={"batches": batches})

    def _score(self) -> ScoreSettings:
        if not self.compat.accumulate_gate_gradients:
            return self.score
        return self.score.model_copy(update={"accumulate": True})

    @property
    def selection_settings(self) -> SelectionSettings:
        return self.selection.model_copy(update={"dev": True}) if self.compat.selection_on_dev else self.selection

    @property
    def drop_long_rows(self) -> bool:
        return self.compat.drop_long_rows
