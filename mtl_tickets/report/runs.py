"""The files of one run, read: its record, configuration, rows, stages and tickets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.evaluation.records import Row, read_rows
from mtl_tickets.files import read_json
from mtl_tickets.locate import runs_in
from mtl_tickets.recipes.base import HELD_OUT, MLM
from mtl_tickets.recipes.shared import DONE
from mtl_tickets.sums import SUMS, require_whole

if TYPE_CHECKING:
    from mtl_tickets.experiment import Experiment
    from mtl_tickets.tickets.gradients import GradientProducts
    from mtl_tickets.tickets.scores import Scores
    from mtl_tickets.tickets.ticket import Ticket

Which = tuple[str, str, str, str]
"""Stage, task, split, metric."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory. Everything is read when it is first asked for; nothing is written."""

    path: Path

    @cached_property
    def record(self) -> Mapping[str, Any]:
        return _mapping(self._whole("record.json"))

    @property
    def seed(self) -> int:
        return int(self.record["seed"])

    @property
    def finished(self) -> bool:
        return bool(self.record.get("finished"))

    @property
    def begun(self) -> bool:
        """Whether it got as far as reading its data."""
        return (self.path / "inputs.json").is_file()

    @cached_property
    def experiment(self) -> Experiment:
        """Raises :class:`ConfigError` where this version does not know a setting of the run."""
        from mtl_tickets.experiment import Experiment
        from mtl_tickets.settings import check, read_yaml

        return check(Experiment, read_yaml(self._whole("config.yaml")))

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """task -> the splits it is evaluated on, for all tasks, in the order of the experiment."""
        found: dict[str, list[str]] = {}
        for task, split in self._inputs:
            if split != "train":
                found.setdefault(task, []).append(split)
        return {task: tuple(splits) for task, splits in found.items()}

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """The tasks with training rows; the others are answered by another's head."""
        return tuple(task for task, split in self._inputs if split == "train")

    @cached_property
    def specs(self) -> Mapping[str, Mapping[str, Any]]:
        """task -> what it is."""
        return dict(_mapping(self._whole("inputs.json")).get("tasks", {}))

    @cached_property
    def _inputs(self) -> list[tuple[str, str]]:
        names = _mapping(self._whole("inputs.json"))["inputs"]
        matches = (re.fullmatch(r"task ([^,]+), split (.+)", name) for name in names)
        return [(match[1], match[2]) for match in matches if match]

    @cached_property
    def rows(self) -> list[Row]:
        """Of an unfinished run, those there are."""
        path = self._whole("results.jsonl")
        return read_rows(path) if self.finished or path.exists() else []

    @cached_property
    def _by_name(self) -> dict[Which, list[Row]]:
        found: dict[Which, list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.stage, row.task, row.split, row.metric), []).append(row)
        return found

    def has(self, stage: str, task: str, split: str, metric: str) -> bool:
        """Whether there is such a row."""
        return (stage, task, split, metric) in self._by_name

    def row(self, stage: str, task: str, split: str, metric: str) -> Row:
        """The one row of this kind; a missing or doubled row is an error."""
        found = self._by_name.get((stage, task, split, metric), [])
        if len(found) != 1:
            named = {"stage": stage, "task": task, "split": split, "metric": metric}
            file = str(self.path / "results.jsonl")
            raise CheckpointError(
                Problem(f"exactly one result row must have {named}", file=file, found=f"{len(found)} rows")
            )
        return found[0]

    def stage(self, name: str) -> Mapping[str, Any]:
        """What a stage kept; an error where it is not done."""
        return _mapping(self.kept_by(name, DONE))

    def kept_by(self, stage: str, name: str) -> Path:
        """A file that a stage has kept; a :class:`CheckpointError` where it is not what it was then."""
        folder = self.path / "stages" / stage
        require_whole(folder / name, folder / SUMS, self.path)
        return folder / name

    def _whole(self, name: str) -> Path:
        """A file of the run itself; a :class:`CheckpointError` where it is not what the finished run has left."""
        require_whole(self.path / name, self.path / SUMS, self.path)
        return self.path / name

    def is_done(self, stage: str) -> bool:
        return (self.path / "stages" / stage / DONE).is_file()

    def stages(self, pattern: str) -> list[str]:
        """The names of the stages that are done, sorted; ``pattern`` as ``ladder/*/*``."""
        root = self.path / "stages"
        return sorted(file.parent.relative_to(root).as_posix() for file in root.glob(f"{pattern}/done.json"))

    def made_by(self, stage: str, task: str) -> str | None:
        """The folder of the stage that made a column's rows of a task, or of the one that it is the same as; None where
        there is none."""
        own = next((folder for folder in (f"{stage}/{task}", stage) if self.is_done(folder)), None)
        folder = own or self._makers.get((stage, task))
        return None if folder is None else str(self.stage(folder).get("same_as", folder))

    @cached_property
    def _makers(self) -> dict[tuple[str, str], str]:
        """Stage and task of rows -> the folder of the stage that made them."""
        found = {}
        for folder in self.stages("**"):
            for row in self.stage(folder).get("rows", []):
                found[row["stage"], row["task"]] = folder
        return found

    @property
    def ticket_rules(self) -> list[str]:
        """The rules whose tickets are there for every task."""
        rules = sorted({file.parent.name for file in self.path.glob("tickets/*/*.safetensors")})
        return [
            rule
            for rule in rules
            if all((self.path / "tickets" / rule / f"{task}.safetensors").is_file() for task in self.learned)
        ]

    def tickets(self, rule: str) -> dict[str, Ticket]:
        """task -> ticket; an error where one is missing."""
        from mtl_tickets.tickets.ticket import Ticket

        return {task: Ticket.load(self.path / "tickets" / rule / f"{task}.safetensors") for task in self.learned}

    def scores(self) -> dict[str, Scores]:
        """task -> scores; an error where they are missing."""
        from mtl_tickets.tickets.scores import Scores

        return {
            task: Scores.load(self.path / "stages" / "scores" / task / "scores.safetensors") for task in self.learned
        }

    def gradients(self) -> GradientProducts | None:
        """How the tasks' gradients stand to each other; None where the run has not compared them."""
        from mtl_tickets.tickets.gradients import GradientProducts

        if not self.is_done("gradients"):
            return None
        return GradientProducts.load(self.path / "stages" / "gradients" / "products.safetensors")

    def bytes_of(self, place: str) -> int | None:
        """What the files in a folder of the run (or a file of it) take; None where it is not kept."""
        path = self.path / place
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else None


