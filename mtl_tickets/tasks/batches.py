"""Examples of several tasks -> padded batches, with every index exactly once an epoch.

A plan is a pure function of (settings, seed, epoch): stopping and resuming needs only the number of batches already
taken. Two regimes behind one switch: ``one_task`` (as published: every batch belongs to one task) and ``mixed``
(examples of several tasks in one padded tensor). Rows of a batch are sorted by task, so that per-task heads work on
slices; :class:`Batch` says which rows are whose.

Lengths are bucketed inside shuffled mega-batches: sorting all examples by length would tie the order of training to
length, sorting none pads to the longest of a random batch. A batch is padded to an edge of a short list, so that a
compiled model sees few shapes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydantic
import torch

from mtl_tickets.settings import Settings
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tasks.samplers import AnySampler, Proportional, interleave

# up to 64 every eighth, then steps of at most a quarter: 12 shapes up to 128 tokens, in which 12 % of a GLUE batch is
# padding (5 % if every length were a shape)
EDGES = (*range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, 513, 64))


class BatchSettings(Settings):
    """How examples become batches."""

    regime: Literal["one_task", "mixed"] = pydantic.Field("mixed", description="tasks in one batch: one, or several")
    size: pydantic.PositiveInt = pydantic.Field(32, description="rows in a batch")
    tokens: pydantic.PositiveInt | None = pydantic.Field(
        None, description="tokens in a batch, padding included; replaces size"
    )
    buckets: bool = pydantic.Field(True, description="put examples of like length together")
    edges: tuple[pydantic.PositiveInt, ...] = pydantic.Field(EDGES, description="lengths that batches are padded to")
    mega_batch: pydantic.PositiveInt = pydantic.Field(50, description="batches that are sorted by length together")
    sampler: AnySampler = Proportional()
    fixed: bool = pydantic.Field(
        False, description="published defect: consecutive slices of the file, the same in every epoch"
    )

    @pydantic.field_validator("edges")
    @classmethod
    def _ascending(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if not edges or list(edges) != sorted(set(edges)):
            raise ValueError("must be ascending lengths, each once")
        return edges

    @pydantic.model_validator(mode="after")
    def _fixed_is_one_task(self) -> BatchSettings:
        if self.fixed and (self.regime != "one_task" or self.tokens is not None):
            raise ValueError("fixed batches are slices of one task's file: set regime: one_task and no tokens")
        return self


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that belong to one task: ``indices`` into that task's examples."""

    task: int
    indices: np.ndarray


Plan = list[list[Rows]]


