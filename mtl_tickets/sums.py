"""What files held when they were written: lists of SHA-256 sums, as ``sha256sum -c`` reads them. Floor 0.

The first line, a comment, is the sum of the others. A run keeps a list beside every stage that is done, and one for
itself when it is finished. A file that is cut off, or in which a bit has flipped, is found by them; what is found is
done anew and never believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.files import file_digest, write_text

SUMS = "SHA256SUMS"


def write_sums(file: Path, root: Path, paths: Iterable[Path], coming: Mapping[Path, str] | None = None) -> None:
    """Writes the sums of ``paths``, by their names below ``root``, and of those ``coming`` (path -> text) that are
    written after this."""
    found = {path.relative_to(root).as_posix(): file_digest(path) for path in paths}
    for path, text in (coming or {}).items():
        found[path.relative_to(root).as_posix()] = hashlib.sha256(text.encode()).hexdigest()
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    write_text(file, f"# {hashlib.sha256(listed.encode()).hexdigest()}\n{listed}")


def damages(file: Path, root: Path | None, only: Path | None = None) -> list[Problem]:
    """What is not as ``file`` says: a file that has changed or gone, or the list itself. None where there is no list.
    ``root``: what the names are below; None: all stand beside the list now. ``only``: of one file."""
    if not file.exists():
        return []
    try:
        listed = _read(file)
    except ValueError:
        return [Problem("must be a list of SHA-256 sums", file=str(file), hint="it is cut off or damaged")]
    problems = []
    for name, digest in listed.items():
        path = file.with_name(Path(name).name) if root is None else root / name
        if only is not None and path != only:
            continue
        if not path.is_file():
            problems.append(Problem("must be there, as when it was written", file=str(path), found="nothing"))
        elif _digest_of(path) != digest:
            problems.append(Problem("must hold what was written: it is damaged", file=str(path)))
    return problems


def require_whole(path: Path, file: Path, root: Path) -> None:
    """Raises :class:`CheckpointError` where ``path`` is not what the list ``file`` says. One that it does not name, or
    no list, says nothing."""
    if problems := damages(file, root, only=path):
        hint = "the run makes it anew when it is started again with --resume"
        raise CheckpointError([Problem(p.rule, p.file, found=p.found, hint=hint) for p in problems])


def _digest_of(path: Path) -> str | None:
    """None where the medium cannot be read."""
    try:
        return file_digest(path)
    except OSError:
        return None


def _read(file: Path) -> dict[str, str]:
    """Name -> sum. Raises ValueError where it is not, bit for bit, what was written."""
    head, _, listed = file.read_bytes().decode("utf-8").partition("\n")
    if head != f"# {hashlib.sha256(listed.encode()).hexdigest()}":
        raise ValueError(head)
    pairs = [line.partition("  ") for line in listed.splitlines()]
    return {name: digest for digest, _, name in pairs}
