"""A loose file: one given by hand, read as rows of a task whose file does not mention it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.tasks.sources.base import ColumnSource, DataSettings, Findings, require_file
from mtl_tickets.tasks.sources.files import SUFFIXES, FilesSource, Layout
from mtl_tickets.tasks.sources.rows import Rows, checked

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

# columns tried for tasks whose sources have none (generated ones)
USUAL = (["sentence"], ["sentence1", "sentence2"], ["text"], ["premise", "hypothesis"])


def read_file(
    spec: TaskSpec, path: Path, labelled: bool = True, text: list[str] | None = None, label: str | None = None
) -> Rows:
    """The rows of a csv, tsv, jsonl or parquet file as rows of ``spec``.

    The columns are ``text`` and ``label`` where given, else those of the first of the task's sources that the file
    has. Label maps and dropped labels of all sources count. Raises DataError as ``read_rows`` does.
    """
    require_file(path)
    refused: DataError | None = None
    for settings in _columns(spec, path, labelled, text, label):
        source = FilesSource.model_validate(
            settings | {"kind": "files", "root": path.parent, "splits": {"dev": path.name}}
        )
        findings = Findings()
        try:
            tables = source.tables("dev", labelled, DataSettings(), findings)
            first = next(tables)
        except DataError as error:
            if not all("column is missing" in problem.rule for problem in error.problems):
                raise
            refused = refused or error
        else:
            return checked(spec, source, itertools.chain([first], tables), labelled, findings)
    raise refused or DataError(Problem("the columns of the text and the label must be given", file=str(path)))


def _columns(
    spec: TaskSpec, path: Path, labelled: bool, text: list[str] | None, label: str | None
) -> Iterator[dict[str, Any]]:
    """Settings of the sources to try, one after the other."""
    labels: dict[str, Any] = {
        "label_map": {raw: name for source in spec.sources.values() for raw, name in source.label_map.items()},
        "drop_labels": sorted({raw for source in spec.sources.values() for raw in source.drop_labels}),
    }
    known = [source for source in spec.sources.values() if isinstance(source, ColumnSource)]
    if text is not None:
        of_sources = [source.label for source in known if source.label is not None]
        yield labels | {"text": text, "label": label or (of_sources or ["label"])[0]}
        return
    for source in known:
        columns = [(source.text, source.label)]
        if isinstance(source, FilesSource):
            columns += [(own.text or source.text, own.label or source.label) for own in source.splits.values()]
        for texts, its_label in columns:
            if not labelled or label or its_label:
                yield labels | {"text": texts, "label": label or its_label} | _layout(source, path)
    if not known:
        yield from (labels | {"text": columns, "label": label or "label"} for columns in USUAL)


def _layout(source: ColumnSource, path: Path) -> dict[str, Any]:
    """How the source's own files are laid out, where the file is of their format."""
    suffix = SUFFIXES.get(path.suffix.lower())
    if not isinstance(source, FilesSource) or (suffix is not None and source.format not in (None, suffix)):
        return {}
    return {name: getattr(source, name) for name in Layout.model_fields}
