"""An experiment -> run directories: the data and the encoder are read, and the recipe is run for every seed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_tickets.errors import ConfigError, InputError, Problem, nearest
from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.experiment import Loaded
from mtl_tickets.processes import accelerator_for, by_main, is_main
from mtl_tickets.progress import Progress, Silent
from mtl_tickets.recipes.jobs import StoppedAfter
from mtl_tickets.recipes.run_directory import RunDirectory
from mtl_tickets.recipes.shared import SharedStages
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.tasks.data import TaskData

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class RunSummary:
    """What a finished (or, with ``--to``, stopped) run left."""

    path: Path
    seed: int
    finished: bool
    rows: list[dict[str, Any]]


def run_experiment(
    loaded: Loaded,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    restart: bool = False,
    to: str | None = None,
    progress: Progress | None = None,
    shared: SharedStages | None = None,
) -> list[RunSummary]:
    """Runs the recipe for every seed, one after the other; a finished run is not run again. ``shared``: where runs
    leave stages for each other.

    Raises :class:`InputError` for an unknown stage, data that breaks a rule (before any training), an encoder that is
    not supported, a stopped run that neither ``resume`` nor ``restart`` was given for, and a run that was made from
    other data. A finished run whose encoder and data lie where they lay is believed unread.
    """
    experiment = loaded.experiment
    progress = progress if progress is not None and is_main() else Silent()
    if to is not None and to not in experiment.recipe.stages:
        hint = nearest(to, list(experiment.recipe.stages))
        raise InputError(Problem(f"no such stage of {experiment.recipe.kind}", file="--to", found=to, hint=hint))
    summaries = []
    for seed in seeds if seeds is not None else experiment.seeds:
        config = experiment.model_dump(mode="json")
        run = RunDirectory(loaded.folder / f"seed-{seed}", config, loaded.digest, seed, shared)
        with run.opened(resume=resume or to is not None, restart=restart):
            finished = run.finished
            if not finished:
                finished = _run_recipe(loaded, run, to, progress)
            elif run.began_elsewhere(loaded.places):
                _keep_inputs(loaded, run, open_workbench(loaded, run, progress))
        rows = by_main(functools.partial(_rows, run.path))
        summaries.append(RunSummary(run.path, seed, finished, rows))
    return summaries


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row.to_json() for row in read_rows(folder / "results.jsonl")]


def _run_recipe(loaded: Loaded, run: RunDirectory, to: str | None, progress: Progress) -> bool:
    experiment = loaded.experiment
    bench = open_workbench(loaded, run, progress, to)
    _keep_inputs(loaded, run, bench)
    progress.begin(run.name, experiment.recipe.steps(bench))
    try:
        experiment.recipe.run(bench)
    except StoppedAfter:
        run.write_results()
        return False
    run.finish()
    return True


def _keep_inputs(loaded: Loaded, run: RunDirectory, bench: Workbench) -> None:
    inputs = [*bench.inputs(), *loaded.experiment.recipe.inputs(bench)]
    run.keep_inputs(inputs, loaded.places, {task: spec.model_dump(mode="json") for task, spec in bench.tasks.items()})


def open_workbench(loaded: Loaded, run: RunDirectory, progress: Progress, to: str | None = None) -> Workbench:
    """Reads all data (so that bad data is refused before anything is trained), the encoder and the device."""
    from mtl_tickets.model.anatomy import longest_input
    from mtl_tickets.model.encoders import load_tokenizer, read_config
    from mtl_tickets.pretraining.encoders import resolve_encoder

    experiment = loaded.experiment
    accelerator = accelerator_for(experiment.mixed_precision)
    encoder = str(resolve_encoder(experiment.encoder.name, experiment.cache, progress))
    tokenizer = load_tokenizer(encoder)
    _check_lengths(loaded, longest_input(read_config(encoder)))
    recipe = experiment.recipe
    data = {
        name: TaskData(
            spec,
            experiment.data,
            experiment.limit,
            recipe.selection_settings,
            tokenizer,
            experiment.encoder.max_length,
            experiment.cache,
            drop_long=recipe.drop_long_rows,
        )
        for name, spec in loaded.tasks.items()
    }
    for name, several in recipe.added_rows.items():
        for added in several:
            ids = loaded.tasks[added.task].ids_in_head(loaded.tasks[name].labels, added.labels)
            data[name].add_training_rows(data[added.task], added.split, ids, added.times)
    learned = [name for name, spec in loaded.tasks.items() if spec.head is None]

    def read() -> None:
        problems: list[Problem] = []
        for name, task in data.items():
            progress.stage(f"data/{name}")
            try:
                task.read(train=name in learned)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)

    by_main(read)  # which leaves encoded rows in the cache
    if not accelerator.is_main_process:
        read()
    extra = [name for name, spec in loaded.tasks.items() if spec.head is not None]
    return Workbench(
        run,
        loaded.tasks,
        data,
        encoder,
        experiment.encoder,
        tokenizer,
        accelerator,
        run.seed,
        progress,
        to,
        extra,
        _workers(experiment.workers, accelerator),
        experiment.cache,
    )


def _workers(workers: int, accelerator: Accelerator) -> int:
    """Side by side is for CPUs: an accelerator is filled by one training, and a launcher brings its own processes."""
    return workers if accelerator.device.type == "cpu" and accelerator.num_processes == 1 else 1


def _check_lengths(loaded: Loaded, longest: int) -> None:
    """A row longer than the encoder's positions would end in an index error in the middle of a training."""
    asked = {"encoder.max_length": loaded.experiment.encoder.max_length}
    if (language := getattr(loaded.experiment.recipe, "language", None)) is not None:
        asked["recipe.language.length"] = language.length
    asked |= {f"task {name}: max_length": spec.max_length for name, spec in loaded.tasks.items() if spec.max_length}
    problems = [
        Problem(f"must not exceed the {longest} positions of the encoder", file=loaded.file, place=place, found=length)
        for place, length in asked.items()
        if length > longest
    ]
    if problems:
        raise ConfigError(problems)
