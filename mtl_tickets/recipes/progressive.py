"""SPD: sparse progressive distillation, pruning a student among its teacher's layers.

Huang et al., "Sparse Progressive Distillation: Resolving Overfitting under Pretrain-and-Finetune Paradigm", ACL 2022,
arXiv 2110.08190. For every task: fine-tune a teacher; copy it; drop the copy's weights of least magnitude, matrix by
matrix, by a cubic schedule while it is trained on the teacher's hidden states, attention and answers, each of its
layers standing in for the teacher's at random (``progressive``). Beside it what is left of that without grafting
(``distillation``), without distillation (``grafting``: the task's loss through the mixture) and without either
(``magnitude``: gradual magnitude pruning). All four begin with a copy of the teacher, train the same parts of it and
have the same steps and batches, so that they differ in nothing else.

Deviations, each with its switch of ``compat``: see :class:`ProgressiveCompat`. Others: the parts of a training are
shares of it, not epochs of one task's; all tasks are served, and students are kept. New: ``units: structured``, whose
students are smaller and faster when they are done.
"""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.recipes.base import FULL, RECIPES, RecipeSettings, percent, sparsity_problems
from mtl_tickets.recipes.compat import Compat
from mtl_tickets.recipes.jobs import Training
from mtl_tickets.recipes.measured import yardsticks
from mtl_tickets.recipes.overrides import TrainOverride
from mtl_tickets.recipes.students import Removal, StudentTraining, train_students_each
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.scoring import ScoreSettings
from mtl_tickets.settings import InvalidSetting
from mtl_tickets.tasks.data import SelectionSettings
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.objectives.layerwise import LayerwiseObjective, LayerwiseSettings
from mtl_tickets.training.optim import OptimiserSettings
from mtl_tickets.training.schedules import PhaseSettings, ReplacingSettings

Method = Literal["progressive", "distillation", "grafting", "magnitude"]
NAMES = {
    "progressive": "progressive distillation",
    "distillation": "distillation",
    "grafting": "grafting",
    "magnitude": "gradual magnitude",
}


class ProgressiveCompat(Compat):
    """Published defects (METHODS 5.4), off by default. ``compat: reference`` is all of them."""

    constant_rate: bool = pydantic.Field(
        False, description="defect 3: the replacing rate never changes, so that the student is never trained alone"
    )
    attention_dropout: bool = pydantic.Field(
        False, description="defect 4: the student's attention probabilities are those after dropout"
    )
    class_mean: bool = pydantic.Field(
        False, description="defect 5: the soft cross-entropy is averaged over classes and not multiplied by tau²"
    )
    clip_frozen: bool = pydantic.Field(
        False, description="defect 6: gradients of frozen parts count where gradients are clipped"
    )
    miss_target: bool = pydantic.Field(
        False, description="defect 7: where updates divide the steps evenly, the last one is not done"
    )
    let_moments_run: bool = pydantic.Field(
        False, description="defect 8: dropped weights have gradients, which are clipped with the others'"
    )
    gold_regression: bool = pydantic.Field(
        False, description="defect 9: students of regression tasks look at the label, not at the teacher"
    )
    count_padding: bool = pydantic.Field(False, description="hidden states and attention of padding count too")


