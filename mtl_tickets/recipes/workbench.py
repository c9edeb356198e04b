"""The verbs recipes are written with: fine-tune, rewind, evaluate, keep; those that find evidence for tickets are in
:mod:`mtl_tickets.recipes.evidence`. Each is a stage of the run directory, done once and found again after a stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from safetensors.torch import save_file

from mtl_tickets.files import digest, written_whole
from mtl_tickets.model import store, weight_masks
from mtl_tickets.model.encoders import encoder_hash, read_config
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.model.settings import EncoderSettings
from mtl_tickets.processes import share_of
from mtl_tickets.progress import Progress
from mtl_tickets.recipes.jobs import PRETRAINED, Start, StoppedAfter, Training, put_on_top
from mtl_tickets.recipes.made_from import MadeFrom
from mtl_tickets.recipes.measured import after_epoch, evaluated, remaining_rows, tell_unmoved
from mtl_tickets.recipes.run_directory import CHECKPOINT, Input, RunDirectory
from mtl_tickets.recipes.side_by_side import side_by_side
from mtl_tickets.tasks.batches import TaskBatches
from mtl_tickets.tasks.data import TaskData
from mtl_tickets.tasks.encode import tokenizer_fingerprint
from mtl_tickets.tasks.spec import TaskSpec
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.loop import TrainResult, TrainSettings, total_steps, train
from mtl_tickets.training.objectives.task_loss import task_loss

Result = TypeVar("Result")

# the ticket of single weights that a training has left
PRUNED = "pruned.safetensors"


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
        cache: Path = Path(".cache"),
    ):
        self.run, self.tasks, self.data = run, dict(tasks), dict(data)
        self.encoder, self.settings, self.tokenizer = encoder, settings, tokenizer
        self.accelerator, self.seed, self.progress = accelerator, seed, progress
        self.stop_after, self.workers, self.cache = stop_after, workers, cache
        # tasks without a head of their own (hans, ax): evaluated with another task's
        self.extra = list(extra)
        self.learned = [name for name in self.tasks if name not in self.extra]
        # a ticket of single weights through which every training of this run sees the encoder
        self.base: Ticket | None = None
        # a ticket of heads, blocks and neurons that every ticket of this run lives inside
        self.within: Ticket | None = None
        self._start: tuple[tuple[str, ...], Start] | None = None
        self._known: tuple[StructuredSpace, str] | None = None
        self.made_from = MadeFrom(self)
        # what a recipe has made once and needs again, by its name
        self.made: dict[str, Any] = {}
        # steps of each training that progress has been told of; a worker starts with its parent's
        self.counted: dict[str, int] = {}

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
                found.append(Input(f"task {task}, split train", data.raw("train").file, data.own_train_key))
                for other, file, key in data.added_keys:
                    found.append(Input(f"rows of {other} added to task {task}", file, key))
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
        steps = {training.stage: self._steps(training) for training in trainings}
        for training in trainings:
            if training not in left:
                self.count(training, steps[training.stage])
        # the longest first, so that no worker is left with one at the end
        left.sort(key=lambda training: -steps[training.stage])
        self.each(self.fine_tune, left, len(trainings))
        for training in trainings:  # here a finished stage is only entered into the run's rows
            self.fine_tune(training)
        self.counted |= steps

    def each(self, verb: Callable[[Any], Any], left: Sequence[Any], all_of_them: int) -> None:
        """Where the run has workers, ``verb(thing)`` for what is left of so many things, side by side. ``verb`` must
        leave its result on disk and do nothing where it is there: without workers it is called by who needs that."""
        # even where only one is left: how it rounds must not depend on where the run was stopped
        if self.workers > 1 and all_of_them > 1 and left:
            side_by_side(self, verb, left, self.workers)

    def each_once(
        self, verb: Callable[[Any], Result], things: Sequence[Any], steps: Callable[[Any], int]
    ) -> list[Result]:
        """``verb(thing)`` for each thing with a ``stage``, which is done once: side by side where the run has workers,
        the longest first. ``steps(thing)`` is what progress is told of one that was done before."""
        left = [thing for thing in things if not self.run.is_done(thing.stage)]
        self.progress.advance(sum(steps(thing) for thing in things if thing not in left))
        left.sort(key=lambda thing: -steps(thing))
        self.each(verb, left, len(things))
        return [verb(thing) for thing in things]

    def fine_tune(self, training: Training) -> None:
        """Rewinds to θ_0, puts the tickets on, trains, and evaluates every task of the training.

        The seed of the training depends on the tasks, not on the stage: a rung sees the batches and dropout masks of
        the full model it is compared with (METHODS 1.4).
        """
        stage, tasks, tickets = training.stage, training.tasks, training.tickets
        base = self._base(training)

        def fine_tune_stage(folder: Path) -> dict[str, Any]:
            self.progress.stage(stage)
            model, result = self.trained(training)
            rows = evaluated(self, model, training.report_as, tasks, result.history, result.steps, folder, training.fit)
            for task in tasks:
                rows += remaining_rows(self, training.report_as, task, (tickets or {}).get(task), base)
            if training.prune is not None:
                training.prune.ticket(model.encoder, base).where(
                    task="+".join(tasks),
                    seed=self.seed,
                    encoder=self.settings.name,
                    weight_hash=self.weight_hash,
                ).save(folder / PRUNED)
            if training.keep_weights:
                with written_whole(folder / "weights.safetensors") as part:
                    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, part)
            if training.keep_model:
                self.keep_model(model, training.keep_model, stage, tasks)
            self.run.log(f"{stage}: {result.steps} steps, {result.seconds:.1f} s")
            return {
                "rows": rows,
                "history": result.history,
                "steps": result.steps,
                "examples": result.examples,
                "unmoved": tell_unmoved(self, stage, result.history),
                "model": str(training.keep_model.relative_to(self.run.path)) if training.keep_model else None,
            }

        self.run.stage(stage, fine_tune_stage, self.made_from.training(training))

    def count(self, training: Training, steps: int) -> None:
        """Tells that a training has reached a step, of which some steps may have been told of."""
        self.progress.advance(steps - self.counted.get(training.stage, 0))
        self.counted[training.stage] = steps

    def pruned_after(self, stage: str, space: WeightSpace) -> Ticket:
        """The ticket that a training which prunes has left."""
        return Ticket.load(self.run.stage_folder(stage) / PRUNED, space=space, weight_hash=self.weight_hash)

    def _base(self, training: Training) -> Ticket | None:
        return training.base if training.base is not None else self.base

    def _steps(self, training: Training) -> int:
        steps = self.steps(training.tasks, training.settings)
        return steps if training.until is None else min(steps, training.until)

    def trained(self, training: Training, until: int | None = None) -> tuple[MultiTaskModel, TrainResult]:
        """The model after a training, or after its first ``until`` steps; from its checkpoint where it has one.

        What a base drops is 0 in the weights of the model.
        """
        tasks, settings, tickets = training.tasks, training.settings, training.tickets
        base = self._base(training)
        seed = derived_seed(self.seed, "train", *sorted(tasks))
        start = self.start(tasks)
        model = start.rewound(tickets)
        training.origin.put_into(model.encoder, self.run.path / "stages")
        what: dict[str, Any] = {"tickets": {task: ticket.digest() for task, ticket in (tickets or {}).items()}}
        if base is not None:
            weight_masks.put_on(model.encoder, base)
            what["base"] = base.digest()
        if training.origin != PRETRAINED:
            what["origin"] = asdict(training.origin)
        if training.heads_from:
            put_on_top(model, self.run.stage_folder(training.heads_from))
            what["heads_from"] = training.heads_from
        objective = training.objective
        if objective is not None:
            what["objective"] = objective.digest
        steps = None
        if training.horizon > 1:
            what["horizon"] = training.horizon
            steps = training.horizon * self.steps(tasks, settings)
        identity = self.identity(start, tasks, settings, what)
        folder = self.run.stage_folder(training.stage)
        folder.mkdir(parents=True, exist_ok=True)
        told = self.counted.get(training.stage, 0)

        def on_step(steps: int) -> None:
            # a training that goes on from its checkpoint tells of all steps until there
            nonlocal told
            seen = min(told, steps)
            told -= seen
            self.progress.advance(steps - seen)

        result = train(
            model,
            self.batches(tasks, settings, seed),
            task_loss if objective is None else objective,
            settings,
            self.accelerator,
            seed=seed,
            identity=identity,
            checkpoint=folder / CHECKPOINT,
            on_epoch=lambda epoch: after_epoch(self, model, tasks),
            on_step=on_step,
            before_step=None if objective is None else objective.before_step,
            planned_steps=steps,
            until=training.until if until is None else until,
        )
        weight_masks.take_off(model.encoder, keep_zeros=True)
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

    def same_as(self, stage: str, other: str, report_as: str | None = None) -> None:
        """A stage whose training would repeat another bit for bit: its rows are the other's under its own name."""

        def same_stage(_: Path) -> dict[str, Any]:
            done = self.run.result(other)
            return {**done, "rows": [{**row, "stage": report_as or stage} for row in done["rows"]], "same_as": other}

        if not self.run.is_done(stage):
            self.progress.say(f"{stage} has the tickets of {other}: its numbers are taken over")
        self.run.stage(stage, same_stage)

    def model_folder(self, name: str) -> Path:
        return self.run.path / "model" / name

    def keep_model(self, model: MultiTaskModel, folder: Path, stage: str, tasks: Sequence[str]) -> None:
        """Writes a model for use, with what is known of its tasks."""
        specs = {task: self.tasks[task].model_dump(mode="json") for task in tasks}
        about = {"run": self.run.name, "stage": stage, "tasks": specs, "max_length": self.settings.max_length}
        store.save(model, folder, tokenizer=self.tokenizer, extra=about)

    # -- inside -------------------------------------------------------------------------------------------------------

    def batches(self, tasks: Sequence[str], settings: TrainSettings, seed: int) -> TaskBatches:
        return TaskBatches(
            {task: self.data[task].train for task in tasks},
            settings.batches,
            seed,
            self.tokenizer.pad_token_id,
            share=share_of(self.accelerator),
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
