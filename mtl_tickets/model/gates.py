"""Gates: which units take part, per example, applied by hooks on the encoder.

A head's gate multiplies its context where the attention's output projection reads it; a feed-forward block's gate
multiplies what the block adds to the residual, bias included and after dropout; a neuron's gate multiplies its
activation. These are the positions of Super Tickets (Liang et al. 2021, METHODS 1.1). One deviation: a dropped block
is computed and multiplied by 0 instead of skipped, because the other rows of its batch may keep it; the result is the
same, :func:`mtl_tickets.model.compact.compact` removes what nobody needs.

Gates are plain tensors of this object and never parameters or buffers of the encoder, where ``from_pretrained`` would
return them as uninitialised memory. Outside :meth:`Gates.on` and :meth:`Gates.leaves` every hook returns at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mtl_tickets.errors import MtlTicketsError, Problem, TicketError
from mtl_tickets.model.anatomy import Anatomy, anatomy_of, dimensions_of, layers_of
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket

PARTS = ("heads", "ffn", "neurons")
Segment = tuple[int, int, int]
"""(task, start, stop): rows start to stop of a batch belong to the task."""


class _Site:
    """One place of one layer. Hooks are objects, so that a deep copy of a model gates itself and not the original."""

    def __init__(self, units: torch.Tensor | None):
        self.units = units
        """The units that are physically there, as indices into the unit space's row, -1 for padding; ``None``: all."""
        self.gate: torch.Tensor | None = None

    def put(self, gate: torch.Tensor) -> None:
        """``gate`` [B, n] or [B, S, n], B may be 1, n the units that are there (no last dimension for a block)."""
        raise NotImplementedError


class _HeadSite(_Site):
    def put(self, gate: torch.Tensor) -> None:
        self.gate = (gate.unsqueeze(1) if gate.ndim == 2 else gate).unsqueeze(-1)

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if self.gate is None:
            return None
        context = inputs[0].unflatten(-1, (self.gate.shape[-2], -1))
        return ((context * self.gate.to(context.dtype)).flatten(-2),)


class _BlockSite(_Site):
    def put(self, gate: torch.Tensor) -> None:
        self.gate = (gate.unsqueeze(1) if gate.ndim == 1 else gate).unsqueeze(-1)

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        return None if self.gate is None else output * self.gate.to(output.dtype)


class _NeuronSite(_Site):
    def put(self, gate: torch.Tensor) -> None:
        self.gate = gate.unsqueeze(1) if gate.ndim == 2 else gate

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        return None if self.gate is None else (inputs[0] * self.gate.to(inputs[0].dtype),)


