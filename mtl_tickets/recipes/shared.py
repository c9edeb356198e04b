"""Stages that the runs of a study leave for each other, by what they are made from."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mtl_tickets.errors import Problem
from mtl_tickets.sums import SUMS, damages

# is there when a stage is done
DONE = "done.json"


class SharedStages:
    """Below one folder, a folder for each; any number of runs may look and leave something at once."""

    def __init__(self, folder: Path):
        self.folder = folder

    def find(self, made_from: str) -> tuple[Path | None, Sequence[Problem]]:
        """The folder of the stage that was made from this, None where none has left it whole; and what is damaged of
        what was there, which is put aside."""
        place = self.folder / made_from
        if not (place / DONE).exists():
            return None, []
        if (place / SUMS).exists():
            problems = damages(place / SUMS, None)
        else:
            problems = [Problem("must be there, as when it was written", file=str(place / SUMS), found="nothing")]
        if problems:
            with contextlib.suppress(OSError):  # another run may have put it aside
                os.rename(place, tempfile.mkdtemp(prefix=f".damaged-{place.name}-", dir=self.folder))
            return None, problems
        return place, []

    def give(self, made_from: str, files: Iterable[Path]) -> None:
        """Leaves a stage that is done: its ``files``, :data:`DONE` among them."""
        place = self.folder / made_from
        if place.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.folder))
        for file in files:
            linked(file, part / file.name)
        # another run may have been quicker; both did the same
        with contextlib.suppress(OSError):
            os.rename(part, place)
        shutil.rmtree(part, ignore_errors=True)


def linked(file: Path, place: Path) -> None:
    """The same file at ``place``, a copy where the file system has no links. Nothing writes into a finished stage."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
