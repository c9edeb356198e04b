"""Pruning while a network is trained: what is dropped grows from update to update and stays dropped.

Both kinds hold what is dropped in buffers of their own, which belong into the checkpoint of the training; a
``PreTrainedModel`` would give back buffers uninitialised. Between two updates nothing changes, and an update depends on
the network and on what is dropped alone: a training that is resumed is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.tickets.budget import Allocation, Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.thresholds import equal_shares, lowest


class Pruned(nn.Module):
    """What both kinds have: :meth:`prune` at updates, :meth:`hold` after every optimiser step."""

    space: UnitSpace

    def prune(self, sparsity: float) -> None:
        """Drops so much of the space, what is dropped already first. Less than that is never dropped."""
        raise NotImplementedError

    def hold(self) -> None:
        """Undoes what an optimiser step did to what is dropped."""
        raise NotImplementedError

    def ticket(self) -> Ticket:
        raise NotImplementedError

    def sparsity(self) -> float:
        """The share of the prunable parameters that is dropped now."""
        raise NotImplementedError


class PrunedWeights(Pruned):
    """Single weights of ``encoder``, those of least magnitude in every matrix of ``space``.

    Every matrix loses the same share, exact to the weight (Sainte-Laguë), of equal ones the first: the per-matrix draw
    on magnitudes, inside what was dropped before. Dropped weights are 0 and have no gradient, neither where gradients
    are clipped nor in the optimiser's moments. ``let_run``: published defect 8 (METHODS 5.4), they have one, so that
    moments go on; they are 0 after every step all the same.
    """

    def __init__(self, encoder: nn.Module, space: WeightSpace, let_run: bool = False):
        super().__init__()
        self.space = space
        # in a tuple, they are no parameters of this module: the network has them
        self._weights = tuple((name, encoder.get_parameter(name)) for name in space.matrices)
        for name, weight in self._weights:
            self.register_buffer(_key(name), torch.zeros_like(weight, dtype=torch.bool))
            if not let_run and weight.requires_grad:
                weight.register_hook(_Silent(self, name))

    def dropped(self, name: str) -> torch.Tensor:
        """Boolean, of the matrix' shape."""
        return self.get_buffer(_key(name))

    @torch.no_grad()
    def prune(self, sparsity: float) -> None:
        asked = Budget.fractions(self.space, {"weights": sparsity})["weights"]
        shares = equal_shares(list(self.space.sizes.values()), asked)
        for (name, weight), share in zip(self._weights, shares, strict=True):
            gone = self.dropped(name)
            values = weight.detach().float().abs().masked_fill(gone, -1.0).flatten()
            gone |= lowest(values, share).view_as(gone)
        self.hold()

    @torch.no_grad()
    def hold(self) -> None:
        for name, weight in self._weights:
            weight.masked_fill_(self.dropped(name), 0.0)

    def ticket(self) -> Ticket:
        units = {name: (~self.dropped(name)).cpu().numpy() for name, _ in self._weights}
        ticket = Ticket(self.space, units)
        budget = dict(Budget.of(ticket))
        return ticket.where(kind="winning", score="magnitude", budget=budget, allocation="per_matrix")

    def sparsity(self) -> float:
        return sum(int(self.dropped(name).sum()) for name, _ in self._weights) / self.space.total


class PrunedUnits(Pruned):
    """Heads, blocks or neurons (``pools``, of each the same share) of a ``model`` of one task, those of least score.

    ``scores`` is asked at every update, with what is kept: it must depend on the model and on that alone. The best head
    of every layer is never dropped. Dropped units are gated: they have no gradient, and no moments can bring them back.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        space: StructuredSpace,
        pools: Sequence[str],
        scores: Callable[[Ticket], Scores],
        allocation: Allocation = "layer_normalised",
    ):
        super().__init__()
        self.space, self.pools, self.allocation = space, tuple(pools), allocation
        # in a tuple, it is no submodule: it is trained beside this one
        self._model, self._scores = (model,), scores
        self._task = model.tasks[0].name
        device = next(model.parameters()).device
        for part, shape in space.parts.items():
            self.register_buffer(part, torch.zeros(shape, dtype=torch.bool, device=device))
        self.register_load_state_dict_post_hook(_put_on)

    def prune(self, sparsity: float) -> None:
        before = self.ticket()
        budget = Budget.fractions(self.space, dict.fromkeys(self.pools, sparsity))
        ticket = draw(self._scores(before), budget, 1, self.allocation, within=before)
        for part, kept in ticket.units.items():
            self.get_buffer(part).copy_(torch.from_numpy(~kept))
        self.put_on()

    def hold(self) -> None:
        """Nothing to do: gates are no weights."""

    def put_on(self) -> None:
        """Gives the model the ticket; it looks through it from now on."""
        self._model[0].set_tickets({self._task: self.ticket()})

    def ticket(self) -> Ticket:
        units = {part: (~self.get_buffer(part)).cpu().numpy() for part in self.space.parts}
        ticket = Ticket(self.space, units)
        return ticket.where(kind="winning", budget=dict(Budget.of(ticket)), allocation=self.allocation, min_heads=1)

    def sparsity(self) -> float:
        none = {part: np.zeros(shape, dtype=bool) for part, shape in self.space.parts.items()}
        prunable = self.space.total - self.space.kept_parameters(none)
        return (self.space.total - self.space.kept_parameters(self.ticket().units)) / prunable


class _Silent:
    """Takes the gradient from dropped weights. An object, for a closure would keep the loop's last name."""

    def __init__(self, pruned: PrunedWeights, name: str):
        self.pruned, self.name = pruned, name

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.masked_fill(self.pruned.dropped(self.name), 0.0)


def _put_on(pruned: nn.Module, loaded: Any) -> None:
    assert isinstance(pruned, PrunedUnits)
    pruned.put_on()


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch allows no dots in a buffer's own name