class Gates:
    """The gates of one encoder for a fixed number of tasks.

    ``present`` says, for an encoder from which units were removed, which are still there: part -> boolean array of the
    part's shape. Tables and leaves always have the shape of the whole unit space.

    ``table``: part -> float32 on the CPU, ``[T, L, H]``, ``[T, L]``, ``[T, L, F]``; 1 keeps, 0 drops. It is made by
    :meth:`set_tickets`; :meth:`set_table` takes any values (a layer may then lose all its heads).
    """

    def __init__(self, encoder: nn.Module, tasks: int, present: Mapping[str, Any] | None = None):
        self._encoder = encoder
        self.tasks = tasks
        anatomy = anatomy_of(encoder)
        sizes = dimensions_of(encoder.config)
        self.shapes: dict[str, tuple[int, ...]] = {
            "heads": (sizes.layers, sizes.heads),
            "ffn": (sizes.layers,),
            "neurons": (sizes.layers, sizes.intermediate),
        }
        self._costs = (4 * sizes.hidden * sizes.head_width, 2 * sizes.hidden * sizes.intermediate)
        self._present = {part: torch.as_tensor(there, dtype=torch.bool) for part, there in (present or {}).items()}
        self._handles: list[Any] = []
        self._sites: dict[str, list[_Site | None]] = {part: [] for part in PARTS}
        for index, layer in enumerate(layers_of(encoder)):
            self._install(anatomy, layer, index)
        self.active = False
        """Whether a ``with`` of this object is open (then :class:`MultiTaskModel` leaves the gates alone)."""
        self.steady = False
        """Whether every layer and row has gates if any task drops something, although some are all 1. Compiled layers
        then see the same kinds of tensors with every batch."""
        self.table: dict[str, torch.Tensor] = {}
        self.set_tickets([None] * tasks)

    def set_tickets(self, tickets: Sequence[Ticket | None]) -> None:
        """One ticket for each task, in the order of the tasks; ``None`` keeps every unit.

        Raises :class:`TicketError` where a ticket is of another encoder, or keeps a unit that was removed.
        """
        self.set_table(self.table_of(tickets))

    def table_of(self, tickets: Sequence[Ticket | None]) -> dict[str, torch.Tensor]:
        """The tables of :meth:`set_tickets`, with its checks, without putting them on."""
        problems = [problem for ticket in tickets if ticket is not None for problem in self._misfits(ticket)]
        if problems:
            raise TicketError(list(dict.fromkeys(problems)))
        parts = [part for part in PARTS if part != "neurons" or any(t and part in t.units for t in tickets)]
        table = {part: torch.ones(len(tickets), *self.shapes[part]) for part in parts}
        for part, values in table.items():
            for task, ticket in enumerate(tickets):
                if ticket is not None and part in ticket.units:
                    values[task] = torch.tensor(ticket.units[part]).float()
        return table

    def _misfits(self, ticket: Ticket) -> list[Problem]:
        space, problems = ticket.space, []
        if not isinstance(space, StructuredSpace):
            hint = "tickets of single weights are applied by parametrisation"
            return [Problem("gates apply tickets of heads, blocks and neurons", found=space.kind, hint=hint)]
        costs = (space.head_cost, space.ffn_cost)
        if costs != self._costs:
            rule = f"a ticket of this encoder must have heads and blocks of {self._costs} parameters"
            problems.append(Problem(rule, place="space", found=costs))
        for part, units in ticket.units.items():
            kept = torch.tensor(units)
            if tuple(kept.shape) != self.shapes[part]:
                rule = f"a ticket of this encoder must have the shape {self.shapes[part]}"
                problems.append(Problem(rule, place=part, found=tuple(kept.shape)))
            elif part in self._present:
                if part == "neurons":  # those of a dropped block are gone with it, whatever their entries say
                    kept &= torch.tensor(ticket.units["ffn"]).unsqueeze(-1)
                removed = (kept & ~self._present[part]).nonzero().tolist()
                if removed:
                    rule = "a ticket may keep only units that were not removed"
                    hint = "use the model from before the removal"
                    problems.append(Problem(rule, place=part, found=str(removed), hint=hint))
        return problems

    def set_table(self, table: Mapping[str, torch.Tensor]) -> None:
        """Any values: part -> ``[T, ...shape of the part]``; parts that are left out keep everything."""
        for part, values in table.items():
            if part not in self.shapes or tuple(values.shape) != (self.tasks, *self.shapes[part]):
                expected = (self.tasks, *self.shapes[part]) if part in self.shapes else f"one of {PARTS}"
                raise MtlTicketsError(f"gates of {part!r} must have the shape {expected}; found {tuple(values.shape)}")
        self.table = {part: values.detach().float().cpu().clone() for part, values in table.items()}
        self._flat: dict[str, torch.Tensor] = {}
        self._columns: dict[str, list[torch.Tensor]] = {}
        self._sizes: dict[str, list[int]] = {}
        self._gated: dict[str, list[list[int]]] = {}
        self._zeros: dict[str, list[list[float | None]]] = {}
        self._on_device: dict[tuple[torch.device, torch.dtype], dict[str, torch.Tensor]] = {}
        for part, values in self.table.items():
            # the columns of units that are there, layers side by side: one gather serves all layers
            rows = values.unsqueeze(-1) if part == "ffn" else values
            columns = [
                rows[:, layer]
                if site is None or site.units is None
                else torch.where(site.units < 0, 1.0, rows[:, layer, site.units.clamp(min=0)])
                for layer, site in enumerate(self._sites[part])
            ]
            self._columns[part] = columns
            self._flat[part] = torch.cat(columns, dim=1)
            self._sizes[part] = [column.shape[1] for column in columns]
            # known here, on the CPU, so that a batch never has to ask the device whether a layer needs its gates
            self._gated[part] = [
                [
                    layer
                    for layer, column in enumerate(columns)
                    if self._sites[part][layer] is not None and bool((column[task] != 1).any())
                ]
                for task in range(self.tasks)
            ]

            self._zeros[part] = [
                [share if binary else None for share, binary in zip(shares, all_binary, strict=True)]
                for shares, all_binary in (
                    ((c == 0).float().mean(1).tolist(), ((c == 0) | (c == 1)).all(1).tolist()) for c in columns
                )
            ]

    def masks(self, tasks: Sequence[int]) -> bool:
        """Whether any of these tasks (or under :attr:`steady`, any at all) drops a unit that is physically there."""
        asked = range(self.tasks) if self.steady else tasks
        return any(gated[task] for gated in self._gated.values() for task in asked)

    @contextlib.contextmanager
    def on(self, tasks: int | Sequence[Segment] | torch.Tensor, rows: torch.Tensor | None = None) -> Iterator[None]:
        """The tables' gates for the forward passes inside.

        ``tasks``: one task for all rows; or segments that cover the rows of the batch in order; or an int64 tensor
        ``[B]`` with each row's task. Layers whose gates are all 1 for the batch's tasks are skipped. A tensor on
        another device than the CPU is not looked at (that would wait for the device): every task counts as present.
        ``rows``: where the tokens of all rows are packed into one, int64 [T] with the row that each token is of.
        """
        if isinstance(tasks, int):
            present = [tasks]
        elif isinstance(tasks, torch.Tensor):
            present = sorted(set(tasks.tolist())) if tasks.device.type == "cpu" else list(range(self.tasks))
        else:
            present = list(dict.fromkeys(task for task, _, _ in tasks))
        with self._open():
            for part, flat in self._tables().items():
                gated = sorted({layer for task in present for layer in self._gated[part][task]})
                if self.steady:
                    gated = [layer for layer, site in enumerate(self._sites[part]) if site is not None]
                if not gated:
                    continue
                if len(present) == 1 and (not self.steady or isinstance(tasks, int)):
                    gates = flat[present[0]].unsqueeze(0)
                elif isinstance(tasks, torch.Tensor):
                    gates = flat[tasks.to(flat.device, non_blocking=True)]
                else:
                    gates = torch.cat([flat[t].expand(stop - start, -1) for t, start, stop in tasks])  # type: ignore[union-attr]
                if rows is not None and len(gates) > 1:
                    gates = gates.index_select(0, rows).unsqueeze(0)
                columns = gates.split(self._sizes[part], dim=-1)
                for layer in gated:
                    site = self._sites[part][layer]
                    assert site is not None
                    site.put(columns[layer].squeeze(-1) if part == "ffn" else columns[layer])
            yield

    @property
    def layers(self) -> int:
        return self.shapes["ffn"][0]

    def signature(self, task: int, layer: int) -> bytes:
        """Equal for two tasks whose tables do the same in a layer, to the units that are physically there."""
        parts = [part for part in PARTS if part in self._columns and self._sites[part][layer] is not None]
        if "ffn" in parts and not self._columns["ffn"][layer][task].any():
            parts = [part for part in parts if part != "neurons"]  # those of a dropped block change nothing
        return b"|".join(part.encode() + self._columns[part][layer][task].numpy().tobytes() for part in parts)

    @contextlib.contextmanager
    def on_groups(self, leaders: Sequence[Sequence[int]], rows: int) -> Iterator[None]:
        """Gates for passes whose rows differ from layer to layer: in layer ``l`` the rows are ``rows`` for each task of
        ``leaders[l]``, one after the other, seen through the gates of that task."""
        with self._open():
            for part, flat in self._tables().items():
                columns = flat.split(self._sizes[part], dim=1)
                for layer, tasks in enumerate(leaders):
                    if any(layer in self._gated[part][task] for task in tasks):
                        gates = columns[layer][list(tasks)]
                        if len(tasks) > 1:
                            gates = gates.repeat_interleave(rows, dim=0)
                        site = self._sites[part][layer]
                        assert site is not None
                        site.put(gates.squeeze(1) if part == "ffn" else gates)
            yield

    def dropped(self, task: int, layer: int) -> dict[str, torch.Tensor]:
        """What the tables change in a layer: part -> the task's gates of the units that are physically there, [n], for
        parts that are gated for the task."""
        return {
            part: columns[layer][task] for part, columns in self._columns.items() if layer in self._gated[part][task]
        }

    def zeros(self, task: int, layer: int) -> dict[str, float | None]:
        """For each part of :meth:`dropped` the share of its gates that are 0; ``None`` where one is neither 0 nor 1."""
        return {part: zeros[layer][task] for part, zeros in self._zeros.items() if layer in self._gated[part][task]}

    def off_in(self, layer: int) -> contextlib.AbstractContextManager[None]:
        """Inside, the gates of one layer do nothing."""
        return _without_gates([part[layer] for part in self._sites.values()])

    @contextlib.contextmanager
    def leaves(self, **values: torch.Tensor) -> Iterator[None]:
        """Explicit gates for the forward passes inside, in place of the tables: for scores and for learned gates.

        ``heads`` ``[B, S, L, H]`` (a gate for each token) or ``[B, L, H]`` (for each example), ``ffn`` ``[B, S, L]``
        or ``[B, L]``, ``neurons`` ``[B, S, L, F]`` or ``[B, L, F]``; B may be 1 for gates that all rows share. Parts
        that are left out are not gated. Gradients flow to the values.
        """
        with self._open():
            for part, value in values.items():
                shape = self.shapes.get(part, ())
                if (
                    part not in self.shapes
                    or value.ndim - len(shape) not in (1, 2)
                    or value.shape[1:][-len(shape) :] != shape
                ):
                    rule = f"gates of {part!r} must be [B, ...] or [B, S, ...] over {shape or PARTS}"
                    raise MtlTicketsError(f"{rule}; found {tuple(value.shape)}")
                # unbind, not indexing: its backward stacks once instead of adding a full-sized zero tensor per layer
                for site, gate in zip(self._sites[part], value.unbind(-len(shape)), strict=True):
                    if site is not None:
                        there = site.units
                        # padding contributes nothing, whichever unit's gate it gets
                        site.put(gate if there is None else gate.index_select(-1, there.clamp(min=0).to(gate.device)))
            yield

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Every unit that is physically there takes part, whatever the tickets."""
        with self._open():
            yield

    def remove(self) -> None:
        """Takes the hooks off the encoder, which is then exactly what it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._sites = {part: [None] * len(sites) for part, sites in self._sites.items()}
        self.set_table(self.table)

    def _install(self, anatomy: Anatomy, layer: nn.Module, index: int) -> None:
        for part, place, kind in (
            ("heads", "attention_output", _HeadSite),
            ("ffn", "ffn_end", _BlockSite),
            ("neurons", "ffn_out", _NeuronSite),
        ):
            there = self._present.get("ffn" if part == "ffn" else part)
            block_gone = part != "heads" and "ffn" in self._present and not bool(self._present["ffn"][index])
            if block_gone or (part == "heads" and there is not None and not bool(there[index].any())):
                self._sites[part].append(None)
                continue
            partly = there is not None and part != "ffn" and not bool(there[index].all())
            module = anatomy.find(layer, place)
            assert module is not None
            units = None
            if partly:
                units = there[index].nonzero().flatten()  # type: ignore[index]
                if part == "neurons":
                    padding = int(module.in_features) - len(units)  # type: ignore[arg-type]
                    units = F.pad(units, (0, padding), value=-1)
            site: _Site = kind(units)
            hook: Any = site
            if part == "ffn":
                self._handles.append(module.register_forward_hook(hook))
            else:
                self._handles.append(module.register_forward_pre_hook(hook))
            self._sites[part].append(site)

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """All sites off inside (the caller then sets some); afterwards everything as it was."""
        if torch.is_grad_enabled() and self._encoder.training and _recomputes(self._encoder):
            raise MtlTicketsError(
                "gates and gradient checkpointing do not go together: the recomputation in the backward pass would run "
                "without gates; switch checkpointing off"
            )
        was_active, self.active = self.active, True
        try:
            with _without_gates([site for part in self._sites.values() for site in part]):
                yield
        finally:
            self.active = was_active

    def _tables(self) -> dict[str, torch.Tensor]:
        """The flat tables on the encoder's device, in the type activations will have there."""
        parameter = next(self._encoder.parameters())
        device, dtype = parameter.device, parameter.dtype
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        if (device, dtype) not in self._on_device:
            with torch.inference_mode(False):  # kept for later: an inference tensor could not take part in training
                self._on_device[device, dtype] = {part: flat.to(device, dtype) for part, flat in self._flat.items()}
        return self._on_device[device, dtype]


@contextlib.contextmanager
def _without_gates(sites: Sequence[_Site | None]) -> Iterator[None]:
    """These sites do nothing inside, unless given a gate there; afterwards they have the gates they had."""
    there = [site for site in sites if site is not None]
    before = [site.gate for site in there]
    for site in there:
        site.gate = None
    try:
        yield
    finally:
        for site, gate in zip(there, before, strict=True):
            site.gate = gate


def _recomputes(encoder: nn.Module) -> bool:
    """Whether layers are computed again in the backward pass; transformers renames the attribute within version 5."""
    newer = getattr(encoder, "is_activation_checkpointing", None)
    return bool(getattr(encoder, "is_gradient_checkpointing", False) if newer is None else newer)
