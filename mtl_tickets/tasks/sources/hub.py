"""``kind: hub``: a dataset repository in parquet (or csv, json) form, read through ``datasets``.

Works on the Hugging Face hub, offline once a dataset is in the cache, and on a local copy of the repository: with
``root`` given, ``path`` is a folder below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

from mtl_tickets.errors import DataError, Problem, nearest
from mtl_tickets.tasks.sources.base import (
    PIECE,
    SOURCES,
    Columns,
    ColumnSource,
    DataSettings,
    Findings,
    Table,
    contents,
    require_columns,
)


@SOURCES.register("hub")
class HubSource(ColumnSource):
    """A dataset of the Hugging Face hub, or a local copy of its repository."""

    kind: Literal["hub"]
    path: str = pydantic.Field(description="repository, like nyu-mll/glue")
    name: str | None = pydantic.Field(None, description="configuration, like mrpc")
    revision: str | None = pydantic.Field(None, description="branch, tag or commit")
    data_files: dict[str, str] | None = pydantic.Field(None, description="split of the repository -> file pattern")
    splits: dict[str, str] = pydantic.Field(min_length=1, description="split -> split of the repository")

    @property
    def split_names(self) -> list[str]:
        return list(self.splits)

    def tables(self, split: str, labelled: bool, data: DataSettings, findings: Findings) -> Iterator[Table]:
        shown = f"{self.path}/{self.name}" if self.name else self.path
        dataset = self._load(split, data)
        wanted = Columns(self.text, self.label if labelled else None, self.groups)
        return tables_of(dataset, f"{shown} [{self.splits[split]}]", wanted)

    def _load(self, split: str, data: DataSettings) -> Any:
        import datasets

        path = self._place(data)
        wanted = self.splits[split]
        try:
            return datasets.load_dataset(
                path,
                self.name,
                data_files=self.data_files,
                split=wanted,
                revision=None if Path(path).is_dir() else self.revision,
                cache_dir=str(data.hub_cache) if data.hub_cache else None,
            )
        # datasets and huggingface_hub raise a dozen unrelated types here (connection, missing repository, unknown
        # configuration or split, broken file); for the user each of them is "this source cannot be read"
        except Exception as error:
            raise DataError(self._problem(path, wanted, error)) from error

    def _place(self, data: DataSettings) -> str:
        if data.root is None:
            return self.path
        folder = data.root / self.path
        if not folder.is_dir():
            rule = "a copy of the dataset repository must be here (or give no root, to ask the hub)"
            raise DataError(Problem(rule, file=str(folder), hint=contents(folder.parent, folder.name)))
        return str(folder)

    def _problem(self, path: str, wanted: str, error: Exception) -> Problem:
        import datasets

        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        text = " ".join(str(cause or error).split())
        offline = datasets.config.HF_HUB_OFFLINE and not Path(path).is_dir()
        hint = (
            "HF_HUB_OFFLINE is set: this dataset is not in the cache; give root, or another source" if offline else ""
        )
        if isinstance(error, ValueError) and "Unknown split" in text:
            known = text.partition("[")[2].partition("]")[0].replace("'", "")
            hint = nearest(wanted, known.split(", "))
        return Problem(f"cannot be loaded ({text})", file=path, place=self.name or "", found=wanted, hint=hint)


def tables_of(dataset: Any, file: str, wanted: Columns) -> Iterator[Table]:
    """Columns of a ``datasets.Dataset``; integers of a label column that names its classes stay integers."""
    require_columns(file, dataset.column_names, wanted.names)
    # through Arrow: a row at a time would decode every other column too
    arrow = dataset.select_columns(list(dict.fromkeys(wanted.names))).with_format("arrow")
    names = None if wanted.label is None else getattr(dataset.features[wanted.label], "names", None)
    for start in range(0, max(1, len(dataset)), PIECE):
        rows = arrow[start : start + PIECE]
        columns = [rows.column(name).to_pylist() for name in wanted.names]
        places = range(start + 1, start + rows.num_rows + 1)
        yield wanted.table(file, columns, places, unit="row", class_names=names, indexed=True)