@dataclass
class Batch:
    """One padded batch. B rows, S tokens.

    ``input_ids``, ``attention_mask``, ``token_type_ids``: int64 [B, S]. ``segments``: (task, start, stop), rows sorted
    by task. ``labels``: one tensor a segment, int64 or float32 [stop - start], or None where unlabelled. ``indices``:
    int64 [B], each row's index in its task. ``count``: what the summed loss is divided by; under several processes it
    counts the rows of all of them. ``tokens``: how many are no padding. ``weight`` is 0 for the stand-in row of a
    process that has no row of this batch.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor
    segments: list[tuple[int, int, int]]
    labels: list[torch.Tensor | None]
    indices: np.ndarray
    count: int
    tokens: int
    weight: float = 1.0

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        return dataclasses.replace(
            self,
            input_ids=moved_to(device, self.input_ids),
            attention_mask=moved_to(device, self.attention_mask),
            token_type_ids=moved_to(device, self.token_type_ids),
            labels=[None if label is None else moved_to(device, label) for label in self.labels],
        )

    def halves(self) -> tuple[Batch, Batch] | None:
        """Its rows in two batches of the same ``count``, whose losses add up to its own; None of a single row."""
        rows = len(self.input_ids)
        return None if rows < 2 else (self._part(0, rows // 2), self._part(rows // 2, rows))

    def _part(self, first: int, last: int) -> Batch:
        segments, labels = [], []
        for (task, start, stop), label in zip(self.segments, self.labels, strict=True):
            inside = max(start, first), min(stop, last)
            if inside[0] < inside[1]:
                segments.append((task, inside[0] - first, inside[1] - first))
                labels.append(None if label is None else label[inside[0] - start : inside[1] - start])
        here = slice(first, last)
        mask = self.attention_mask[here]
        return dataclasses.replace(
            self,
            input_ids=self.input_ids[here],
            attention_mask=mask,
            token_type_ids=self.token_type_ids[here],
            segments=segments,
            labels=labels,
            indices=self.indices[here],
            tokens=int(mask.sum()),
        )


def moved_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """A copy on ``device``, made while the work before it goes on where that is safe."""
    if tensor.device.type == device.type:
        return tensor
    if device.type != "cuda":  # elsewhere memory cannot be pinned, and a copy must be whole before it is used
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class TaskBatches:
    """Training batches over several tasks.

    ``tasks``: name -> encoded training examples, in the order of the model's tasks (position = task index; a name may
    be missing by giving ``index``). ``share``: (rank, processes), of which each takes its part of every global batch:
    with ``one_task`` all processes train the same task in the same step.
    """

    def __init__(
        self,
        tasks: dict[str, EncodedTask],
        settings: BatchSettings,
        seed: int,
        pad_id: int,
        index: dict[str, int] | None = None,
        share: tuple[int, int] = (0, 1),
    ):
        self.names = list(tasks)
        self.tasks = list(tasks.values())
        self.settings = settings
        self.seed = seed
        self.pad_id = pad_id
        self.index = [index[name] if index else i for i, name in enumerate(tasks)]
        self.rank, self.world = share
        self._planned: tuple[int, Plan] | None = None

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, before they are split over processes."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._make_plan(epoch))
        return self._planned[1]

    def batches_in(self, epoch: int) -> int:
        return len(self.plan(epoch))

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on."""
        for rows in self.plan(epoch)[start:]:
            yield self.batch(rows)

    def batch(self, rows: list[Rows]) -> Batch:
        count = sum(len(r.indices) for r in rows)
        share = _share(rows, self.rank, self.world) if self.world > 1 else rows
        batch = collate(
            share or [Rows(rows[0].task, rows[0].indices[:1])],
            self.tasks,
            self.index,
            self.pad_id,
            self.settings.edges,
            count,
        )
        batch.weight = 1.0 if share else 0.0
        return batch

    def describe(self, batch: Batch, rows: Sequence[int] | None = None) -> str:
        """For people: which rows of which tasks are in a batch, as numbered in their split; or these ones of it."""
        tasks = dict(zip(self.index, zip(self.names, self.tasks, strict=True), strict=True))
        return "; ".join(f"{name} {shown}" for name, shown in named_rows(batch, tasks, rows).items())

    def _make_plan(self, epoch: int) -> Plan:
        settings = self.settings
        if settings.fixed:
            return self._fixed_plan(epoch)
        rng = np.random.default_rng([self.seed, epoch])
        rows = {name: len(task) for name, task in zip(self.names, self.tasks, strict=True)}
        quotas = settings.sampler.quotas(rows)
        streams = [self._stream(position, epoch, quotas[name]) for position, name in enumerate(self.names)]
        weights = settings.sampler.weights(rows)
        if settings.regime == "one_task":
            per_task = [self._cut(np.full(len(s), i), s, rng) for i, s in enumerate(streams)]
            order = interleave(np.array([len(batches) for batches in per_task]), weights, rng)
            queues = [iter(batches) for batches in per_task]
            return [next(queues[i]) for i in order]
        which = interleave(np.array([len(s) for s in streams]), weights, rng)
        indices = np.empty(len(which), dtype=np.int64)
        for i, stream in enumerate(streams):
            indices[which == i] = stream
        return self._cut(which, indices, rng)

    def _stream(self, position: int, epoch: int, quota: int) -> np.ndarray:
        """The task's indices for this epoch: its next ``quota`` ones, walking through one permutation after another."""
        rows = len(self.tasks[position])
        start = epoch * quota
        parts = []
        while quota > 0:
            number, offset = divmod(start, rows)
            permutation = np.random.default_rng([self.seed, 1 + position, number]).permutation(rows)
            part = permutation[offset : offset + quota]
            parts.append(part)
            start, quota = start + len(part), quota - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _cut(self, which: np.ndarray, indices: np.ndarray, rng: np.random.Generator) -> Plan:
        """Examples in their order -> batches: sorted by length inside mega-batches, cut, and shuffled again."""
        lengths = np.empty(len(indices), dtype=np.int64)
        for i, task in enumerate(self.tasks):
            lengths[which == i] = task.lengths[indices[which == i]]
        widths = _edges_above(lengths, self.settings.edges)
        per_batch = self.settings.size
        if self.settings.tokens is not None:
            per_batch = max(1, int(self.settings.tokens / max(1.0, float(widths.mean()))))
        mega = per_batch * (self.settings.mega_batch if self.settings.buckets else 1)
        plan: Plan = []
        for begin in range(0, len(indices), mega):
            chosen = np.arange(begin, min(begin + mega, len(indices)))
            if self.settings.buckets:
                chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
            cuts = self._cuts(widths[chosen])
            batches = [_rows(which[part], indices[part]) for part in np.split(chosen, cuts)]
            plan += [batches[i] for i in rng.permutation(len(batches))]
        return plan

    def _cuts(self, widths: np.ndarray) -> list[int]:
        """Where to cut a run of examples (by rising padded length) so that each batch fits."""
        if self.settings.tokens is None:
            return list(range(self.settings.size, len(widths), self.settings.size))
        cuts, start = [], 0
        for i in range(len(widths)):
            if i > start and (i + 1 - start) * int(widths[start : i + 1].max()) > self.settings.tokens:
                cuts.append(i)
                start = i
        return cuts

    def _fixed_plan(self, epoch: int) -> Plan:
        """As published (METHODS: defect 5): slices of the file, shuffled once; only the tasks' order changes later."""
        once = np.random.default_rng([self.seed, 0])
        per_task: list[Plan] = []
        for i, task in enumerate(self.tasks):
            slices = np.split(np.arange(len(task)), range(self.settings.size, len(task), self.settings.size))
            per_task.append([[Rows(i, slices[j])] for j in once.permutation(len(slices))])
        order = np.repeat(np.arange(len(per_task)), [len(batches) for batches in per_task])
        order = np.random.default_rng([self.seed, epoch]).permutation(order)
        queues = [iter(batches) for batches in per_task]
        return [next(queues[i]) for i in order]


