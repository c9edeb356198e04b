"""Log-probabilities made elsewhere, by example: SRNets ships its FEVER bias model this way (METHODS 3.4)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic

from mtl_tickets.errors import DataError, Problem, nearest
from mtl_tickets.tasks.bias.base import BIAS_MODELS, BiasModel
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.sources.base import Columns, Findings, Table, require_columns, require_file, whole
from mtl_tickets.tasks.sources.formats import read_delimited, read_jsonl

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

TOLERANCE = 1e-3  # of the sum of an example's probabilities, which may have been rounded for print
FLOOR = 1e-12  # stands for a probability of 0, which has no logarithm
SUFFIXES = (".jsonl", ".tsv")


@BIAS_MODELS.register("file")
class FromFile(BiasModel):
    """Probabilities read from a .jsonl or .tsv file, one row an example."""

    kind: Literal["file"] = "file"
    file: Path = pydantic.Field(description="a column with the example's line, and a column for each label of the task")
    key: str = pydantic.Field(
        "line", description="the column with the line of the task's data file (row, where it has rows), counted from 1"
    )
    log: bool = pydantic.Field(False, description="the columns hold natural logarithms of probabilities")

    def files(self) -> dict[str, Path]:
        return {"file": self.file}

    def task_problems(self, spec: TaskSpec, rows: Rows) -> list[Problem]:
        if self.key not in spec.labels:
            return []
        return [Problem("key must not be a label of the task", file=spec.name, place="key", found=self.key)]

    def log_probs(self, spec: TaskSpec, rows: Rows) -> np.ndarray:
        """As :meth:`BiasModel.log_probs`; rows of the file that are not asked for must be right, too.

        Raises DataError with everything that is wrong (20 problems in full): a file that cannot be read or has no
        rows, a column that is missing or unknown, a line number that is none or stands twice, a value that is no finite
        number or is below 0, probabilities that do not add up to 1, an example that is not there.
        """
        from scipy.special import logsumexp

        self.require_task(spec, rows)
        findings = Findings()
        table = self._table(spec.labels, findings)
        positions = self._positions(table, findings)
        values = self._values(table, spec.labels, findings)
        for line in rows.lines.tolist():
            if line not in positions:
                rule = f"every row of {rows.file or spec.name} must be here"
                findings.add(Problem(rule, table.file, found=f"none for {rows.unit} {line}"))
        findings.raise_if_any()
        chosen = values[[positions[line] for line in rows.lines.tolist()]]
        logs = chosen if self.log else np.log(np.maximum(chosen, FLOOR))
        return logs - logsumexp(logs, axis=1, keepdims=True)

    def _table(self, labels: list[str], findings: Findings) -> Table:
        path, wanted = require_file(self.file), Columns([self.key, *labels])
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            rule = f"the suffix must be one of {', '.join(SUFFIXES)}"
            raise DataError(Problem(rule, file=str(path), found=path.suffix))
        try:
            _require_only(path, suffix, wanted.names)
            if suffix == ".jsonl":
                tables = read_jsonl(path, wanted, findings)
            else:
                tables = read_delimited(path, "\t", False, True, None, False, wanted, findings)
            table = whole(tables)
        except OSError as error:
            raise DataError(Problem(f"cannot be read ({error.strerror or error})", file=str(path))) from error
        if not table.places and not findings.problems:
            raise DataError(Problem("must have rows", file=str(path)))
        return table

    def _positions(self, table: Table, findings: Findings) -> dict[int, int]:
        """Line of the data -> position in the table."""
        positions: dict[int, int] = {}
        for i, (place, raw) in enumerate(zip(table.places, table.texts[0], strict=True)):
            where, line = f"line {place}", _line_number(raw)
            if line is None:
                findings.add(Problem("must be a line number, 1 or more", table.file, f"{where}, {self.key}", raw))
            elif line in positions:
                hint = f"line {table.places[positions[line]]} has it, too"
                findings.add(Problem("an example must stand here once", table.file, f"{where}, {self.key}", line, hint))
            else:
                positions[line] = i
        return positions

    def _values(self, table: Table, labels: list[str], findings: Findings) -> np.ndarray:
        """float64 [rows of the table, classes]; NaN where ``findings`` has something against a value."""
        values = np.full((len(table.places), len(labels)), np.nan)
        for column, (label, raws) in enumerate(zip(labels, table.texts[1:], strict=True)):
            for i, raw in enumerate(raws):
                value, where = _number(raw), f"line {table.places[i]}, {label}"
                if not math.isfinite(value):
                    found = "null" if raw is None else raw
                    findings.add(Problem("must be a finite number", table.file, where, found))
                elif value < 0 and not self.log:
                    hint = "log: true reads log-probabilities"
                    findings.add(Problem("a probability must be 0 or more", table.file, where, raw, hint))
                else:
                    values[i, column] = value
        with np.errstate(over="ignore"):
            sums = (np.exp(values) if self.log else values).sum(1)
        for i in np.flatnonzero(np.abs(sums - 1) > TOLERANCE).tolist():
            rule = f"the probabilities must add up to 1 (within {TOLERANCE:g})"
            findings.add(Problem(rule, table.file, f"line {table.places[i]}", float(sums[i])))
        return values


def _require_only(path: Path, suffix: str, wanted: Sequence[str]) -> None:
    """A DataError for each column of the first line that nobody asked for, and each that was asked for and is not
    there. What is wrong with the form of that line is the reader's business."""
    with open(path, "rb") as file:
        first = file.readline().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r\n")
    columns: list[str] = []
    if suffix == ".tsv":
        columns = first.split("\t") if first else []
    else:
        try:
            row = json.loads(first)
        except (json.JSONDecodeError, RecursionError):
            return
        columns = list(row) if isinstance(row, dict) else []
    if not columns:
        return
    findings = Findings()
    for name in columns:
        if name not in wanted:
            findings.add(Problem("unknown column", str(path), "line 1", name, nearest(name, wanted)))
    try:
        require_columns(str(path), columns, wanted, "line 1")
    except DataError as error:
        for problem in error.problems:
            findings.add(problem)
    findings.raise_if_any()


def _line_number(raw: object) -> int | None:
    if type(raw) is int:
        return raw if raw >= 1 else None
    return int(raw) if isinstance(raw, str) and re.fullmatch(r"[1-9][0-9]{0,17}", raw) else None


def _number(raw: object) -> float:
    """NaN where it is none."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return math.nan
    try:
        return float(raw)
    except (ValueError, OverflowError):
        return math.nan