@RECIPES.register("progressive")
class Progressive(RecipeSettings):
    """Sparse progressive distillation (Huang et al. 2022): a student is pruned while grafted into its teacher."""

    kind: Literal["progressive"] = "progressive"
    train: TrainSettings = TrainSettings(epochs=4, optimiser=OptimiserSettings(lr=3e-5, weight_decay=0.0, warm_up=0.0))
    per_task: dict[str, TrainOverride] = pydantic.Field({}, description="epochs, lr, batch_size of single teachers")
    student: TrainSettings = pydantic.Field(
        TrainSettings(epochs=60, optimiser=OptimiserSettings(lr=6.4e-4, weight_decay=0.0, warm_up=0.0)),
        description="the training of every student, all its parts",
    )
    per_student: dict[str, TrainOverride] = pydantic.Field({}, description="the same of single tasks' students")
    methods: tuple[Method, ...] = pydantic.Field(("progressive", "distillation", "grafting", "magnitude"), min_length=1)
    units: Literal["weights", "structured"] = pydantic.Field(
        "weights", description="what is dropped: single weights; or heads and more, which are removed in the end"
    )
    structures: tuple[Literal["heads", "ffn", "neurons"], ...] = pydantic.Field(
        ("heads", "ffn"),
        min_length=1,
        description="units: structured; what loses so much, each: heads, blocks, neurons",
    )
    score: ScoreSettings = pydantic.Field(
        ScoreSettings(), description="units: structured; what decides, asked anew at every update"
    )
    sparsities: tuple[float, ...] = pydantic.Field((0.5, 0.7, 0.9), min_length=1)
    updates: pydantic.PositiveInt = pydantic.Field(12, description="in how many steps the sparsity is reached")
    phases: PhaseSettings = PhaseSettings()
    replacing: ReplacingSettings = ReplacingSettings()
    loss: LayerwiseSettings = LayerwiseSettings()
    train_head: bool = pydantic.Field(False, description="students train their head; published: it is the teacher's")
    keep_models: bool = pydantic.Field(True, description="keep every student as a model for use")
    selection: SelectionSettings = SelectionSettings()
    yardsticks: tuple[Literal["majority", "bag_of_words"], ...] = ("majority", "bag_of_words")
    compat: ProgressiveCompat = ProgressiveCompat()

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = sparsity_problems("sparsities", self.sparsities)
        for key, values in (("methods", self.methods), ("structures", self.structures)):
            if len(set(values)) != len(values):
                problems.append(Problem("each may stand only once", place=key, found=list(values)))
        if "ffn" in self.structures and "neurons" in self.structures:
            rule = "blocks, or the neurons of blocks: one of the two"
            problems.append(Problem(rule, place="structures", found=list(self.structures)))
        if self.student.compile:
            rule = "layers that are another network's from batch to batch cannot be compiled"
            problems.append(Problem(rule, place="student.compile", found=True))
        if problems:
            raise InvalidSetting(problems)
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        return ("yardsticks", "full", "students")

    def columns(self) -> dict[str, str]:
        headings = {f"yardstick/{name}": name.replace("_", " ") for name in self.yardsticks} | {FULL: "full model"}
        return headings | {
            f"{method}/{percent(sparsity)}": f"{NAMES[method]} {percent(sparsity)} %"
            for sparsity in self.sparsities
            for method in self.methods
        }

    @property
    def sections(self) -> tuple[str, ...]:
        return (*super().sections, "overfitting")

    # -- the algorithm ------------------------------------------------------------------------------------------------

    def run(self, bench: Workbench) -> None:
        space = self.space(bench)
        self._check(space)
        yardsticks(bench, self.yardsticks)
        bench.reached("yardsticks")

        bench.fine_tune_each([self._teacher(task) for task in bench.learned])
        bench.reached(FULL)

        train_students_each(
            bench,
            [
                self._student(bench, method, space, sparsity, task)
                for task in bench.learned
                for sparsity in self.sparsities
                for method in self.methods
            ],
        )
        bench.reached("students")

    # -- its steps ----------------------------------------------------------------------------------------------------

    def space(self, bench: Workbench) -> UnitSpace:
        """What is dropped from: the six matrices of every layer, without pooler; or heads and blocks."""
        config = bench.start(bench.learned[:1]).model.config
        if self.units == "weights":
            return weight_space_of(config, embeddings=False, pooler=False)
        return space_of(config, neurons="neurons" in self.structures)

    def _check(self, space: UnitSpace) -> None:
        """Raises :class:`InvalidSetting` where a sparsity leaves a layer without a head."""
        if not isinstance(space, StructuredSpace) or "heads" not in self.structures:
            return
        problems = [
            Problem(
                f"a head must stay in each of the {space.layers} layers of {space.heads} heads",
                place=f"recipe.sparsities.{place}",
                found=sparsity,
            )
            for place, sparsity in enumerate(self.sparsities)
            if Budget.fractions(space, {"heads": sparsity})["heads"] > space.layers * (space.heads - 1)
        ]
        if problems:
            raise InvalidSetting(problems)

    def _teacher(self, task: str) -> Training:
        settings = self.per_task.get(task, TrainOverride()).on(self.train)
        return Training(f"full/{task}", FULL, (task,), settings, fit=True, keep_weights=True)

    def _student(
        self, bench: Workbench, method: Method, space: UnitSpace, sparsity: float, task: str
    ) -> StudentTraining:
        compat, name = self.compat, f"{method}/{percent(sparsity)}"
        distils, grafts = method in ("progressive", "distillation"), method in ("progressive", "grafting")
        objective = LayerwiseObjective(
            self.loss, compat.class_mean, compat.gold_regression, compat.count_padding, compat.attention_dropout
        )
        removal = Removal(
            space,
            sparsity,
            self.updates,
            None if self.units == "weights" else (self.structures, self.score),
            compat.miss_target,
            compat.let_moments_run,
        )
        return StudentTraining(
            f"student/{name}/{task}",
            name,
            task,
            f"full/{task}",
            self._settings(task),
            self.phases,
            removal,
            objective if distils else None,
            self.replacing if grafts else None,
            self.train_head,
            compat.constant_rate,
            compat.clip_frozen,
            bench.model_folder(f"{name.replace('/', '-')}-{task}") if self.keep_models else None,
            bench.run.path / "tickets" / name.replace("/", "-") / task,
        )

    def _settings(self, task: str) -> TrainSettings:
        return self.per_student.get(task, TrainOverride()).on(self.student)

    def steps(self, bench: Workbench) -> int:
        students = len(self.methods) * len(self.sparsities)
        return sum(
            bench.steps([task], self._teacher(task).settings) + students * bench.steps([task], self._settings(task))
            for task in bench.learned
        )
