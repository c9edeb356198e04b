"""``run``, the verb of the command line that needs a word of its own in Python. Floor 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress
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
    """Runs an experiment file (or a shipped experiment, by name) for every seed; writes ``summary.md`` at the end.

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
