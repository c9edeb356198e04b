"""Running a study: every point with every seed, each run done by who the study's executor has for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mtl_tickets.errors import InputError
from mtl_tickets.files import write_json
from mtl_tickets.locate import STUDY
from mtl_tickets.processes import by_main
from mtl_tickets.progress import Progress, Silent
from mtl_tickets.study.plan import Study


def run_study(study: Study, progress: Progress | None = None, told: Callable[[str], None] = lambda text: None) -> None:
    """Runs what is not finished; ends when every run is, whoever has done it. ``told`` hears a line for each run.

    A run that fails (its training diverges, its data is bad) keeps no other from being done; in the end all reasons are
    raised together. Started again, a study goes on.
    """
    by_main(lambda: write_index(study))
    outcome = study.settings.executor.run(study, progress or Silent(), told)
    if outcome.failed:
        names = {run.path: run.name for run in study.runs}
        raise InputError(
            [
                replace(problem, place=": ".join(part for part in (names[path], problem.place) if part))
                for path, problems in outcome.failed.items()
                for problem in problems
            ]
        )


def write_index(study: Study) -> None:
    """``study.json``: what is studied, and which folder is which point. It is what a report is made from."""
    points = [
        {"name": point.name, "values": point.values, "folder": f"runs/{point.loaded.folder.name}"}
        for point in study.points
    ]
    settings = study.settings.model_dump(mode="json", by_alias=True)
    write_json(study.folder / STUDY, {"settings": settings, "points": points})
