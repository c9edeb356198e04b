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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    anatomy = anatomy_of(encoder)
    layers = encoder.get_submodule(anatomy.layers)
    assert isinstance(layers, nn.ModuleList)  # anatomy_of has looked
    width = dimensions_of(encoder.config).head_width
    before = list(layers)
    try:
        for number, layer in enumerate(before):
            groups = [gates.dropped(task, number) for task in fork.leaders(number)]
            if len(groups) > 1 or any(groups):
                slim = [_without(anatomy, layer, dropped, width) for dropped in groups]
                layers[number] = _ForGroups(layer, fork.origins(number), rows, slim, gates, number)
        with gates.on_groups([fork.leaders(layer) for layer in range(len(fork.sizes))], rows):
            yield
    finally:
        for number, layer in enumerate(before):
            layers[number] = layer


# A weight is copied in the time that it takes to use it for so many tokens (measured on one x86 core in float32: 64
# at width 256, 41 at width 768): where fewer tokens come than make up for the copies, units are masked instead.
TOKENS_A_COPY = 64


@dataclass(frozen=True)
class _Slim:
    """A layer without what a group drops. ``make`` copies; ``kept`` and ``saved`` count weights."""

    make: Callable[[], dict[str, torch.Tensor]]
    kept: float
    saved: float


def _without(anatomy: Anatomy, layer: nn.Module, dropped: Mapping[str, torch.Tensor], width: int) -> _Slim | None:
    """The layer without the units whose gates are 0; ``None`` where a gate is neither 0 nor 1."""
    if any(not bool(((gate == 0) | (gate == 1)).all()) for gate in dropped.values()):
        return None
    weights: dict[str, torch.Tensor] = dict(layer.named_parameters())
    heads, no_block = dropped.get("heads"), "ffn" in dropped
    neurons = None if no_block else dropped.get("neurons")
    saved = 0.0
    if heads is not None:
        saved += 4 * weights[f"{anatomy.attention_output}.weight"].numel() * _share_of_zeros(heads)
    if no_block or neurons is not None:
        saved += 2 * weights[f"{anatomy.ffn_out}.weight"].numel() * (1 if neurons is None else _share_of_zeros(neurons))

    def make() -> dict[str, torch.Tensor]:
        changed = dict(weights)
        if heads is not None:
            places = heads.nonzero().flatten().tolist()
            # attention over no head has no shape: one head that is multiplied by zeros leaves the bias alone as well
            keep_heads(changed, anatomy, places or [0], width)
            if not places:
                name = f"{anatomy.attention_output}.weight"
                changed[name] = torch.zeros_like(changed[name])
        if no_block or neurons is not None:
            places = [] if neurons is None else neurons.nonzero().flatten().tolist()
            keep_neurons(changed, anatomy, places, padded_width(len(places)))
        if no_block:
            name = f"{anatomy.ffn_out}.bias"
            changed[name] = torch.zeros_like(changed[name])
        return {name: tensor for name, tensor in changed.items() if tensor is not weights[name]}

    return _Slim(make, sum(tensor.numel() for tensor in weights.values()) - saved, saved)


def _share_of_zeros(gate: torch.Tensor) -> float:
    return float((gate == 0).float().mean())


class _ForGroups(nn.Module):
    """Stands for a layer with several groups, or with one that drops units."""

    def __init__(
        self, layer: nn.Module, origins: list[int], rows: int, slim: list[_Slim | None], gates: Gates, number: int
    ):
        super().__init__()
        self.layer, self.origins, self.rows, self.gates, self.number = layer, origins, rows, gates, number
        self.slim = [found for found in slim if found is not None]

    def forward(self, hidden: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        if self._copies_pay(self.rows * hidden.shape[1]):
            from_below = hidden.split(self.rows)
            with self.gates.off_in(self.number):
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

    def _copies_pay(self, tokens: int) -> bool:
        """Whether what groups drop saves more than the copies without it cost."""
        if len(self.slim) < len(self.origins):
            return False
        return tokens * sum(slim.saved for slim in self.slim) > TOKENS_A_COPY * sum(slim.kept for slim in self.slim)

    def _for_all(self, value: Any) -> Any:
        """A mask of the text's rows, for every group; anything else as it is."""
        if not isinstance(value, torch.Tensor) or value.ndim < 2 or len(value) != self.rows or self.rows == 1:
            return value
        return value.repeat(len(self.origins), *[1] * (value.ndim - 1))
