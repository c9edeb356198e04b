"""``kind: playground``: the rows of a generated task as a source of the task's YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pydantic

from mtl_tickets.settings import named
from mtl_tickets.tasks.playground.generate import SPLITS, generate
from mtl_tickets.tasks.playground.suite import SUITE
from mtl_tickets.tasks.sources.base import SOURCES, DataSettings, Findings, Source, Table


@SOURCES.register("playground")
class PlaygroundSource(Source):
    """A task of the embedded suite, generated when it is read: no network, no files."""

    kind: Literal["playground"]
    task: str = pydantic.Field(description="name of the generated task")
    seed: pydantic.NonNegativeInt = pydantic.Field(0, description="another seed gives other rows of the same task")
    scale: pydantic.PositiveFloat = pydantic.Field(1.0, description="multiplies the size of the training split")

    @pydantic.field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        return named(value, list(SUITE), "playground task")

    @property
    def split_names(self) -> list[str]:
        return list(SPLITS)

    def tables(self, split: str, labelled: bool, data: DataSettings, findings: Findings) -> Iterator[Table]:
        rows = generate(self.task, self.seed, self.scale)[split]
        names = SUITE[self.task].labels
        yield Table(
            file=f"playground/{self.task}",
            texts=list(zip(*(texts for texts, _ in rows), strict=True)),
            labels=[names[int(label)] if names else label for _, label in rows] if labelled else None,
            places=range(1, len(rows) + 1),
            unit="row",
        )
