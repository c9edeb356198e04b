"""Raw values -> checked rows: the one place where texts and labels are judged, whatever they were read from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mtl_tickets.errors import DataError, Problem, nearest
from mtl_tickets.tasks.sources.base import DataSettings, Findings, Source, Table
from mtl_tickets.tasks.spool import Spool, TextColumn, TextSpool

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec


# of one text: a hundred times what the longest encoders read
MOST_CHARACTERS = 1_000_000
HASHED = 1 << 20  # labels at a time


@dataclass(frozen=True, eq=False)
class Rows:
    """Checked rows of one split.

    ``texts``: one or two columns of N strings. ``labels``: int64 [N] label ids (classification), float64 [N]
    (regression), or None for an unlabelled split. ``lines``: int64 [N], where row i stands in ``file``, counted from 1.
    ``dropped``: places of rows that the task file says to leave out, by reason. ``groups``: further columns of N texts,
    by name. Columns that are long lie on disk (:mod:`mtl_tickets.tasks.spool`).
    """

    texts: Sequence[Sequence[str]]
    labels: np.ndarray | None
    lines: np.ndarray
    label_names: list[str]
    file: str = ""
    unit: str = "line"
    dropped: dict[str, list[int]] = field(default_factory=dict)
    groups: dict[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts[0])

    def select(self, indices: np.ndarray) -> Rows:
        """The rows at these indices (int64), in this order."""
        indices = np.asarray(indices, dtype=np.int64)

        def chosen(column: Sequence[str]) -> TextColumn:
            return TextColumn.of(column[i] for i in indices.tolist())

        return dataclasses.replace(
            self,
            texts=[chosen(column) for column in self.texts],
            labels=None if self.labels is None else self.labels[indices],
            lines=self.lines[indices],
            groups={name: chosen(column) for name, column in self.groups.items()},
        )

    def followed_by(self, other: Rows, label_ids: np.ndarray) -> Rows:
        """These rows, then those of ``other``, whose label i is ``label_ids[i]`` here; without groups."""
        assert self.labels is not None and other.labels is not None
        if len(self.texts) != len(other.texts):
            rule = f"rows that are added to those of {self.file} must have as many texts, {len(self.texts)}"
            raise DataError(Problem(rule, file=other.file, found=len(other.texts)))
        columns = zip(self.texts, other.texts, strict=True)
        return dataclasses.replace(
            self,
            texts=[TextColumn.of(itertools.chain(one, more)) for one, more in columns],
            labels=np.concatenate([self.labels, label_ids[other.labels].astype(self.labels.dtype)]),
            lines=np.concatenate([self.lines, other.lines]),
            groups={},
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of texts, labels, label names and groups; where they were read from does not matter."""
        content = hashlib.sha256(repr((len(self.texts), len(self), self.label_names)).encode())
        for column in map(TextColumn.of, self.texts):
            # lengths beside the text tell ("ab", "c") from ("a", "bc")
            for lengths in column.characters():
                content.update(lengths.astype("<i8").tobytes())
            for piece in column.bytes():
                content.update(piece)
        if self.labels is not None:
            for start in range(0, len(self), HASHED):
                content.update(self.labels[start : start + HASHED].astype("<f8").tobytes())
        if self.groups:
            content.update(repr(sorted((name, list(column)) for name, column in self.groups.items())).encode())
        return content.hexdigest()


def read_rows(spec: TaskSpec, split: str, data: DataSettings | None = None) -> Rows:
    """Reads and checks one split of a task, a piece at a time.

    Raises DataError with the file and line of everything that is wrong (20 problems in full): a missing file or
    column, rows with another number of columns, broken UTF-8, text that is no text, rows without any text, labels that
    are not among the task's, regression labels that are no finite numbers, a split without rows. No row is left out
    unless the task file says so.
    """
    data = (data or DataSettings()).of_task(spec.name)
    name, source = choose_source(spec, split, data)
    findings = Findings()
    labelled = spec.splits[split] == "labelled"

    def tables() -> Iterator[Table]:
        for table in source.tables(split, labelled, data, findings):
            if labelled and table.labels is None:
                rule = f"a labelled split needs a label column: give label in source {name!r}"
                raise DataError(Problem(rule, file=spec.name, place=split))
            yield table

    return checked(spec, source, tables(), labelled, findings)


def checked(spec: TaskSpec, source: Source, tables: Iterable[Table], labelled: bool, findings: Findings) -> Rows:
    """The pieces of a split as rows, or a DataError with what is wrong with them and what ``findings`` holds when the
    last piece has been read."""
    found: _Found | None = None
    for table in tables:
        found = found or _Found(spec, source, table, labelled)
        found.add(table, findings)
    assert found is not None  # a source without rows gives an empty table
    return found.rows(findings)


