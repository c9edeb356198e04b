"""Ticket: which units a task keeps. An immutable value over a unit space that validates, compares and stores itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets import storage
from mtl_tickets.tickets.origin import STRICT, Origin, read_origin
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, require_equal

FORMAT = "mtl_tickets.ticket"


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class TicketOrigin(Origin):
    """Where a ticket comes from."""

    kind: Literal["winning", "random", "losing", "shared", "dense"] | None = None
    recipe: str | None = None
    budget: dict[str, int] | None = None
    """Pool -> number of units dropped, as asked for. :meth:`Ticket.dropped` says what was done."""
    allocation: str | None = None
    """How the draw ranked the units; with ``min_heads`` what a redraw needs to reproduce this ticket."""
    min_heads: int | None = None


@dataclass(frozen=True, eq=False)
class Ticket:
    """The units a task keeps: for each part of ``space`` a boolean array of its shape, True = kept.

    Construction copies the arrays, makes them read-only and refuses, all problems at once (:class:`TicketError`),
    parts that are missing or unknown, wrong shapes and anything that is not boolean. ``&``, ``|``, ``-``, ``^`` and
    ``~`` work unit by unit on tickets of equal spaces; they know nothing of layers, so a layer may end without heads.
    """

    space: UnitSpace
    units: Mapping[str, np.ndarray]
    about: TicketOrigin = field(default_factory=TicketOrigin)

    def __post_init__(self) -> None:
        units = checked_arrays(self.space, self.units, "ticket", np.bool_)
        object.__setattr__(self, "units", units)

    @classmethod
    def dense(cls, space: UnitSpace) -> Ticket:
        """The ticket that keeps every unit."""
        units = {part: np.ones(shape, dtype=bool) for part, shape in space.parts.items()}
        return cls(space, units, TicketOrigin(kind="dense"))

    # ------------------------------------------------------------------------------------------------- arithmetic

    def __and__(self, other: Ticket) -> Ticket:
        return self._combined(other, np.logical_and)

    def __or__(self, other: Ticket) -> Ticket:
        return self._combined(other, np.logical_or)

    def __sub__(self, other: Ticket) -> Ticket:
        return self._combined(other, lambda mine, theirs: mine & ~theirs)

    def __xor__(self, other: Ticket) -> Ticket:
        return self._combined(other, np.logical_xor)

    def __invert__(self) -> Ticket:
        about = TicketOrigin(encoder=self.about.encoder, weight_hash=self.about.weight_hash)
        return Ticket(self.space, {part: ~units for part, units in self.units.items()}, about)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ticket):
            return NotImplemented
        return self.space == other.space and all(np.array_equal(self.units[p], other.units[p]) for p in self.units)

    def __hash__(self) -> int:
        return hash(self.digest())

    def __le__(self, other: Ticket) -> bool:
        """Whether every unit kept here is kept there."""
        require_equal(self.space, other.space, "two tickets")
        return all(bool((~units | other.units[part]).all()) for part, units in self.units.items())

    # ---------------------------------------------------------------------------------------------------- measures

    def density(self) -> float:
        """The fraction of the space's parameters that remain, between 0 and 1."""
        return self.space.kept_parameters(self.units) / self.space.total

    def remaining_percent(self) -> float:
        """The published figure: remaining parameters in per cent of all, unrounded."""
        return 100 * self.density()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Part -> (units kept, units in all)."""
        return {part: (int(units.sum()), units.size) for part, units in self.units.items()}

    def dropped(self, part: str) -> int:
        """How many units of ``part`` are dropped."""
        return int((~self.units[part]).sum())

    def jaccard(self, other: Ticket, part: str | None = None) -> float:
        """Units kept by both / units kept by either, over ``part`` or over all units; 1 where neither keeps any."""
        require_equal(self.space, other.space, "two tickets")
        parts = self.units if part is None else [part]
        both = sum(int((self.units[p] & other.units[p]).sum()) for p in parts)
        either = sum(int((self.units[p] | other.units[p]).sum()) for p in parts)
        return both / either if either else 1.0

    def digest(self) -> str:
        """A short hash of space and units: equal tickets have equal digests, wherever they come from."""
        return storage.digest(self.space, self._packed())

    def picture(self) -> dict[str, list[str]]:
        """For people: a text of ``#`` (kept) and ``.`` (dropped) for each layer of a part; only counts for weights."""
        pictures = {}
        for part, units in self.units.items():
            if isinstance(self.space, StructuredSpace):
                rows = units.reshape(self.space.rows(part), -1)
                pictures[part] = ["".join(np.where(row, "#", ".")) for row in rows]
            else:
                pictures[part] = [f"{int(units.sum())} of {units.size} kept"]
        return pictures

    # ------------------------------------------------------------------------------------------------------- files

    def where(self, **changes: Any) -> Ticket:
        """The same ticket with some fields of its origin changed: ``ticket.where(task="rte", seed=1)``."""
        return Ticket(self.space, self.units, replace(self.about, **changes))

    def save(self, path: str | Path) -> Path:
        """Writes ``path`` (``.safetensors`` is added where absent), bit-packed, and a JSON twin; gives the path."""
        twin = {
            "digest": self.digest(),
            "remaining_percent": round(self.remaining_percent(), 4),
            "kept": {part: f"{kept} of {size}" for part, (kept, size) in self.counts().items()},
            "units": self.picture(),
        }
        return storage.write(path, FORMAT, self.space, self.about.to_json(), self._packed(), twin)

    @classmethod
    def load(cls, path: str | Path, space: UnitSpace | None = None, weight_hash: str | None = None) -> Ticket:
        """The ticket in a file written by :meth:`save`.

        Where ``space`` or ``weight_hash`` are given the file must have them (a file that records no hash fits all).
        Raises :class:`TicketError` that says what differs: format, version, the space field by field, hash, or damage.
        """
        stored = storage.read(path, FORMAT)
        units = {part: _unpacked(stored, part, shape) for part, shape in stored.space.parts.items()}
        stored.verify()
        stored.require(space, weight_hash)
        return cls(stored.space, units, read_origin(stored, TicketOrigin))

    def _packed(self) -> dict[str, np.ndarray]:
        return {part: np.packbits(units) for part, units in self.units.items()}

    def _combined(self, other: Ticket, operator: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Ticket:
        if not isinstance(other, Ticket):
            return NotImplemented
        require_equal(self.space, other.space, "two tickets")
        mine, theirs = self.about, other.about
        about = TicketOrigin(
            encoder=mine.encoder if mine.encoder == theirs.encoder else None,
            weight_hash=mine.weight_hash if mine.weight_hash == theirs.weight_hash else None,
        )
        return Ticket(self.space, {part: operator(self.units[part], other.units[part]) for part in self.units}, about)

    def __reduce__(self) -> tuple[Any, ...]:
        return Ticket, (self.space, dict(self.units), self.about)  # a mappingproxy cannot be pickled

    def __repr__(self) -> str:
        kept = ", ".join(f"{part} {kept}/{size}" for part, (kept, size) in self.counts().items())
        name = " ".join(word for word in (self.about.task, self.about.kind) if word)
        return f"<Ticket {name + ': ' if name else ''}{kept}; {self.remaining_percent():.1f} % remain>"


def checked_arrays(
    space: UnitSpace, arrays: Mapping[str, Any], what: str, dtype: type[np.generic], further: tuple[int, ...] = ()
) -> MappingProxyType[str, np.ndarray]:
    """Read-only copies of ``arrays``, one per part of ``space``, in the order of the space. ``further``: their axes
    behind those of the part.

    ``dtype`` is ``np.bool_`` (nothing else is accepted) or ``np.float64`` (every finite real number is).
    Raises :class:`TicketError` with all problems.
    """
    problems = [
        Problem(f"this part of the {what} is missing", place=part) for part in space.parts if part not in arrays
    ]
    problems += [
        Problem(f"the unit space has no such part; it has {list(space.parts)}", place=str(part))
        for part in arrays
        if part not in space.parts
    ]
    copies = {}
    for part, shape in space.parts.items():
        if part not in arrays:
            continue
        array, shape = np.asarray(arrays[part]), (*shape, *further)
        if dtype is np.bool_ and array.dtype != np.bool_:
            problems.append(Problem("units must be boolean, True = kept", place=part, found=str(array.dtype)))
        elif dtype is np.float64 and array.dtype.kind not in "iuf":
            problems.append(Problem("must be real numbers", place=part, found=str(array.dtype)))
        elif array.shape != shape:
            problems.append(Problem(f"must have the shape {list(shape)}", place=part, found=list(array.shape)))
        elif dtype is np.float64 and not np.isfinite(array).all():
            problems.append(Problem("must be finite", place=part, found=f"{int((~np.isfinite(array)).sum())} NaN/inf"))
        copies[part] = array.astype(dtype) if array.dtype.kind in "biuf" else array
        copies[part].flags.writeable = False
    if problems:
        raise TicketError(problems)
    return MappingProxyType(copies)


def _unpacked(stored: storage.Stored, part: str, shape: tuple[int, ...]) -> np.ndarray:
    packed, size = stored.arrays[part], int(np.prod(shape))
    length = -(-size // 8)
    if packed.dtype != np.uint8 or packed.shape != (length,):
        rule = f"must be {length} bytes for its {size} units"
        raise TicketError(Problem(rule, str(stored.file), part, f"{packed.dtype} of shape {list(packed.shape)}"))
    bits = np.unpackbits(packed).astype(bool)
    if bits[size:].any():
        raise TicketError(Problem("the unused bits of the last byte must be 0", str(stored.file), part, "damaged"))
    return bits[:size].reshape(shape)
