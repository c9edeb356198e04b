"""Runs on a shared storage that is no file system: any URL that fsspec knows (``s3://``, ``gs://``, ``file://``).

A worker works in a folder of its own machine. What has changed there is put to the storage from time to time and at the
end, and a worker that goes on with a run first gets what is there. Every file appears whole: it is put beside its place
and moved there; and what says that something is done comes after what it speaks of.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.files import written_whole
from mtl_tickets.recipes.shared import DONE, SharedStages

logger = logging.getLogger(__name__)

# what says that something is done, in the order in which it is said; everything else is there before
LAST = (DONE, "results.jsonl", "record.json")
PART = ".part"


class Storage:
    """Folders below ``url``."""

    def __init__(self, url: str):
        import fsspec

        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
            rule = f"must be a URL that fsspec can open ({reason})"
            raise InputError(Problem(rule, place="executor.storage", found=url)) from None
        # what of each local file has been put or got: its size and time here, and what the storage says of it
        self._here: dict[Path, tuple[int, int]] = {}
        self._there: dict[Path, object] = {}

    def push(self, folder: Path, name: str, tries: int = 1) -> None:
        """Puts what has changed in ``folder`` since the last time to ``<url>/<name>``, and takes away what this object
        has put or got and is gone. Raises :class:`OSError` where the storage cannot be reached in so many tries."""
        for left in reversed(range(tries)):
            try:
                with self._reached():
                    self._push(folder, name)
                return
            except OSError:
                if left == 0:
                    raise
                time.sleep(2.0)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Every library has errors of its own for a storage that does not answer."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self.url}: {' '.join(str(error).split())}") from error

    def _push(self, folder: Path, name: str) -> None:
        there = set(self._names(name))
        here = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
        for path, file in sorted(here.items(), key=lambda item: (_turn(item[0]), item[0])):
            if path in there and self._here.get(file) == _state(file):
                continue
            place = f"{self._root}/{name}/{path}"
            self._here[file] = _state(file)
            self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(file), place + PART)
            self._fs.mv(place + PART, place)
        for path in there - set(here):
            if self._here.pop(folder / path, None) is None:
                continue  # another's
            self._fs.rm_file(f"{self._root}/{name}/{path}")

    def pull(self, name: str, folder: Path) -> None:
        """Gets everything in ``<url>/<name>`` that is not in ``folder`` as it was got or put before. Raises
        :class:`OSError` where the storage cannot be reached."""
        with self._reached():
            self._pull(name, folder)

    def _pull(self, name: str, folder: Path) -> None:
        for path in self._names(name):
            if path.endswith(PART):
                continue
            file, place = folder / path, f"{self._root}/{name}/{path}"
            said = self._fs.checksum(place)
            if file.is_file() and self._there.get(file) == said and self._here.get(file) == _state(file):
                continue
            with written_whole(file) as part:
                self._fs.get_file(place, str(part))
            self._here[file], self._there[file] = _state(file), said

    def folders_with(self, file: str, name: str) -> list[str]:
        """The folders below ``<url>/<name>`` that have a ``file``, as names for :meth:`pull`. Raises :class:`OSError`
        where the storage cannot be reached."""
        with self._reached():
            found = [path.rpartition("/") for path in self._names(name)]
        return [f"{name}/{folder}" for folder, _, last in found if last == file]

    def _names(self, name: str) -> list[str]:
        """Of the files below ``name``, without it, in the order in which they are to be got."""
        root = f"{self._root}/{name}"
        self._fs.invalidate_cache()
        try:
            self._fs.info(root)  # ``exists`` of many file systems says no where it has got no answer
        except FileNotFoundError:
            return []
        start = self._fs._strip_protocol(root).rstrip("/") + "/"
        return sorted((path.removeprefix(start) for path in self._fs.find(root)), key=_turn)


class StoredStages(SharedStages):
    """Left at ``<url>/<name>``, for workers that see no common folder; ``folder`` is this worker's. Each puts what it
    leaves into a place of its own, ``<stage>/<any name>``: several may leave the same stage at once. A storage that
    does not answer costs the work that could have been shared, and nothing else."""

    def __init__(self, folder: Path, storage: Storage, name: str):
        super().__init__(folder)
        self._storage, self._name = storage, name
        self._damaged: set[str] = set()

    def find(self, made_from: str) -> tuple[Path | None, Sequence[Problem]]:
        place, problems = super().find(made_from)
        with _no_matter():
            for name in [] if place else self._left(made_from):
                self._fetch(made_from, name)
                place, more = super().find(made_from)
                problems = [*problems, *more]
                if place is not None:
                    break
        if place is None and problems:
            self._damaged.add(made_from)
        return place, problems

    def give(self, made_from: str, files: Iterable[Path]) -> None:
        super().give(made_from, files)
        place = self.folder / made_from
        with _no_matter():
            if (place / DONE).exists() and (made_from in self._damaged or not self._left(made_from)):
                self._storage.push(place, f"{self._name}/{made_from}/{uuid.uuid4().hex}")

    def _left(self, made_from: str) -> list[str]:
        return self._storage.folders_with(DONE, f"{self._name}/{made_from}")

    def _fetch(self, made_from: str, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.folder))
        try:
            self._storage.pull(name, part)
            os.rename(part, self.folder / made_from)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _no_matter() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning("%s; stages are not shared now", error)


def _state(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file


def _turn(path: str) -> int:
    name = path.rpartition("/")[2]
    return LAST.index(name) + 1 if name in LAST else 0