class _Found:
    """Rows that come in pieces; ``first`` is the first."""

    def __init__(self, spec: TaskSpec, source: Source, first: Table, labelled: bool):
        self._spec, self._source, self._first = spec, source, first
        self._texts = [TextSpool() for _ in first.texts]
        self._groups = {name: TextSpool() for name in first.groups}
        self._lines = Spool(np.int64)
        self._labels = Spool(np.float64 if spec.kind == "regression" else np.int64) if labelled else None
        self._dropped: dict[str, list[int]] = {"label": [], "columns": []}
        self._count = 0

    def add(self, table: Table, findings: Findings) -> None:
        kept, dropped = _without_dropped(table, self._source)
        self._dropped["label"] += dropped
        self._dropped["columns"] += table.broken
        self._count += len(kept)
        texts = _texts(table, kept, findings)
        labels = _labels(self._spec, self._source, table, kept, findings) if self._labels is not None else []
        groups = {name: _group(table, kept, name, column, findings) for name, column in table.groups.items()}
        if findings.problems:
            return  # nothing will come of these rows: what follows is read for its problems
        for spool, column in zip(self._texts, texts, strict=True):
            spool.add(column)
        for name, column in groups.items():
            self._groups[name].add(column)
        if self._labels is not None:
            self._labels.add(labels)
        self._lines.add([table.places[i] for i in kept])

    def rows(self, findings: Findings) -> Rows:
        first, dropped = self._first, self._dropped
        if not self._count and not findings.problems:
            gone = len(dropped["label"])
            found = f"{gone} rows, all with a label in drop_labels" if gone else None
            raise DataError(Problem("a split must have rows", file=first.file, found=found))
        findings.raise_if_any()
        return Rows(
            [spool.texts() for spool in self._texts],
            None if self._labels is None else self._labels.array(),
            self._lines.array(),
            list(self._spec.labels),
            first.file,
            first.unit,
            {reason: places for reason, places in dropped.items() if places},
            {name: spool.texts() for name, spool in self._groups.items()},
        )


def choose_source(spec: TaskSpec, split: str, data: DataSettings) -> tuple[str, Source]:
    """The source that ``data`` names; else, where a root folder is given, the first one that reads files; else the
    task's default. A DataError where the split is not among the task's or the source's."""
    if split not in spec.splits:
        raise DataError(Problem("unknown split", file=spec.name, found=split, hint=nearest(split, list(spec.splits))))
    name = data.source
    if name is None:
        files = [n for n, s in spec.sources.items() if s.kind == "files" and split in s.split_names]
        name = files[0] if data.root is not None and files else spec.default_source
    if name not in spec.sources:
        raise DataError(Problem("unknown source", file=spec.name, found=name, hint=nearest(name, list(spec.sources))))
    source = spec.sources[name]
    if split not in source.split_names:
        others = [n for n, s in spec.sources.items() if split in s.split_names]
        hint = f"source {' or '.join(map(repr, others))} has it" if others else "no source of this task has it"
        rule = f"source {name!r} must have the split (it has {', '.join(source.split_names)})"
        raise DataError(Problem(rule, file=spec.name, found=split, hint=hint))
    return name, source


def _without_dropped(table: Table, source: Source) -> tuple[list[int], list[int]]:
    """Indices of the rows that stay, and places of those whose raw label is in ``drop_labels``."""
    everything = range(len(table.texts[0]))
    if table.labels is None or not source.drop_labels:
        return list(everything), []
    drop = set(source.drop_labels)
    gone = [bool(drop.intersection(_spellings(raw, table.class_names))) for raw in table.labels]
    return [i for i in everything if not gone[i]], [table.places[i] for i in everything if gone[i]]


def _texts(table: Table, kept: list[int], findings: Findings) -> list[list[str]]:
    columns = [[column[i] for i in kept] for column in table.texts]
    for position, column in enumerate(columns):
        if all(type(value) is str for value in column):
            continue
        for i, value in zip(kept, column, strict=True):
            if type(value) is not str:
                which = f" (text {position + 1})" if len(columns) > 1 else ""
                findings.add(_problem(table, i, "must be text" + which, "null" if value is None else value))
    if any(type(value) is not str for column in columns for value in column):
        return []
    for column in columns:
        _refuse_no_text(table, kept, column, findings)  # type: ignore[arg-type]
    for i, values in zip(kept, zip(*columns, strict=True), strict=True):
        if not any(map(str.strip, values)):
            findings.add(_problem(table, i, "a row must have some text", values if len(values) > 1 else values[0]))
    return columns  # type: ignore[return-value]


