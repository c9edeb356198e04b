"""Finding what a run left: seeds, models and tickets, from the path of an experiment, a run, a model or a file.

An *experiment folder* holds ``seed-*`` folders, a *run* holds ``config.yaml`` and ``stages``, a *model folder* holds
``tasks.json``, a *study* holds ``study.json`` and its experiments in ``runs``. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_tickets.errors import CheckpointError, InputError, Problem, nearest
from mtl_tickets.files import read_json

if TYPE_CHECKING:
    from mtl_tickets.tickets.ticket import Ticket

DEFAULT_RULE = "adaptive"
STUDY = "study.json"


@dataclass(frozen=True)
class ModelPlace:
    """Where a model is. ``run``: the run it belongs to, None for a model folder that stands alone; ``rule``: the
    sharing rule it was asked for by, ``seed`` the run's."""

    folder: Path
    run: Path | None = None
    rule: str | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        return str(self.folder) if self.seed is None else f"seed {self.seed}"


def runs_in(path: Path) -> list[Path]:
    """The run at ``path``, or the runs of an experiment folder in the order of their seeds.

    Raises :class:`CheckpointError` where there is none.
    """
    if not path.is_dir():
        siblings = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
        rule = "this folder must exist" if not os.path.exists(path) else "must be a folder"
        raise CheckpointError(Problem(rule, file=str(path), hint=nearest(path.name, siblings)))
    if os.path.isfile(path / "config.yaml"):
        return [path]
    seeds = [p for p in path.glob("seed-*") if os.path.isfile(p / "config.yaml") and p.name[5:].isdecimal()]
    if not seeds:
        found = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))[:10]
        rule = "must be an experiment folder (with seed-*), a run (with config.yaml) or a model folder"
        raise CheckpointError(Problem(rule, file=str(path), found=found))
    return sorted(seeds, key=lambda p: int(p.name[5:]))


def seed_of(run: Path) -> int | None:
    match = re.fullmatch(r"seed-(\d+)", run.name)
    return int(match[1]) if match else None


def find_models(path: str | Path, rule: str | None = None) -> list[ModelPlace]:
    """The models at ``path``: one, or one for each seed of an experiment folder that has got so far.

    ``rule`` says which of a run's models; by default ``adaptive``, or the only one there is. Raises
    :class:`CheckpointError` where there is no such model, naming those there are.
    """
    path = Path(path)
    if os.path.isfile(path / "tasks.json"):
        if rule is not None:
            raise InputError(Problem("a model folder holds one model: leave --rule out", file=str(path), found=rule))
        run = (
            path.parents[1] if path.parent.name == "model" and os.path.isfile(path.parents[1] / "config.yaml") else None
        )
        return [ModelPlace(path, run, path.name if run else None, seed_of(run) if run else None)]
    runs = runs_in(path)
    if len(runs) > 1:
        # a seed that is not finished has no model yet: the others can be used
        runs = [run for run in runs if _models_in(run)] or runs
    return [_model_of(run, rule) for run in runs]


def _model_of(run: Path, rule: str | None) -> ModelPlace:
    models = _models_in(run)
    if not models:
        rule_text = "this run has no model yet"
        hint = "it was stopped before the stage multi: go on with mtl-tickets run EXPERIMENT --resume"
        record = read_json(run / "record.json") if os.path.isfile(run / "record.json") else None
        if isinstance(record, dict) and record.get("finished"):
            rule_text, hint = "this run is finished, and its recipe keeps tickets and no model", ""
        raise CheckpointError(Problem(rule_text, file=str(run), hint=hint))
    if rule is None:
        rule = DEFAULT_RULE if DEFAULT_RULE in models else next(iter(models)) if len(models) == 1 else None
    if rule is None:
        hint = f"choose with --rule from {', '.join(models)}"
        raise InputError(Problem("this run has several models", file=str(run), hint=hint))
    if rule not in models:
        raise InputError(
            Problem("this run has no model of this rule", file=str(run), found=rule, hint=nearest(rule, list(models)))
        )
    return ModelPlace(models[rule], run, rule, seed_of(run))


