"""All tasks' answers for the same text, with what their tickets agree on computed once.

Two tasks see the same hidden states up to the first layer in which their gates differ. So the tasks form a tree: one
group below, which parts where tickets part, layer by layer, and never joins again. The encoder is run over rows that
multiply where groups part: a layer with G groups gets G times the rows, its gates are those of each group's tasks. The
fork is made by hooks in front of the layers, under every architecture and attention implementation, and is gone
afterwards. The answers are those of separate masked passes; the work is that of :attr:`Fork.work` of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.gates import Gates


@dataclass(frozen=True)
class Fork:
    """Where tasks part. ``groups[layer][i]``: the group of the i-th of ``tasks`` in a layer; groups are numbered from
    0 in the order of their first task, so a group's rows stand in front of those of the groups after it."""

    tasks: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, gates: Gates, tasks: Sequence[int]) -> Fork:
        """The fork of these tasks (numbers, each once) under the gates' tables."""
        groups: list[tuple[int, ...]] = []
        before: tuple[int, ...] = (0,) * len(tasks)
        for layer in range(gates.layers):
            numbers: dict[tuple[int, bytes], int] = {}
            keys = [(group, gates.signature(task, layer)) for group, task in zip(before, tasks, strict=True)]
            before = tuple(numbers.setdefault(key, len(numbers)) for key in keys)
            groups.append(before)
        return cls(tuple(tasks), tuple(groups))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of groups in each layer: how many times it is computed."""
        return tuple(max(layer) + 1 for layer in self.groups)

    @property
    def work(self) -> float:
        """Layers computed, as a share of those of a pass for each task."""
        return sum(self.sizes) / (len(self.tasks) * len(self.sizes))

    def leaders(self, layer: int) -> list[int]:
        """The first task of each group of a layer: its gates are the group's."""
        return [self.tasks[self.groups[layer].index(group)] for group in range(self.sizes[layer])]

    def origins(self, layer: int) -> list[int]:
        """For each group of a layer the group of the layer below that it comes from."""
        if layer == 0:
            return [0] * self.sizes[0]
        below = self.groups[layer - 1]
        return [below[self.groups[layer].index(group)] for group in range(self.sizes[layer])]


@contextlib.contextmanager
def forked(encoder: nn.Module, gates: Gates, fork: Fork, rows: int) -> Iterator[None]:
    """Inside, a forward pass over ``rows`` rows gives the hidden states of every group of the last layer, group after
    group: [groups * rows, S, d]."""
    handles = []
    try:
        for number, layer in enumerate(layers_of(encoder)):
            if fork.sizes[number] > 1:
                hook = _Multiply(
                    fork.origins(number), rows, parts=fork.sizes[number] != (fork.sizes[number - 1] if number else 1)
                )
                handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        with gates.on_groups([fork.leaders(layer) for layer in range(len(fork.sizes))], rows):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Multiply:
    """In front of a layer with several groups: their rows out of those of the layer below, and a mask for all."""

    def __init__(self, origins: list[int], rows: int, parts: bool):
        self.rows, self.parts = rows, parts
        self.groups = len(origins)
        self.wanted = torch.cat([torch.arange(group * rows, (group + 1) * rows) for group in origins])

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden, *others = args
        if self.parts:
            hidden = hidden.index_select(0, self.wanted.to(hidden.device))
        return (hidden, *map(self._for_all, others)), {name: self._for_all(value) for name, value in kwargs.items()}

    def _for_all(self, value: Any) -> Any:
        """A mask of the text's rows, for every group; anything else as it is."""
        if not isinstance(value, torch.Tensor) or value.ndim < 2 or len(value) != self.rows or self.rows == 1:
            return value
        return value.repeat(self.groups, *[1] * (value.ndim - 1))
