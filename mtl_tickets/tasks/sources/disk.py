"""``kind: disk``: what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import pydantic

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.tasks.sources.base import SOURCES, Columns, ColumnSource, DataSettings, Findings, Table, contents
from mtl_tickets.tasks.sources.hub import tables_of


@SOURCES.register("disk")
class DiskSource(ColumnSource):
    """Folders written by save_to_disk of the datasets library, one a split."""

    kind: Literal["disk"]
    root: Path | None = pydantic.Field(None, description="folder of the data; the task file's own folder by default")
    folder: str = pydantic.Field("", description="folder below the root: that of a saved DatasetDict")
    splits: dict[str, str] = pydantic.Field(min_length=1, description="split -> folder of the saved split")

    @property
    def split_names(self) -> list[str]:
        return list(self.splits)

    def at_home(self, folder: Path) -> Self:
        return self.model_copy(update={"root": folder / self.root if self.root else folder})

    def tables(self, split: str, labelled: bool, data: DataSettings, findings: Findings) -> Iterator[Table]:
        import datasets

        root = data.root or self.root
        if root is None:
            rule = "the folder of the data must be given (root)"
            raise DataError(Problem(rule, found=f"only {Path(self.folder, self.splits[split])}"))
        folder = root / self.folder / self.splits[split]
        if not os.path.isfile(folder / "dataset_info.json"):
            rule = "a dataset written by save_to_disk must be here"
            raise DataError(Problem(rule, file=str(folder), hint=contents(folder.parent, folder.name)))
        try:
            dataset = datasets.load_from_disk(str(folder))
        # broken state files and Arrow files raise many unrelated types; for the user the folder cannot be read
        except Exception as error:
            text = " ".join(str(error).split())
            raise DataError(Problem(f"cannot be loaded ({text})", file=str(folder))) from error
        return tables_of(dataset, str(folder), Columns(self.text, self.label if labelled else None, self.groups))
