"""Metric rows: the one schema that every table and plot is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtl_tickets.errors import CheckpointError, Problem


@dataclass(frozen=True)
class Row:
    """One number with its birth certificate.

    ``stage`` names what was evaluated ("single", "multi/adaptive", "ladder/winning-3", "yardstick/majority", ...);
    ``metric`` is a metric's name, ``score`` (the task's mean metric) or ``remaining`` (parameters kept, in %).
    ``step`` counts optimiser steps, ``n`` rows. ``config`` is the digest that names the run.
    """

    run: str
    stage: str
    task: str
    split: str
    metric: str
    value: float
    n: int
    seed: int
    step: int
    config: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_rows(path: Path) -> list[Row]:
    """The rows of a ``results.jsonl``; a :class:`CheckpointError` naming the line that does not fit."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise CheckpointError(Problem("this file must exist", file=str(path))) from None
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Row(**json.loads(line)))
        except (TypeError, json.JSONDecodeError) as error:
            raise CheckpointError(
                Problem(f"must be a result row ({error})", file=str(path), place=f"line {number}", found=line)
            ) from None
    return rows


def one(rows: Iterable[Row], **which: object) -> Row:
    """The single row that fits; a missing or doubled row is an error, never a blank."""
    found = [row for row in rows if all(getattr(row, key) == value for key, value in which.items())]
    if len(found) != 1:
        raise CheckpointError(Problem(f"exactly one result row must have {which}", found=f"{len(found)} rows"))
    return found[0]


def select(rows: Sequence[Row], **which: object) -> list[Row]:
    """All rows whose fields equal ``which``."""
    return [row for row in rows if all(getattr(row, key) == value for key, value in which.items())]
