"""Files that appear whole or not at all, and a lock that keeps two processes from writing one run."""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safetensors import SafetensorError

from mtl_tickets.errors import CheckpointError, Problem

if TYPE_CHECKING:
    import numpy as np

_thrown_away = contextvars.ContextVar("thrown_away", default=False)
_written: contextvars.ContextVar[list[Path] | None] = contextvars.ContextVar("written", default=None)


@contextlib.contextmanager
def writing_noted() -> Iterator[list[Path]]:
    """Gives a list that has, in the end, every file that the writers of this module have left inside."""
    noted: list[Path] = []
    token = _written.set(noted)
    try:
        yield noted
    finally:
        _written.reset(token)
        # those of a folder that was written whole have moved with it; others may have been written twice
        noted[:] = [path for path in dict.fromkeys(noted) if path.is_file()]


def _note(paths: Iterable[Path]) -> None:
    if (noted := _written.get()) is not None:
        noted += paths


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """Inside, the writers of this module write into a folder of their own that goes at once: of several processes that
    do the same, one leaves the files."""
    token = _thrown_away.set(True)
    try:
        yield
    finally:
        _thrown_away.reset(token)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the operating system refuses (a full disk) is an :class:`OSError` naming ``path``, also where a library has
    made another error of it."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it is synced and renamed over ``path``.

    A reader, or a process killed at any moment, sees the old file or the new one and never a part of either.
    """
    if _thrown_away.get():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch, path.name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        with _refusals(path):
            yield part
        with open(part, "rb") as synced:
            os.fsync(synced.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
        _sync_folder(path.parent)
        _note([path])
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Like :func:`written_whole` for a folder: fill the folder given; it takes the place of ``path`` at the end."""
    if _thrown_away.get():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        with _refusals(path):
            yield part
        for file in part.rglob("*"):
            if file.is_file():
                with open(file, "rb") as synced:
                    os.fsync(synced.fileno())
        os.chmod(part, 0o755)
        old = path.with_name(f".{path.name}.old")
        if path.exists():  # else .old may be the only copy there is, see recover_folder
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(part, path)
        _sync_folder(path.parent)
        _note(path.rglob("*"))
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Puts back the folder that a process killed between the two renames of a swap had moved aside."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        os.replace(old, path)


# what the two above name their temporary files and folders
_PART = re.compile(r"\..+\.[a-z0-9_]{8}\.part")


def sweep_parts(folder: Path) -> None:
    """Deletes what writers that were killed left below ``folder``: half-written files and folders of this module.

    Only for the holder of the folder's lock: what another process is writing would go, too.
    """
    for path in list(folder.rglob(".*.part")):
        if not _PART.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes ``value`` as JSON, keys in the order given, floats to full precision."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> object:
    """The JSON value in ``path``; a :class:`CheckpointError` naming the file and line where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(Problem("this file must exist", file=str(path))) from None
    except OSError as error:
        raise CheckpointError(Problem(f"must be readable ({error.strerror})", file=str(path))) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise CheckpointError(Problem(f"must be JSON in UTF-8 ({error})", file=str(path), place=line)) from None


def digest(value: object, length: int = 12) -> str:
    """A short stable hash of a JSON-able value (keys sorted)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def numbers_digest(values: np.ndarray) -> str:
    """SHA-256 of whole numbers, as little-endian int64."""
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Holds ``folder/.lock`` for this process; a :class:`CheckpointError` where another process holds it.

    The operating system drops the lock when the process ends, however it ends, so a killed run leaves nothing behind.
    ``patience``: seconds to wait for it; the workers of a killed process take a moment to see that it is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as lock:
        give_up = time.monotonic() + patience
        while not _took(lock):
            if time.monotonic() >= give_up:
                lock.seek(0)
                holder = f"held by process {lock.read()}"
                raise CheckpointError(Problem("only one process may write a run", file=str(folder), found=holder))
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder now (:func:`locked`)."""
    path = folder / ".lock"
    if not path.exists():
        return False
    with open(path, "a+", encoding="utf-8") as lock:
        return not _took(lock)


def _took(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
