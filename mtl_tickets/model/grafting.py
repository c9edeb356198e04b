"""A student among its teacher's layers: sparse progressive distillation (SPD, Huang et al., ACL 2022, arXiv 2110.08190;
METHODS 5.2).

The student is a copy of the fine-tuned teacher. While it is trained, each layer of the network is, for each batch and
layer by itself with probability ``rate``, the student's, and else the teacher's, which is frozen: a pruned layer learns
to do its work among whole ones. In eval mode it is always the student's. As published, embeddings, pooler and head are
the teacher's and stay as they are, and the teacher's layers in the mixture have dropout as the student's have, while
the teacher that is distilled from has none.

The teacher's layers stand in the encoder's list of layers during the pass, so that nothing of an architecture is
written here. A layer of the student that a batch does not use has gradients of 0: as in the published code, moments of
the optimiser go on, every process has a gradient for every parameter, and a batch that uses none of the student's
layers is a step as others are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.encoders import derived_seed
from mtl_tickets.model.inside import Attending, attending, watched
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.packed import PACKED

States = tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]
"""Logits of each segment; hidden states, embeddings' output first; attention probabilities of each layer."""


class Grafted(nn.Module):
    """``student``, a copy of ``teacher``, whose layers are trained among the teacher's.

    ``rate``: the probability of the student's layer, which with the draws of a step is set by :meth:`at`. ``beside``:
    a module that belongs into the same checkpoint: what is pruned. ``train_head``: the head is trained too.

    The teacher is taken over, and no part of the state dict. ``frozen_gradients`` is the published defect 6 (METHODS
    5.4): frozen parts, the teacher's layers among them, have gradients, which count where these are clipped. They then
    are parameters like others, and :meth:`hold` has to put them back after every step.
    """

    def __init__(
        self,
        teacher: MultiTaskModel,
        *,
        seed: int = 0,
        train_head: bool = False,
        beside: nn.Module | None = None,
        frozen_gradients: bool = False,
    ):
        super().__init__()
        teacher = teacher.eval().requires_grad_(False)
        self.student = copy.deepcopy(teacher)
        self.beside = beside
        # in a tuple, it is no submodule: neither trained nor in checkpoints
        self._teacher = (teacher,)
        self._seed, self.rate = seed, 1.0
        self._generator = torch.Generator()
        self.at(0, 1.0)
        trained = [*layers_of(self.student.encoder), *([self.student.heads] if train_head else [])]
        for part in trained:
            part.requires_grad_(True)
        self._frozen: list[tuple[nn.Parameter, torch.Tensor]] = []
        if frozen_gradients:
            self.predecessors = nn.ModuleList(layers_of(teacher.encoder)).requires_grad_(True)
            fixed = [p for p in self.student.parameters() if not p.requires_grad]
            for parameter in [*fixed, *self.predecessors.parameters()]:
                parameter.requires_grad_(True)
                self._frozen.append((parameter, parameter.detach().clone()))

    @property
    def teacher(self) -> MultiTaskModel:
        return self._teacher[0]

    @property
    def heads(self) -> nn.ModuleDict:
        """The student's, which may have a learning rate of their own."""
        return self.student.heads

    def at(self, step: int, rate: float) -> None:
        """What holds until the next optimiser step: the draws depend on the seed, on ``step`` and on the number of
        batches since this call alone."""
        self.rate = rate
        self._generator.manual_seed(derived_seed(self._seed, f"grafting/{step}"))

    def forward(
        self,
        *,
        teacher: bool = False,
        inside: bool = False,
        attention: Attending | None = None,
        **inputs: Any,
    ) -> list[torch.Tensor] | States:
        """What :class:`MultiTaskModel` answers to ``inputs``: the mixture in training, else the student; or the
        ``teacher``, without dropout.

        ``inside``: hidden states and, where ``attention`` says how it is to be computed, its probabilities too, of the
        heads that the student keeps: [B, kept heads, S, S]. Rows are then padded, also where the encoder packs them.
        """
        model = self.teacher if teacher else self.student
        if teacher and self._frozen:
            self.teacher.eval()  # its layers are ours, too, and with them in training mode
        with self._mixture(self.training and not teacher) as unused:
            if not inside:
                return _tied(model(**inputs), unused)
            packed = model.config._attn_implementation == PACKED
            how = attention or ("sdpa" if packed else model.config._attn_implementation)
            both = self.student.encoder, self.teacher.encoder
            with attending(how, *both), watched(model.encoder, attention is not None) as seen:
                logits = model(**inputs)
        states = logits, seen.hidden, self._of_kept_heads(seen.attention)
        return tuple(_tied(values, unused) for values in states)  # type: ignore[return-value]

    @torch.no_grad()
    def hold(self) -> None:
        """Puts frozen parts back after an optimiser step, where they have gradients."""
        for parameter, value in self._frozen:
            parameter.copy_(value)

    @contextmanager
    def _mixture(self, mixes: bool) -> Iterator[list[nn.Module]]:
        """Inside, the student's encoder has the layers that are drawn now; gives the student's that take no part."""
        if not mixes:
            yield []
            return
        mixed = self.student.encoder.get_submodule(self.student.anatomy.layers)
        assert isinstance(mixed, nn.ModuleList)  # anatomy_of has looked
        own, theirs = list(mixed), layers_of(self.teacher.encoder)
        drawn = (torch.rand(len(own), generator=self._generator) < self.rate).tolist()
        others = [number for number, student in enumerate(drawn) if not student]
        try:
            for number in others:
                mixed[number] = theirs[number].train()
            yield [own[number] for number in others]
        finally:
            for number in others:
                mixed[number] = own[number]
                theirs[number].eval()

    def _of_kept_heads(self, attention: list[torch.Tensor]) -> list[torch.Tensor]:
        """A head that is dropped changes nothing: where it looks is not to be learned."""
        table = self.student.gates.table.get("heads")
        if table is None or bool(table.all()):
            return attention
        kept = table[0].bool().to(attention[0].device) if attention else table[0]
        return [layer[:, heads] for layer, heads in zip(attention, kept, strict=True)]


def _tied(values: list[torch.Tensor], unused: list[nn.Module]) -> list[torch.Tensor]:
    """The same values, from which parameters that take no part have a gradient of 0."""
    if not (values and unused and torch.is_grad_enabled()):
        return values
    parameters = [p for layer in unused for p in layer.parameters() if p.requires_grad]
    return [*values[:-1], values[-1] + sum(p.sum() for p in parameters) * 0.0]
