"""Unit spaces: which units an encoder has, in which shapes, and what each costs in parameters.

A space knows no model. It is the type of a ticket: two tickets can be compared exactly when their spaces are equal.

Vocabulary used by the rest of the room:

* a *part* is a named array of units (``heads`` of shape ``[L, H]``);
* a *pool* is a set of parts ranked against each other and therefore the key of a budget (each part of a
  :class:`StructuredSpace` is its own pool; the matrices of a :class:`WeightSpace` form the one pool ``weights``);
* the *rows* of a part are its layers, where a part has several units a layer.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from mtl_tickets.errors import Problem, TicketError, nearest

Units = Mapping[str, np.ndarray]
"""Part name -> boolean array of the part's shape; True is kept."""


class UnitSpace(ABC):
    """The named, shaped set of all units of one encoder. Immutable; equal by value; hashable."""

    kind: ClassVar[str]
    """The name of the class in files."""

    total: int
    """The parameters that are the 100 % of "remaining parameters"."""

    @property
    @abstractmethod
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Part name -> shape, in the order that breaks ties and fixes digests."""

    @property
    @abstractmethod
    def pools(self) -> dict[str, tuple[str, ...]]:
        """Budget key -> the parts that are ranked together under it."""

    @abstractmethod
    def rows(self, part: str) -> int:
        """How many layers the units of ``part`` fall into; 1 where the part is ranked only as a whole."""

    @abstractmethod
    def kept_parameters(self, units: Units) -> int:
        """How many of :attr:`total` parameters remain when exactly ``units`` are kept."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A JSON-able value from which :meth:`from_json` makes an equal space."""

    @property
    def sizes(self) -> dict[str, int]:
        """Part name -> number of units."""
        return {part: math.prod(shape) for part, shape in self.parts.items()}

    @staticmethod
    def from_json(value: object) -> UnitSpace:
        """The space written by :meth:`to_json`; :class:`TicketError` where ``value`` is none."""
        if not isinstance(value, Mapping):
            raise TicketError(Problem("a unit space must be a JSON object", found=value))
        content = dict(value)
        kind = content.pop("kind", None)
        if not isinstance(kind, str) or kind not in _KINDS:
            raise TicketError(Problem("unknown kind of unit space", found=kind, hint=nearest(kind, list(_KINDS))))
        try:
            return _KINDS[kind](**content)
        except TypeError as error:
            raise TicketError(Problem(f"not a {kind} unit space ({error})", found=content)) from None

    def differences(self, other: UnitSpace) -> list[str]:
        """What ``other`` has otherwise, field by field; empty where the spaces are equal."""
        mine, theirs = self.to_json(), other.to_json()
        if mine["kind"] != theirs["kind"]:
            return [f"kind of unit space {theirs['kind']!r} instead of {mine['kind']!r}"]
        mine, theirs = (_flat(content) for content in (mine, theirs))
        return [
            f"{key} = {theirs.get(key, 'absent')} instead of {mine.get(key, 'absent')}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]


@dataclass(frozen=True)
class StructuredSpace(UnitSpace):
    """Heads ``[L, H]``, feed-forward blocks ``[L]`` and, where ``neurons`` is not 0, their neurons ``[L, F]``.

    Costs are those of the published system (Super Tickets, Liang et al. 2021): weight matrices only, no biases, and
    relative to *all* parameters of the encoder with its embeddings, pooler and a classifier. Neurons are an addition.
    """

    kind: ClassVar[str] = "structured"

    layers: int
    heads: int
    head_cost: int
    """Parameters of one head: its slices of Q, K, V and the attention output, 4·d·d_h."""
    ffn_cost: int
    """Parameters of one feed-forward block, 2·d·d_ff."""
    total: int
    neurons: int = 0
    """Neurons of a feed-forward block that are units of their own; 0 where only whole blocks are units."""

    def __post_init__(self) -> None:
        problems = [
            Problem("must be a whole number of at least " + str(least), place=name, found=getattr(self, name))
            for name, least in (("layers", 1), ("heads", 1), ("head_cost", 1), ("ffn_cost", 1), ("neurons", 0))
            if type(getattr(self, name)) is not int or getattr(self, name) < least
        ]
        if not problems and self.neurons and self.ffn_cost % self.neurons:
            problems.append(Problem(f"must divide ffn_cost = {self.ffn_cost}", place="neurons", found=self.neurons))
        if not problems:
            prunable = self.layers * (self.heads * self.head_cost + self.ffn_cost)
            if type(self.total) is not int or self.total < prunable:
                problems.append(Problem(f"must be at least {prunable}, what all units cost", "", "total", self.total))
        if problems:
            raise TicketError(problems)

    @classmethod
    def of(
        cls, *, layers: int, heads: int, hidden: int, intermediate: int, total: int, neurons: bool = False
    ) -> StructuredSpace:
        """The space of an encoder of width ``hidden`` (d) with feed-forward blocks of ``intermediate`` (d_ff)."""
        return cls(
            layers=layers,
            heads=heads,
            head_cost=4 * hidden * (hidden // heads),
            ffn_cost=2 * hidden * intermediate,
            total=total,
            neurons=intermediate if neurons else 0,
        )

    @property
    def neuron_cost(self) -> int:
        """Parameters of one neuron, 2·d; 0 in a space without neurons."""
        return self.ffn_cost // self.neurons if self.neurons else 0

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"heads": (self.layers, self.heads), "ffn": (self.layers,)}
        if self.neurons:
            shapes["neurons"] = (self.layers, self.neurons)
        return shapes

    @property
    def pools(self) -> dict[str, tuple[str, ...]]:
        return {part: (part,) for part in self.parts}

    def rows(self, part: str) -> int:
        return 1 if part == "ffn" else self.layers

    def kept_parameters(self, units: Units) -> int:
        dropped = int((~units["heads"]).sum()) * self.head_cost + int((~units["ffn"]).sum()) * self.ffn_cost
        if self.neurons:
            # the neurons of a dropped block are gone with the block: count them once
            dropped += int((~units["neurons"])[units["ffn"]].sum()) * self.neuron_cost
        return self.total - dropped

    def describe(self) -> str:
        neurons = f" of {self.neurons:,} neurons" if self.neurons else ""
        return (
            f"{self.layers} layers with {self.heads} heads and 1 feed-forward block{neurons} each; "
            f"{self.total:,} parameters"
        )

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, eq=False)
class WeightSpace(UnitSpace):
    """Single weights: the matrices that may be pruned, name -> shape. 100 % is the sum of their sizes.

    Which matrices belong is the system's choice (embeddings, pooler and classifier differ, see the recipes).
    """

    kind: ClassVar[str] = "weights"

    matrices: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        if not isinstance(self.matrices, Mapping) or not self.matrices:
            raise TicketError(Problem("must name at least one matrix", place="matrices", found=self.matrices))
        problems = [
            Problem("a shape must be whole numbers of at least 1", place=f"matrices.{name}", found=shape)
            for name, shape in self.matrices.items()
            if not isinstance(shape, list | tuple) or not shape or any(type(n) is not int or n < 1 for n in shape)
        ]
        if problems:
            raise TicketError(problems)
        # one order for equal spaces, whatever order the model listed them in: ties and digests depend on it
        ordered = {name: tuple(self.matrices[name]) for name in sorted(self.matrices, key=_natural)}
        object.__setattr__(self, "matrices", MappingProxyType(ordered))

    @property
    def total(self) -> int:  # type: ignore[override]
        return sum(self.sizes.values())

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        return dict(self.matrices)

    @property
    def pools(self) -> dict[str, tuple[str, ...]]:
        return {"weights": tuple(self.matrices)}

    def rows(self, part: str) -> int:
        return 1

    def kept_parameters(self, units: Units) -> int:
        return sum(int(units[name].sum()) for name in self.matrices)

    def describe(self) -> str:
        return f"{self.total:,} weights in {len(self.matrices)} matrices"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "matrices": {name: list(shape) for name, shape in self.matrices.items()}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightSpace) and dict(self.matrices) == dict(other.matrices)

    def __hash__(self) -> int:
        return hash(tuple(self.matrices.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightSpace, (dict(self.matrices),)  # a mappingproxy cannot be pickled


_KINDS: dict[Any, type[UnitSpace]] = {space.kind: space for space in (StructuredSpace, WeightSpace)}


def require_equal(mine: UnitSpace, other: UnitSpace, what: str, file: str = "") -> None:
    """Raises :class:`TicketError` naming every difference unless the two spaces are equal."""
    if mine != other:
        rule = f"{what} must have the same unit space"
        raise TicketError(Problem(f"{rule}: {difference}", file) for difference in mine.differences(other))


class Spaced(Protocol):
    """Tickets and scores."""

    @property
    def space(self) -> UnitSpace: ...


def common_space(values: Mapping[str, Spaced], what: str) -> UnitSpace:
    """The one unit space of the tasks' values; :class:`TicketError` where there are none, or several spaces."""
    if not values:
        raise TicketError(Problem(f"needs the {what} of at least one task"))
    first, *others = values
    for other in others:
        require_equal(values[first].space, values[other].space, f"the {what} of {first} and {other}")
    return values[first].space


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which ``layer.2`` stands before ``layer.10``."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]
