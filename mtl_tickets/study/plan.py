"""A study file -> the experiments it asks for, all checked before anything runs.

    name: sharing
    experiment: playground              # a shipped name or a file
    set: {recipe.search.kind: halving}  # changes that hold everywhere
    rules: [own, adaptive, {kind: majority, k: 2}]
    seeds: [1, 2, 3, 4, 5]
    grid:                               # every combination of these is a point
      limit.train: [250, 1000]
      recipe.train.batches.regime: [mixed, one_task]

Every point is an experiment of its own with its own folder in the study's, so that all that can be done with a run can
be done with it. Every point with every seed is a run; who does the runs, ``executor`` says.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from mtl_tickets.documents import one_line
from mtl_tickets.errors import ConfigError, Problem, nearest
from mtl_tickets.experiment import Loaded, load_experiment
from mtl_tickets.files import digest
from mtl_tickets.recipes.run_directory import run_finished
from mtl_tickets.recipes.shared import SharedStages
from mtl_tickets.settings import Document, Settings, check, read_yaml
from mtl_tickets.study.executors.base import EXECUTORS
from mtl_tickets.study.executors.local import Local
from mtl_tickets.tasks.spec import task_config_folder
from mtl_tickets.tickets.sharing import RULES

if TYPE_CHECKING:
    # mypy cannot follow a union made from a registry
    AnyRule = Any
    AnyExecutor = Any
else:
    from mtl_tickets.settings import one_of

    AnyRule, AnyExecutor = one_of(RULES), one_of(EXECUTORS)

Key = str
"""A setting's path, as after ``--set``: ``recipe.train.epochs``."""


class StudySettings(Settings):
    """One study file."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="names the output folder")
    description: str = ""
    experiment: str = pydantic.Field(description="a shipped experiment or a file, whose settings are the base")
    changes: dict[Key, Any] = pydantic.Field({}, alias="set", description="settings that differ in every point")
    rules: tuple[AnyRule, ...] | None = pydantic.Field(None, description="the sharing rules compared in every point")
    seeds: tuple[pydantic.NonNegativeInt, ...] = pydantic.Field((1, 2, 3), min_length=1)
    grid: dict[Key, tuple[Any, ...]] = pydantic.Field({}, description="every combination of these values is a point")
    baselines: tuple[str, ...] = pydantic.Field(
        ("dense",), min_length=1, description="the rules that all others are compared with; the first one decides"
    )
    executor: AnyExecutor = pydantic.Field(Local(), description="who does the runs; changes no number")
    output: Path = Path("studies")

    @pydantic.field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("each seed may stand only once")
        return seeds

    @pydantic.field_validator("grid")
    @classmethod
    def _has_values(cls, grid: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key, values in grid.items():
            texts = [json.dumps(value, sort_keys=True) for value in values]
            if not values or len(set(texts)) != len(texts):
                raise ValueError(f"{key} must have a value, and each only once")
        return grid


@dataclass(frozen=True)
class Point:
    """One combination of the grid. ``values``: what it sets; ``loaded``: its experiment."""

    values: dict[Key, Any]
    loaded: Loaded

    @property
    def name(self) -> str:
        """``limit.train=250, recipe.train.batches.regime=mixed``; of a study without a grid: empty."""
        return ", ".join(f"{key}={one_line(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class StudyRun:
    """One point with one seed."""

    point: Point
    seed: int

    @property
    def path(self) -> Path:
        return self.point.loaded.folder / f"seed-{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.point.name or self.point.loaded.experiment.name}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return run_finished(self.path)


@dataclass
class Study:
    """A study file with all its points, checked. ``folder`` is named by what can change a number. ``scratch``: where it
    is while somebody works on it, if that is not in the settings' ``output``."""

    settings: StudySettings
    points: list[Point]
    file: str
    scratch: Path | None = None
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        found = digest([point.loaded.digest for point in self.points], length=10)
        runs = Path(f"{self.settings.name}-{found}", "runs")
        home, here = self.settings.output / runs, (self.scratch or self.settings.output) / runs
        self.folder = here.parent
        aside = None if self.scratch is None else here
        self.points = [Point(point.values, point.loaded.moved_to(home, aside)) for point in self.points]

    @property
    def runs(self) -> list[StudyRun]:
        """Seed by seed, so that every point has a number early."""
        return [StudyRun(point, seed) for seed in self.settings.seeds for point in self.points]

    @property
    def shared(self) -> SharedStages:
        """Where the points leave stages for each other."""
        return SharedStages(self.folder / "shared")


def shipped_studies() -> list[str]:
    return sorted(path.stem for path in (task_config_folder() / "studies").glob("*.yaml"))


