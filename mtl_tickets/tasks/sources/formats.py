"""File formats -> raw columns, keeping for every row the line it stands on.

Readers check the form of a file (encoding, columns, quoting); values are checked in one place for all sources, in
:mod:`mtl_tickets.tasks.sources.rows`. Text files are UTF-8, with or without a byte order mark, lines ended by LF or
CRLF. Nothing else ends a line: a U+2028 inside a sentence is text.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl_tickets.errors import DataError, Problem, nearest
from mtl_tickets.tasks.sources.base import PIECE, Columns, Findings, Table, require_columns

BLOCK = 1 << 20  # bytes read, or characters given on, at a time
LONGEST = 1 << 28  # bytes of a line


def read_delimited(
    path: Path,
    delimiter: str,
    quotes: bool,
    header: bool,
    columns: list[str] | None,
    drop_broken: bool,
    wanted: Columns,
    findings: Findings,
) -> Iterator[Table]:
    """A csv or tsv file. Without header and ``columns`` the columns are called 0, 1, ... and the first row counts them.

    Raises DataError for broken UTF-8 (every such line), a missing column and broken quoting; rows with another number
    of columns go to ``findings``, or to ``broken`` where they are to be dropped.
    """
    file = str(path)
    lines = text_lines(path)
    rows = _quoted(lines, delimiter, file) if quotes else _plain(lines, delimiter)
    first = next(rows, None)
    piece = _Piece(file, wanted)
    if first is None:
        yield piece.table()
        return
    if header:
        columns = first[1]
    else:
        columns = [str(i) for i in range(len(first[1]))] if columns is None else columns
        rows = itertools.chain([first], rows)
    require_columns(file, columns, wanted.names, "line 1" if header else "")
    _refuse_twins(file, columns, wanted.names)
    at = [columns.index(name) for name in wanted.names]
    for place, row in rows:
        if len(row) == len(columns):
            piece.add(place, [row[i] for i in at], sum(map(len, row)))
        elif drop_broken:
            piece.broken.append(place)
        else:
            rule = f"must have {len(columns)} columns like the {'header' if header else 'first row'}"
            findings.add(Problem(rule, file=file, place=f"line {place}", found=f"{len(row)}: {delimiter.join(row)}"))
        if piece.full:
            yield piece.table()
    yield piece.table()


def read_jsonl(path: Path, wanted: Columns, findings: Findings) -> Iterator[Table]:
    """A file with one JSON object a line. A key that the first line lacks is a missing column; one that a later line
    lacks is a problem of that line."""
    file = str(path)
    piece, first = _Piece(file, wanted), True
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
        if first:
            require_columns(file, list(row), wanted.names, where)
            first = False
        missing = [name for name in wanted.names if name not in row]
        for name in missing:
            hint = nearest(name, list(row))
            findings.add(Problem("this column is missing", file=file, place=where, found=name, hint=hint))
        if not missing:
            piece.add(place, [row[name] for name in wanted.names], len(line))
        if piece.full:
            yield piece.table()
    yield piece.table()


def read_parquet(path: Path, wanted: Columns) -> Iterator[Table]:
    """A parquet file. Label names written by ``datasets`` (ClassLabel) are found in the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, start = str(path), 0
    damage = (pa.ArrowException, OSError, ValueError, OverflowError)  # damaged pages raise more than Arrow's own

    def refused(error: Exception) -> DataError:
        return DataError(Problem(f"must be a parquet file ({' '.join(str(error).split())})", file=file))

    try:
        # else a whole group of rows is held, and a file may be one group
        opened = pq.ParquetFile(path, pre_buffer=False, buffer_size=BLOCK)
    except damage as error:
        raise refused(error) from error
    with opened:
        schema = opened.schema_arrow
        require_columns(file, schema.names, wanted.names)
        _refuse_twins(file, schema.names, wanted.names, "schema")
        names = None if wanted.label is None else _class_names(schema.metadata or {}, wanted.label)
        batches = opened.iter_batches(batch_size=PIECE, columns=list(dict.fromkeys(wanted.names)))
        while True:
            try:
                batch = next(batches, None)
                columns = [[] if batch is None else batch.column(name).to_pylist() for name in wanted.names]
            except damage as error:
                raise refused(error) from error
            count = 0 if batch is None else batch.num_rows
            if count or not start:  # an empty file is one empty piece
                places = range(start + 1, start + count + 1)
                yield wanted.table(file, columns, places, unit="row", class_names=names)
            if batch is None:
                return
            start += count


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends, read as they are asked for; blank lines at the end of the file are
    no lines.

    Raises DataError naming every line that is not UTF-8 (the first 20), and for a line of more than :data:`LONGEST`
    bytes.
    """
    blank, before = 0, 0
    blocks = _blocks(path)
    for block in blocks:
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError:
            _refuse_bytes(path, itertools.chain([block], blocks), before)
            raise
        lines = text.split("\n")
        if lines[-1] == "" and block.endswith(b"\n"):
            lines.pop()
        before += len(lines)
        for line in lines:
            if not line.strip("\r"):
                blank += 1
                continue
            yield from itertools.repeat("", blank)
            blank = 0
            yield line.removesuffix("\r")


def _blocks(path: Path) -> Iterator[bytes]:
    """A file in blocks of whole lines, without a byte order mark."""
    rest: list[bytes] = []  # parts of a line
    waiting = lines = 0  # bytes of them, and lines before
    with open(path, "rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        while block := file.read(BLOCK):
            whole, end, tail = block.rpartition(b"\n")
            if not end:
                rest.append(tail)
                waiting += len(tail)
                if waiting > LONGEST:
                    rule = f"a line must have at most {LONGEST:,} bytes"
                    raise DataError(Problem(rule, str(path), f"line {lines + 1}", rest[0][:20]))
                continue
            whole = b"".join([*rest, whole, end])
            rest, waiting = [tail], len(tail)
            lines += whole.count(b"\n")
            yield whole
    if waiting:
        yield b"".join(rest)


def _refuse_bytes(path: Path, blocks: Iterable[bytes], before: int) -> None:
    """A DataError with the lines that are not UTF-8; ``before``: lines before these blocks."""
    findings = Findings()
    for block in blocks:
        lines = block.removesuffix(b"\n").split(b"\n")
        for place, line in enumerate(lines, start=before + 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                near = line[max(0, error.start - 20) : error.end + 20]
                rule = f"must be UTF-8 text (byte {error.start + 1} of the line is not)"
                findings.add(Problem(rule, file=str(path), place=f"line {place}", found=near))
        before += len(lines)
    findings.raise_if_any()


def _plain(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for place, line in enumerate(lines, start=1):
        yield place, line.split(delimiter)


def _quoted(lines: Iterable[str], delimiter: str, file: str) -> Iterator[tuple[int, list[str]]]:
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


def _refuse_twins(file: str, columns: list[str], wanted: Sequence[str], place: str = "line 1") -> None:
    twins = [name for name in wanted if columns.count(name) > 1]
    if twins:
        raise DataError([Problem("this column may stand only once", file=file, place=place, found=t) for t in twins])


class _Piece:
    """Rows that are given on together."""

    def __init__(self, file: str, wanted: Columns):
        self._file, self._wanted = file, wanted
        self._empty()

    def _empty(self) -> None:
        self._values: list[list[Any]] = []
        self._places: list[int] = []
        self.broken: list[int] = []
        self._size = 0

    def add(self, place: int, values: list[Any], size: int) -> None:
        """A row, in the order of the wanted columns, of about so many characters."""
        self._values.append(values)
        self._places.append(place)
        self._size += size

    @property
    def full(self) -> bool:
        return len(self._places) + len(self.broken) >= PIECE or self._size >= BLOCK

    def table(self) -> Table:
        """What was added since the last time."""
        columns = [list(column) for column in zip(*self._values, strict=True)] or [[] for _ in self._wanted.names]
        made = self._wanted.table(self._file, columns, self._places, broken=self.broken)
        self._empty()
        return made


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
    except (KeyError, ValueError, TypeError):
        return None
    return list(feature["names"]) if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
