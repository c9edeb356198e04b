"""Tickets of single weights: which matrices an encoder has, and seeing it through a mask.

A masked matrix is a parametrisation, ``weight * kept``: what is dropped is 0 in every pass and gets no gradient from
it. The parameter below may change still, by weight decay or where it is tied to a matrix that is not masked. While
masks are on, its name in a state dict is torch's ``<module>.parametrizations.weight.original``; they are put on for a
training and taken off after it. For task models the zeros are then written into the weights, so that whatever is
evaluated, saved or scored is a plain encoder that holds them exactly; a masked-language model, whose vocabulary may be
tied to masked embeddings, is measured with masks on.

Masks are no part of the state dict: a ``PreTrainedModel`` gives buffers of its own back uninitialised.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import PretrainedConfig

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.model.anatomy import ANATOMIES, anatomy_of, layers_of, on_meta
from mtl_tickets.tickets.space import StructuredSpace, Units, WeightSpace
from mtl_tickets.tickets.ticket import Ticket

MATRICES = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


class WeightMask(nn.Module):
    """``kept``: boolean, of the weight's shape. A product, so that a kept weight passes bit for bit."""

    kept: torch.Tensor

    def __init__(self, kept: torch.Tensor):
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.kept.to(weight.dtype)


def weight_space_of(config: PretrainedConfig, embeddings: bool = False, pooler: bool = True) -> WeightSpace:
    """The matrices of an encoder that may be pruned, from its configuration alone (no weights are made).

    Always the six of every layer: query, key, value, attention output, feed-forward in and out. ``pooler``: also the
    pooler's, where the architecture has one. ``embeddings``: also the word embeddings. The published systems differ in
    that (METHODS 0.1). Biases, norms, position and type embeddings and task heads are never pruned.

    Names are those of the encoder's parameters. Raises :class:`UnsupportedEncoder`.
    """
    anatomy = anatomy_of(config)
    encoder = on_meta(config)
    names = [
        f"{anatomy.layers}.{number}.{getattr(anatomy, matrix)}.weight"
        for number in range(len(layers_of(encoder)))
        for matrix in MATRICES
    ]
    if embeddings:
        names.append(f"{anatomy.word_embeddings}.weight")
    if pooler and anatomy.has_pooler:
        names.append(f"{anatomy.pooler}.weight")
    return WeightSpace({name: tuple(encoder.get_parameter(name).shape) for name in names})


def weights_in(encoder: nn.Module, space: WeightSpace, otherwise: nn.Module | None = None) -> dict[str, np.ndarray]:
    """Matrix name -> float64 array of its weights now. A matrix that ``encoder`` has not (a masked-language model has
    no pooler) is taken from ``otherwise``; :class:`TicketError` where that has not got it either."""
    found = {}
    for name in space.matrices:
        module = _owner(encoder, name)
        if module is None and otherwise is not None:
            module = _owner(otherwise, name)
        if module is None:
            raise TicketError(Problem("the encoder has no such matrix", place=name))
        found[name] = getattr(module, _leaf(name)).detach().cpu().double().numpy()
    return found


def put_on(encoder: nn.Module, ticket: Ticket) -> None:
    """Shows the encoder through a ticket of single weights, in place of one that was on.

    A matrix of the ticket's space that the encoder has not is left out: a masked-language model has no pooler. Raises
    :class:`TicketError`, with every misfit, where the ticket is none of weights, a shape differs, or there is no
    matrix of it at all.
    """
    take_off(encoder)
    space = ticket.space
    if not isinstance(space, WeightSpace):
        raise TicketError(Problem("masks of weights apply tickets of single weights", found=space.kind))
    owners = {name: module for name in space.matrices if (module := _owner(encoder, name)) is not None}
    problems = [
        Problem("the ticket's matrix must have the shape it has in the encoder", place=name, found=space.matrices[name])
        for name, module in owners.items()
        if tuple(getattr(module, _leaf(name)).shape) != space.matrices[name]
    ]
    if not owners:
        problems.append(Problem("the encoder has none of the ticket's matrices", found=space.describe()))
    if problems:
        raise TicketError(problems)
    for name, module in owners.items():
        weight = getattr(module, _leaf(name))
        mask = WeightMask(torch.tensor(ticket.units[name], device=weight.device))
        parametrize.register_parametrization(module, _leaf(name), mask)


