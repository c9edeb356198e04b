"""Gradients of tasks beside each other, as inner products: all that cosines need, and none of the gradients.

Of every task two gradients are known, those of its mean loss over the even and over the odd ones of some rows: its
*halves*. The task's gradient is their mean. A direction that two halves of one task do not share is noise, and a cosine
between tasks cannot be told from 0 then; so :func:`opposed` asks for more than a negative cosine.

Plain lists and dicts where results are for JSON, tables and plots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydantic.dataclasses

from mtl_tickets.errors import Problem, TicketError, nearest, problems_of
from mtl_tickets.tickets import storage
from mtl_tickets.tickets.origin import STRICT, Origin, read_origin
from mtl_tickets.tickets.overlap import by_layer
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, require_equal
from mtl_tickets.tickets.ticket import checked_arrays

FORMAT = "mtl_tickets.gradients"
# every weight once: neurons are made of the weights of their blocks
WHOLE = ("heads", "ffn")
# what sums of floating-point numbers may be off by, of the product of two lengths
ROUNDING = 1e-6


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class GradientOrigin(Origin):
    """Where gradients come from."""

    rows: dict[str, int] | None = None
    """task -> training rows that its two halves have together."""


@dataclass(frozen=True, eq=False)
class GradientProducts:
    """For every unit the inner products of the tasks' mean loss gradients with respect to the unit's own weights.

    ``values``: part -> float64 ``[*part, tasks, 2, tasks, 2]``; entry ``[..., t, i, u, j]`` is the product of half i of
    ``tasks[t]`` with half j of ``tasks[u]``. ``tasks`` are in the order of their names, so that equal products are
    equal arrays. Construction copies, makes read-only and refuses (:class:`TicketError`, with all problems) another
    kind of space, tasks out of order, missing or unknown parts, wrong shapes, NaN or infinity, and numbers that are
    inner products of no vectors: unsymmetric, with negative squares, or larger than the lengths allow.
    """

    space: StructuredSpace
    tasks: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    about: GradientOrigin = field(default_factory=GradientOrigin)

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.space, StructuredSpace):
            rule = "gradients are of the units of a structured space"
            problems.append(Problem(rule, place="space", found=self.space.describe()))
        if (
            not isinstance(self.tasks, list | tuple)
            or not self.tasks
            or any(not isinstance(task, str) or not task for task in self.tasks)
            or list(self.tasks) != sorted(set(self.tasks))
        ):
            problems.append(Problem("must be names in their order, each once", place="tasks", found=self.tasks))
        if not problems:
            further = (len(self.tasks), 2) * 2
            try:
                values = checked_arrays(self.space, self.values, "gradient products", np.float64, further)
            except TicketError as error:
                problems += error.problems
            else:
                problems += [problem for part, array in values.items() for problem in _no_products(part, array)]
        if problems:
            raise TicketError(problems)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "values", values)

    def of_pair(self, one: str, two: str) -> dict[str, np.ndarray]:
        """part -> ``[*part, 2, 2, 2, 2]``: the products of these two alone, which may be one task twice."""
        self.require([one, two])
        places = np.array([self.tasks.index(one), self.tasks.index(two)])
        return {part: array[..., places, :, :, :][..., places, :] for part, array in self.values.items()}

    def require(self, tasks: Iterable[str], space: UnitSpace | None = None) -> None:
        """Raises :class:`TicketError` with every one of ``tasks`` that is not there, and for another ``space``."""
        problems = [
            Problem("needs the gradients of every task", place=task, hint=nearest(task, self.tasks))
            for task in tasks
            if task not in self.tasks
        ]
        if problems:
            raise TicketError(problems)
        if space is not None:
            require_equal(space, self.space, "the gradients and what they stand beside")

    def save(self, path: str | Path) -> Path:
        """Writes ``path`` (``.safetensors`` is added where absent) and a JSON twin with cosines; gives the path."""
        agreement = gradient_agreement(self)
        twin = {
            "tasks": self.tasks,
            "cosine": {one: {two: agreement[one][two]["cosine"] for two in self.tasks} for one in self.tasks},
            "halves": {task: found["cosine"] for task, found in half_agreement(self).items()},
        }
        also = {"tasks": self.tasks}
        return storage.write(path, FORMAT, self.space, self.about.to_json(), self.values, twin, also)

    @classmethod
    def load(cls, path: str | Path, space: UnitSpace | None = None, weight_hash: str | None = None) -> GradientProducts:
        """The products in a file written by :meth:`save`; checks and errors as in ``Ticket.load``."""
        stored = storage.read(path, FORMAT, also=["tasks"])
        for part, array in stored.arrays.items():
            if array.dtype != np.float64:
                raise TicketError(Problem("must be float64", str(stored.file), part, str(array.dtype)))
        stored.verify()
        stored.require(space, weight_hash)
        with problems_of(str(stored.file)):
            # anything else than a structured space is refused there
            return cls(stored.space, stored.also["tasks"], stored.arrays, read_origin(stored, GradientOrigin))  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        return GradientProducts, (self.space, self.tasks, dict(self.values), self.about)  # no mappingproxy is pickled


def gradient_agreement(products: GradientProducts) -> dict[str, dict[str, dict[str, Any]]]:
    """task -> task -> the cosine of their gradients, -1 to 1::

        {"cosine": over all units, "parts": {part: {"cosine": over the part, "layers": [of each layer, ...]}}}

    ``cosine`` is that of the weights of all heads and blocks laid end to end, so that large parts and large gradients
    decide. A gradient of all zeros has no direction: 0, with itself too.
    """
    return {
        one: {two: _agreement(products.space, products.of_pair(one, two), _cosine_of_means) for two in products.tasks}
        for one in products.tasks
    }


def half_agreement(products: GradientProducts) -> dict[str, dict[str, Any]]:
    """task -> the cosine of its own two halves, in the form of :func:`gradient_agreement`. Near 1: the direction is the
    task's; near 0: it is that of the rows that happened to be drawn."""
    return {
        task: _agreement(products.space, products.of_pair(task, task), lambda gram: _cosines(gram)[..., 0, 0, 0, 1])
        for task in products.tasks
    }


