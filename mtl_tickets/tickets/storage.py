"""The file format of tickets and scores: one safetensors file, and a JSON twin for people.

The safetensors file is the value; the twin is written for reading and never read back. The metadata (all strings)::

    format    mtl_tickets.ticket | mtl_tickets.scores | mtl_tickets.gradients
    version   1
    space     the unit space, JSON
    origin    where the value comes from, JSON
    digest    of all that belongs to the value: a flipped bit is found, not believed

and what else belongs to the value of a format, JSON. Equal values with equal origins are, byte for byte, equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mtl_tickets import files
from mtl_tickets.errors import Problem, TicketError, nearest, problems_of
from mtl_tickets.tickets.space import UnitSpace, require_equal

VERSION = "1"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Stored:
    """What a file holds. ``arrays`` are as stored: a ticket's are bit-packed."""

    file: Path
    space: UnitSpace
    origin: dict[str, Any]
    arrays: dict[str, np.ndarray]
    digest: str | None
    """Of what belongs to the value, when it was written."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """What else belongs to the value, by its key in the metadata."""

    def verify(self) -> None:
        """Raises :class:`TicketError` unless the value is, bit for bit, the one that was written."""
        found = digest(self.space, self.arrays, self.also)
        if found != self.digest:
            rule = f"the content must have the digest {self.digest} it was written with"
            raise TicketError(Problem(rule, str(self.file), "", found, "the file is damaged: draw it again"))

    def require(self, space: UnitSpace | None, weight_hash: str | None) -> None:
        """Raises :class:`TicketError`, with every difference, unless the file is of this space and these weights.

        A file that records no weight hash (a value made by hand) fits all weights.
        """
        if space is not None:
            require_equal(space, self.space, "what is loaded and what it is loaded for", str(self.file))
        recorded = self.origin.get("weight_hash")
        if weight_hash is not None and recorded is not None and recorded != weight_hash:
            rule = f"must come from the encoder weights with hash {weight_hash}"
            raise TicketError(Problem(rule, str(self.file), "origin.weight_hash", recorded))


def file_of(path: str | Path) -> Path:
    """``path`` with the suffix of the format; a name like ``rte.v2`` keeps its own dot."""
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def write(
    path: str | Path,
    form: str,
    space: UnitSpace,
    origin: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    twin: Mapping[str, Any],
    also: Mapping[str, Any] | None = None,
) -> Path:
    """Writes both files, each whole or not at all, and gives the path of the one that is read. ``also``: JSON-able
    values beside the arrays."""
    file = file_of(path)
    metadata = {
        "format": form,
        "version": VERSION,
        "space": json.dumps(space.to_json()),
        "origin": json.dumps(origin),
        "digest": digest(space, arrays, also),
        **{key: json.dumps(value) for key, value in (also or {}).items()},
    }
    with files.written_whole(file) as part:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part, metadata)
        _put_in_order(part)
    head = {"format": form, "version": VERSION, "space": space.to_json(), "origin": origin}
    files.write_json(file.with_suffix(".json"), {**head, **twin})
    return file


def read(path: str | Path, form: str, also: Sequence[str] = ()) -> Stored:
    """Reads what :func:`write` wrote. Raises :class:`TicketError` saying what is wrong with the file.

    The caller checks the shapes of the arrays, which only it knows, and then calls :meth:`Stored.verify`.
    """
    file = file_of(path)
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        near = nearest(file.name, [other.name for other in file.parent.glob("*" + SUFFIX)])
        raise TicketError(Problem("this file must exist", file=str(file), hint=near)) from None
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        rule = f"must be a whole safetensors file ({error})"
        raise TicketError(Problem(rule, str(file), hint="it is cut off, damaged or something else")) from None
    if metadata.get("format") != form:
        found = metadata.get("format", "no format")
        raise TicketError(Problem(f"must have the format {form!r}", str(file), "format", found))
    if metadata.get("version") != VERSION:
        hint = "it was written by another version of mtl_tickets"
        found = metadata.get("version", "no version")
        raise TicketError(Problem(f"must have the format version {VERSION!r}", str(file), "version", found, hint))
    with problems_of(str(file)):
        further = {key: _json(metadata, key) for key in also}
        space = UnitSpace.from_json(_object(metadata, "space"))
        origin = _object(metadata, "origin")
        if set(arrays) != set(space.parts):
            raise TicketError(Problem(f"must hold the parts {list(space.parts)}", found=sorted(arrays)))
    ordered = {part: arrays[part] for part in space.parts}
    return Stored(file, space, origin, ordered, metadata.get("digest"), further)


def digest(space: UnitSpace, arrays: Mapping[str, np.ndarray], also: Mapping[str, Any] | None = None) -> str:
    """A short hash of a space, of the bytes of its arrays and of what else belongs to them."""
    known = [space.to_json(), dict(also)] if also else space.to_json()
    content = hashlib.sha256(files.digest(known, length=64).encode())
    for part in space.parts:
        content.update(np.ascontiguousarray(arrays[part]).data)
    return content.hexdigest()[:16]


def _put_in_order(file: Path) -> None:
    """Puts the metadata of a safetensors file in the order of their keys; the library writes them in any order."""
    with open(file, "r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:  # else the arrays would no longer stand where the header says
            opened.seek(8)
            opened.write(text)


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata.get(key, ""))
    except json.JSONDecodeError as error:
        raise TicketError(Problem(f"must be JSON ({error})", place=key, found=metadata.get(key))) from None


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    value = _json(metadata, key)
    if not isinstance(value, dict):
        raise TicketError(Problem("must be a JSON object", place=key, found=value))
    return value
