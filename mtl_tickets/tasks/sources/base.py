"""What every kind of source has in common. Imports no torch and no datasets."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pydantic

from mtl_tickets.errors import DataError, Problem, nearest
from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings

SOURCES: Registry[type[Source]] = Registry("source kind", "mtl_tickets.tasks.sources")

LIMIT = 20  # problems listed in one error; more of them help nobody
PIECE = 8192  # rows read at a time


class Place(Settings):
    """Which of a task's sources is read, and where it lies."""

    source: str | None = pydantic.Field(
        None, description="name of one of the task's sources; by default the first that reads files where root is given"
    )
    root: Path | None = pydantic.Field(None, description="folder that file names of the source are relative to")


class DataSettings(Place):
    """Where rows are read from on this machine; the task files say what they look like."""

    hub_cache: Path | None = pydantic.Field(None, description="cache folder of `datasets`; its own default if empty")
    per_task: dict[str, Place] = pydantic.Field({}, description="task -> what is different for it")

    def of_task(self, name: str) -> DataSettings:
        """These settings with what ``per_task`` says of one task."""
        own = self.per_task.get(name, Place())
        given = {key: value for key, value in (("source", own.source), ("root", own.root)) if value is not None}
        return self.model_copy(update=given | {"per_task": {}})


@dataclass(frozen=True)
class Table:
    """Raw values of one split, or of a piece of it, before any check: one or two text columns, the label column, and
    where rows stand.

    ``places[i]`` is the number of row i in ``file`` (a line of a text file, else a row), counted from 1, and ``unit``
    says which. ``class_names`` are the names a typed integer label column brings along; ``indexed`` says that bare
    integers in the label column may be read as indices of the task's labels. ``broken`` are the places of rows that
    were left out because the source says ``broken_rows: drop``. ``groups``: raw values of further columns, by name.
    """

    file: str
    texts: list[Sequence[object]]
    labels: Sequence[object] | None
    places: Sequence[int]
    unit: str = "line"
    class_names: list[str] | None = None
    indexed: bool = False
    broken: list[int] = dataclasses.field(default_factory=list)
    groups: dict[str, Sequence[object]] = dataclasses.field(default_factory=dict)


def whole(tables: Iterable[Table]) -> Table:
    """The pieces of a split as one table."""
    pieces = list(tables)

    def together(columns: Iterable[Sequence[Any]]) -> list[Any]:
        return list(itertools.chain.from_iterable(columns))

    return dataclasses.replace(
        pieces[0],
        texts=[together(columns) for columns in zip(*(piece.texts for piece in pieces), strict=True)],
        labels=None if pieces[0].labels is None else together(piece.labels or () for piece in pieces),
        places=together(piece.places for piece in pieces),
        broken=together(piece.broken for piece in pieces),
        groups={name: together(piece.groups[name] for piece in pieces) for name in pieces[0].groups},
    )


@dataclass(frozen=True)
class Columns:
    """Which columns of a source are read: one or two of texts, the label's where it is wanted, and those of groups."""

    text: list[str]
    label: str | None = None
    groups: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [*self.text, *([] if self.label is None else [self.label]), *self.groups]

    def table(self, file: str, values: Sequence[Sequence[object]], places: Sequence[int], **more: Any) -> Table:
        """The table of columns that stand in the order of :attr:`names`."""
        named = [values[i] for i in range(len(self.names))]
        texts, others = named[: len(self.text)], named[len(self.text) :]
        label = None if self.label is None else others.pop(0)
        return Table(file, texts, label, places, groups=dict(zip(self.groups, others, strict=True)), **more)


class Source(Settings):
    """Base of all kinds. A subclass adds ``kind: Literal[...]``, its own settings, ``split_names`` and ``tables``."""

    kind: str
    label_map: dict[str, str] = pydantic.Field({}, description="raw label value -> label of the task")
    drop_labels: list[str] = pydantic.Field([], description="rows with these raw label values are left out")

    @pydantic.field_validator("label_map", "drop_labels", mode="before")
    @classmethod
    def _numbers_are_labels(cls, value: Any) -> Any:
        """``drop_labels: [-1]`` means the label written -1."""
        if isinstance(value, dict):
            return {str(raw): str(v) if type(v) is int else v for raw, v in value.items()}
        return [str(v) if type(v) is int else v for v in value] if isinstance(value, list) else value

    @property
    def split_names(self) -> list[str]:
        """The task's splits that this source has."""
        raise NotImplementedError

    def tables(self, split: str, labelled: bool, data: DataSettings, findings: Findings) -> Iterator[Table]:
        """The raw values of ``split``, in pieces that fit into memory, one at least; labels are read only where
        ``labelled``.

        Problems of single rows go to ``findings``; what makes reading on pointless is raised as DataError.
        """
        raise NotImplementedError

    def at_home(self, folder: Path) -> Self:
        """A copy whose relative paths start at ``folder``, that of the task file. Most kinds have none."""
        return self


class ColumnSource(Source):
    """A source whose rows have named columns."""

    text: list[str] = pydantic.Field(min_length=1, max_length=2, description="column of the text, or of the two texts")
    label: str | None = pydantic.Field(None, description="column of the label")
    groups: tuple[str, ...] = pydantic.Field((), description="further columns, for the task's breakdown")

    @pydantic.field_validator("text", "label", mode="before")
    @classmethod
    def _positions_are_names(cls, value: Any) -> Any:
        """Columns of a file without header may be given by number."""
        if isinstance(value, list):
            return [str(v) if type(v) is int else v for v in value]
        return str(value) if type(value) is int else value


class Findings:
    """Collects problems of rows, the first :data:`LIMIT` in full and the rest as a count."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.more = 0

    def add(self, problem: Problem) -> None:
        if len(self.problems) < LIMIT:
            self.problems.append(problem)
        else:
            self.more += 1

    def raise_if_any(self) -> None:
        if self.problems:
            rest = [Problem(f"and {self.more} more problems like these")] if self.more else []
            raise DataError(self.problems + rest)


def require_columns(file: str, available: Sequence[str], wanted: Sequence[str], place: str = "") -> None:
    """A DataError for each wanted column that is not there, with the nearest name and the columns there are."""
    problems = []
    for name in wanted:
        if name not in available:
            near = nearest(name, available)
            listed = "" if near.startswith("choose from") else f" (columns: {', '.join(available)})"
            problems.append(Problem("this column is missing", file=file, place=place, found=name, hint=near + listed))
    if problems:
        raise DataError(problems)


def require_file(path: Path) -> Path:
    """``path`` if it is a file, else a DataError that lists what is in the folder."""
    if os.path.isfile(path):
        return path
    raise DataError(Problem("this file must exist", file=str(path), hint=contents(path.parent, path.name)))


def contents(folder: Path, wanted: str = "", limit: int = 20) -> str:
    """What a folder holds, in words for a hint; for a folder that is not there, its nearest existing ancestor."""
    while not folder.is_dir() and folder != folder.parent:
        wanted, folder = folder.name, folder.parent
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir() if not p.name.startswith("."))
    if not names:
        return f"{folder} is empty"
    near = nearest(wanted, [name.rstrip("/") for name in names])
    listed = ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
    return (f"{near} " if near.startswith("did you mean") else "") + f"{folder} holds {listed}"
