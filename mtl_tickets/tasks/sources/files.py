"""``kind: files``: csv, tsv, jsonl and parquet files, one a split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.sources import formats
from mtl_tickets.tasks.sources.base import (
    SOURCES,
    Columns,
    ColumnSource,
    DataSettings,
    Findings,
    Table,
    contents,
    require_file,
)

Format = Literal["csv", "tsv", "jsonl", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


class Layout(Settings):
    """How a file is laid out. In a split, what is given replaces what the source says."""

    format: Format | None = pydantic.Field(None, description="by default what the file's suffix says")
    header: bool | None = pydantic.Field(None, description="csv, tsv: the first line names the columns (default true)")
    columns: list[str] | None = pydantic.Field(None, description="names for the columns of a file without header")
    quotes: bool | None = pydantic.Field(None, description='whether "..." encloses a field (csv: true, tsv: false)')
    delimiter: str | None = pydantic.Field(None, description="one character (csv: comma, tsv: tab)", max_length=1)
    broken_rows: Literal["refuse", "drop"] | None = pydantic.Field(
        None, description="csv, tsv rows with too few or too many columns: an error (default), or left out and counted"
    )

    @pydantic.model_validator(mode="after")
    def _names_are_for_headerless_files(self) -> Self:
        if self.columns is not None and self.header:
            raise ValueError("columns names the columns of a file without header: say header: false")
        return self

    def over(self, below: Layout) -> Layout:
        """This layout, with ``below`` filling what is not given. A split that says ``header`` gives new columns too."""
        given = {name: getattr(self, name) for name in Layout.model_fields if getattr(self, name) is not None}
        filled = {name: getattr(below, name) for name in Layout.model_fields}
        if self.header:
            filled["columns"] = None
        return Layout(**(filled | given))


class FileSplit(Layout):
    """One split's file, and what is different about it."""

    file: list[str] = pydantic.Field(min_length=1, description="file name, or several of which the first there counts")
    text: list[str] | None = pydantic.Field(None, min_length=1, max_length=2, description="replaces the source's text")
    label: str | None = pydantic.Field(None, description="replaces the source's label")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """``train: train.tsv`` and ``dev: [one.tsv, other.tsv]`` are short for a mapping with ``file``."""
        value = {"file": value} if isinstance(value, str | list) else value
        if isinstance(value, dict) and isinstance(value.get("file"), str):
            return value | {"file": [value["file"]]}
        return value

    _positions_are_names = pydantic.field_validator("text", "label", mode="before")(
        ColumnSource._positions_are_names.__func__  # type: ignore[attr-defined]
    )


@SOURCES.register("files")
class FilesSource(ColumnSource, Layout):
    """Files in a folder: csv, tsv, jsonl or parquet, one a split."""

    kind: Literal["files"]
    root: Path | None = pydantic.Field(None, description="folder of the data; the task file's own folder by default")
    folder: str = pydantic.Field("", description="folder below the root")
    splits: dict[str, FileSplit] = pydantic.Field(min_length=1, description="split -> file")

    @property
    def split_names(self) -> list[str]:
        return list(self.splits)

    def at_home(self, folder: Path) -> Self:
        return self.model_copy(update={"root": folder / self.root if self.root else folder})

    def tables(self, split: str, labelled: bool, data: DataSettings, findings: Findings) -> Iterator[Table]:
        chosen = self.splits[split]
        path = self._path(chosen, data)
        layout = chosen.over(self)
        kind = layout.format or SUFFIXES.get(path.suffix.lower())
        if kind is None:
            rule = f"the format must be given (format: ...), or the suffix be one of {', '.join(SUFFIXES)}"
            raise DataError(Problem(rule, file=str(path), found=path.suffix))
        text, label = chosen.text or self.text, chosen.label or self.label
        wanted = Columns(text, label if labelled else None, self.groups)
        try:
            yield from _READERS[kind](path, layout, kind, wanted, findings)
        except OSError as error:
            raise DataError(Problem(f"cannot be read ({error.strerror or error})", file=str(path))) from error

    def _path(self, chosen: FileSplit, data: DataSettings) -> Path:
        root = data.root or self.root
        if root is None:
            rule = "the folder of the data must be given (root)"
            raise DataError(Problem(rule, found=f"only {Path(self.folder, chosen.file[0])}"))
        folder = root / self.folder
        for name in chosen.file:
            if os.path.isfile(folder / name):
                return folder / name
        if len(chosen.file) == 1:
            return require_file(folder / chosen.file[0])
        rule = "one of these files must exist"
        hint = contents(folder, chosen.file[0])
        raise DataError(Problem(rule, file=str(folder), found=", ".join(chosen.file), hint=hint))


def _rows(path: Path, layout: Layout, kind: str, wanted: Columns, findings: Findings) -> Iterator[Table]:
    quotes = layout.quotes if layout.quotes is not None else kind == "csv"
    delimiter = layout.delimiter or ("," if kind == "csv" else "\t")
    header = layout.header if layout.header is not None else layout.columns is None
    return formats.read_delimited(
        path, delimiter, quotes, header, layout.columns, layout.broken_rows == "drop", wanted, findings
    )


def _jsonl(path: Path, layout: Layout, kind: str, wanted: Columns, findings: Findings) -> Iterator[Table]:
    return formats.read_jsonl(path, wanted, findings)


def _parquet(path: Path, layout: Layout, kind: str, wanted: Columns, findings: Findings) -> Iterator[Table]:
    return formats.read_parquet(path, wanted)


_READERS = {"csv": _rows, "tsv": _rows, "jsonl": _jsonl, "parquet": _parquet}