def _models_in(run: Path) -> dict[str, Path]:
    """rule -> model folder. A rule whose tickets were another's shares that one's model: its stage says which."""
    models = {p.parent.name: p.parent for p in sorted(run.glob("model/*/tasks.json"))}
    for done in sorted(run.glob("stages/multi/*/done.json")):
        content = read_json(done)
        place = content.get("model") if isinstance(content, dict) else None
        if isinstance(place, str) and os.path.isfile(run / place / "tasks.json"):
            models.setdefault(done.parent.name, run / place)
    return models


def find_tickets(
    places: Sequence[str | Path], rule: str | None = None, tasks: Sequence[str] | None = None
) -> dict[str, Ticket]:
    """name -> ticket, from ticket files, model folders, runs and experiment folders.

    Names are task names, with as much of the path before them as tells them apart. ``rule`` says which tickets of a run
    (default: ``own``, those the tasks chose, or all where a recipe has no such rule). Raises :class:`InputError` where
    nothing is found.
    """
    from mtl_tickets.tickets.ticket import Ticket

    found: dict[Path, Ticket] = {}
    for place in map(Path, places):
        for file in _ticket_files(place, rule):
            found[file] = Ticket.load(file)
    names = _short_names(list(found))
    tickets = {names[file]: ticket for file, ticket in found.items() if not tasks or _task(file, ticket) in tasks}
    known = sorted({_task(file, ticket) for file, ticket in found.items()})
    problems = [
        Problem("no ticket of this task", file="--task", found=task, hint=nearest(task, known))
        for task in tasks or ()
        if task not in known
    ]
    if problems:
        raise InputError(problems)
    return tickets


def _task(file: Path, ticket: Ticket) -> str:
    return ticket.about.task or file.stem


def _ticket_files(place: Path, rule: str | None) -> list[Path]:
    if os.path.isfile(place) or place.suffix == ".safetensors":
        return [place]  # reading it says what is wrong with it
    if not os.path.exists(place) and os.path.isfile(place.with_suffix(".safetensors")):
        return [place.with_suffix(".safetensors")]
    if os.path.isfile(place / "tasks.json"):
        files = sorted(place.glob("tickets/*.safetensors"))
        if not files:
            raise CheckpointError(Problem("this model has no tickets: it is dense", file=str(place)))
        return files
    if any(place.glob("*.safetensors")):
        return sorted(place.glob("*.safetensors"))
    runs = runs_in(place)
    if len(runs) > 1:
        runs = [run for run in runs if any(run.glob("tickets/*/*.safetensors"))] or runs
    return [file for run in runs for file in _tickets_of(run, rule)]


def _tickets_of(run: Path, rule: str | None) -> list[Path]:
    rules = sorted({file.parent.name for file in run.glob("tickets/*/*.safetensors")})
    if not rules:
        raise CheckpointError(Problem("this run has no tickets yet", file=str(run)))
    if rule is None and "own" not in rules:
        return sorted(run.glob("tickets/*/*.safetensors"))
    rule = rule or "own"
    if rule not in rules:
        hint = nearest(rule, rules)
        raise InputError(Problem("this run has no tickets of this rule", file=str(run), found=rule, hint=hint))
    return sorted((run / "tickets" / rule).glob("*.safetensors"))


def _short_names(files: Sequence[Path]) -> dict[Path, str]:
    """The ends of the paths, as deep as tells them apart, without the folders that all of them share."""
    for depth in range(1, max(len(file.parts) for file in files) + 1):
        ends = {file: file.with_suffix("").parts[-depth:] for file in files}
        if len(set(ends.values())) == len(files):
            break
    levels = list(zip(*ends.values(), strict=True)) if len({len(end) for end in ends.values()}) == 1 else []
    shared = {i for i, names in enumerate(levels[:-1]) if len(set(names)) == 1}
    return {file: "/".join(part for i, part in enumerate(end) if i not in shared) for file, end in ends.items()}
