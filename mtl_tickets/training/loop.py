"""The one training loop. Fine-tuning, ladder rungs, multi-task training and pre-training all run through it.

The loop knows batches, an objective and an optimiser; what is learned is the objective's business. Stopping at any
moment and resuming gives the same weights bit for bit on a CPU: batches are a pure function of (seed, epoch), and a
checkpoint holds everything else.

Several processes share the rows of every batch (``accelerate launch``). Each has random numbers of its own, drawn anew
from the seed, the step and its rank before every step, so that the checkpoint of the first is enough for all.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pydantic
import torch
from accelerate import Accelerator
from torch import nn

from mtl_tickets.model.compiled import compiled
from mtl_tickets.processes import at, same, share_of
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.batches import BatchSettings
from mtl_tickets.training.accumulation import accumulation_device
from mtl_tickets.training.ahead import ahead
from mtl_tickets.training.checkpoint import DamagedCheckpoint, Place, load_checkpoint, save_checkpoint
from mtl_tickets.training.descent import Descent
from mtl_tickets.training.health import Health, gradient_norm
from mtl_tickets.training.optim import OptimiserSettings, learning_rate, make_optimiser, set_learning_rate, stretch

logger = logging.getLogger(__name__)


class TrainSettings(Settings):
    """How long and with what a model is trained."""

    epochs: pydantic.PositiveInt = 3
    optimiser: OptimiserSettings = OptimiserSettings()
    batches: BatchSettings = BatchSettings()
    accumulate: pydantic.PositiveInt = pydantic.Field(1, description="batches whose gradients make one step")
    checkpoint_seconds: pydantic.NonNegativeFloat = pydantic.Field(
        60.0, description="seconds between checkpoints; 0: after every step"
    )
    ahead: pydantic.NonNegativeInt | None = pydantic.Field(
        None, description="batches made before they are needed, on a thread of their own; None: 2, and on a CPU 0"
    )
    compile: bool = pydantic.Field(
        False, description="torch.compile of the encoder's layers: faster steps after a slow start"
    )

    def deciding(self) -> dict[str, Any]:
        """The settings that can change a number, JSON-able."""
        return self.model_dump(mode="json", exclude={"checkpoint_seconds", "ahead"})


class TrainingBatch(Protocol):
    """What the loop needs of a batch."""

    count: int
    weight: float

    def to(self, device: torch.device) -> Any: ...


class BatchSource(Protocol):
    """Where batches come from: a pure function of the epoch."""

    def batches_in(self, epoch: int) -> int: ...

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]: ...


Objective = Callable[[nn.Module, Any], torch.Tensor]
EpochEnd = Callable[[int], dict[str, Any]]


@dataclass
class TrainResult:
    """What a training leaves besides the weights: a row per epoch, optimiser steps, examples seen, seconds.

    ``seconds`` is the time of all starts, each until its last checkpoint or the end; it is the one field that differs
    between two equal runs.
    """

    history: list[dict[str, Any]]
    steps: int
    examples: int
    seconds: float


def train(
    model: nn.Module,
    source: BatchSource,
    objective: Objective,
    settings: TrainSettings,
    accelerator: Accelerator,
    *,
    seed: int,
    identity: str = "",
    checkpoint: Path | None = None,
    on_epoch: EpochEnd | None = None,
    on_step: Callable[[int], None] | None = None,
    before_step: Callable[[int], None] | None = None,
    after_step: Callable[[int], None] | None = None,
    planned_steps: int | None = None,
    restarts: Sequence[int] = (),
    until: int | None = None,
) -> TrainResult:
    """Trains ``model`` in place.

    ``identity`` says what is trained (a digest of settings, data and start); a checkpoint with another identity is
    refused. ``checkpoint`` is the file to write and, where it exists, to go on from. ``on_epoch(epoch)`` is called
    with the model in eval mode and returns the epoch's row of the history. ``on_step(n)`` is told of n finished steps.
    ``before_step(step)`` is called before the batches of every optimiser step, with the number of steps until then:
    what follows a schedule is set there. It must depend on the step and the model's state dict alone, so that a
    resumed training is the same.
    ``after_step(step)`` is called after every optimiser step, with the number of all steps until then, before anything
    else sees the weights: what it changes in the model is in every checkpoint. It, too, must depend on the step and the
    model's state dict alone.
    ``planned_steps`` is what the learning rate is spread over, where that is more than the steps of this training.
    ``restarts``: steps after which its schedule, warm-up included, begins anew, each time until the next or the end.
    ``until``: stop after this step with a checkpoint to go on from, as if interrupted there.

    Raises :class:`~mtl_tickets.training.health.TrainingDiverged` where a loss or a gradient is no number, with the step
    and its rows, before a checkpoint has that in it; :class:`CheckpointError` for a
    checkpoint that does not fit. One that is damaged is said to be, and the training begins anew.
    """
    seed_everything(seed)
    steps = planned_steps or total_steps(source, settings)
    optimiser = make_optimiser(model, settings.optimiser)
    _fresh_scaler(accelerator)
    what = checkpoint.parent.name if checkpoint else "a training"
    with contextlib.ExitStack() as stack:
        stack.enter_context(prepared(model, accelerator))
        stack.callback(at, f"what follows {what}", counted=False)
        stepper = accelerator.prepare_optimizer(optimiser)
        same(model)
        place = Place()
        if checkpoint is not None and checkpoint.exists():
            try:
                place = load_checkpoint(checkpoint, model, optimiser, accelerator.scaler, identity)
            except DamagedCheckpoint as error:
                logger.warning("%s; this training begins anew", error)
            if on_step and place.step:
                on_step(place.step)
        summing = accumulation_device(accelerator.device)
        rank, world = share_of(accelerator)
        loss_sum = torch.tensor(place.loss_sum, dtype=torch.float64, device=summing)
        parameters = [p for p in model.parameters() if p.requires_grad]
        descent = Descent(model, objective, parameters, accelerator, summing)
        counted = saved = time.monotonic()

        first = last = place.step  # of the last checkpoint

        def kept() -> str:
            there = checkpoint is not None and last > 0
            return f"; the last good checkpoint, of step {last:,}, is kept: {checkpoint}" if there else ""

        hint = f"lower the learning rate (now {settings.optimiser.lr:g})"
        health = Health(model, objective, source, accelerator, hint, kept)

        def save() -> None:
            nonlocal saved, counted, last
            at(f"the checkpoint of step {place.step:,} of {what}", counted=False)
            health.check()
            now = time.monotonic()
            place.seconds, counted = place.seconds + now - counted, now
            if checkpoint is not None and accelerator.is_main_process:
                place.loss_sum = float(loss_sum)
                save_checkpoint(checkpoint, model, optimiser, accelerator.scaler, place, identity)
            last = place.step
            saved = time.monotonic()

        ready = settings.ahead
        if ready is None:
            ready = 0 if accelerator.device.type == "cpu" else 2
        if settings.compile:
            stack.enter_context(compiled(model))
        while place.epoch < settings.epochs and (until is None or place.step < until):
            model.train()
            batches_in_epoch = source.batches_in(place.epoch)
            making = stack.enter_context(contextlib.ExitStack())
            batches = making.enter_context(ahead(source.iterate(place.epoch, place.batch), accelerator.device, ready))
            while place.batch < batches_in_epoch:
                # the first may compile what the others find compiled
                limited = place.step > first
                where = f"step {place.step + 1:,} of {what}"
                at(f"{where}, where its rows are put together", limited)
                window = [next(batches) for _ in range(min(settings.accumulate, batches_in_epoch - place.batch))]
                count = sum(batch.count for batch in window)
                if world > 1:
                    torch.manual_seed(int(np.random.SeedSequence([seed, place.step, rank]).generate_state(1)[0]))
                if before_step:
                    before_step(place.step)
                step_loss = descent(window, count, where, limited)
                place.loss_count += count
                if world > 1:
                    step_loss = accelerator.reduce(step_loss, "sum")
                loss_sum += step_loss
                if settings.optimiser.clip:
                    norm = accelerator.clip_grad_norm_(parameters, settings.optimiser.clip)
                else:
                    norm = gradient_norm(parameters)
                health.note(place.step + 1, window, step_loss, norm)
                factor = learning_rate(*stretch(place.step, steps, restarts), settings.optimiser)
                rate = settings.optimiser.lr * factor
                set_learning_rate(optimiser, rate)
                stepper.step()
                stepper.zero_grad(set_to_none=True)
                place.step += 1
                place.batch += len(window)
                place.examples += count
                if after_step:
                    after_step(place.step)
                if on_step:
                    on_step(1)
                if place.step == until:
                    save()
                    break
                if time.monotonic() - saved >= settings.checkpoint_seconds and place.batch < batches_in_epoch:
                    save()
            making.close()
            at(f"the end of epoch {place.epoch + 1} of {what}")
            if place.step == until:
                break
            health.check()
            mean_loss = float(loss_sum) / place.loss_count
            model.eval()
            row: dict[str, Any] = {"epoch": place.epoch + 1, "step": place.step, "loss": mean_loss}
            if on_epoch:
                row |= on_epoch(place.epoch)
            place.history.append(row)
            place.epoch, place.batch, place.loss_count = place.epoch + 1, 0, 0
            loss_sum.zero_()
            if place.epoch < settings.epochs and time.monotonic() - saved >= settings.checkpoint_seconds:
                save()
    accelerator.wait_for_everyone()  # who goes on from the checkpoint finds it whole
    model.eval()
    return TrainResult(place.history, place.step, place.examples, place.seconds + time.monotonic() - counted)


@contextlib.contextmanager
def prepared(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Inside, the model is on its device and computes in mixed precision, if that is asked for. Outside it is what it
    was: the same module may be trained again, copied or saved. (Processes add up their gradients themselves, see
    :class:`~mtl_tickets.training.descent.Descent`.)"""
    try:
        accelerator.prepare_model(model, evaluation_mode=True)
        yield
    finally:
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        # accelerate leaves the method as an attribute, which a copied model would share, and marks what it has prepared
        # once, so that a second time would change nothing
        for left in ("forward", "_is_accelerate_prepared"):
            vars(model).pop(left, None)
        _free(accelerator)


def total_steps(source: BatchSource, settings: TrainSettings) -> int:
    """Optimiser steps of the whole training; a window of accumulated batches does not reach over an epoch's end."""
    return sum(-(-source.batches_in(epoch) // settings.accumulate) for epoch in range(settings.epochs))


def seed_everything(seed: int) -> None:
    """Seeds torch (all devices), numpy and random."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _free(accelerator: Accelerator) -> None:
    """Makes the accelerator forget what it prepared. It then walks over every object of the process, half a second each
    time, to give a device's memory back; on a CPU there is none, and what is garbage goes when Python next looks."""
    walks = accelerator.device.type != "cpu" or gc.get_freeze_count() > 0
    if not walks:
        gc.freeze()
    try:
        accelerator.free_memory()
    finally:
        if not walks:
            gc.unfreeze()


def _fresh_scaler(accelerator: Accelerator) -> None:
    """fp16: every training starts from the scaler's initial state, not from where the last training left it."""
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(torch.amp.GradScaler(accelerator.device.type).state_dict())
