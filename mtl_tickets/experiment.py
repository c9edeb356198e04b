"""A configuration: read, checked, and the name of the folder of its run directories, one a seed.

The folder's name is the experiment's name and a hash of the settings that differ from their defaults; a new option
with a default renames no old run, a default that changes numbers renames all (:data:`DEFAULTS`). What does not change
the numbers (where output goes, which seeds, where data lies) is not hashed. What the data and the encoder hold is not
known before they are read: the run directory keeps keys of it, and refuses to go on with other content.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from mtl_tickets.errors import ConfigError, DataError, InputError, Problem, nearest
from mtl_tickets.files import digest
from mtl_tickets.model.settings import EncoderSettings
from mtl_tickets.pretraining.encoders import made_from
from mtl_tickets.recipes import RECIPES
from mtl_tickets.recipes.base import MLM
from mtl_tickets.recipes.base_ticket import read_base
from mtl_tickets.settings import Document, Settings, one_of, problems_of, read_yaml
from mtl_tickets.tasks.data import LimitSettings
from mtl_tickets.tasks.sources import DataSettings
from mtl_tickets.tasks.sources.base import Source
from mtl_tickets.tasks.sources.rows import choose_source
from mtl_tickets.tasks.spec import TaskSpec, load_task, task_config_folder
from mtl_tickets.tickets.storage import SUFFIX, file_of

if TYPE_CHECKING:
    AnyRecipe = Any  # mypy cannot follow a union made from a registry
else:
    AnyRecipe = one_of(RECIPES)


# how often a default was changed in a way that changes numbers. 2: finer lengths that batches are padded to; 3: halving
# looks elsewhere
DEFAULTS = 3
# settings that change no number: how a run is done and described, and where it finds and leaves things
UNDECIDING: dict[str, Any] = {
    **dict.fromkeys(("seeds", "output", "cache", "description", "workers"), True),
    "tasks": True,  # names or paths of files: what the files say decides
    "data": {"source", "root", "hub_cache", "per_task"},  # what is read decides, see Loaded.sources
    # what the base's file holds decides
    "recipe": {"base": True, **{key: {"checkpoint_seconds", "ahead"} for key in ("train", "student")}},
}


class Experiment(Settings):
    """One experiment file."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="names the output folder")
    description: str = ""
    encoder: EncoderSettings = EncoderSettings()
    tasks: tuple[str, ...] = pydantic.Field(min_length=1, description="shipped names, or paths of task files")
    data: DataSettings = DataSettings()
    limit: LimitSettings = LimitSettings()
    recipe: AnyRecipe
    seeds: tuple[pydantic.NonNegativeInt, ...] = pydantic.Field((1,), min_length=1)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    workers: pydantic.PositiveInt = pydantic.Field(
        1, description="trainings side by side on a CPU, each with one thread (with more, numbers may round otherwise)"
    )
    output: Path = Path("runs")
    cache: Path = pydantic.Field(Path(".cache"), description="encoded data and built encoders")

    @pydantic.field_validator("encoder", mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @pydantic.field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("each seed may stand only once")
        return seeds

    def deciding(self) -> dict[str, Any]:
        """The settings that differ from their defaults and can change a number."""
        return _without_empty(self.model_dump(mode="json", exclude_defaults=True, exclude=UNDECIDING))


@dataclass
class Loaded:
    """An experiment with its task files, all checked. ``digest``: ten letters that stand for everything that can change
    a number (task files included); ``folder`` is named by it. ``base``: the digest of the ticket that the recipe's base
    is. ``scratch``: where its folder is while somebody works on it, if that is not in the experiment's ``output``."""

    experiment: Experiment
    tasks: dict[str, TaskSpec]
    file: str
    base: str | None = None
    scratch: Path | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        not_hashed = {"description", "sources", "default_source"}
        tasks = [
            {
                **spec.model_dump(mode="json", exclude_defaults=True, exclude=not_hashed),
                "sources": {
                    split: source.model_dump(mode="json", exclude_defaults=True, exclude={"root"})
                    for split, source in self.sources(spec).items()
                },
            }
            for spec in self.tasks.values()
        ]
        base = [] if self.base is None else [{"base": self.base}]
        self.digest = digest([DEFAULTS, self.experiment.deciding(), tasks, *base], length=10)

    def moved_to(self, output: Path, scratch: Path | None = None) -> Loaded:
        """The same with its folder in ``output``, or for now in ``scratch``."""
        return replace(self, experiment=self.experiment.model_copy(update={"output": output}), scratch=scratch)

    def with_one_worker(self) -> Loaded:
        """The same, run by one process."""
        return replace(self, experiment=self.experiment.model_copy(update={"workers": 1}))

    def sources(self, spec: TaskSpec) -> dict[str, Source]:
        """Where each split that a run reads comes from. A split that no source has is left out: reading says so."""
        found = {}
        for split in [*(["train"] if spec.head is None else []), *spec.dev_splits]:
            with contextlib.suppress(DataError):
                _, found[split] = choose_source(spec, split, self.experiment.data.of_task(spec.name))
        return found

    @property
    def places(self) -> dict[str, Any]:
        """Where the encoder, the data and a base lie; what is there decides, not where it is."""
        data, encoder = self.experiment.data, Path(self.experiment.encoder.name)
        roots = {}
        for name, spec in self.tasks.items():
            given = data.of_task(name).root
            roots[name] = {
                split: _absolute(given or getattr(source, "root", None)) for split, source in self.sources(spec).items()
            }
        base = getattr(self.experiment.recipe, "base", None)
        return {
            **({} if base is None else {"base": _absolute(base)}),
            "encoder": made_from(str(encoder)) or _absolute(encoder if encoder.is_dir() else None),
            "hub_cache": _absolute(data.hub_cache),
            "data": roots,
        }

    @property
    def folder(self) -> Path:
        return (self.scratch or self.experiment.output) / f"{self.experiment.name}-{self.digest}"


def _without_empty(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of which nothing is left are as good as not there."""
    inner = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in inner.items() if value != {}}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def shipped_experiments() -> list[str]:
    return sorted(path.stem for path in (task_config_folder() / "experiments").glob("*.yaml"))


def load_experiment(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Reads and checks an experiment and every task file it names.

    Raises :class:`ConfigError` with all problems of all files at once.
    """
    path = Path(name_or_path)
    if not os.path.exists(path) and str(name_or_path) in shipped_experiments():
        path = task_config_folder() / "experiments" / f"{name_or_path}.yaml"
    if not os.path.exists(path) and not path.suffix:
        raise ConfigError(
            Problem(
                "no such experiment file or shipped experiment",
                found=str(name_or_path),
                hint=nearest(name_or_path, shipped_experiments()),
            )
        )
    document = read_yaml(path, search=[task_config_folder() / "experiments"]).override(overrides)
    problems: list[Problem] = []
    experiment: Experiment | None = None
    try:
        experiment = Experiment.model_validate(document.data)
    except pydantic.ValidationError as error:
        problems += problems_of(error, Experiment, document)
    tasks, task_problems = _load_tasks(document, path.parent)
    problems += task_problems
    base = None
    if experiment is not None:
        problems += _cross_checks(experiment, tasks, document)
        experiment, base, base_problems = _with_base(experiment, document, path.parent)
        problems += base_problems
    if problems or experiment is None:
        raise ConfigError(problems)
    return Loaded(experiment, tasks, str(path), base)


def _load_tasks(document: Document, beside: Path) -> tuple[dict[str, TaskSpec], list[Problem]]:
    tasks: dict[str, TaskSpec] = {}
    problems: list[Problem] = []
    names = document.data.get("tasks")
    for i, name in enumerate(names if isinstance(names, list) else []):
        if not isinstance(name, str):
            continue  # the experiment's own check says so
        try:
            spec = load_task(_at(name, beside), search=_folders_of_tasks(beside))
        except InputError as error:
            for problem in error.problems:
                placed = document.problem(("tasks", i), problem.rule, name, problem.hint)
                problems.append(problem if problem.file else placed)
            continue
        if spec.name in tasks:
            problems.append(document.problem(("tasks", i), "a task may stand only once", name))
        tasks[spec.name] = spec
    return tasks, problems


def _with_base(
    experiment: Experiment, document: Document, beside: Path
) -> tuple[Experiment, str | None, list[Problem]]:
    """The experiment with the place where the recipe's base lies, and the digest of the ticket there."""
    given = getattr(experiment.recipe, "base", None)
    if given is None:
        return experiment, None, []
    file = Path(_at(str(file_of(given)), beside))
    if not os.path.isfile(file):
        rule, hint = "this file must exist", nearest(file.name, [other.name for other in _tickets_near(file, beside)])
        return experiment, None, [document.problem(("recipe", "base"), rule, str(given), hint)]
    try:
        found = read_base(file).digest()
    except InputError as error:
        return experiment, None, error.problems
    recipe = experiment.recipe.model_copy(update={"base": file})
    return experiment.model_copy(update={"recipe": recipe}), found, []


def _tickets_near(file: Path, beside: Path) -> list[Path]:
    folders = dict.fromkeys([(beside / file).parent, file.parent])
    return [other for folder in folders for other in sorted(folder.glob(f"*{SUFFIX}"))]


def _at(name: str, beside: Path) -> str:
    """Relative paths of task files start at the experiment's folder; one that is right only from here still works."""
    return str(beside / name) if os.path.isfile(beside / name) else name


def _folders_of_tasks(beside: Path) -> list[Path]:
    """Where names of tasks are looked up besides the shipped ones: next to an experiment of the user's own."""
    return [] if beside.resolve() == (task_config_folder() / "experiments").resolve() else [beside]


def _cross_checks(experiment: Experiment, tasks: dict[str, TaskSpec], document: Document) -> list[Problem]:
    """What can only be seen with the experiment and its tasks side by side."""
    problems = []
    learned = [name for name, spec in tasks.items() if spec.head is None]
    # where a task file could not be read, "no such task" would only repeat that
    all_read = len(tasks) == len(experiment.tasks)
    if all_read and not learned:
        problems.append(document.problem(("tasks",), "at least one task must have a head of its own", sorted(tasks)))
    for key, own in experiment.data.per_task.items():
        if all_read and key not in tasks:
            rule = "must be one of the tasks"
            problems.append(document.problem(("data", "per_task", key), rule, key, nearest(key, list(tasks))))
        elif key in tasks and own.source is not None and own.source not in tasks[key].sources:
            hint = nearest(own.source, list(tasks[key].sources))
            path = ("data", "per_task", key, "source")
            problems.append(document.problem(path, f"task {key} has no such source", own.source, hint))
    for name, spec in tasks.items():
        if all_read and spec.head is not None and spec.head not in learned:
            rule = f"{name} is answered by the head of {spec.head}, which must be among the tasks"
            problems.append(document.problem(("tasks",), rule, sorted(tasks), nearest(spec.head, learned)))
        problems += _unlike_its_head(spec, tasks, document)
        source = experiment.data.source
        own_source = name in experiment.data.per_task and experiment.data.per_task[name].source
        if source is not None and not own_source and source not in spec.sources:
            rule = f"task {name} has no such source"
            problems.append(document.problem(("data", "source"), rule, source, nearest(source, list(spec.sources))))
    train = getattr(experiment.recipe, "train", None)
    if experiment.encoder.attention == "packed" and getattr(train, "compile", False):
        rule = "packed rows have another longest text in every batch, for which layers would be compiled anew"
        problems.append(document.problem(("recipe", "train", "compile"), rule, True, "with compile, attention: sdpa"))
    if experiment.workers > 1 and getattr(train, "compile", False):
        rule = "the threads that compile are lost in forked workers, which would wait for them for ever"
        problems.append(document.problem(("recipe", "train", "compile"), rule, True, "with compile, workers: 1"))
    if all_read:
        for path, rule, found, hint in experiment.recipe.misfits(tasks):
            problems.append(document.problem(("recipe", *path), rule, found, hint))
    problems += _text_checks(experiment, tasks, learned if all_read else None, document)
    for setting in ("per_task", "per_student"):
        problems += [
            document.problem(("recipe", setting, key), "must be one of the tasks", key, nearest(key, learned))
            for key in getattr(experiment.recipe, setting, {})
            if all_read and key not in learned
        ]
    return problems


def _text_checks(
    experiment: Experiment, tasks: dict[str, TaskSpec], learned: list[str] | None, document: Document
) -> list[Problem]:
    """Of recipes for which masked-language modelling is a task. ``learned``: None where not all tasks could be read."""
    recipe, problems = experiment.recipe, []
    has_text = getattr(recipe, "language", None) is not None
    if has_text and MLM in tasks:
        rule = f"with a text, {MLM} is masked-language modelling, and no task may be called so"
        problems.append(document.problem(("tasks",), rule, list(tasks)))
    if has_text and experiment.encoder.weights == "random":
        rule = "masked-language modelling goes on from pretrained weights: leave out recipe.language"
        problems.append(document.problem(("encoder", "weights"), rule, "random"))
    known = [*(learned or []), *([MLM] if has_text else [])]
    for place, name in enumerate(getattr(recipe, "sources", ())):
        if learned is not None and name not in known:
            path = ("recipe", "sources", place)
            problems.append(document.problem(path, "must be one of the tasks", name, nearest(name, known)))
    return problems


def _unlike_its_head(spec: TaskSpec, tasks: dict[str, TaskSpec], document: Document) -> list[Problem]:
    """What keeps a task from being answered by the head it names."""
    head = tasks.get(spec.head or "")
    if head is None:
        return []
    if spec.kind != head.kind:
        rule = f"{spec.name} must be of the kind of {head.name}, whose head answers it: {head.kind}"
        return [document.problem(("tasks",), rule, spec.kind, "")]
    try:
        if spec.kind == "classification":
            spec.ids_from_head(head.labels)
    except ConfigError as error:
        return list(error.problems)
    return []