def named_rows(
    batch: Batch, tasks: Mapping[int, tuple[str, EncodedTask]], rows: Sequence[int] | None = None
) -> dict[str, str]:
    """For people: task -> ``training rows 3, 17``, as numbered in its split, of those ``rows`` of the batch (None: all
    of it). ``tasks``: their names and examples by their number in the batch."""
    found = {}
    for number, start, stop in batch.segments:
        chosen = [i for i in range(start, stop) if rows is None or i in rows]
        if chosen:
            name, encoded = tasks[number]
            numbers = sorted(encoded.rows[batch.indices[chosen]].tolist())
            shown = ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
            found[name] = f"training row{'s' * (len(numbers) > 1)} {shown}"
    return found


def passes_over(
    tasks: dict[str, EncodedTask],
    settings: BatchSettings,
    pad_id: int,
    index: dict[str, int] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """One pass over all examples, longest together, in no random order: for evaluation and scoring. ``share``:
    (rank, processes), of which this one takes every batch that is its turn. The batches are those of one process, and
    one may have none."""
    rank, world = share
    names, encoded = list(tasks), list(tasks.values())
    which = np.repeat(np.arange(len(encoded)), [len(task) for task in encoded])
    indices = np.concatenate([np.arange(len(task)) for task in encoded])
    lengths = np.concatenate([task.lengths for task in encoded])
    order = np.argsort(lengths, kind="stable")
    for begin in range(rank * settings.size, len(order), world * settings.size):
        chosen = order[begin : begin + settings.size]
        rows = _rows(which[chosen], indices[chosen])
        places = [index[name] if index else i for i, name in enumerate(names)]
        yield collate(rows, encoded, places, pad_id, settings.edges, len(chosen))


def collate(
    rows: list[Rows],
    tasks: Sequence[EncodedTask],
    index: Sequence[int],
    pad_id: int,
    edges: Sequence[int],
    count: int,
) -> Batch:
    """Gathers the rows and pads them to the next edge above their longest."""
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    segments, labels = [], []
    for part in rows:
        task = tasks[part.task]
        part_ids, part_types = task.gather(part.indices)
        segments.append((index[part.task], len(ids), len(ids) + len(part_ids)))
        ids += part_ids
        types += part_types
        labels.append(None if task.labels is None else torch.from_numpy(task.labels[part.indices]))
    lengths = np.array([len(i) for i in ids])
    width = int(_edges_above(lengths.max(keepdims=True), edges)[0])
    mask = np.arange(width) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = np.concatenate(ids)
    token_types = np.zeros(mask.shape, dtype=np.int64)
    token_types[mask] = np.concatenate(types)
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(mask.astype(np.int64)),
        torch.from_numpy(token_types),
        segments,
        labels,
        np.concatenate([part.indices for part in rows]),
        count,
        int(lengths.sum()),
    )


def _rows(which: np.ndarray, indices: np.ndarray) -> list[Rows]:
    return [Rows(int(task), indices[which == task]) for task in np.unique(which)]


def _edges_above(lengths: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """The smallest edge that holds each length; a length above the last edge is its own edge."""
    places = np.searchsorted(np.asarray(edges), lengths)
    padded = np.append(np.asarray(edges), 0)[places]
    return np.where(places < len(edges), padded, lengths)


def _share(rows: list[Rows], rank: int, world: int) -> list[Rows]:
    """This process's rows of a global batch; empty where the batch has fewer rows than there are processes."""
    which = np.concatenate([np.full(len(r.indices), r.task) for r in rows])[rank::world]
    indices = np.concatenate([r.indices for r in rows])[rank::world]
    return _rows(which, indices)
