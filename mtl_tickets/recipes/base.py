"""What a recipe is, and where recipes are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.data import SelectionSettings

if TYPE_CHECKING:
    from mtl_tickets.recipes.run_directory import Input
    from mtl_tickets.recipes.workbench import Workbench
    from mtl_tickets.tasks.spec import TaskSpec

# masked-language modelling among the tasks of a recipe with a text, and the split it is measured on
MLM, HELD_OUT = "mlm", "held_out"
# the stage of the whole encoder, that sub-networks are held against
FULL = "full"
# the metric of a score on rows a model was trained on
TRAIN_SCORE = "train_score"

RECIPES: Registry[type[RecipeSettings]] = Registry("recipe", "mtl_tickets.recipes")


class AddedRows(Settings):
    """Rows of a challenge set that are added to the training rows of the task that answers it."""

    task: str = pydantic.Field(description="the challenge set, a task that is answered by the other one's head")
    split: str = pydantic.Field("train", description="one of its labelled splits, on which it is not reported")
    times: pydantic.PositiveInt = pydantic.Field(1, description="how often each row is there")
    labels: dict[str, str] = pydantic.Field(
        {}, description="its label -> label of the other task; by default the first one that leads to it"
    )


class RecipeSettings(Settings):
    """A recipe is its settings plus ``run``: the paper's algorithm box, written with the verbs of the workbench.

    ``stages`` are the names ``--to`` can stop after, in order. ``steps`` estimates the optimiser steps of the whole
    run before it starts (for the time left). ``columns`` are what the final table compares: stage name -> heading.
    """

    kind: str
    selection: SelectionSettings = SelectionSettings()

    @property
    def selection_settings(self) -> SelectionSettings:
        return self.selection

    @property
    def drop_long_rows(self) -> bool:
        return False

    @property
    def added_rows(self) -> Mapping[str, Sequence[AddedRows]]:
        """Task -> what is added to its own training rows."""
        return {}

    def inputs(self, bench: Workbench) -> list[Input]:
        """What the recipe itself reads, beside the encoder and the tasks' data."""
        return []

    def misfits(self, tasks: Mapping[str, TaskSpec]) -> list[tuple[tuple[str | int, ...], str, Any, str]]:
        """What of the settings does not fit the experiment's tasks: (place, rule, value found, hint)."""
        return []

    @property
    def stages(self) -> tuple[str, ...]:
        raise NotImplementedError

    def steps(self, bench: Workbench) -> int:
        raise NotImplementedError

    def run(self, bench: Workbench) -> None:
        raise NotImplementedError

    def columns(self) -> dict[str, str]:
        raise NotImplementedError

    # -- what a table and a report of it say ---------------------------------------------------------------------------

    def reported(self, stage: str, task: str) -> bool:
        """Whether the column ``stage`` has numbers for ``task``: a control that is tried on some tasks has none for the
        others. ``task`` may be ``mlm`` where there is a text (:attr:`has_text`)."""
        return True

    @property
    def has_text(self) -> bool:
        """Whether masked-language modelling is measured beside the experiment's tasks, as rows of the task ``mlm``."""
        return getattr(self, "language", None) is not None

    @property
    def baselines(self) -> tuple[str, ...]:
        """The columns that others are held against; the first one decides."""
        return ("full",)

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns that are held against the baselines; one that is a baseline, too, against the others."""
        columns = (stage for stage in self.columns() if not stage.startswith("yardstick/"))
        return tuple(stage for stage in columns if stage not in self.baselines)

    @property
    def chooses(self) -> bool:
        """Whether something is chosen by its scores on the selection rows."""
        return False

    @property
    def sections(self) -> tuple[str, ...]:
        """What a report tells between the scores and the costs."""
        return ("sparsity", "transfer") if getattr(self, "transfer", False) else ("sparsity",)


def sparsity_problems(key: str, values: Sequence[float]) -> list[Problem]:
    """What is wrong with a list of sparsities, or of other shares that name stages, at the setting ``key``."""
    problems = [
        Problem("must be above 0 and below 1", place=f"{key}.{place}", found=value)
        for place, value in enumerate(values)
        if not 0 < value < 1
    ]
    if list(values) != sorted(set(values)):
        problems.append(Problem("must rise", place=key, found=list(values)))
    names = [percent(value) for value in values]
    if len({"0", "100", *names}) < len(names) + 2:
        rule = "must differ in the first decimal of their per cents, and be none of 0 and 100 %"
        problems.append(Problem(rule, place=key, found=list(values)))
    return problems


def percent(sparsity: float) -> str:
    """A sparsity in stages and headings: ``70``, or with one decimal ``27.1``."""
    return f"{round(100 * sparsity, 1):g}"
