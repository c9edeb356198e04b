"""All tasks' answers for the same text, with what their tickets agree on computed once.

Two tasks see the same hidden states up to the first layer in which their gates differ. So the tasks form a tree: one
group below, which parts where tickets part, layer by layer, and never joins again. The encoder is run over rows that
multiply where groups part. Where tickets drop much and the text is long, each group's rows go through a copy of the
layer's weights without the units that its tasks drop, which is made for the pass; else all rows go through the layer
at once, through the gates of their group's tasks. This is done by modules that stand for the layers during the pass,
under every architecture and attention implementation. The answers are those of separate masked passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mtl_tickets.model.anatomy import Anatomy, anatomy_of, dimensions_of
from mtl_tickets.model.gates import Gates
from mtl_tickets.model.slices import keep_heads, keep_neurons, padded_width


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
    anatomy, width = anatomy_of(encoder), dimensions_of(encoder.config).head_width
    layers = encoder.get_submodule(anatomy.layers)
    assert isinstance(layers, nn.ModuleList)  # anatomy_of has looked
    before = list(layers)
    leaders = [fork.leaders(number) for number in range(len(before))]
    try:
        for number, layer in enumerate(before):
            if len(leaders[number]) > 1 or gates.zeros(leaders[number][0], number):
                slim = [_Slim(anatomy, layer, width, gates, task, number) for task in leaders[number]]
                layers[number] = _ForGroups(layer, fork.origins(number), rows, slim)
        with gates.on_groups(leaders, rows):
            yield
    finally:
        for number, layer in enumerate(before):
            layers[number] = layer


# A weight is copied in the time that it takes to use it for so many tokens (measured on one x86 core in float32: 64
# at width 256, 41 at width 768): where fewer tokens come than make up for the copies, units are masked instead.
TOKENS_A_COPY = 64


@dataclass(frozen=True)
class _Slim:
    """A layer without what a task drops there."""

    anatomy: Anatomy
    layer: nn.Module
    head_width: int
    gates: Gates
    task: int
    number: int

    def weighed(self) -> tuple[float, float] | None:
        """Weights that need not be used, and weights to copy for that; ``None`` where copies cannot stand for the
        gates: a gate is neither 0 nor 1, or a weight is no plain parameter (but parametrised, quantised, ...)."""
        saved = copied = 0.0
        zeros = self.gates.zeros(self.task, self.number)
        if any(share is None for share in zeros.values()):
            return None
        heads, block = zeros.get("heads"), 1.0 if "ffn" in zeros else zeros.get("neurons")
        for share, parts in ((heads, _HEAD_PARTS), (block, _BLOCK_PARTS)):
            if share is None:
                continue
            for part in parts:
                module = self.anatomy.find(self.layer, part)
                if not isinstance(module, nn.Linear) or any(module._parameters.get(n) is None for n in _LINEAR):
                    return None
                saved, copied = saved + share * module.weight.numel(), copied + (1 - share) * module.weight.numel()
        return saved, copied

    def make(self) -> dict[str, torch.Tensor]:
        """The weights that change, by name."""
        dropped, anatomy = self.gates.dropped(self.task, self.number), self.anatomy
        weights: dict[str, torch.Tensor] = dict(self.layer.named_parameters())
        changed = dict(weights)
        if "heads" in dropped:
            places = dropped["heads"].nonzero().flatten().tolist()
            # attention over no head has no shape: one head that is multiplied by zeros leaves the bias alone as well
            keep_heads(changed, anatomy, places or [0], self.head_width)
            if not places:
                name = f"{anatomy.attention_output}.weight"
                changed[name] = torch.zeros_like(changed[name])
        if "ffn" in dropped:
            keep_neurons(changed, anatomy, [], padded_width(0))
            name = f"{anatomy.ffn_out}.bias"
            changed[name] = torch.zeros_like(changed[name])
        elif "neurons" in dropped:
            places = dropped["neurons"].nonzero().flatten().tolist()
            keep_neurons(changed, anatomy, places, padded_width(len(places)))
        return {name: tensor for name, tensor in changed.items() if tensor is not weights[name]}


_HEAD_PARTS, _BLOCK_PARTS = ("query", "key", "value", "attention_output"), ("ffn_in", "ffn_out")
_LINEAR = ("weight", "bias")


class _ForGroups(nn.Module):
    """Stands for a layer with several groups, or with one that drops units."""

    def __init__(self, layer: nn.Module, origins: list[int], rows: int, slim: list[_Slim]):
        super().__init__()
        self.layer, self.origins, self.rows, self.slim = layer, origins, rows, slim

    def forward(self, hidden: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        if self._copies_pay(hidden):
            from_below = hidden.split(self.rows)
            with self.slim[0].gates.off_in(self.slim[0].number):
                answers = [
                    torch.func.functional_call(self.layer, slim.make(), (from_below[origin], *others), named)
                    for slim, origin in zip(self.slim, self.origins, strict=True)
                ]
            return answers[0] if len(answers) == 1 else torch.cat(answers)
        if self.origins != list(range(len(hidden) // self.rows)):
            wanted = [row for group in self.origins for row in range(group * self.rows, (group + 1) * self.rows)]
            hidden = hidden.index_select(0, torch.tensor(wanted, device=hidden.device))
        named = {name: self._for_all(value) for name, value in named.items()}
        return self.layer(hidden, *map(self._for_all, others), **named)

    def _copies_pay(self, hidden: torch.Tensor) -> bool:
        """Whether what groups drop saves more than the copies without it cost. On other devices than the CPU that was
        not measured, and units are masked."""
        if hidden.device.type != "cpu":
            return False
        weighed = [slim.weighed() for slim in self.slim]
        saved, copied = (sum(found[i] for found in weighed if found is not None) for i in (0, 1))
        return None not in weighed and self.rows * hidden.shape[1] * saved > TOKENS_A_COPY * copied

    def _for_all(self, value: Any) -> Any:
        """A mask of the text's rows, for every group; anything else as it is."""
        if not isinstance(value, torch.Tensor) or value.ndim < 2 or len(value) != self.rows or self.rows == 1:
            return value
        return value.repeat(len(self.origins), *[1] * (value.ndim - 1))
