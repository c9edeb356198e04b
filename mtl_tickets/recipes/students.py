"""Pruning a copy of a fine-tuned model while it is trained, alone or among the teacher's layers (METHODS 5.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mtl_tickets.files import digest
from mtl_tickets.model.compact import compact
from mtl_tickets.model.grafting import Grafted
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.recipes.measured import after_epoch, evaluated, remaining_rows, tell_unmoved, training_score
from mtl_tickets.recipes.run_directory import CHECKPOINT
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.scoring.engine import ScoreSettings, score_tasks
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.loop import TrainResult, TrainSettings, total_steps, train
from mtl_tickets.training.objectives.layerwise import LayerwiseObjective
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.pruning import Pruned, PrunedUnits, PrunedWeights
from mtl_tickets.training.rewind import content_hash
from mtl_tickets.training.schedules import PhaseSettings, ReplacingSettings, replacing_rate, sparsity_by


@dataclass(frozen=True)
class Removal:
    """What a student loses: the share ``sparsity`` of ``space``, in ``updates``. ``units``, of a structured space: its
    pools that lose so much each, and the score that decides; None for single weights, decided by magnitude."""

    space: UnitSpace
    sparsity: float
    updates: int
    units: tuple[tuple[str, ...], ScoreSettings] | None = None
    miss_target: bool = False
    let_moments_run: bool = False

    def of(self, bench: Workbench, model: MultiTaskModel, task: str) -> Pruned:
        if self.units is None:
            assert isinstance(self.space, WeightSpace)
            return PrunedWeights(model.encoder, self.space, self.let_moments_run)
        space, (pools, settings) = self.space, self.units
        assert isinstance(space, StructuredSpace)

        def scores(kept: Ticket) -> Scores:
            return score_tasks(
                model,
                space,
                {task: bench.data[task].train},
                settings,
                bench.accelerator,
                pad_id=bench.tokenizer.pad_token_id,
                seed=derived_seed(bench.seed, "score", task),
                within=kept,
            )[task]

        return PrunedUnits(model, space, pools, scores)

    def deciding(self) -> list[Any]:
        units = None if self.units is None else [self.units[0], self.units[1].model_dump(mode="json")]
        return [self.space.to_json(), self.sparsity, self.updates, units, self.miss_target, self.let_moments_run]


@dataclass(frozen=True)
class StudentTraining:
    """One student of one task: a copy of what the stage ``teacher`` kept, of which ``removal`` is taken away during the
    training. ``objective``: the distillation; None: the task's loss. ``replacing``: how often the student's layers
    stand in for the teacher's; None: always. ``constant_rate``, ``clip_frozen``: published defects 3 and 6 (METHODS
    5.4). ``keep_model``: the folder of a model for use; ``keep_ticket``: the file of what is kept."""

    stage: str
    report_as: str
    task: str
    teacher: str
    settings: TrainSettings
    phases: PhaseSettings
    removal: Removal
    objective: LayerwiseObjective | None
    replacing: ReplacingSettings | None
    train_head: bool = False
    constant_rate: bool = False
    clip_frozen: bool = False
    keep_model: Path | None = None
    keep_ticket: Path | None = None

    def rate(self, step: int, steps: int) -> float:
        """The replacing rate of the step before which there were ``step`` of ``steps``."""
        if self.replacing is None:
            return 1.0
        return replacing_rate(step, self.phases.of(steps), self.replacing, self.constant_rate)

    def sparsity(self, step: int, steps: int) -> float:
        """What is dropped after ``step`` of ``steps``, as asked for."""
        removal = self.removal
        return sparsity_by(step, self.phases.of(steps), removal.sparsity, removal.updates, removal.miss_target)

    def deciding(self) -> dict[str, Any]:
        objective = None if self.objective is None else self.objective.deciding()
        return {
            "phases": self.phases.model_dump(mode="json"),
            "removal": self.removal.deciding(),
            "objective": objective,
            "replacing": self.replacing.model_dump(mode="json") if self.replacing else None,
            "switches": [self.train_head, self.constant_rate, self.clip_frozen],
        }


def train_students_each(bench: Workbench, trainings: Sequence[StudentTraining]) -> None:
    """Side by side where the run has workers."""
    bench.each_once(
        lambda training: train_student(bench, training),
        trainings,
        lambda training: bench.steps([training.task], training.settings),
    )


def train_student(bench: Workbench, training: StudentTraining) -> None:
    """Trains, takes away for good what was dropped, evaluates and keeps the student.

    Single weights that are dropped are 0 in it; heads, blocks and neurons are not in it any more.
    """
    stage, task = training.stage, training.task

    def train_stage(folder: Path) -> dict[str, Any]:
        bench.progress.stage(stage)
        model, pruned, result = trained_student(bench, training, folder)
        ticket = pruned.ticket().where(
            task=task, seed=bench.seed, encoder=bench.settings.name, weight_hash=bench.weight_hash, recipe="progressive"
        )
        if isinstance(pruned, PrunedUnits):
            model = compact(model)
        rows = evaluated(bench, model, training.report_as, (task,), result.history, result.steps, folder, fit=True)
        rows += remaining_rows(bench, training.report_as, task, ticket)
        if training.keep_ticket:
            ticket.save(training.keep_ticket)
        if training.keep_model:
            bench.keep_model(model, training.keep_model, stage, (task,))
        bench.run.log(f"{stage}: {result.steps} steps, {result.seconds:.1f} s")
        return {
            "rows": rows,
            "history": result.history,
            "steps": result.steps,
            "examples": result.examples,
            "unmoved": tell_unmoved(bench, stage, result.history),
            "model": str(training.keep_model.relative_to(bench.run.path)) if training.keep_model else None,
        }

    bench.run.stage(stage, train_stage)


def trained_student(
    bench: Workbench, training: StudentTraining, folder: Path, until: int | None = None
) -> tuple[MultiTaskModel, Pruned, TrainResult]:
    """The student after its training, or after the first ``until`` steps; from its checkpoint where it has one.

    An epoch's row of the history has the scores on the selection rows and on as many training rows (how far it fits
    what it was trained on better), the share that is dropped, and the replacing rate of its last step.
    """
    task, settings = training.task, training.settings
    start = bench.start([task])
    teacher = copy.deepcopy(start.rewound())
    teacher.load_state_dict(load_file(bench.run.stage_folder(training.teacher) / "weights.safetensors"))
    seed = derived_seed(bench.seed, "train", task)
    grafted = Grafted(teacher, seed=seed, train_head=training.train_head, frozen_gradients=training.clip_frozen)
    student = grafted.student
    grafted.beside = pruned = training.removal.of(bench, student, task)
    source = bench.batches([task], settings, seed)
    steps = total_steps(source, settings)
    what = {"teacher": content_hash(teacher.state_dict()), "student": digest(training.deciding())}

    def before_step(step: int) -> None:
        grafted.at(step, training.rate(step, steps))

    def after_step(step: int) -> None:
        wanted = training.sparsity(step, steps)
        if wanted > training.sparsity(step - 1, steps):
            pruned.prune(wanted)
        pruned.hold()
        grafted.hold()

    def on_epoch(epoch: int) -> dict[str, Any]:
        done = total_steps(source, settings.model_copy(update={"epochs": epoch + 1}))
        return {
            **after_epoch(bench, student, [task]),
            "train": {task: training_score(bench, student, task)[0]},
            "sparsity": pruned.sparsity(),
            "rate": training.rate(done - 1, steps),
        }

    result = train(
        grafted,
        source,
        training.objective or task_loss,
        settings,
        bench.accelerator,
        seed=seed,
        identity=bench.identity(start, [task], settings, what),
        checkpoint=folder / CHECKPOINT,
        on_epoch=on_epoch,
        on_step=bench.progress.advance,
        before_step=before_step,
        after_step=after_step,
        restarts=training.phases.of(steps).restarts,
        until=until,
    )
    return student, pruned, result
