"""File formats -> raw columns, keeping for every row the line it stands on.

Readers check the form of a file (encoding, columns, quoting); values are checked in one place for all sources, in
:mod:`mtl_tickets.tasks.sources.rows`. Text files are UTF-8, with or without a byte order mark, lines ended by LF or
CRLF. Nothing else ends a line: a U+2028 inside a sentence is text.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtl_tickets.errors import DataError, Problem, nearest
from mtl_tickets.tasks.sources.base import Columns, Findings, Table, require_columns


def read_delimited(
    path: Path,
    delimiter: str,
    quotes: bool,
    header: bool,
    columns: list[str] | None,
    drop_broken: bool,
    wanted: Columns,
    findings: Findings,
) -> Table:
    """A csv or tsv file. Without header and ``columns`` the columns are called 0, 1, ... and the first row counts them.

    Raises DataError for broken UTF-8 (every such line), a missing column and broken quoting; rows with another number
    of columns go to ``findings``, or to ``broken`` where they are to be dropped.
    """
    file = str(path)
    lines = text_lines(path)
    if not lines:
        return _table(file, [], [], wanted)
    rows = _quoted(lines, delimiter, file) if quotes else _plain(lines, delimiter)
    if header:
        columns = next(rows)[1]
    elif columns is None:
        first = next(rows)
        columns, rows = [str(i) for i in range(len(first[1]))], itertools.chain([first], rows)
    require_columns(file, columns, wanted.names, "line 1" if header else "")
    _refuse_twins(file, columns, wanted.names)
    at = [columns.index(name) for name in wanted.names]
    values: list[list[str]] = []
    places: list[int] = []
    broken: list[int] = []
    for place, row in rows:
        if len(row) == len(columns):
            values.append([row[i] for i in at])
            places.append(place)
        elif drop_broken:
            broken.append(place)
        else:
            rule = f"must have {len(columns)} columns like the {'header' if header else 'first row'}"
            findings.add(Problem(rule, file=file, place=f"line {place}", found=f"{len(row)}: {delimiter.join(row)}"))
    return _table(file, values, places, wanted, broken)


def read_jsonl(path: Path, wanted: Columns, findings: Findings) -> Table:
    """A file with one JSON object a line. A key that the first line lacks is a missing column; one that a later line
    lacks is a problem of that line."""
    file = str(path)
    values: list[list[object]] = []
    places: list[int] = []
    for place, line in enumerate(text_lines(path), start=1):
        where = f"line {place}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            findings.add(Problem(f"must be JSON ({error})", file=file, place=where, found=line))
            continue
        if not isinstance(row, dict):
            findings.add(Problem("must be a JSON object", file=file, place=where, found=row))
            continue
        if not values:
            require_columns(file, list(row), wanted.names, where)
        missing = [name for name in wanted.names if name not in row]
        for name in missing:
            hint = nearest(name, list(row))
            findings.add(Problem("this column is missing", file=file, place=where, found=name, hint=hint))
        if not missing:
            values.append([row[name] for name in wanted.names])
            places.append(place)
    return _table(file, values, places, wanted)


def read_parquet(path: Path, wanted: Columns) -> Table:
    """A parquet file. Label names written by ``datasets`` (ClassLabel) are found in the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = str(path)
    try:
        schema = pq.read_schema(path)
        require_columns(file, schema.names, wanted.names)
        table = pq.read_table(path, columns=list(dict.fromkeys(wanted.names)))
        columns = [table.column(name).to_pylist() for name in wanted.names]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # of damaged pages, more than Arrow's own
        reason = " ".join(str(error).split())
        raise DataError(Problem(f"must be a parquet file ({reason})", file=file)) from error
    names = None if wanted.label is None else _class_names(schema.metadata or {}, wanted.label)
    return wanted.table(file, columns, range(1, table.num_rows + 1), unit="row", class_names=names)


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends; blank lines at the end of the file are no lines.

    Raises DataError naming every line that is not UTF-8 (the first 20).
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        findings = Findings()
        for place, line in enumerate(content.split(b"\n"), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                near = line[max(0, error.start - 20) : error.end + 20]
                rule = f"must be UTF-8 text (byte {error.start + 1} of the line is not)"
                findings.add(Problem(rule, file=str(path), place=f"line {place}", found=near))
        findings.raise_if_any()
        raise
    lines = text.split("\n")
    while lines and not lines[-1].strip("\r"):
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _plain(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for place, line in enumerate(lines, start=1):
        yield place, line.split(delimiter)


def _quoted(lines: list[str], delimiter: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a file with quoted fields; a row is placed at its first line."""
    # the module wants line ends back where a quoted field goes on in the next line
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in reader:
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            Problem(f"must be rows with quoted fields ({error})", file=file, place=f"line {start}")
        ) from None


def _refuse_twins(file: str, columns: list[str], wanted: Sequence[str]) -> None:
    twins = [name for name in wanted if columns.count(name) > 1]
    if twins:
        raise DataError([Problem("this column may stand only once", file=file, place="line 1", found=t) for t in twins])


def _table(
    file: str,
    values: Sequence[Sequence[object]],
    places: list[int],
    wanted: Columns,
    broken: list[int] | None = None,
) -> Table:
    columns: list[list[object]] = [list(column) for column in zip(*values, strict=True)] or [[] for _ in wanted.names]
    return wanted.table(file, columns, places, broken=broken or [])


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
    except (KeyError, ValueError, TypeError):
        return None
    return list(feature["names"]) if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
