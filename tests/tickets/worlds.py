"""Unit spaces, seeded scores and gradients for the tests of this room."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_tickets.tickets.gradients import GradientOrigin, GradientProducts
from mtl_tickets.tickets.scores import ScoreOrigin, Scores
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket

# totals: all parameters incl. embeddings, pooler, biases and a 2-way classifier (METHODS 0.1)
BASE = StructuredSpace.of(layers=12, heads=12, hidden=768, intermediate=3072, total=109_483_778)
LARGE = StructuredSpace.of(layers=24, heads=16, hidden=1024, intermediate=4096, total=335_143_938)
SMALL = StructuredSpace.of(layers=3, heads=4, hidden=32, intermediate=64, total=60_000)
NEURONS = StructuredSpace.of(layers=3, heads=4, hidden=32, intermediate=24, total=60_000, neurons=True)
WEIGHTS = WeightSpace({"layer.10.q": (6, 5), "layer.2.q": (6, 5), "layer.2.out": (5, 11)})
SPACES = {"base": BASE, "large": LARGE, "small": SMALL, "neurons": NEURONS, "weights": WEIGHTS}


def scores_of(space: UnitSpace, seed: int, **about: object) -> Scores:
    """Scores whose layers differ in scale, as real ones do."""
    generator = np.random.default_rng(seed)
    values = {}
    for part, shape in space.parts.items():
        layer = generator.lognormal(0, 2, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
        values[part] = generator.random(shape) * layer
    return Scores(space, values, ScoreOrigin(**about))


def ticket_of(space: UnitSpace, seed: int, kept: float = 0.6) -> Ticket:
    generator = np.random.default_rng(seed)
    return Ticket(space, {part: generator.random(shape) < kept for part, shape in space.parts.items()})


def base_of(space: UnitSpace, seed: int, kept: float = 0.7) -> Ticket:
    """A random base; every layer keeps a head, where there are heads."""
    units = {part: values.copy() for part, values in ticket_of(space, seed, kept).units.items()}
    if "heads" in units:
        units["heads"][:, seed % units["heads"].shape[1]] = True
    return Ticket(space, units)


def distorted(scores: Scores, base: Ticket, seed: int = 0) -> Scores:
    """Scores that say the same of what the base keeps, and something wild of all else."""
    wild = np.random.default_rng(seed)
    values = {p: np.where(base.units[p], v, wild.normal(0, 1e6, v.shape)) for p, v in scores.values.items()}
    return Scores(scores.space, values, scores.about)


def halves_of(space: UnitSpace, seed: int, numbers: int = 5, noise: float = 0.1) -> list[dict[str, np.ndarray]]:
    """Two vectors of ``numbers`` for every unit that differ by ``noise``, as the halves of a task's rows do."""
    generator = np.random.default_rng(seed)
    common = {part: generator.normal(size=(*shape, numbers)) for part, shape in space.parts.items()}
    return [
        {part: values + noise * generator.normal(size=values.shape) for part, values in common.items()}
        for _ in range(2)
    ]


def products_of(
    space: StructuredSpace, halves: Mapping[str, Sequence[Mapping[str, np.ndarray]]], **about: Any
) -> GradientProducts:
    """The products of explicit gradients: task -> its two halves."""
    tasks = tuple(sorted(halves))
    values = {}
    for part in space.parts:
        vectors = np.array([[half[part] for half in halves[task]] for task in tasks])  # [tasks, 2, *part, numbers]
        values[part] = np.einsum("ti...n,uj...n->...tiuj", vectors, vectors)
        values[part] = (values[part] + np.moveaxis(values[part], (-2, -1), (-4, -3))) / 2
    return GradientProducts(space, tasks, values, GradientOrigin(**about))


def against(halves: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    return [{part: -values for part, values in half.items()} for half in halves]
