"""What every executor is: settings, and a way to do all runs of a study."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress
    from mtl_tickets.recipes.shared import SharedStages
    from mtl_tickets.study.plan import Study, StudyRun

EXECUTORS: Registry[type[Executor]] = Registry("executor", "mtl_tickets.study.executors")


class Executor(Settings):
    """Base of all executors."""

    @abstractmethod
    def run(self, study: Study, progress: Progress, told: Callable[[str], None]) -> Outcome:
        """Does what is not finished, and returns when nothing is left to do. A run that fails keeps no other from being
        done. ``told`` hears a line for each run."""


@dataclass
class Outcome:
    """What became of the runs of a study, by their folders: what they found is there and not in memory, which would
    grow with every run."""

    finished: set[Path] = field(default_factory=set)
    failed: dict[Path, list[Problem]] = field(default_factory=dict)

    def fail(self, run: StudyRun, error: Exception) -> None:
        """Keeps why a run has not come to its end."""
        problems = error.problems if isinstance(error, InputError) else [Problem(str(error))]
        self.failed[run.path] = problems

    def __contains__(self, path: Path) -> bool:
        return path in self.finished or path in self.failed


def attempted(
    study: Study,
    run: StudyRun,
    progress: Progress,
    begins: Callable[[], None] = lambda: None,
    shared: SharedStages | None = None,
) -> bool:
    """Does a run, or goes on with it, to its end; False where another process does it now. ``begins`` is called where
    not. ``shared``: where runs leave stages for each other, if that is not the study's folder."""
    from mtl_tickets.errors import CheckpointError
    from mtl_tickets.files import is_locked
    from mtl_tickets.processes import by_main
    from mtl_tickets.running import run_experiment

    def held() -> bool:
        return by_main(lambda: is_locked(run.path))

    if held():
        return False
    begins()
    try:
        shared = shared or study.shared
        run_experiment(run.point.loaded, [run.seed], resume=True, progress=progress, shared=shared)
    except CheckpointError:
        if held():  # another process was quicker
            return False
        raise
    return True
