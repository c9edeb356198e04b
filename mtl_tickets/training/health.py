"""Is what a training computes still made of numbers? Found at the step where it no longer is, and said with its rows.

On a CPU every step is looked at before it is taken. A GPU would have to be waited for, so there the losses and norms of
some steps are looked at together, and always before a checkpoint is written: the last one is good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.training.descent import halves_of

# steps that a GPU is left alone for
APART = 20
# so many steps in a row that fp16 skips are no search for the right scale any more
SKIPPED = 50

Objective = Callable[[nn.Module, Any], torch.Tensor]


class TrainingDiverged(MtlTicketsError):
    """The loss, or a gradient, stopped being a number."""


@dataclass
class _Step:
    number: int
    window: Sequence[Any]
    loss: torch.Tensor
    norm: torch.Tensor


class Health:
    """Of one training. ``source`` says what is in a batch, where it has ``describe(batch, rows)``; ``hint`` is what to
    do about it, ``kept`` says where the last checkpoint is."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        source: object,
        accelerator: Accelerator,
        hint: str,
        kept: Callable[[], str],
    ):
        self._model, self._objective, self._source = model, objective, source
        self._accelerator, self._hint, self._kept = accelerator, hint, kept
        self._at_once = accelerator.device.type == "cpu"
        self._unseen: list[_Step] = []
        self._skipped = 0

    def note(self, number: int, window: Sequence[Any], loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Step ``number`` (the first is 1) has this summed loss and this norm of its gradient, which is not applied
        yet. Raises :class:`TrainingDiverged`."""
        self._unseen.append(_Step(number, window, loss.detach().clone(), norm.detach()))
        if self._at_once or len(self._unseen) >= APART:
            self.check()

    def check(self) -> None:
        """Looks at the steps that were not looked at. Raises :class:`TrainingDiverged` for the first bad one."""
        steps, self._unseen = self._unseen, []
        if not steps:
            return
        values = torch.stack([torch.stack([s.loss.cpu().double(), s.norm.cpu().double()]) for s in steps]).tolist()
        for step, (loss, norm) in zip(steps, values, strict=True):
            if not math.isfinite(loss):
                raise TrainingDiverged(self._diagnosis(step, f"the loss is {loss}"))
            if math.isfinite(norm):
                self._skipped = 0
            elif self._accelerator.scaler is None:
                raise TrainingDiverged(self._diagnosis(step, f"the norm of the gradient is {norm}"))
            else:  # such a step is skipped, and the scale of the loss halved
                self._skipped += 1
                if self._skipped >= SKIPPED:
                    scale = self._accelerator.scaler.get_scale()
                    raise TrainingDiverged(
                        f"step {step.number:,}: gradients have overflowed fp16 in {SKIPPED} steps in a row, though the "
                        f"loss is scaled by no more than {scale:g}: use bf16 or no mixed precision{self._kept()}"
                    )

    def _diagnosis(self, step: _Step, what: str) -> str:
        """Which rows it comes from, and whether float32 would have helped."""
        where, why = self._culprits(step.window)
        return f"step {step.number:,}, {where}: {what}; {why}{self._kept()}"

    @torch.no_grad()
    def _culprits(self, window: Sequence[Any]) -> tuple[str, str]:
        if not all(bool(parameter.isfinite().all()) for parameter in self._model.parameters()):
            # on a GPU some steps may have been taken since
            return self._described(window[0]), f"the weights are no numbers any more: {self._hint}"
        self._model.eval()
        overflows = False
        for batch in window:
            for precise in (True, False):
                bad = [i for i, row in enumerate(_rows(batch)) if not math.isfinite(self._loss(row, precise))]
                if bad and precise:
                    return self._described(batch, bad), f"that of these rows alone is no number either: {self._hint}"
                overflows = overflows or bool(bad)
            if overflows:
                kind = self._accelerator.mixed_precision
                return self._described(batch, bad), (
                    f"an overflow of {kind}: computed in float32 the loss of these rows is a number; "
                    + ("use bf16 or no mixed precision" if kind == "fp16" else "use no mixed precision")
                )
        return self._described(window[0]), f"row by row, without dropout, it is a number: {self._hint}"

    def _loss(self, batch: Any, precise: bool) -> float:
        # accelerate's autocast is in the method that it has put over the model's own
        covered = vars(self._model).pop("forward", None)
        try:
            if not precise and covered is not None:
                self._model.forward = covered
            return float(self._objective(self._model, batch))
        finally:
            vars(self._model).pop("forward", None)
            if covered is not None:
                self._model.forward = covered

    def _described(self, batch: Any, rows: Sequence[int] | None = None) -> str:
        describe = getattr(self._source, "describe", None)
        return "a batch" if describe is None else str(describe(batch, rows))


def _rows(batch: Any) -> list[Any]:
    """One batch a row, where they can be had apart."""
    halves = halves_of(batch)
    return [batch] if halves is None else [row for half in halves for row in _rows(half)]


def gradient_norm(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """The 2-norm over all gradients, float32."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