def _group(table: Table, kept: list[int], name: str, column: Sequence[object], findings: Findings) -> list[str]:
    values = []
    for i in kept:
        value = column[i]
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            findings.add(_problem(table, i, f"{name} must be a word or a whole number", value))
        values.append(str(value))
    return values


def _refuse_no_text(table: Table, kept: list[int], column: list[str], findings: Findings) -> None:
    """JSON can spell half of a surrogate pair, which is no character: tokenizers fail on it. A NUL is of a file that is
    no text, and a text as long as a book would be tokenised for minutes to be cut to its first words."""
    try:
        whole = "".join(column)
        whole.encode()
        if "\0" not in whole and (len(whole) <= MOST_CHARACTERS or max(map(len, column)) <= MOST_CHARACTERS):
            return
    except UnicodeEncodeError:
        pass
    for i, value in zip(kept, column, strict=True):
        if any("\ud800" <= character <= "\udfff" for character in value):
            findings.add(_problem(table, i, "must be text of whole characters (this has a lone surrogate)", value))
        elif "\0" in value:
            findings.add(_problem(table, i, "must be text without NUL characters (is the file UTF-16?)", value))
        elif len(value) > MOST_CHARACTERS:
            rule = f"must be a text of at most {MOST_CHARACTERS:,} characters (this has {len(value):,})"
            findings.add(_problem(table, i, rule, value))


def _labels(
    spec: TaskSpec, source: Source, table: Table, kept: list[int], findings: Findings
) -> list[int] | list[float]:
    resolve = finite_number if spec.kind == "regression" else label_resolver(spec.labels, source.label_map, table)
    known: dict[tuple[type, object], int | float | Problem] = {}
    labels: list[float] = []
    for i in kept:
        raw = table.labels[i]  # type: ignore[index]
        key = (type(raw), raw if isinstance(raw, str | int | float) else repr(raw))
        if key not in known:
            known[key] = resolve(raw)
        label = known[key]
        if isinstance(label, Problem):
            findings.add(_problem(table, i, label.rule, label.found, label.hint))
        else:
            labels.append(label)
    return labels


def finite_number(raw: object) -> float | Problem:
    """A regression label: a finite number, or text that is one."""
    if isinstance(raw, str | int | float) and not isinstance(raw, bool):
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            value = math.nan
        if math.isfinite(value):
            return value
    return Problem("the label must be a finite number", found="null" if raw is None else raw)


def label_resolver(labels: list[str], label_map: dict[str, str], table: Table) -> Callable[[object], int | Problem]:
    """raw value -> label id: by ``label_map``, else by the label's name, else (typed columns) as an index.

    Class names that a column brings along decide before its integers do, so that a dataset which orders its classes
    otherwise is read right; integers are taken as indices only where none of the class names means anything here.
    """
    ids = {name: i for i, name in enumerate(labels)}
    by_name = {**ids, **{raw: ids[name] for raw, name in label_map.items()}}
    strangers = table.class_names is not None and not any(name in by_name for name in table.class_names)
    indexed = (table.indexed and table.class_names is None) or (
        strangers and len(table.class_names or ()) == len(labels)
    )

    def resolve(raw: object) -> int | Problem:
        for spelling in _spellings(raw, table.class_names):
            if spelling in label_map:
                return ids[label_map[spelling]]
        for spelling in _spellings(raw, table.class_names):
            if spelling in ids:
                return ids[spelling]
        if indexed and type(raw) is int and 0 <= raw < len(labels):
            return raw
        valid = [*labels, *(raw for raw in label_map if raw not in ids)]
        if raw is None:
            return Problem("a label is required", found="null")
        if type(raw) is int and raw == -1:
            return Problem("a label is required", found=raw, hint="-1 marks unlabelled rows on the hub")
        return Problem("this label is not listed", found=raw, hint=nearest(raw, valid))

    return resolve


def _spellings(raw: object, class_names: list[str] | None) -> list[str]:
    """The texts under which a raw label may be listed: a class name before its number."""
    if isinstance(raw, str):
        return [raw]
    if isinstance(raw, bool):
        return [str(raw).lower()]
    if isinstance(raw, int):
        named = [class_names[raw]] if class_names is not None and 0 <= raw < len(class_names) else []
        return [*named, str(raw)]
    return []


def _problem(table: Table, i: int, rule: str, found: object, hint: str = "") -> Problem:
    return Problem(rule, file=table.file, place=f"{table.unit} {table.places[i]}", found=found, hint=hint)
