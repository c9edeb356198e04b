"""How long a pre-training takes: tokens and minutes -> batches and steps, fixed once."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.files import read_json, write_json
from mtl_tickets.pretraining.masking import Course, MaskedBatches
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, MaskedLoss
from mtl_tickets.pretraining.settings import PretrainSettings
from mtl_tickets.pretraining.text import TokenText
from mtl_tickets.progress import Progress
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.optim import OptimiserSettings

PLAN = "plan.json"
# as RoBERTa (Liu et al. 2019, section 3.1): less memory in the second moment keeps large batches stable
BETAS, EPS = (0.9, 0.98), 1e-6
# the speed is measured over this long at least, after this many steps to warm up
MEASURED_SECONDS, WARM_UP_STEPS = 3.0, 3


@dataclass(frozen=True)
class Cut:
    """A text in sequences of one length: what to train on, and what is held out (None where nothing is)."""

    length: int
    trained: MaskedBatches
    held: MaskedBatches | None


@dataclass(frozen=True)
class Prepared:
    """Everything the training needs, before the number of tokens is fixed.

    ``short``: None where all sequences have one length.
    """

    tokenizer: Any
    text: TokenText
    long: Cut
    short: Cut | None


def course_of(settings: PretrainSettings, prepared: Prepared, tokens: int) -> Course:
    """The batches for about ``tokens`` tokens of text: short sequences first, where there are any, long ones last."""
    first = 0 if prepared.short is None else min(tokens, round(settings.short_share * tokens))
    parts = [(prepared.long.trained, prepared.long.trained.batches_for(tokens - first))]
    if prepared.short is not None:
        parts.insert(0, (prepared.short.trained, prepared.short.trained.batches_for(first)))
    return Course(parts, settings.reports)


def objective_of(settings: PretrainSettings) -> MaskedLoss:
    return MaskedLoss(settings.contrast or 1.0)


def train_settings(settings: PretrainSettings, legs: int) -> TrainSettings:
    return TrainSettings(
        epochs=legs,
        optimiser=OptimiserSettings(
            kind=settings.optimiser,
            lr=settings.peak_lr,
            muon_lr=settings.muon_lr,
            betas=BETAS,
            eps=EPS,
            weight_decay=settings.weight_decay,
            warm_up=settings.warm_up,
            schedule=settings.schedule,
        ),
        accumulate=settings.accumulate,
        checkpoint_seconds=settings.checkpoint_seconds,
    )


def planned_tokens(
    settings: PretrainSettings,
    prepared: Prepared,
    model: MaskedLanguageModel,
    work: Path,
    identity: str,
    accelerator: Accelerator,
    progress: Progress,
) -> int:
    """How many tokens to train on, fixed once and kept: a resumed pre-training has the same plan to the last step.

    Minutes become tokens here, by the speed of a copy of the model, and not by a clock while training: the learning
    rate can come down to its end, and the same plan gives the same weights.
    """
    path = work / PLAN
    if accelerator.is_main_process and path.exists():
        plan = cast(dict[str, Any], read_json(path))
        if plan["identity"] != identity:
            rule = "the stopped pre-training must have the settings, text and start of this one"
            raise CheckpointError(Problem(rule, str(work), hint="add --restart to throw it away"))
    exists = path.exists()
    accelerator.wait_for_everyone()
    if not exists:
        tokens = settings.tokens
        if settings.minutes is not None:
            progress.stage("pretrain/speed")
            speed = _tokens_a_second(settings, prepared, model, accelerator)
            tokens = min(tokens, max(1, int(60 * settings.minutes * speed)))
            progress.say(f"{speed:,.0f} tokens a second: {tokens:,} tokens in {settings.minutes:g} minutes or less")
        if accelerator.is_main_process:
            write_json(path, {"identity": identity, "tokens": tokens})
        accelerator.wait_for_everyone()
    return int(cast(dict[str, Any], read_json(path))["tokens"])


def _tokens_a_second(
    settings: PretrainSettings, prepared: Prepared, model: MaskedLanguageModel, accelerator: Accelerator
) -> float:
    """Trains a copy for a few steps, more and more until they take long enough to tell.

    The length that most tokens are seen in speaks for the other one.
    """
    steps = WARM_UP_STEPS
    while True:
        short = prepared.short if prepared.short is not None and settings.short_share >= 0.5 else prepared.long
        source = Course([(short.trained, steps * settings.accumulate)])
        trial = copy.deepcopy(model)
        started = time.monotonic()
        train(trial, source, objective_of(settings), train_settings(settings, 1), accelerator, seed=settings.seed)
        # every process must take the same number of steps
        seconds = torch.tensor([time.monotonic() - started], device=accelerator.device)
        longest = float(accelerator.gather(seconds).max())
        if steps > WARM_UP_STEPS and longest >= MEASURED_SECONDS:
            return source.tokens_after(0) / longest
        steps = max(2 * steps, int(steps * MEASURED_SECONDS / max(longest, 1e-3)))
