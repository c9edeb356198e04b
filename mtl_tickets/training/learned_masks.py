"""Masks that are trained while the network stays as it is: task-agnostic mask training (TAMT, Liu et al. 2022,
https://arxiv.org/abs/2204.11218; METHODS 2.2). SRNets (Liu et al. 2022, https://arxiv.org/abs/2210.05211) use it too.

Every unit has a score. The pass sees weight * 1[score > threshold] of a frozen weight, or a gate 1[score > threshold]
of a head, block or neuron; the gradient of a score is that of its 0 or 1 (straight-through): for a weight
dL/d(masked weight) * weight, whether it is kept or not. Nothing is clipped or squashed. Thresholds are fixed between
two resets, so that sparsity may drift there, as published; a reset puts each where exactly the budget is dropped.

Deviations. What a reset drops is a draw (:mod:`mtl_tickets.tickets.draw`): exact with equal scores too, and what
matrices of unequal size lose is rounded by Sainte-Laguë's rule instead of down. A threshold lies halfway between the
scores of the last unit dropped and the first one kept, not on the former, so that a reset before the first step
changes nothing; the published one would leave no distance to the threshold on the side of the dropped units. At least
``min_heads`` heads a layer are kept. The published ranking of single weights is ``per_matrix``, of heads ``global``.
"""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.model.gates import Gates
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin
from mtl_tickets.training.health import TrainingDiverged
from mtl_tickets.training.thresholds import StraightThrough, between, equal_shares, highest, just_above, least, lowest

THRESHOLD = 0.01
"""The first threshold; from a ticket, scores start at twice this where a unit is kept and at 0 where it is dropped."""

Allocation = Literal["per_matrix", "global"]