def read_runs(place: Path) -> list[Run]:
    """The run at ``place``, or those of an experiment folder; an error where there is none, or where they are not seeds
    of one experiment."""
    runs = [Run(path) for path in runs_in(place)]
    configs = {run.record["config"]: run.path.name for run in runs}
    if len(configs) > 1:
        rule = "the runs of an experiment must have one configuration"
        raise CheckpointError(Problem(rule, file=str(place), found={name: config for config, name in configs.items()}))
    return runs


def fullest(runs: Iterable[Run], stages: Iterable[str]) -> tuple[list[Run], list[str]]:
    """The runs that numbers are taken from, and which of the columns ``stages`` they have.

    Those are the finished runs, with all columns; where none is finished, the runs that have got farthest.
    """
    runs, stages = [run for run in runs if run.begun], list(stages)
    if done := [run for run in runs if run.finished]:
        return done, stages
    complete = {run.path: [stage for stage in stages if column_complete(run, stage)] for run in runs}
    most = max((len(found) for found in complete.values()), default=0)
    best = [run for run in runs if len(complete[run.path]) == most]
    return best, [stage for stage in stages if best and all(stage in complete[run.path] for run in best)]


def column_complete(run: Run, stage: str) -> bool:
    """Whether an unfinished run has all rows of a column of the table."""
    recipe, yardstick = run.experiment.recipe, stage.startswith("yardstick/")
    tasks = [task for task in (run.learned if yardstick else run.splits) if recipe.reported(stage, task)]
    wanted = [(stage, task, split, "score") for task in tasks for split in run.splits[task]]
    if stage.startswith("multi/"):
        wanted.append((stage, "average", "all", "remaining"))
    elif not yardstick:
        wanted += [(stage, task, "all", "remaining") for task in tasks if task in run.learned]
    if recipe.has_text and not yardstick and recipe.reported(stage, MLM):
        wanted.append((stage, MLM, HELD_OUT, "loss"))
    return all(run.has(*which) for which in wanted)


def _mapping(path: Path) -> Mapping[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(Problem("must be a JSON object", file=str(path)))
    return value
