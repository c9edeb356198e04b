"""A task as data: what is learned, from which columns, judged by which metrics. One YAML file a task, no code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pydantic

from mtl_tickets.errors import ConfigError, Problem, nearest
from mtl_tickets.settings import Document, InvalidSetting, Settings, check, named, one_of, read_yaml
from mtl_tickets.tasks.metrics import METRICS
from mtl_tickets.tasks.sources.base import SOURCES, ColumnSource, Source

if TYPE_CHECKING:
    AnySource = Source
else:
    AnySource = one_of(SOURCES)


class TaskSpec(Settings):
    """One task. See any file of ``task_configs/tasks`` for how it is written."""

    # the name becomes part of file names and of parameter names, so it has no dot and no slash
    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="what the task is called")
    version: pydantic.PositiveInt = pydantic.Field(1, description="raised when the rows or their meaning change")
    description: str = pydantic.Field("", description="one line for people")
    kind: Literal["classification", "regression"] = pydantic.Field("classification", description="what is predicted")
    labels: list[str] = pydantic.Field([], description="names of the classes; their order gives the label ids")
    metrics: list[str] = pydantic.Field(
        min_length=1, description="the score is their mean x100; the first is the main one"
    )
    head_dropout: float = pydantic.Field(0.1, ge=0, lt=1, description="dropout before the task head")
    max_length: pydantic.PositiveInt | None = pydantic.Field(None, description="longest input in tokens, for this task")
    head: str | None = pydantic.Field(None, description="evaluate with the head of this other task")
    collapse: dict[str, str] = pydantic.Field({}, description="label of that head -> label here, where they differ")
    breakdown: tuple[tuple[str, ...], ...] = pydantic.Field(
        (), description="accuracy apart for every value of label, of a column in the sources' groups, or of several"
    )
    splits: dict[str, Literal["labelled", "unlabelled"]] = pydantic.Field(
        min_length=1, description="train, dev..., test...: whether each has labels"
    )
    report: tuple[str, ...] = pydantic.Field(
        (), description="the labelled splits that are reported; empty: dev..., or test... where there is no dev"
    )
    sources: dict[str, AnySource] = pydantic.Field(min_length=1, description="named places the rows can come from")
    default_source: str = pydantic.Field("", description="the source used unless another is asked for (the first one)")

    @pydantic.field_validator("labels", mode="before")
    @classmethod
    def _numbers_are_names(cls, value: Any) -> Any:
        return [str(v) if type(v) is int else v for v in value] if isinstance(value, list) else value

    @pydantic.field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: list[str]) -> list[str]:
        return [named(name, METRICS.names(), "metric") for name in value]

    @pydantic.field_validator("splits")
    @classmethod
    def _known_splits(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name != "train" and not name.startswith(("dev", "test")):
                raise ValueError(f"a split is called train, dev... or test...; found {name!r}")
        return value

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._label_problems(), *self._metric_problems(), *self._source_problems()]
        problems += self._breakdown_problems()
        problems += self._report_problems()
        if problems:
            raise InvalidSetting(problems)
        if not self.default_source:
            object.__setattr__(self, "default_source", next(iter(self.sources)))
        return self

    @property
    def outputs(self) -> int:
        """Width of the task head: one a class, or 1 for regression."""
        return len(self.labels) if self.kind == "classification" else 1

    @property
    def dev_splits(self) -> list[str]:
        """The labelled splits a task is reported on: those that it says, or dev..., or test... where it has no dev."""
        labelled = [name for name, kind in self.splits.items() if kind == "labelled" and name != "train"]
        return list(self.report) or [name for name in labelled if name.startswith("dev")] or labelled

    def ids_in_head(self, head_labels: Sequence[str], names: Mapping[str, str]) -> np.ndarray:
        """int64 [labels]: for each label here the label id of the other task's head that its rows are to have there:
        that of ``names``, else the first of the head's that leads to it.

        Raises ConfigError where there is none.
        """
        here = self.ids_from_head(head_labels)
        found = []
        problems = [
            Problem("must be a label of this task", self.name, found=label, hint=nearest(label, self.labels))
            for label in names
            if label not in self.labels
        ]
        for number, label in enumerate(self.labels):
            name = names.get(label)
            leading = np.flatnonzero(here == number)
            if name is not None and name not in (valid := [head_labels[i] for i in leading.tolist()]):
                rule = f"must be a label of head {self.head!r} that leads to this one"
                problems.append(Problem(rule, self.name, label, name, nearest(name, valid)))
                continue
            if name is None and not len(leading):
                problems.append(Problem(f"no label of head {self.head!r} leads to this one", self.name, found=label))
                continue
            found.append(int(leading[0]) if name is None else list(head_labels).index(name))
        if problems:
            raise ConfigError(problems)
        return np.array(found, dtype=np.int64)

    def ids_from_head(self, head_labels: Sequence[str]) -> np.ndarray:
        """int64 [len(head_labels)]: for each label id of the other task's head, the label id here.

        Raises ConfigError where a label of the head has no counterpart.
        """
        names = [self.collapse.get(label, label) for label in head_labels]
        problems = [
            Problem(
                f"every label of head {self.head!r} must lead to a label of this task",
                file=self.name,
                place="collapse",
                found=label,
                hint=nearest(name, self.labels),
            )
            for label, name in zip(head_labels, names, strict=True)
            if name not in self.labels
        ]
        if problems:
            raise ConfigError(problems)
        return np.array([self.labels.index(name) for name in names], dtype=np.int64)

    def _label_problems(self) -> list[Problem]:
        problems = []
        if self.kind == "regression" and self.labels:
            problems.append(Problem("a regression task has no labels to list", found=self.labels))
        if self.kind == "classification" and len(set(self.labels)) < max(2, len(self.labels)):
            problems.append(Problem("labels must list two or more different names", found=self.labels))
        for label, here in self.collapse.items():
            if here not in self.labels:
                hint = nearest(here, self.labels)
                problems.append(Problem(f"collapse: {label} must lead to one of the labels", found=here, hint=hint))
        if self.collapse and self.head is None:
            problems.append(Problem("collapse needs head: the task whose labels are collapsed"))
        return problems

    def _metric_problems(self) -> list[Problem]:
        problems = []
        for name in self.metrics:
            if self.kind not in METRICS.get(name).kinds:
                valid = [other for other, metric in METRICS if self.kind in metric.kinds]
                hint = f"choose from {', '.join(valid)}"
                problems.append(Problem(f"a {self.kind} task needs metrics for {self.kind}", found=name, hint=hint))
        if not any(METRICS.get(name).in_score for name in self.metrics):
            rule = "at least one metric must be a share of 1 (errors such as mse have no place in a score)"
            problems.append(Problem(rule, found=self.metrics))
        return problems

    def _source_problems(self) -> list[Problem]:
        problems = []
        if self.default_source and self.default_source not in self.sources:
            hint = nearest(self.default_source, list(self.sources))
            problems.append(Problem("default_source must be one of the sources", found=self.default_source, hint=hint))
        widths = {len(s.text) for s in self.sources.values() if isinstance(s, ColumnSource)}
        if len(widths) > 1:
            problems.append(Problem("all sources must have the same number of texts", found=sorted(widths)))
        for name, source in self.sources.items():
            for split in source.split_names:
                if split not in self.splits:
                    hint = nearest(split, list(self.splits))
                    problems.append(Problem(f"sources.{name}: unknown split", found=split, hint=hint))
            for raw, label in source.label_map.items():
                if label not in self.labels:
                    hint = nearest(label, self.labels)
                    problems.append(
                        Problem(f"sources.{name}.label_map: {raw!r} must lead to a label", found=label, hint=hint)
                    )
            if isinstance(source, ColumnSource) and source.label is None:
                needy = [
                    s for s in source.split_names if self.splits.get(s) == "labelled" and not _own_label(source, s)
                ]
                if needy:
                    problems.append(Problem(f"sources.{name}: a labelled split needs label, a column", found=needy[0]))
        return problems

    def _breakdown_problems(self) -> list[Problem]:
        if self.breakdown and self.kind == "regression":
            return [Problem("breakdown is of the accuracy: a regression task has none", found=list(self.breakdown))]
        problems = []
        for number, names in enumerate(self.breakdown):
            if not names or len(set(names)) < len(names):
                problems.append(Problem("must be names, each once", place=f"breakdown.{number}", found=list(names)))
        wanted = {name for names in self.breakdown for name in names} - {"label"}
        for name, source in self.sources.items():
            known = source.groups if isinstance(source, ColumnSource) else ()
            problems += [
                Problem(f"sources.{name}.groups must have every column of breakdown", found=column)
                for column in sorted(wanted - set(known))
            ]
        return problems

    def _report_problems(self) -> list[Problem]:
        labelled = [name for name, kind in self.splits.items() if kind == "labelled" and name != "train"]
        problems = [
            Problem(
                "must be a labelled split, and not train", place=f"report.{i}", found=name, hint=nearest(name, labelled)
            )
            for i, name in enumerate(self.report)
            if name not in labelled
        ]
        if len(set(self.report)) < len(self.report):
            problems.append(Problem("each may stand only once", place="report", found=list(self.report)))
        return problems


def load_task(name: str | Path, search: Sequence[Path] = ()) -> TaskSpec:
    """The task called ``name``, or in the YAML file ``name`` (anything with a slash or ending in .yaml or .yml).

    Names are looked up in the folders ``search``, then among the tasks that come with the package. In ``include:``
    the same folders count. Relative paths in a file of your own start at that file's folder. A key whose value is
    empty (null) is not there, which is how a variant takes away what it includes.

    Raises ConfigError with everything that is wrong with the file.
    """
    shipped = task_config_folder() / "tasks"
    folders = [*search, shipped]
    path = Path(name)
    if not _is_path(name):
        known = [folder / f"{name}.yaml" for folder in folders]
        path = next((file for file in known if os.path.isfile(file)), shipped)
        if path is shipped:
            hint = nearest(name, sorted({file.stem for folder in folders for file in folder.glob("*.yaml")}))
            raise ConfigError(
                Problem("unknown task", found=str(name), hint=f"{hint} (or give the path of a YAML file)")
            )
    document = read_yaml(path, folders)
    document = Document(document.file, _without_nulls(document.data), document.origin)
    spec = check(TaskSpec, document)
    if path.resolve().parent == shipped.resolve():
        return spec
    home = path.resolve().parent
    return spec.model_copy(update={"sources": {key: source.at_home(home) for key, source in spec.sources.items()}})


def shipped_tasks() -> list[str]:
    """Names of the tasks that come with the package."""
    return sorted(file.stem for file in (task_config_folder() / "tasks").glob("*.yaml"))


def task_config_folder() -> Path:
    """``task_configs`` inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "task_configs"
    return installed if installed.is_dir() else package.parent / "task_configs"


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or "/" in name or name.endswith((".yaml", ".yml"))


def _own_label(source: Source, split: str) -> bool:
    return getattr(getattr(source, "splits", {}).get(split), "label", None) is not None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