def take_off(encoder: nn.Module, keep_zeros: bool = False) -> None:
    """Takes the masks off, where there are any. ``keep_zeros``: what was masked is 0 from now on; without it every
    weight is what it is below its mask."""
    for module in list(encoder.modules()):
        if not parametrize.is_parametrized(module):
            continue
        order = _order(module)
        for leaf, chain in list(module.parametrizations.items()):  # type: ignore[union-attr,operator]
            if not isinstance(chain[0], WeightMask):
                continue
            if keep_zeros:
                with torch.no_grad():
                    chain.original.mul_(chain[0].kept)
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
        # torch puts a freed weight behind the bias: optimisers and norms of gradients go by this order
        for leaf in order:
            if leaf in module._parameters:
                module._parameters[leaf] = module._parameters.pop(leaf)


@torch.no_grad()
def write_zeros(encoder: nn.Module, ticket: Ticket, otherwise: nn.Module | None = None) -> None:
    """Makes every weight that the ticket drops 0, in place. Matrices that ``encoder`` has not are looked for in
    ``otherwise``; those that it has not either are left out."""
    for name, kept in ticket.units.items():
        module = _owner(encoder, name)
        if module is None and otherwise is not None:
            module = _owner(otherwise, name)
        if module is not None:
            weight = getattr(module, _leaf(name))
            weight.mul_(torch.tensor(kept, device=weight.device))


def remaining(space: StructuredSpace, ticket: Ticket | None, base: Ticket | None) -> float:
    """Parameters that are left, in % of all that ``space`` counts, of an encoder seen through ``ticket`` (heads,
    blocks, neurons; None: all) and through ``base`` (single weights; None: all), each weight counted once."""
    whole = Ticket.dense(space) if ticket is None else ticket
    if base is None:
        return whole.remaining_percent()
    return 100 * (space.kept_parameters(whole.units) - dropped_weights(space, whole.units, base)) / space.total


def dropped_weights(space: StructuredSpace, units: Units, base: Ticket) -> int:
    """Weights that ``base`` drops and that belong to no unit which ``units`` drop already."""
    total = 0
    for name, kept in base.units.items():
        alive = _alive(space, units, name, kept.shape)
        total += int((~kept & alive).sum())
    return total


def _alive(space: StructuredSpace, units: Units, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Boolean, of the matrix' shape: the weights that belong to no dropped unit."""
    number = next((int(piece) for piece in name.split(".") if piece.isdecimal()), None)
    if number is None:  # embeddings and pooler belong to no unit
        return np.ones(shape, dtype=bool)
    part = _part_of(name)
    if part in ("query", "key", "value", "attention_output"):
        heads = units["heads"][number]
        rows = np.repeat(heads, shape[1 if part == "attention_output" else 0] // len(heads))
        return np.broadcast_to(rows if part == "attention_output" else rows[:, None], shape)
    neurons = units["neurons"][number] if "neurons" in units else np.ones(shape[0 if part == "ffn_in" else 1], bool)
    neurons = neurons & units["ffn"][number]
    return np.broadcast_to(neurons[:, None] if part == "ffn_in" else neurons, shape)


def _part_of(name: str) -> str:
    """``query`` ... ``ffn_out``, whatever the architecture calls it."""
    for anatomy in ANATOMIES.values():
        for part in MATRICES:
            if name.startswith(anatomy.layers + ".") and name.endswith(f".{getattr(anatomy, part)}.weight"):
                return part
    raise TicketError(Problem("no matrix of a layer", place=name))


def raw_weight(module: nn.Module) -> nn.Parameter:
    """The parameter of a linear layer's or an embedding's weight, below a mask where one is on."""
    if parametrize.is_parametrized(module, "weight"):
        return module.parametrizations.weight.original  # type: ignore[union-attr,return-value]
    return module.weight  # type: ignore[return-value]


def _owner(encoder: nn.Module, name: str) -> nn.Module | None:
    """The module that has the parameter, ``None`` where it is not there."""
    path, _, leaf = name.rpartition(".")
    module: object = encoder
    for step in path.split("."):
        module = getattr(module, step, None)
    return module if isinstance(module, nn.Module) and hasattr(module, leaf) else None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _order(module: nn.Module) -> list[str]:
    """The parameters of a layer in the order in which its class makes them."""
    names = [*module.parametrizations, *module._parameters]  # type: ignore[misc]
    return sorted(names, key=lambda leaf: leaf != "weight")