def load_study(name_or_path: str | Path, overrides: Sequence[str] = (), executor: str | None = None) -> Study:
    """Reads and checks a study and every experiment it asks for.

    ``overrides`` change the study's own keys (``seeds=[1]``, ``set.limit.train=100``). ``executor``: the kind of who
    does the runs, where that is not the file's. Raises :class:`ConfigError` with
    all problems of the file, or of the first point that has any (the others would mostly repeat them).
    """
    path = Path(name_or_path)
    if not os.path.exists(path) and str(name_or_path) in shipped_studies():
        path = task_config_folder() / "studies" / f"{name_or_path}.yaml"
    if not os.path.exists(path) and not path.suffix:
        hint = nearest(str(name_or_path), shipped_studies())
        raise ConfigError(Problem("no such study file or shipped study", found=str(name_or_path), hint=hint))
    document = read_yaml(path, search=[task_config_folder() / "studies"])
    there = document.data.get("executor", "local")
    if executor is not None and executor != (there.get("kind") if isinstance(there, dict) else there):
        document = document.override([f"executor={{kind: {one_line(executor)}}}"])
    document = _with_dotted_keys(document, overrides)
    settings = check(StudySettings, document)
    experiment = path.parent / settings.experiment
    base = str(experiment) if os.path.isfile(experiment) else settings.experiment
    everywhere = dict(settings.changes)
    if settings.rules is not None:
        everywhere["recipe.sharing"] = [rule.model_dump(mode="json", exclude_defaults=True) for rule in settings.rules]
    everywhere["seeds"] = list(settings.seeds)
    points: list[Point] = []
    for combination in itertools.product(*settings.grid.values()):
        values = dict(zip(settings.grid, combination, strict=True))
        assignments = [f"{key}={one_line(value)}" for key, value in {**everywhere, **values}.items()]
        try:
            points.append(Point(values, load_experiment(base, assignments)))
        except ConfigError as error:
            raise ConfigError([_in_the_study(problem, document, values) for problem in error.problems]) from None
    twins = _twins(points)
    if twins:
        rule = "two points of the grid come to the same settings"
        raise ConfigError(document.problem(("grid",), rule, f"{twins[0].name} and {twins[1].name}"))
    _check_baselines(settings, points, document)
    return Study(settings, points, str(path))


def _check_baselines(settings: StudySettings, points: Sequence[Point], document: Document) -> None:
    """Every point must have every baseline, so that differences are of the same thing everywhere."""
    kinds = [point.loaded.experiment.recipe.kind for point in points]
    if strange := next((kind for kind in kinds if kind != "super_tickets"), None):
        rule = "a study compares sharing rules: its experiment must have the recipe super_tickets"
        raise ConfigError(document.problem(("experiment",), rule, strange))
    rules = [
        {
            stage.removeprefix("multi/")
            for stage in point.loaded.experiment.recipe.columns()
            if stage.startswith("multi/")
        }
        for point in points
    ]
    known = sorted(set.intersection(*rules))
    problems = [
        document.problem(("baselines", i), "must be a rule of every point, each only once", name, nearest(name, known))
        for i, name in enumerate(settings.baselines)
        if name not in known or name in settings.baselines[:i]
    ]
    if problems:
        raise ConfigError(problems)


def _twins(points: Sequence[Point]) -> tuple[Point, Point] | None:
    return next(
        ((one, two) for one, two in itertools.combinations(points, 2) if one.loaded.digest == two.loaded.digest), None
    )


def _with_dotted_keys(document: Document, overrides: Sequence[str]) -> Document:
    """Overrides of a study's keys. ``set.a.b=1`` and ``grid.a.b=[1]`` change the key ``a.b``, not one in another."""
    plain = []
    changed = Document(document.file, dict(document.data), dict(document.origin))
    for assignment in overrides:
        key, equals, _ = assignment.partition("=")
        room, dot, inner = key.strip().partition(".")
        if equals and dot and room in ("set", "grid"):
            (value,) = Document("--set", {}, {}).override([f"value={assignment.partition('=')[2]}"]).data.values()
            there = changed.data.get(room)
            changed.data[room] = {**(there if isinstance(there, dict) else {}), inner: value}
        else:
            plain.append(assignment)
    return changed.override(plain)


def _in_the_study(problem: Problem, document: Document, values: dict[Key, Any]) -> Problem:
    """A problem of a point, at the study's key that brought it."""
    if problem.file != "--set" and "--set" not in problem.place:
        at = problem.place.partition(" ")[0]
        for room, keys in (("grid", list(values)), ("set", list(document.data.get("set") or {}))):
            for key in keys:
                if at == key or at.startswith((f"{key}.", f"{key}[")):
                    return document.problem((room, key), problem.rule, problem.found, problem.hint)
    return problem
