"""``run`` and ``run_study``: the verbs of the command line that need a word of their own in Python. Floor 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress
    from mtl_tickets.report.study import StudyData
    from mtl_tickets.running import RunSummary


def run(
    experiment: str | Path,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    restart: bool = False,
    to: str | None = None,
    progress: Progress | None = None,
) -> list[RunSummary]:
    """Runs an experiment file (or a shipped experiment, by name) for every seed; writes ``summary.md`` at the end
    (``write_report`` makes a report of it).

    ``overrides`` are ``key.path=value`` texts, as for ``--set``. What a finished run left is found and not computed
    again. Raises :class:`~mtl_tickets.errors.InputError` with everything that is wrong, before anything is trained.
    """
    from mtl_tickets.experiment import load_experiment
    from mtl_tickets.report.summary import summarise, write_markdown
    from mtl_tickets.running import run_experiment

    loaded = load_experiment(experiment, overrides)
    runs = run_experiment(loaded, seeds=seeds, resume=resume, restart=restart, to=to, progress=progress)
    if all(summary.finished for summary in runs):
        write_markdown(summarise(loaded, runs), loaded.folder / "summary.md")
    return runs


def run_study(study: str | Path, overrides: Sequence[str] = (), progress: Progress | None = None) -> StudyData:
    """Runs a study file (or a shipped study, by name) as far as others have not, and reads what all found.

    ``overrides`` are ``key=value`` texts for the study's own keys, as for ``--set``. Raises
    :class:`~mtl_tickets.errors.InputError` with everything that is wrong, before anything is trained.
    """
    from mtl_tickets.report.study import gather_study
    from mtl_tickets.study import runs
    from mtl_tickets.study.plan import load_study

    asked = load_study(study, overrides)
    runs.run_study(asked, progress)
    return gather_study(asked.folder)
