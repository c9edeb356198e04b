"""Runs on a shared storage that is no file system: any URL that fsspec knows (``s3://``, ``gs://``, ``file://``).

A worker works in a folder of its own machine. What has changed there is put to the storage from time to time and at the
end, and a worker that goes on with a run first gets what is there. Every file appears whole: it is put beside its place
and moved there; and what says that something is done comes after what it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.files import written_whole

# what says that something is done, in the order in which it is said; everything else is there before
LAST = ("done.json", "results.jsonl", "record.json")
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
        # what of each local file has been put: its size and time
        self._put: dict[Path, tuple[int, int]] = {}

    def push(self, folder: Path, name: str) -> None:
        """Puts what has changed in ``folder`` since the last time to ``<url>/<name>``, and takes away what has gone."""
        there = set(self._names(name))
        here = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
        for path, file in sorted(here.items(), key=lambda item: (_turn(item[0]), item[0])):
            stat = file.stat()
            state = stat.st_size, stat.st_mtime_ns
            if path in there and self._put.get(file) == state:
                continue
            place = f"{self._root}/{name}/{path}"
            self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(file), place + PART)
            self._fs.mv(place + PART, place)
            self._put[file] = state
        for path in there - set(here):
            self._fs.rm_file(f"{self._root}/{name}/{path}")

    def pull(self, name: str, folder: Path) -> None:
        """Gets everything in ``<url>/<name>`` that ``folder`` has not in the same size."""
        for path, size in self._names(name).items():
            file = folder / path
            if path.endswith(PART) or (file.is_file() and file.stat().st_size == size and _turn(path) == 0):
                continue
            with written_whole(file) as part:
                self._fs.get_file(f"{self._root}/{name}/{path}", str(part))
            stat = file.stat()
            self._put[file] = stat.st_size, stat.st_mtime_ns

    def _names(self, name: str) -> dict[str, int]:
        """Path below ``name`` -> size."""
        root = f"{self._root}/{name}"
        if not self._fs.exists(root):
            return {}
        self._fs.invalidate_cache()
        found = self._fs.find(root, detail=True)
        start = self._fs._strip_protocol(root).rstrip("/") + "/"
        return {path.removeprefix(start): int(about["size"]) for path, about in found.items()}


def _files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file


def _turn(path: str) -> int:
    name = path.rpartition("/")[2]
    return LAST.index(name) + 1 if name in LAST else 0
