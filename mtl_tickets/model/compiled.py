"""Training through ``torch.compile``, layer by layer.

Every layer of an encoder is the same code, so that few compilations serve all of them, for rows of any number and
length (``dynamic=True``: under fixed shapes each padded length, and the last batch of an epoch, would be compiled
anew). Layers from which units were removed are of many shapes: beyond torch's limit of compilations they run as they
are. Compiling takes up to some minutes on a busy CPU, which only long trainings earn back, if the compiled layers are
quicker there at all; results are not bit-equal to those without. Outside of training, layers run as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.packed import PACKED


@contextmanager
def compiled(model: nn.Module, backend: str = "inductor") -> Iterator[None]:
    """Inside, the layers of a :class:`MultiTaskModel` are compiled in training mode.

    Raises :class:`InputError` for any other model, and for packed rows: how long the longest of them is differs from
    batch to batch, and for each such number layers would be compiled anew.
    """
    if not isinstance(model, MultiTaskModel):
        rule = "only the layers of a multi-task model are compiled"
        raise InputError(Problem(rule, place="compile", found=type(model).__name__))
    if model.config._attn_implementation == PACKED:
        rule = "packed rows have another longest text in every batch, for which layers would be compiled anew"
        raise InputError(Problem(rule, place="compile", found=True, hint="with compile, set attention: sdpa"))
    layers = list(layers_of(model.encoder))
    steady, model.gates.steady = model.gates.steady, True
    for layer in layers:
        layer.forward = _InTraining(layer, backend)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
        model.gates.steady = steady


class _InTraining:
    """A layer's forward pass: compiled where it is trained."""

    def __init__(self, layer: nn.Module, backend: str):
        self.layer, self.plain = layer, layer.forward
        self.quick = torch.compile(layer.forward, backend=backend, dynamic=True)

    def __call__(self, *args: Any, **named: Any) -> Any:
        if not self.layer.training:
            return self.plain(*args, **named)
        try:
            return self.quick(*args, **named)
        except RuntimeError as error:
            from torch._dynamo.exc import BackendCompilerFailed  # there is no need to wait for it before it is needed

            if not isinstance(error, BackendCompilerFailed):
                raise
            reason = " ".join(str(error).split())[:300]
            hint = "is there a C++ compiler? after a killed run also: delete the folder of torch's compiled code"
            rule = f"the layers could not be compiled ({reason})"
            raise InputError(Problem(rule, place="compile", found=True, hint=hint)) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copied layer has a forward pass of its own, not compiled: this one computes with the original's weights."""
        return copy.deepcopy(self.plain, memo)
