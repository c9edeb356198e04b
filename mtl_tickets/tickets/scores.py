"""Scores: one real number per unit for one task. High is important."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses

from mtl_tickets.errors import Problem, TicketError, problems_of
from mtl_tickets.tickets import storage
from mtl_tickets.tickets.origin import STRICT, Origin, read_origin
from mtl_tickets.tickets.space import UnitSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket, checked_arrays

FORMAT = "mtl_tickets.scores"
_FLIPPED: dict[Any, Any] = {"winning": "losing", "losing": "winning", "random": "random"}


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreOrigin(Origin):
    """Where scores come from."""

    kind: Literal["winning", "random", "losing"] = "winning"
    """What a draw on these scores is: the winning tickets, or one of the controls."""
    rows: int | None = None
    """Training rows the scores were computed on."""
    agreement: float | None = None
    """Rank agreement between the scores of two halves of the rows, -1 to 1: how far the ranking can be trusted."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The importance of every unit for one task: for each part of ``space`` a float64 array of its shape.

    Construction copies, makes read-only and refuses (:class:`TicketError`) missing or unknown parts, wrong shapes,
    and NaN or infinity: an unusable score has no rank.
    """

    space: UnitSpace
    values: Mapping[str, np.ndarray]
    about: ScoreOrigin = field(default_factory=ScoreOrigin)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", checked_arrays(self.space, self.values, "scores", np.float64))

    @classmethod
    def random(cls, space: UnitSpace, seed: int) -> Scores:
        """Independent uniform scores: a draw on them is the random control of the same budget and protection."""
        generator = np.random.default_rng(seed)
        values = {part: generator.random(shape) for part, shape in space.parts.items()}
        return cls(space, values, ScoreOrigin(score="random", kind="random", seed=seed))

    def reversed(self) -> Scores:
        """Every score negated: a draw on them is the losing control, which drops the best and protects the worst."""
        values = {part: -value for part, value in self.values.items()}
        return Scores(self.space, values, replace(self.about, kind=_FLIPPED[self.about.kind]))

    def normalised(self, over: Literal["layer", "pool"] = "layer") -> Scores:
        """Scores divided by an L2 norm (+ 1e-20, as published).

        ``layer``: heads by the norm over the heads of their layer, every other part by its own norm. That is Super
        Tickets (Liang et al. 2021); for all parts but the heads it changes no order within the part. ``pool``: by
        one norm for all units ranked together, which changes no order at all.

        Random scores are returned as they are: their layers differ by chance alone, and dividing by that chance
        would make the control less uniform.
        """
        if self.about.kind == "random":
            return self
        values = {}
        for parts in self.space.pools.values():
            pool = np.sqrt(sum(float(np.sum(self.values[part] ** 2)) for part in parts))
            for part in parts:
                value = self.values[part]
                layer = np.sqrt(np.sum(value**2, axis=-1 if part == "heads" else None, keepdims=True))
                values[part] = value / ((layer if over == "layer" else pool) + 1e-20)
        return Scores(self.space, values, self.about)

    def inside(self, base: Ticket) -> Scores:
        """The same scores, and 0 for every unit that ``base`` drops: it then counts in no norm."""
        require_equal(self.space, base.space, "scores and the base they are taken inside")
        values = {part: np.where(base.units[part], value, 0.0) for part, value in self.values.items()}
        return Scores(self.space, values, self.about)

    def rank_agreement(self, other: Scores, within: Ticket | None = None) -> float:
        """Spearman's correlation with ``other`` over the units, or over those that ``within`` keeps, -1 to 1.

        Computed for each part and averaged with the parts' sizes as weights. Parts of fewer than 3 units, on which
        any two rankings agree or disagree by chance, are left out; a part whose scores are all equal ranks nothing
        and counts as 0. With no part left: 0.
        """
        require_equal(self.space, other.space, "two scores")
        mine, theirs = self.values, other.values
        if within is not None:
            mine, theirs = ({p: v[within.units[p]] for p, v in values.items()} for values in (mine, theirs))
        sizes = {part: values.size for part, values in mine.items() if values.size >= 3}
        if not sizes:
            return 0.0
        total = sum(size * _spearman(mine[part], theirs[part]) for part, size in sizes.items())
        return total / sum(sizes.values())

    def where(self, **changes: Any) -> Scores:
        """The same scores with some fields of their origin changed."""
        return Scores(self.space, self.values, replace(self.about, **changes))

    def save(self, path: str | Path) -> Path:
        """Writes ``path`` (``.safetensors`` is added where absent) and a JSON twin with rounded values; gives the path.

        The twin holds the values only where a person could read them: not for spaces of more than 10,000 units.
        """
        readable = sum(self.space.sizes.values()) <= 10_000
        shown = {part: [_row(row) for row in np.atleast_2d(value)] for part, value in self.values.items()}
        twin = {"values": shown} if readable else {}
        return storage.write(path, FORMAT, self.space, self.about.to_json(), self.values, twin)

    @classmethod
    def load(cls, path: str | Path, space: UnitSpace | None = None, weight_hash: str | None = None) -> Scores:
        """The scores in a file written by :meth:`save`; checks and errors as in ``Ticket.load``."""
        stored = storage.read(path, FORMAT)
        for part, array in stored.arrays.items():
            if array.dtype != np.float64:
                raise TicketError(Problem("must be float64", str(stored.file), part, str(array.dtype)))
        stored.verify()
        stored.require(space, weight_hash)
        with problems_of(str(stored.file)):
            return cls(stored.space, stored.arrays, read_origin(stored, ScoreOrigin))

    def __reduce__(self) -> tuple[Any, ...]:
        return Scores, (self.space, dict(self.values), self.about)  # a mappingproxy cannot be pickled


def _spearman(one: np.ndarray, two: np.ndarray) -> float:
    x, y = (centred_ranks(values.ravel()) for values in (one, two))
    spread = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.clip(np.sum(x * y) / spread, -1, 1)) if spread else 0.0


def centred_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (equal values share their mean rank) minus the mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean of the 1-based ranks each distinct value takes
    return ranks[inverse] - (len(values) + 1) / 2


def _row(values: np.ndarray) -> str:
    return " ".join(f"{value:.4g}" for value in values.ravel())