class LearnedMasks(nn.Module):
    """``model`` seen through trained masks on its ``encoder``, which is a part of it.

    ``start``: a ticket, which is then exactly the first mask, or scores, from which the first mask is drawn at
    ``budget`` (SRNets start so from magnitudes, which know what to drop next). ``budget``: pool -> units dropped after
    every reset; None: what the ticket drops. It may be set anew between resets. Parts of which neither the ticket nor
    the first budget drops any keep every unit and are not trained; single weights always are.

    Trainable are the scores and the parameters ``beside``; everything else of ``model`` is frozen until
    :meth:`take_off`. Scores are float32 and flat: weight decay is for matrices. ``decay_scores`` gives them the shape
    of their part, so that they decay (published for distillation, METHODS 2.9).

    Matrices are parameters of the encoder, or else of ``model``, by their names there: a task head can be masked, too.
    One that neither has keeps the scores it starts with (a masked-language model has no pooler). An embedding that is
    tied to an output layer is masked where tokens are looked up, and whole there.

    The state dict holds what is trained, the thresholds and all scores. Frozen parameters are left out: whoever loads
    it has begun with the same ones. The budget is the caller's to set again.

    Raises :class:`TicketError` for scores without budget, a ticket or budget that does not fit the encoder, an unknown
    allocation, or an encoder without any of the matrices.
    """

    thresholds: torch.Tensor

    def __init__(
        self,
        model: nn.Module,
        encoder: nn.Module,
        start: Ticket | Scores,
        budget: Mapping[str, int] | None = None,
        *,
        allocation: Allocation = "per_matrix",
        min_heads: int = 1,
        beside: Iterable[nn.Parameter] = (),
        decay_scores: bool = False,
    ):
        super().__init__()
        if allocation not in typing.get_args(Allocation):
            known = ", ".join(typing.get_args(Allocation))
            raise TicketError(Problem(f"masks are trained with an allocation of {known}", found=allocation))
        if budget is None:
            if isinstance(start, Scores):
                raise TicketError(Problem("scores to start from need a budget"))
            budget = Budget.of(start)
        self.space, self.allocation, self.min_heads = start.space, allocation, min_heads
        of_weights = not isinstance(self.space, StructuredSpace)
        asked, dropped = Budget(budget), Budget({}) if isinstance(start, Scores) else Budget.of(start)
        self.pools = {
            pool: parts
            for pool, parts in self.space.pools.items()
            if of_weights or asked.get(pool, 0) or dropped.get(pool, 0)
        }
        """The pools that are trained -> their parts."""
        self.parts = [part for parts in self.pools.values() for part in parts]
        self.budget = asked
        self.gates: Gates | None = None
        places: dict[str, tuple[nn.Module, str]] = {}
        if of_weights:
            places = self._places(model, encoder)
        else:
            self.gates = Gates(encoder, 1)
            try:
                self.gates.table_of([start if isinstance(start, Ticket) else Ticket.dense(self.space)])
            except TicketError:
                self.gates.remove()
                raise
        self.model = model
        self._whole = False
        self._note: str | None = None
        device = next(model.parameters()).device
        self.scores = nn.ParameterDict()
        for part in self.parts:
            if isinstance(start, Ticket):
                first = torch.tensor(start.units[part], dtype=torch.float32, device=device) * (2 * THRESHOLD)
            else:
                first = torch.tensor(start.values[part], dtype=torch.float32, device=device)
            self.scores[_key(part)] = nn.Parameter(
                first if decay_scores else first.flatten(), requires_grad=not of_weights or part in places
            )
        ends = np.cumsum([self.space.rows(part) for part in self.parts]).tolist()
        self._rows = {part: slice(end - self.space.rows(part), end) for part, end in zip(self.parts, ends, strict=True)}
        self.register_buffer("thresholds", torch.full((ends[-1] if ends else 0,), THRESHOLD, device=device))
        self._before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        trained = {id(parameter) for parameter in beside}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        self._parametrised: list[tuple[nn.Module, str, list[str]]] = []
        self._put_on(places)
        self.register_state_dict_post_hook(_without_frozen)
        self.register_load_state_dict_pre_hook(_with_frozen)
        if isinstance(start, Scores):
            self.reset()

    @property
    def budget(self) -> Budget:
        """Pool -> units that are dropped from the next reset on."""
        return self._budget

    @budget.setter
    def budget(self, budget: Mapping[str, int]) -> None:
        asked = Budget(budget)
        asked.check(self.space)
        fixed = [pool for pool, number in asked.items() if number and pool not in self.pools]
        if fixed:
            rule = "the start or the first budget must drop some of every pool that is trained"
            raise TicketError(Problem(rule, place=f"budget.{fixed[0]}", found=asked[fixed[0]]))
        self._budget = asked

    @property
    def heads(self) -> nn.Module | None:
        """The model's task heads, where it has any: they may have a learning rate of their own."""
        return getattr(self.model, "heads", None)

    # ---------------------------------------------------------------------------------------------------- the passes

    def forward(self, *inputs: Any, dense: bool = False, dropout: bool = False, **named: Any) -> Any:
        """What ``model`` answers, seen through the masks. ``dense``: without them, and unless ``dropout`` is asked for
        without dropout: the teacher of a distillation, on the same weights."""
        if not dense:
            with self.applied():
                return self.model(*inputs, **named)
        training = self.model.training
        self.model.train(training and dropout)
        try:
            with self.dense():
                return self.model(*inputs, **named)
        finally:
            self.model.train(training)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, whoever calls ``model`` sees the masks. Those of single weights are seen everywhere but in
        :meth:`dense`; those of heads, blocks and neurons only here and in :meth:`forward`."""
        if self.gates is None or self._whole:
            yield
            return
        values = {}
        for part in self.parts:
            scores = self.scores[_key(part)].view(self.space.rows(part), -1)
            kept = StraightThrough.apply(scores, self._thresholds_of(part), torch.ones_like(scores))
            values[part] = kept.view(1, *self.space.parts[part])
        with self.gates.leaves(**values):
            yield

    @contextlib.contextmanager
    def dense(self) -> Iterator[None]:
        """Inside, the network is bit for bit the one without masks."""
        before, self._whole = self._whole, True
        try:
            with self.gates.off() if self.gates is not None else contextlib.nullcontext():
                yield
        finally:
            self._whole = before

    def masked(self, part: str, weight: torch.Tensor) -> torch.Tensor:
        """A matrix as a pass sees it now."""
        if self._whole:
            return weight
        return StraightThrough.apply(self.scores[_key(part)].view_as(weight), self._thresholds_of(part), weight)

    # ------------------------------------------------------------------------------------------- what is kept, and how

    @torch.no_grad()
    def reset(self) -> None:
        """Sets the thresholds so that exactly the budget is dropped: the units that a draw on the scores drops.

        Kept units whose score equals that of a dropped one are lifted by the least that a float32 can be. Raises
        :class:`TrainingDiverged` where scores are no numbers any more.
        """
        for part in self.parts:
            if not bool(self.scores[_key(part)].isfinite().all()):
                raise TrainingDiverged(f"the mask scores of {part} are no numbers: lower the learning rate")
        kept = self._drawn() if self.gates is None else self._drawn_gates()
        for parts in self.pools.values():
            self._settle(parts, kept)

    def ticket(self) -> Ticket:
        """:meth:`reset`, and then the mask, which drops exactly the budget."""
        self.reset()
        return self.mask()

    def mask(self) -> Ticket:
        """The mask as it is now: between resets it may drop more or less than the budget."""
        units = {part: np.ones(shape, dtype=bool) for part, shape in self.space.parts.items()}
        for part in self.parts:
            units[part] = self._kept(part).view(self.space.parts[part]).cpu().numpy()
        about = TicketOrigin(
            kind="winning",
            score="learned_masks",
            budget=dict(self.budget),
            allocation=self.allocation,
            min_heads=self.min_heads,
            note=self._note,
        )
        return Ticket(self.space, units, about)

    def sparsity(self) -> dict[str, float]:
        """Trained pool -> the fraction of its units that the mask drops now."""
        found = {}
        for pool, parts in self.pools.items():
            kept = sum(int(self._kept(part).sum()) for part in parts)
            found[pool] = 1 - kept / sum(self.space.sizes[part] for part in parts)
        return found

    def values(self) -> dict[str, np.ndarray]:
        """Trained part -> float32 array of its shape: the scores."""
        return {
            part: self.scores[_key(part)].detach().view(self.space.parts[part]).cpu().numpy().copy()
            for part in self.parts
        }

    def take_off(self) -> None:
        """Leaves the network as it was: the same parameters under the same names, as trainable as they were. Those
        ``beside`` keep what they learned. This object is of no use afterwards, but for what it says of its masks."""
        if self.gates is not None:
            self.gates.remove()
        for module, leaf, order in self._parametrised:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
            # torch puts the weight behind the bias; optimisers go by the order of parameters
            for name in order:
                module._parameters[name] = module._parameters.pop(name)
        self._parametrised = []
        for parameter, trainable in self._before:
            parameter.requires_grad_(trainable)

    # -------------------------------------------------------------------------------------------------------- inside

    def _places(self, model: nn.Module, encoder: nn.Module) -> dict[str, tuple[nn.Module, str]]:
        """Matrix -> the module it is a parameter of and its name there, for those that the encoder or the model has."""
        problems, places = [], {}
        for name, shape in self.space.parts.items():
            root = next((root for root in (encoder, model) if _has_parameter(root, name)), None)
            if root is None:
                continue
            path, _, leaf = name.rpartition(".")
            places[name] = root.get_submodule(path), leaf
            found = tuple(root.get_parameter(name).shape)
            if found != shape:
                problems.append(Problem(f"a mask of this encoder must have the shape {found}", place=name, found=shape))
        if not places:
            hint = "masks that are on already must be taken off"
            rule = "the encoder must have at least one of the matrices"
            problems.append(Problem(rule, found=self.space.describe(), hint=hint))
        if problems:
            raise TicketError(problems)
        return places

    def _put_on(self, places: Mapping[str, tuple[nn.Module, str]]) -> None:
        for part, (module, leaf) in places.items():
            self._parametrised.append((module, leaf, list(module._parameters)))
            parametrize.register_parametrization(module, leaf, _Masked(self, part), unsafe=True)
        # of several in one module the last is taken off first
        self._parametrised.reverse()

    def _thresholds_of(self, part: str) -> torch.Tensor:
        """[rows, 1]: heads and neurons of a layer share a threshold, and so does a matrix."""
        return self.thresholds[self._rows[part]].unsqueeze(1)

    def _kept(self, part: str) -> torch.Tensor:
        """Boolean [rows, units of a row]."""
        return self._in_rows(part) > self._thresholds_of(part)

    def _in_rows(self, part: str) -> torch.Tensor:
        """The scores themselves, without gradient, [rows, units of a row]."""
        return self.scores[_key(part)].detach().view(self.space.rows(part), -1)

    def _drawn_gates(self) -> dict[str, torch.Tensor]:
        zeros = {part: np.zeros(shape) for part, shape in self.space.parts.items()}
        ticket = draw(Scores(self.space, zeros | self.values()), self.budget, self.min_heads, self.allocation)
        self._note = ticket.about.note
        return {
            part: torch.tensor(ticket.units[part], device=self.thresholds.device).view_as(self._in_rows(part))
            for part in self.parts
        }

    def _drawn(self) -> dict[str, torch.Tensor]:
        """Part -> boolean [1, units], True where a draw keeps. A draw itself, made for any number of layers, would take
        minutes for a hundred million weights; this is quick, and stays where the scores are."""
        kept: dict[str, torch.Tensor] = {}
        sizes = self.space.sizes
        for pool, parts in self.pools.items():
            asked = self.budget.get(pool, 0)
            if self.allocation == "global":
                groups, shares = [list(parts)], [asked]
            else:
                groups, shares = [[part] for part in parts], equal_shares([sizes[part] for part in parts], asked)
            for group, share in zip(groups, shares, strict=True):
                scores = torch.cat([self._in_rows(part)[0] for part in group])
                pieces = (~lowest(scores, share)).split([sizes[part] for part in group])
                kept |= {part: piece.unsqueeze(0) for part, piece in zip(group, pieces, strict=True)}
        return kept

    def _settle(self, parts: Sequence[str], kept: Mapping[str, torch.Tensor]) -> None:
        """Thresholds, and the least change of the scores, under which exactly ``kept`` lie above them."""
        for part in parts:
            # a row's kept units rank above its dropped ones by score and place, so that only equal ones are lifted
            scores = self._in_rows(part)
            low = highest(scores, ~kept[part])
            scores.copy_(torch.where(kept[part] & (scores <= low), just_above(low), scores))
            self.thresholds[self._rows[part]] = between(low, least(scores, kept[part])).squeeze(1)
        if self.allocation == "per_matrix":
            return
        border = torch.stack([highest(self._in_rows(part), ~kept[part]).max() for part in parts]).max()
        above = []
        for part in parts:
            scores = self._in_rows(part)
            scores.copy_(torch.where(kept[part] & (scores == border), just_above(border), scores))
            above.append(least(scores, kept[part] & (scores > border)).min())
        common = between(border, torch.stack(above).min())
        for part in parts:
            weakest = least(self._in_rows(part), kept[part]).squeeze(1)
            rows = self._rows[part]
            # where a protected head lies below what others have to reach, its layer has a threshold of its own
            self.thresholds[rows] = torch.where(weakest > common, common, self.thresholds[rows])


class _Masked(nn.Module):
    """The parametrisation of one matrix."""

    def __init__(self, masks: LearnedMasks, part: str):
        super().__init__()
        # in a tuple, it is no submodule: it has this one inside
        self.masks, self.part = (masks,), part

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.masks[0].masked(self.part, weight)


def _has_parameter(root: nn.Module, name: str) -> bool:
    try:
        root.get_parameter(name)
    except AttributeError:
        return False
    return True


def _key(part: str) -> str:
    return part.replace(".", "/")  # torch allows no dots in a parameter's own name


def _frozen(masks: LearnedMasks) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in masks.model.named_parameters(prefix="model", remove_duplicate=False):
        if not parameter.requires_grad:
            yield name, parameter


def _without_frozen(masks: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    assert isinstance(masks, LearnedMasks)
    for name, _ in _frozen(masks):
        state.pop(prefix + name, None)


def _with_frozen(masks: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(masks, LearnedMasks)
    for name, parameter in _frozen(masks):
        state.setdefault(prefix + name, parameter.detach())