def unit_cosines(products: GradientProducts, one: str, two: str) -> dict[str, np.ndarray]:
    """part -> float64 array of its shape: the cosine of the two tasks' gradients of each unit, -1 to 1."""
    return {part: _cosine_of_means(gram) for part, gram in products.of_pair(one, two).items()}


def opposed(products: GradientProducts, one: str, two: str, below: float = 0.0) -> bool:
    """Whether the gradients of two tasks over all units oppose, by more than one draw of rows. All of this must hold:

    * their cosine is less than ``below``;
    * so is the cosine of each half of the one with each half of the other;
    * the two halves of each task agree (their cosine is above 0).

    A heuristic, not a test: it has no error rate.
    """
    return bool(_opposed(_whole(products.of_pair(one, two)), below))


def opposed_units(products: GradientProducts, one: str, two: str, below: float = 0.0) -> dict[str, np.ndarray]:
    """part -> boolean array of its shape: :func:`opposed`, unit by unit."""
    return {part: _opposed(gram, below) for part, gram in products.of_pair(one, two).items()}


def balance(tasks: int) -> float:
    """The cosine that two of so many equally long gradients have on average if they add up to zero, -1 / (tasks - 1):
    at the end of a training on all tasks, gradients oppose so far because they balance and not because tasks clash. 0
    for one task."""
    return -1 / (tasks - 1) if tasks > 1 else 0.0


# Below, a ``gram`` is ``[..., tasks, 2, tasks, 2]`` of a few tasks. Sums of grams over units are grams.


def _agreement(
    space: UnitSpace, grams: Mapping[str, np.ndarray], cosine: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    parts = {}
    for part, gram in grams.items():
        units = space.sizes[part]
        rows = by_layer(space, np.arange(units))
        layers = gram.reshape(units, *gram.shape[-4:])[rows].sum(1)
        parts[part] = {"cosine": float(cosine(layers.sum(0))), "layers": cosine(layers).tolist()}
    return {"cosine": float(cosine(_whole(grams))), "parts": parts}


def _whole(grams: Mapping[str, np.ndarray]) -> np.ndarray:
    return sum((grams[part].reshape(-1, *grams[part].shape[-4:]).sum(0) for part in WHOLE), np.zeros(()))


def _lengths(gram: np.ndarray) -> np.ndarray:
    """[..., tasks, 2]"""
    return np.sqrt(np.maximum(np.einsum("...titi->...ti", gram), 0.0))


def _cosines(gram: np.ndarray) -> np.ndarray:
    """The cosine of every half with every other, of the shape of ``gram``."""
    length = _lengths(gram)
    return _over(gram, length[..., :, :, None, None], length[..., None, None, :, :])


def _cosine_of_means(gram: np.ndarray) -> np.ndarray:
    """[...]: of the gradients of the first and the second task."""
    means = gram.mean((-3, -1))
    length = np.sqrt(np.maximum(np.einsum("...tt->...t", means), 0.0))
    return _over(means[..., 0, 1], length[..., 0], length[..., 1])


def _over(product: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    lengths = one * two
    return np.clip(np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0), -1, 1)


def _opposed(gram: np.ndarray, below: float) -> np.ndarray:
    cosines = _cosines(gram)
    own = (cosines[..., 0, 0, 0, 1] > 0) & (cosines[..., 1, 0, 1, 1] > 0)
    return np.asarray(own & (_cosine_of_means(gram) < below) & (cosines[..., 0, :, 1, :] < below).all((-2, -1)))


def _no_products(part: str, array: np.ndarray) -> Iterable[Problem]:
    """Why these are inner products of no vectors."""
    if not np.array_equal(array, np.moveaxis(array, (-2, -1), (-4, -3))):
        yield Problem("must be symmetric: the product of two halves is that of the two exchanged", place=part)
    if (np.einsum("...titi->...ti", array) < 0).any():
        yield Problem("must have no negative squares", place=part)
        return
    length = _lengths(array)
    most = length[..., :, :, None, None] * length[..., None, None, :, :]
    if (np.abs(array) > most * (1 + ROUNDING)).any():
        yield Problem("must have no product larger than that of the two lengths", place=part)
