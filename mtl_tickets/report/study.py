"""The folder of a study -> what there is to say of it: a report for every point, and what the points are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.files import read_json
from mtl_tickets.locate import STUDY
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.gather import gather


@dataclass(frozen=True)
class StudyPoint:
    """One combination of the grid. ``values``: setting -> value as YAML; ``folder``: of its experiment, within the
    study's; ``report``: None before a run of it has begun."""

    name: str
    values: dict[str, str]
    folder: str
    report: ReportData | None


@dataclass(frozen=True)
class StudyData:
    """``baselines``: the rules that all others are held against. ``file``: the study's settings as YAML."""

    name: str
    description: str
    experiment: str
    seeds: tuple[int, ...]
    baselines: tuple[str, ...]
    points: tuple[StudyPoint, ...]
    file: str


def gather_study(place: str | Path) -> StudyData:
    """What there is of the study at ``place``, as far as it got.

    Raises :class:`CheckpointError` where the folder is no study's, its index is broken, or a run lacks a row.
    """
    place = Path(place)
    content = read_json(place / STUDY)
    try:
        settings, points = dict(content["settings"]), list(content["points"])  # type: ignore[index]
        baselines = tuple(map(str, settings["baselines"]))
        return StudyData(
            name=place.resolve().name,
            description=str(settings["description"]),
            experiment=str(settings["experiment"]),
            seeds=tuple(map(int, settings["seeds"])),
            baselines=baselines,
            points=tuple(_point(place, dict(point), baselines) for point in points),
            file=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        )
    except (KeyError, TypeError, ValueError) as error:
        rule = f"must be the index of a study, as mtl-tickets study writes it ({type(error).__name__}: {error})"
        raise CheckpointError(Problem(rule, file=str(place / STUDY))) from None


def _point(place: Path, point: dict[str, Any], baselines: Sequence[str]) -> StudyPoint:
    folder = PurePosixPath(point["folder"])
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"folder {str(folder)!r} leads out of the study")
    begun = any((place / folder).glob("seed-*/inputs.json"))
    values = {str(key): _yaml(value) for key, value in dict(point["values"]).items()}
    report = gather(place / folder, baselines) if begun else None
    return StudyPoint(str(point["name"]), values, str(folder), report)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).removesuffix("...\n").strip()
