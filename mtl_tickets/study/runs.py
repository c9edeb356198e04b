"""Running a study: every point with every seed, by as many processes as there are, each run by one of them.

Any number of processes may work on a study at once, on one machine or on several with a common folder: who comes to a
run that another has locked goes on to the next. A run that is finished is left alone, one that was stopped is gone on
with. Stages that several points need are done once and taken over by the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mtl_tickets.errors import CheckpointError
from mtl_tickets.files import is_locked, write_json
from mtl_tickets.locate import STUDY
from mtl_tickets.progress import Progress, Silent
from mtl_tickets.recipes.run_directory import run_finished
from mtl_tickets.running import RunSummary, run_experiment
from mtl_tickets.study.plan import Point, Study

# seconds between two looks at runs that other processes hold
PATIENCE = 2.0


@dataclass(frozen=True)
class StudyRun:
    """One point with one seed."""

    point: Point
    seed: int

    @property
    def path(self) -> Path:
        return self.point.loaded.folder / f"seed-{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.point.name or self.point.loaded.experiment.name}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return run_finished(self.path)


def runs_of(study: Study) -> list[StudyRun]:
    """Seed by seed, so that every point has a number early."""
    return [StudyRun(point, seed) for seed in study.settings.seeds for point in study.points]


def run_study(
    study: Study, progress: Progress | None = None, told: Callable[[str], None] = lambda text: None
) -> list[RunSummary]:
    """Runs what is not finished; ends when every run is, whoever has done it. ``told`` hears a line for each run.

    What goes wrong in a run ends the study where it stands; started again, it goes on.
    """
    write_index(study)
    progress = progress or Silent()
    runs = runs_of(study)
    summaries: dict[Path, RunSummary] = {}
    while len(summaries) < len(runs):
        waiting = False
        for number, run in enumerate(runs, 1):
            if run.path in summaries:
                continue
            if is_locked(run.path):
                waiting = True
                continue
            told(f"run {number} of {len(runs)}: {run.name}" + (" (finished before)" if run.finished else ""))
            try:
                (summaries[run.path],) = run_experiment(
                    run.point.loaded, [run.seed], resume=True, progress=progress, shared=study.shared
                )
            except CheckpointError:
                if not is_locked(run.path):
                    raise
                waiting = True  # another process was quicker
        if waiting:
            time.sleep(PATIENCE)
    return [summaries[run.path] for run in runs]


def write_index(study: Study) -> None:
    """``study.json``: what is studied, and which folder is which point. It is what a report is made from."""
    points = [
        {"name": point.name, "values": point.values, "folder": f"runs/{point.loaded.folder.name}"}
        for point in study.points
    ]
    settings = study.settings.model_dump(mode="json", by_alias=True)
    write_json(study.folder / STUDY, {"settings": settings, "points": points})
