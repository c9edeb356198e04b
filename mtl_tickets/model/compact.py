"""Physical removal of the units that no served task needs. The output is that of the masked model, to 1e-5.

Which rows and columns a head or a neuron is, :mod:`mtl_tickets.model.slices` knows. A layer without heads still adds
the bias of its attention's output projection. Feed-forward blocks go whole, bias included.

Shapes follow from a :class:`Kept` record and the configuration alone, so a stored model is rebuilt and then read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.model.anatomy import anatomy_of, dimensions_of, layers_of
from mtl_tickets.model.encoders import empty_encoder
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.slices import keep_heads, keep_neurons, padded_width
from mtl_tickets.tickets.ticket import Ticket


@dataclass(frozen=True)
class Kept:
    """Which units are physically there, layer by layer, as ascending indices. ``neurons`` is ``None`` where blocks are
    whole; a removed block has no neurons."""

    heads: tuple[tuple[int, ...], ...]
    ffn: tuple[bool, ...]
    neurons: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, present: Mapping[str, Any]) -> Kept:
        """From boolean arrays ``heads`` [L, H], ``ffn`` [L] and perhaps ``neurons`` [L, F]."""
        arrays = {part: np.asarray(there, dtype=bool) for part, there in present.items()}
        neurons = arrays.get("neurons")
        return cls(
            heads=_indices(arrays["heads"]),
            ffn=tuple(arrays["ffn"].tolist()),
            neurons=None if neurons is None else _indices(neurons & arrays["ffn"][:, None]),
        )

    def present(self, config: PretrainedConfig) -> dict[str, np.ndarray]:
        """The boolean arrays of :meth:`of`."""
        sizes = dimensions_of(config)
        arrays = {"heads": _array(self.heads, sizes.heads), "ffn": np.asarray(self.ffn)}
        if self.neurons is not None:
            arrays["neurons"] = _array(self.neurons, sizes.intermediate)
        return arrays

    def width(self, layer: int, intermediate: int) -> int:
        """Neurons of the layer's block, padding included; ``intermediate`` is d_ff as pretrained."""
        if self.neurons is None:
            return intermediate
        return min(intermediate, padded_width(len(self.neurons[layer])))

    def to_json(self) -> dict[str, Any]:
        return {
            "heads": [list(layer) for layer in self.heads],
            "ffn": list(self.ffn),
            "neurons": None if self.neurons is None else [list(layer) for layer in self.neurons],
        }

    @classmethod
    def from_json(cls, value: object, config: PretrainedConfig, file: str = "") -> Kept:
        """Reads :meth:`to_json`; :class:`CheckpointError` with every entry that does not fit the configuration."""
        sizes = dimensions_of(config)
        if not isinstance(value, Mapping) or set(value) != {"heads", "ffn", "neurons"}:
            raise CheckpointError(Problem("must be a mapping with heads, ffn and neurons", file, found=value))
        problems = []
        ffn = value["ffn"]
        if not isinstance(ffn, list) or len(ffn) != sizes.layers or any(type(there) is not bool for there in ffn):
            problems.append(Problem(f"must be {sizes.layers} booleans", file, "ffn", ffn))
        for part, size in (("heads", sizes.heads), ("neurons", sizes.intermediate)):
            rows = value[part]
            if part == "neurons" and rows is None:
                continue
            if not isinstance(rows, list) or len(rows) != sizes.layers:
                problems.append(Problem(f"must be {sizes.layers} lists, one a layer", file, part, rows))
                continue
            for layer, row in enumerate(rows):
                whole = isinstance(row, list) and all(type(i) is int and 0 <= i < size for i in row)
                if not whole or row != sorted(set(row)):
                    problems.append(Problem(f"must be ascending indices below {size}", file, f"{part}[{layer}]", row))
        if problems:
            raise CheckpointError(problems[:20])
        neurons = None if value["neurons"] is None else tuple(map(tuple, value["neurons"]))
        return cls(tuple(map(tuple, value["heads"])), tuple(ffn), neurons)


def needed(tickets: Iterable[Ticket | None], present: Mapping[str, np.ndarray]) -> Kept:
    """The union of what the tickets keep, among what is ``present`` (``None`` keeps everything)."""
    tickets = list(tickets)
    union = {part: np.zeros_like(there) for part, there in present.items()}
    neurons = next((t.units["neurons"].shape for t in tickets if t is not None and "neurons" in t.units), None)
    if neurons is not None and "neurons" not in union:
        union["neurons"] = np.zeros(neurons, dtype=bool)
    for ticket in tickets:
        for part, kept in union.items():
            if ticket is None or part not in ticket.units:
                mine: Any = True
            else:
                mine = ticket.units[part]
            if part == "neurons" and ticket is not None:
                mine = mine & ticket.units["ffn"][:, None]
            kept |= mine & present.get(part, True)
    return Kept.of(union)


