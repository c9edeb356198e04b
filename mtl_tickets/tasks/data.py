"""A task's data as an experiment uses it: caps, the selection split, raw and encoded rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.files import digest, numbers_digest
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.encode import EncodedTask, cache_key, encode, joined
from mtl_tickets.tasks.sources import DataSettings, Rows, read_rows
from mtl_tickets.tasks.spec import TaskSpec

# which rows a cap or a selection split takes is the same in every run, so that seeds differ in training alone
SPLIT_SEED = 20210612


class LimitSettings(Settings):
    """Caps on rows, for small machines. None: all rows. Scores under a cap are not comparable with published ones."""

    train: pydantic.PositiveInt | None = None
    dev: pydantic.PositiveInt | None = None


class SelectionSettings(Settings):
    """Where rungs are chosen: on rows held out of train, or (as published) on the dev set that is reported."""

    dev: bool = pydantic.Field(False, description="choose on dev, as published; the record says so")
    share: float = pydantic.Field(0.1, gt=0, lt=1, description="share of the training rows that is held out")
    most: pydantic.PositiveInt = pydantic.Field(2000, description="hold out no more rows than this")


class TaskData:
    """Reads a task once, when first asked.

    ``train`` and ``selection`` are disjoint parts of the (capped) training rows; with ``selection.dev`` all rows train
    and ``selection`` is the first dev split. ``dev`` holds every labelled evaluation split by name.
    """

    def __init__(
        self,
        spec: TaskSpec,
        data: DataSettings,
        limit: LimitSettings,
        selection: SelectionSettings,
        tokenizer: Any,
        max_length: int,
        cache: Path,
        drop_long: bool = False,
    ):
        self.spec = spec
        self._data, self._limit, self._selection = data, limit, selection
        self._tokenizer, self._max_length, self._cache = tokenizer, spec.max_length or max_length, cache
        self._drop_long = drop_long
        self._encoded: dict[str, EncodedTask] = {}
        self._raw: dict[str, Rows] = {}
        self._added: list[_Added] = []

    def add_training_rows(self, other: TaskData, split: str, label_ids: np.ndarray, times: int = 1) -> None:
        """Puts the rows of another task's split, capped as training rows are, behind this one's own, each so many
        times: its label i is ``label_ids[i]`` here. None of them is held out. Before anything is read."""
        if "train" in vars(self) or "train_key" in vars(self):
            raise ValueError("training rows are added before they are read")
        self._added.append(_Added(other, split, label_ids, times))

    @cached_property
    def train(self) -> EncodedTask:
        rows = self._split("train").select(self._parts[0])
        for added in self._added:
            more = added.encoded
            assert more.labels is not None
            for _ in range(added.times):
                rows = joined(rows, more, added.label_ids[more.labels])
        return rows

    @cached_property
    def selection(self) -> EncodedTask:
        if self._selection.dev:
            return self.dev[self.spec.dev_splits[0]]
        return self._split("train").select(self._parts[1])

    @cached_property
    def dev(self) -> dict[str, EncodedTask]:
        return {
            split: self._split(split).select(_capped(len(self._split(split)), self._limit.dev))
            for split in self.spec.dev_splits
        }

    @cached_property
    def texts(self) -> int:
        """2 where rows are pairs, else 1."""
        return len(self._rows(self.spec.dev_splits[0]).texts)

    @cached_property
    def train_key(self) -> str:
        """Stands for all encoded training rows, caps and selection split included."""
        return digest([self.own_train_key, *(key for _, _, key in self.added_keys)])

    @cached_property
    def own_train_key(self) -> str:
        """The same of those that are not added."""
        longer = self._longer("train")
        content = cache_key(self.spec, self._rows("train"), self._tokenizer, self._max_length, longer)
        return digest([content, numbers_digest(self._parts[0])])

    @property
    def added_keys(self) -> list[tuple[str, str, str]]:
        """The same of those that are: (task, file, key) of each set of rows."""
        return [(added.other.spec.name, added.rows.file, added.key) for added in self._added]

    @cached_property
    def selection_key(self) -> str:
        """Stands for the rows of the selection split, beside :attr:`train_key`."""
        return numbers_digest(self.selection.rows)

    def dev_key(self, split: str) -> str:
        """Stands for the encoded rows of a dev split, its cap included."""
        return cache_key(self.spec, self.raw(split), self._tokenizer, self._max_length, "truncate")

    def read(self, train: bool = True) -> None:
        """Reads and encodes everything now, so that bad data is refused before anything is trained."""
        parts = [*self.dev.values(), *([self.train, self.selection] if train else [])]
        if not all(len(part) for part in parts):
            raise DataError(Problem("every split must have rows", file=self.spec.name))

    def raw(self, split: str) -> Rows:
        """The rows behind ``train`` or a dev split, as text."""
        rows = self._rows(split)
        if split == "train":  # long rows may be missing among the encoded ones
            found = rows.select(self._split("train").rows[self._parts[0]])
            for added in self._added:
                for _ in range(added.times):
                    found = found.followed_by(added.rows.select(added.encoded.rows), added.label_ids)
            return found
        return rows.select(_capped(len(rows), self._limit.dev))

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        capped = _capped(len(self._split("train")), self._limit.train)
        if self._selection.dev:
            return capped, capped[:0]
        held = max(1, min(round(len(capped) * self._selection.share), self._selection.most))
        if held >= len(capped):
            raise DataError(
                Problem("must have at least two training rows", file=self.spec.name, place="train", found=len(capped))
            )
        order = np.random.default_rng(SPLIT_SEED).permutation(len(capped))
        return capped[np.sort(order[held:])], capped[np.sort(order[:held])]

    def _split(self, split: str) -> EncodedTask:
        if split not in self._encoded:
            rows, longer = self._rows(split), self._longer(split)
            self._encoded[split] = encode(
                self.spec, split, rows, self._tokenizer, self._max_length, self._cache, longer=longer
            )
        return self._encoded[split]

    def _longer(self, split: str) -> Literal["truncate", "drop"]:
        return "drop" if self._drop_long and split == "train" else "truncate"

    def _rows(self, split: str) -> Rows:
        if split not in self._raw:
            self._raw[split] = read_rows(self.spec, split, self._data)
        return self._raw[split]


@dataclass(frozen=True)
class _Added:
    """Rows of another task, as they are added."""

    other: TaskData
    split: str
    label_ids: np.ndarray
    times: int

    @property
    def rows(self) -> Rows:
        return self.other._rows(self.split)

    @property
    def encoded(self) -> EncodedTask:
        encoded = self.other._split(self.split)
        return encoded.select(_capped(len(encoded), self.other._limit.train))

    @property
    def key(self) -> str:
        other = self.other
        content = cache_key(other.spec, self.rows, other._tokenizer, other._max_length, other._longer(self.split))
        return digest([content, other._limit.train, self.label_ids.tolist(), self.times])


def _capped(rows: int, limit: int | None) -> np.ndarray:
    """The rows a cap keeps, in file order."""
    if limit is None or rows <= limit:
        return np.arange(rows)
    return np.sort(np.random.default_rng(SPLIT_SEED).permutation(rows)[:limit])
