"""The folder of a study -> what there is to say of it: a report for every point, and what the points are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pydantic
import yaml

from mtl_tickets.documents import one_line
from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.files import read_json
from mtl_tickets.locate import STUDY
from mtl_tickets.progress import Progress, Silent
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


class _Settings(pydantic.BaseModel):
    """Of the study's own settings those that a report needs."""

    description: str
    experiment: str
    seeds: tuple[int, ...]
    baselines: tuple[str, ...] = pydantic.Field(min_length=1)


class _Place(pydantic.BaseModel):
    name: str
    values: dict[str, Any]
    folder: str

    @pydantic.field_validator("folder")
    @classmethod
    def _within(cls, folder: str) -> str:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("must not lead out of the study")
        return str(path)


class _Index(pydantic.BaseModel):
    settings: _Settings
    points: tuple[_Place, ...] = pydantic.Field(min_length=1)


def gather_study(place: str | Path, progress: Progress | None = None) -> StudyData:
    """What there is of the study at ``place``, as far as it got: the runs of its seeds. ``progress`` is told of every
    point.

    Raises :class:`CheckpointError` where the folder is no study's, its index is broken, or a run lacks a row.
    """
    place = Path(place)
    content = read_json(place / STUDY)
    index = _index(content, place)
    settings = index.settings
    return StudyData(
        name=place.resolve().name,
        description=settings.description,
        experiment=settings.experiment,
        seeds=settings.seeds,
        baselines=settings.baselines,
        points=tuple(_point(place, point, settings, progress or Silent()) for point in index.points),
        file=yaml.safe_dump(content["settings"], sort_keys=False, allow_unicode=True),  # type: ignore[index]
    )


def baselines_of(place: Path) -> tuple[str, ...] | None:
    """Those of the study that the experiment folder at ``place`` is a point of; None where it is of none."""
    above = place.resolve().parents
    if len(above) < 2 or not (above[1] / STUDY).is_file():
        return None
    return _index(read_json(above[1] / STUDY), above[1]).settings.baselines


def _index(content: object, place: Path) -> _Index:
    try:
        return _Index.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            Problem(
                f"must be the index of a study ({first['msg']})",
                file=str(place / STUDY),
                place=".".join(map(str, first["loc"])),
                hint="mtl-tickets study STUDY --table writes it anew",
            )
        ) from None


def _point(place: Path, point: _Place, settings: _Settings, progress: Progress) -> StudyPoint:
    progress.stage(f"reading {point.name or 'its runs'}")
    begun = any((place / point.folder / f"seed-{seed}" / "inputs.json").is_file() for seed in settings.seeds)
    values = {key: one_line(value) for key, value in point.values.items()}
    report = gather(place / point.folder, settings.baselines, settings.seeds) if begun else None
    progress.advance(1)
    return StudyPoint(point.name, values, point.folder, report)
