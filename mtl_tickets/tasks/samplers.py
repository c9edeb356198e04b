"""In which order the tasks' examples come within an epoch.

The samplers of the field (MT-DNN, T5, jiant) are rows of one operator: a weight per task. Draws follow an
exponential race: the items of task t arrive as a Poisson process of rate w_t, and the order of arrival is exactly
"draw the next task with probability w_t among the tasks that still have items".

Deviation from T5 and jiant: by default every index comes exactly once an epoch and the weights only shape the order.
``oversample: true`` gives the usual reading, in which weights also decide how often a task is seen: small tasks are
then repeated and large ones cut, each task walking through its own permutation pass by pass, at the same number of
examples an epoch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pydantic

from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings

SAMPLERS: Registry[type[Sampler]] = Registry("sampler", __name__)


class Sampler(Settings):
    """Base: ``weights(rows)`` gives each task's share of the draws. ``rows`` are training rows per task name."""

    kind: str
    oversample: bool = False

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        raise NotImplementedError

    def quotas(self, rows: dict[str, int]) -> dict[str, int]:
        """Examples of each task in one epoch; they add up to the number of all rows.

        Without ``oversample`` that is every row once; with it, shares go by weight (largest remainders round up) and
        no task gets less than one row, even where that makes the sum a little larger.
        """
        if not self.oversample:
            return dict(rows)
        total = sum(rows.values())
        weights = self.weights(rows)
        exact = weights / weights.sum() * total
        quotas = np.maximum(1, np.floor(exact).astype(int))
        order = np.argsort(-(exact - np.floor(exact)), kind="stable")
        for position in range(max(0, total - int(quotas.sum()))):
            quotas[order[position % len(order)]] += 1
        return dict(zip(rows, quotas.tolist(), strict=True))


@SAMPLERS.register("proportional")
class Proportional(Sampler):
    """By number of rows: every example is equally likely to come next (MT-DNN)."""

    kind: Literal["proportional"] = "proportional"

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        return np.array(list(rows.values()), dtype=np.float64)


@SAMPLERS.register("uniform")
class Uniform(Sampler):
    """Every task equally likely, whatever its size."""

    kind: Literal["uniform"] = "uniform"

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        return np.ones(len(rows))


@SAMPLERS.register("temperature")
class Temperature(Sampler):
    """By rows to the power 1/T (T5): T = 1 is proportional, T towards infinity uniform."""

    kind: Literal["temperature"] = "temperature"
    temperature: pydantic.PositiveFloat = 2.0

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        # relative to the largest task, so that a high power of many rows cannot overflow
        share = np.array(list(rows.values()), dtype=np.float64) / max(rows.values())
        return share ** (1.0 / self.temperature)


@SAMPLERS.register("sqrt")
class SquareRoot(Sampler):
    """By the square root of the number of rows (temperature 2)."""

    kind: Literal["sqrt"] = "sqrt"

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        return np.sqrt(np.array(list(rows.values()), dtype=np.float64))


@SAMPLERS.register("given")
class Given(Sampler):
    """By weights written in the experiment; a task that is not listed has weight 1."""

    kind: Literal["given"] = "given"
    given: dict[str, pydantic.PositiveFloat] = pydantic.Field({}, description="task -> weight")

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        return np.array([self.given.get(task, 1.0) for task in rows])


@SAMPLERS.register("quota")
class Quota(Sampler):
    """So many examples of each task in an epoch, whatever the number of its rows; tasks not listed: every row once.

    What is left of a pass over the rows comes in the next epoch: over all epochs no row is seen twice as often as
    another, give or take one.
    """

    kind: Literal["quota"] = "quota"
    oversample: Literal[True] = pydantic.Field(True, description="a quota is always one")
    quota: dict[str, pydantic.PositiveInt] = pydantic.Field({}, description="task -> examples an epoch")

    def weights(self, rows: dict[str, int]) -> np.ndarray:
        return np.array(list(self.quotas(rows).values()), dtype=np.float64)

    def quotas(self, rows: dict[str, int]) -> dict[str, int]:
        return {task: self.quota.get(task, number) for task, number in rows.items()}


AnySampler = Annotated[
    Proportional | Uniform | Temperature | SquareRoot | Given | Quota, pydantic.Discriminator("kind")
]


def interleave(counts: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The order in which items of several streams come: an array with stream i ``counts[i]`` times.

    Equal in distribution to drawing, again and again, stream i with probability ``weights[i]`` among those left.
    """
    arrivals = [np.cumsum(rng.exponential(size=int(n))) / w for n, w in zip(counts, weights, strict=True)]
    streams = np.repeat(np.arange(len(counts)), counts)
    return streams[np.argsort(np.concatenate(arrivals), kind="stable")]