def compact(
    model: MultiTaskModel,
    tickets: Mapping[str, Ticket] | Ticket | None = None,
    tasks: Sequence[str] | None = None,
) -> MultiTaskModel:
    """A new model for ``tasks`` (default: all) without the units that none of their tickets keeps.

    ``tickets``: default the model's own; one ticket stands for every task. Gates stay for what the tasks do not agree
    on. The new model shares no memory with the old one, and may itself be compacted further.

    Raises :class:`InputError` for unknown tasks, :class:`TicketError` for tickets of another encoder.
    """
    infos = [model.tasks[model.task_index(task)] for task in (tasks or [info.name for info in model.tasks])]
    if tickets is None:
        tickets = model.tickets
    elif isinstance(tickets, Ticket):
        tickets = {info.name: tickets for info in infos}
    model.gates.table_of([tickets.get(info.name) for info in infos])  # refuses what does not fit
    config = model.config
    before = Kept.of(model.present) if model.present else everything(config)
    kept = needed([tickets.get(info.name) for info in infos], before.present(config))
    encoder = build_compact(config, kept, config._attn_implementation)
    smaller = MultiTaskModel(encoder, infos, pooling=model.pooling, present=kept.present(config))
    served = {f"heads.{info.name}." for info in infos}
    state = {
        name: tensor
        for name, tensor in _sliced(model, before, kept).items()
        if not name.startswith("heads.") or any(name.startswith(head) for head in served)
    }
    smaller.load_state_dict(state, assign=True)
    smaller.set_tickets({info.name: tickets[info.name] for info in infos if info.name in tickets})
    return smaller.to(next(model.parameters()).device).train(model.training)


def everything(config: PretrainedConfig) -> Kept:
    """The record of an encoder from which nothing was removed."""
    sizes = dimensions_of(config)
    return Kept((tuple(range(sizes.heads)),) * sizes.layers, (True,) * sizes.layers)


def build_compact(config: PretrainedConfig, kept: Kept, attention: str = "sdpa") -> nn.Module:
    """The shape of a compacted encoder, parameters on device ``meta``: load weights with ``assign=True``."""
    encoder = empty_encoder(config, attention)
    anatomy, sizes = anatomy_of(encoder), dimensions_of(config)
    for index, layer in enumerate(layers_of(encoder)):
        heads = len(kept.heads[index])
        if heads == 0:
            bare = BiasOnly(sizes.hidden)
            inner = anatomy.attention_output.removeprefix(anatomy.attention + ".")
            if inner != anatomy.attention_output:  # the projection is inside the module that goes
                layer.set_submodule(anatomy.attention, NoHeads({inner: bare}))
            else:
                layer.set_submodule(anatomy.attention, NoHeads({}))
                layer.set_submodule(anatomy.attention_output, bare)
        elif heads < sizes.heads:
            for part in (anatomy.query, anatomy.key, anatomy.value):
                layer.set_submodule(part, nn.Linear(sizes.hidden, heads * sizes.head_width, device="meta"))
            projection = nn.Linear(heads * sizes.head_width, sizes.hidden, device="meta")
            layer.set_submodule(anatomy.attention_output, projection)
        width = kept.width(index, sizes.intermediate)
        if not kept.ffn[index]:
            for path in anatomy.ffn_bypassed:
                layer.set_submodule(path, nn.Identity())
            layer.set_submodule(anatomy.ffn_silenced, Nothing())
        elif width < sizes.intermediate:
            layer.set_submodule(anatomy.ffn_in, nn.Linear(sizes.hidden, width, device="meta"))
            layer.set_submodule(anatomy.ffn_out, nn.Linear(width, sizes.hidden, device="meta"))
    return encoder


class BiasOnly(nn.Module):
    """What a linear layer without inputs computes: its bias, for every token. [B, S, anything] -> [B, S, d]."""

    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.empty(width, device="meta"))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.bias.expand(*hidden.shape[:-1], -1)


class NoHeads(nn.Module):
    """Stands for the attention of a layer without heads: hands on what comes in, through ``inner`` where it has one."""

    def __init__(self, inner: Mapping[str, nn.Module]):
        super().__init__()
        for name, module in inner.items():
            self.add_module(name, module)

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        for module in self.children():
            hidden_states = module(hidden_states)
        return hidden_states, None


class Nothing(nn.Module):
    """Stands for a removed block: a zero that broadcasts against the residual."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.new_zeros(())


def _sliced(model: MultiTaskModel, before: Kept, kept: Kept) -> dict[str, torch.Tensor]:
    """A copy of the model's state with only the kept units; ``before`` says what the model has."""
    anatomy, sizes = model.anatomy, dimensions_of(model.config)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for index in range(sizes.layers):
        prefix = f"encoder.{anatomy.layers}.{index}."

        def drop(*names: str, prefix: str = prefix) -> None:
            for name in names:
                del state[prefix + name]

        if kept.heads[index] != before.heads[index]:
            if kept.heads[index]:
                places = np.searchsorted(before.heads[index], kept.heads[index]).tolist()
                keep_heads(state, anatomy, places, sizes.head_width, prefix)
            else:
                for part in (anatomy.query, anatomy.key, anatomy.value):
                    drop(f"{part}.weight", f"{part}.bias")
                drop(f"{anatomy.attention_output}.weight")
        if before.ffn[index] and not kept.ffn[index]:
            for part in (anatomy.ffn_in, anatomy.ffn_out):
                drop(f"{part}.weight", f"{part}.bias")
        elif kept.ffn[index] and kept.neurons is not None and len(kept.neurons[index]) < sizes.intermediate:
            there = before.neurons[index] if before.neurons is not None else range(sizes.intermediate)
            places = np.searchsorted(there, kept.neurons[index]).tolist()
            keep_neurons(state, anatomy, places, kept.width(index, sizes.intermediate), prefix)
    return state


def _indices(there: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in there)


def _array(rows: Sequence[Sequence[int]], size: int) -> np.ndarray:
    there = np.zeros((len(rows), size), dtype=bool)
    for layer, row in enumerate(rows):
        there[layer, list(row)] = True
    return there
