"""The verbs recipes are written with: fine-tune, rewind, evaluate, keep; those that find evidence for tickets are in
:mod:`mtl_tickets.recipes.evidence`. Each is a stage of the run directory, done once and found again after a stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors.torch import save_file

from mtl_tickets.evaluation.evaluate import evaluate, save_predictions
from mtl_tickets.evaluation.yardsticks import YARDSTICKS
from mtl_tickets.files import digest, written_whole
from mtl_tickets.model import store
from mtl_tickets.model.encoders import encoder_hash, read_config
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.model.settings import EncoderSettings
from mtl_tickets.progress import Progress
from mtl_tickets.recipes.jobs import Look, Start, StoppedAfter, Training
from mtl_tickets.recipes.made_from import MadeFrom
from mtl_tickets.recipes.run_directory import CHECKPOINT, Input, RunDirectory
from mtl_tickets.recipes.side_by_side import side_by_side
from mtl_tickets.tasks.batches import TaskBatches
from mtl_tickets.tasks.data import TaskData
from mtl_tickets.tasks.encode import tokenizer_fingerprint
from mtl_tickets.tasks.metrics import compute, score
from mtl_tickets.tasks.spec import TaskSpec
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.training.loop import TrainResult, TrainSettings, total_steps, train
from mtl_tickets.training.objectives.task_loss import task_loss


class Workbench:
    """Everything a recipe works with, for one run."""

    def __init__(
        self,
        run: RunDirectory,
        tasks: Mapping[str, TaskSpec],
        data: Mapping[str, TaskData],
        encoder: str,
        settings: EncoderSettings,
        tokenizer: Any,
        accelerator: Accelerator,
        seed: int,
        progress: Progress,
        stop_after: str | None = None,
        extra: Sequence[str] = (),
        workers: int = 1,
    ):
        self.run, self.tasks, self.data = run, dict(tasks), dict(data)
        self.encoder, self.settings, self.tokenizer = encoder, settings, tokenizer
        self.accelerator, self.seed, self.progress = accelerator, seed, progress
        self.stop_after, self.workers = stop_after, workers
        # tasks without a head of their own (hans, ax): evaluated with another task's
        self.extra = list(extra)
        self.learned = [name for name in self.tasks if name not in self.extra]
        self._start: tuple[tuple[str, ...], Start] | None = None
        self._known: tuple[StructuredSpace, str] | None = None
        self.made_from = MadeFrom(self)
        # steps of each training that progress has been told of; a worker starts with its parent's
        self._counted: dict[str, int] = {}

    # -- what is there ------------------------------------------------------------------------------------------------

    @property
    def space(self) -> StructuredSpace:
        """The encoder's structured unit space."""
        return self._facts()[0]

    @property
    def weight_hash(self) -> str:
        """The hash of the pretrained weights, which tickets carry."""
        return self._facts()[1]

    def inputs(self) -> list[Input]:
        """What stages are made from: the encoder's weights, its tokenizer, and the encoded rows of what is read."""
        found = [
            Input("encoder", self.encoder, self.weight_hash),
            Input("tokenizer", self.encoder, tokenizer_fingerprint(self.tokenizer)),
        ]
        for task, data in self.data.items():
            if task in self.learned:
                found.append(Input(f"task {task}, split train", data.raw("train").file, data.train_key))
            for split in self.tasks[task].dev_splits:
                found.append(Input(f"task {task}, split {split}", data.raw(split).file, data.dev_key(split)))
        return found

    def rows(self) -> dict[str, int]:
        """Training rows of every learned task."""
        return {task: len(self.data[task].train) for task in self.learned}

    def steps(self, tasks: Sequence[str], settings: TrainSettings) -> int:
        """Optimiser steps of one training on these tasks."""
        return total_steps(self.batches(tasks, settings, 0), settings)

    def start(self, tasks: Sequence[str]) -> Start:
        """θ_0 with a fresh head for each task; heads depend on the run's seed and the task's name alone."""
        if self._start is None or self._start[0] != tuple(tasks):
            self._start = None
            model = MultiTaskModel.from_encoder(
                read_config(self.encoder) if self.settings.weights == "random" else self.encoder,
                [self._info(task) for task in tasks],
                attention=self.settings.attention,
                seed=self.seed,
                pooling=self.settings.pooling,
                dropout=self.settings.dropout,
            )
            if self._known is None:
                self._known = (model.space, encoder_hash(model.encoder))
            self._start = (tuple(tasks), Start(model.to(self.accelerator.device)))
        return self._start[1]

    # -- verbs --------------------------------------------------------------------------------------------------------

    def reached(self, stage: str) -> None:
        """Ends the run here where ``--to`` asked for it."""
        if self.stop_after == stage:
            raise StoppedAfter(stage)

    def fine_tune_each(self, trainings: Sequence[Training]) -> None:
        """Trainings that do not need each other: side by side where the run has workers, else one after the other."""
        for training in trainings:
            self.run.take(training.stage, self.made_from.training(training))
        left = [training for training in trainings if not self.run.is_done(training.stage)]
        steps = {training.stage: self.steps(training.tasks, training.settings) for training in trainings}
        for training in trainings:
            if training not in left:
                self._count(training, steps[training.stage])
        # the longest first, so that no worker is left with one at the end
        left.sort(key=lambda training: -steps[training.stage])
        self.each(self.fine_tune, left, len(trainings))
        for training in trainings:  # here a finished stage is only entered into the run's rows
            self.fine_tune(training)
        self._counted |= steps

    def each(self, verb: Callable[[Any], Any], left: Sequence[Any], all_of_them: int) -> None:
        """Where the run has workers, ``verb(thing)`` for what is left of so many things, side by side. ``verb`` must
        leave its result on disk and do nothing where it is there: without workers it is called by who needs that."""
        # even where only one is left: how it rounds must not depend on where the run was stopped
        if self.workers > 1 and all_of_them > 1 and left:
            side_by_side(self, verb, left, self.workers)

    def fine_tune(self, training: Training) -> None:
        """Rewinds to θ_0, puts the tickets on, trains, and evaluates every task of the training.

        The seed of the training depends on the tasks, not on the stage: a rung sees the batches and dropout masks of
        the full model it is compared with (METHODS 1.4).
        """
        stage, tasks, tickets = training.stage, training.tasks, training.tickets

        def fine_tune_stage(folder: Path) -> dict[str, Any]:
            self.progress.stage(stage)
            model, result = self._trained(training)
            rows = self._evaluated(model, training.report_as, tasks, result.history, result.steps, folder)
            for task in tasks:
                ticket = (tickets or {}).get(task)
                remaining = ticket.remaining_percent() if ticket else 100.0
                rows.append(self.run.row(training.report_as, task, "all", "remaining", remaining, self.space.total))
            if training.keep_weights:
                with written_whole(folder / "weights.safetensors") as part:
                    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, part)
            if training.keep_model:
                specs = {task: self.tasks[task].model_dump(mode="json") for task in tasks}
                about = {"run": self.run.name, "stage": stage, "tasks": specs, "max_length": self.settings.max_length}
                store.save(model, training.keep_model, tokenizer=self.tokenizer, extra=about)
            self.run.log(f"{stage}: {result.steps} steps, {result.seconds:.1f} s")
            return {
                "rows": rows,
                "history": result.history,
                "steps": result.steps,
                "examples": result.examples,
                "model": str(training.keep_model.relative_to(self.run.path)) if training.keep_model else None,
            }

        self.run.stage(stage, fine_tune_stage, self.made_from.training(training))

    def look_each(self, looks: Sequence[Look]) -> dict[str, float]:
        """The selection score at every look, by stage; side by side where the run has workers."""
        for look in looks:
            self.run.take(look.stage, self.made_from.look(look))
        left = [look for look in looks if not self.run.is_done(look.stage)]
        for look in looks:
            if look not in left:
                self._count(look.training, look.until)
        self.each(self.look, left, len(looks))
        scores = {look.stage: self.look(look) for look in looks}
        # workers have told of these steps, in memory that went with them
        self._counted |= {look.training.stage: look.until for look in looks}
        return scores

    def look(self, look: Look) -> float:
        """Trains a part of the way, keeps the checkpoint for who goes on, and scores the task on its selection split.

        ``training`` must be of one task.
        """
        training = look.training
        (task,) = training.tasks

        def look_stage(_: Path) -> dict[str, Any]:
            self.progress.stage(look.stage)
            model, result = self._trained(training, look.until)
            score = self._selection_scores(model, [task])[task]
            name = f"{look.stage.partition('/')[0]}/{training.report_as}"
            row = self.run.row(name, task, "selection", "score", score, len(self.data[task].selection), look.until)
            return {"rows": [row], "score": score, "steps": result.steps}

        return float(self.run.stage(look.stage, look_stage, self.made_from.look(look))["score"])

    def give_up(self, look: Look) -> None:
        """What was trained until here is not gone on with."""
        (self.run.stage_folder(look.training.stage) / CHECKPOINT).unlink(missing_ok=True)

    def _count(self, training: Training, steps: int) -> None:
        """Tells that a training has reached a step, of which some steps may have been told of."""
        self.progress.advance(steps - self._counted.get(training.stage, 0))
        self._counted[training.stage] = steps

    def _trained(self, training: Training, until: int | None = None) -> tuple[MultiTaskModel, TrainResult]:
        """The model after a training, or after its first ``until`` steps; from its checkpoint where it has one."""
        tasks, settings, tickets = training.tasks, training.settings, training.tickets
        seed = derived_seed(self.seed, "train", *sorted(tasks))
        start = self.start(tasks)
        model = start.rewound(tickets)
        identity = self.identity(
            start, tasks, settings, {"tickets": {task: ticket.digest() for task, ticket in (tickets or {}).items()}}
        )
        folder = self.run.stage_folder(training.stage)
        folder.mkdir(parents=True, exist_ok=True)
        told = self._counted.get(training.stage, 0)

        def on_step(steps: int) -> None:
            # a training that goes on from its checkpoint tells of all steps until there
            nonlocal told
            seen = min(told, steps)
            told -= seen
            self.progress.advance(steps - seen)

        result = train(
            model,
            self.batches(tasks, settings, seed),
            task_loss,
            settings,
            self.accelerator,
            seed=seed,
            identity=identity,
            checkpoint=folder / CHECKPOINT,
            on_epoch=lambda epoch: {"selection": self._selection_scores(model, tasks)},
            on_step=on_step,
            until=until,
        )
        return model, result

    def identity(self, start: Start, tasks: Sequence[str], settings: TrainSettings, more: dict[str, Any]) -> str:
        """What is trained; a checkpoint of anything else is refused."""
        return digest(
            {
                "start": start.snapshot.digest,
                "settings": settings.deciding(),
                "seed": derived_seed(self.seed, "train", *sorted(tasks)),
                "data": {task: self.data[task].train_key for task in tasks},
                **more,
            }
        )

    def spared(self, tasks: Sequence[str], settings: TrainSettings, times: int) -> None:
        """Tells that so many trainings, counted before the run began, need not be done."""
        if times:
            self.progress.advance(times * self.steps(tasks, settings))

    def same_as(self, stage: str, other: str) -> None:
        """A stage whose training would repeat another bit for bit: its rows are the other's under its own name."""

        def same_stage(_: Path) -> dict[str, Any]:
            done = self.run.result(other)
            return {**done, "rows": [{**row, "stage": stage} for row in done["rows"]], "same_as": other}

        if not self.run.is_done(stage):
            self.progress.say(f"{stage} has the tickets of {other}: its numbers are taken over")
        self.run.stage(stage, same_stage)

    def model_folder(self, name: str) -> Path:
        return self.run.path / "model" / name

    def yardsticks(self, names: Sequence[str]) -> None:
        """What a model has to beat, on the same rows."""
        for name in names:
            for task in self.learned:

                def yardstick_stage(folder: Path, name: str = name, task: str = task) -> dict[str, Any]:
                    self.progress.stage(f"yardstick/{name}/{task}")
                    spec, data = self.tasks[task], self.data[task]
                    rows = []
                    for split in spec.dev_splits:
                        questions = data.raw(split)
                        answers = YARDSTICKS.get(name)(spec, data.raw("train"), questions)
                        metrics = compute(spec, answers, np.asarray(questions.labels))
                        rows += self._metric_rows(f"yardstick/{name}", task, split, metrics, len(data.dev[split]), 0)
                    return {"rows": rows}

                self.run.stage(f"yardstick/{name}/{task}", yardstick_stage)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _evaluated(
        self,
        model: MultiTaskModel,
        report_as: str,
        tasks: Sequence[str],
        history: list[dict[str, Any]],
        steps: int,
        folder: Path,
    ) -> list[dict[str, Any]]:
        pad = self.tokenizer.pad_token_id
        rows = []
        for task in tasks:
            data = self.data[task]
            rows.append(
                self.run.row(
                    report_as, task, "selection", "score", history[-1]["selection"][task], len(data.selection), steps
                )
            )
        asked = [*tasks, *(extra for extra in self.extra if self.tasks[extra].head in tasks)]
        for task in asked:
            for split, encoded in self.data[task].dev.items():
                result = evaluate(model, self.tasks[task], encoded, self.accelerator, pad)
                save_predictions(folder / f"predictions-{task}-{split}.safetensors", result)
                rows += self._metric_rows(report_as, task, split, result.metrics, result.rows, steps)
        return rows

    def _metric_rows(
        self, stage: str, task: str, split: str, metrics: dict[str, float], n: int, step: int
    ) -> list[dict[str, Any]]:
        values = {**metrics, "score": score(self.tasks[task], metrics)}
        return [self.run.row(stage, task, split, name, value, n, step) for name, value in values.items()]

    def _selection_scores(self, model: MultiTaskModel, tasks: Sequence[str]) -> dict[str, float]:
        pad = self.tokenizer.pad_token_id
        return {
            task: evaluate(model, self.tasks[task], self.data[task].selection, self.accelerator, pad).score
            for task in tasks
        }

    def batches(self, tasks: Sequence[str], settings: TrainSettings, seed: int) -> TaskBatches:
        return TaskBatches(
            {task: self.data[task].train for task in tasks},
            settings.batches,
            seed,
            self.tokenizer.pad_token_id,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def _info(self, task: str) -> TaskInfo:
        spec = self.tasks[task]
        texts = self.data[task].texts
        return TaskInfo(spec.name, spec.kind, tuple(spec.labels), spec.outputs, spec.head_dropout, texts)

    def _facts(self) -> tuple[StructuredSpace, str]:
        if self._known is None:
            self.start(self.learned[:1])
        assert self._known is not None
        return self._known


def derived_seed(seed: int, *names: str) -> int:
    """A seed for one purpose, from the run's seed."""
    return int(digest([seed, *names], length=15), 16) % 2**31
