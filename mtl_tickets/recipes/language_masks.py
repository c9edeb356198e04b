"""Finding out on a text which part of an encoder to keep: scores are trained, its weights are not (METHODS 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mtl_tickets.files import digest, written_whole
from mtl_tickets.pretraining.masking import Course
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, head_parameters
from mtl_tickets.recipes.base import MLM
from mtl_tickets.recipes.language import Language, encoder_of
from mtl_tickets.recipes.run_directory import CHECKPOINT
from mtl_tickets.recipes.workbench import derived_seed
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.learned_masks import Allocation, LearnedMasks
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.hidden_states import MaskObjective, held_out_distance
from mtl_tickets.training.optim import OptimiserSettings

TICKET, HEAD = "ticket.safetensors", "head.safetensors"


@dataclass(frozen=True)
class MaskTraining:
    """One training of a mask on the text: from ``start``, whose size is kept, with the checkpoint's head, which is
    trained beside it where words are predicted. ``learns``: whether the mask is trained, or the head alone: what other
    tickets are given, so that all have a head that has been trained for as long. Thresholds are reset after every
    ``reset_every`` steps."""

    stage: str
    report_as: str
    start: Ticket
    objective: MaskObjective
    optimiser: OptimiserSettings
    steps: int
    reset_every: int
    allocation: Allocation = "per_matrix"
    learns: bool = True
    decay_scores: bool = False


def train_masks_each(language: Language, trainings: Sequence[MaskTraining]) -> dict[str, Ticket]:
    """The ticket of every training, by stage; side by side where the run has workers."""
    bench = language.bench
    if not all(bench.run.is_done(training.stage) for training in trainings):
        language.make_ready()
    found = bench.each_once(
        lambda training: train_masks(language, training), trainings, lambda training: training.steps
    )
    return {training.stage: ticket for training, ticket in zip(trainings, found, strict=True)}


def train_masks(language: Language, training: MaskTraining) -> Ticket:
    """Trains, measures the network through the ticket that comes out, exact to the unit, and keeps ticket and head."""
    bench = language.bench
    folder = bench.run.stage_folder(training.stage)

    def train_stage(_: Path) -> dict[str, Any]:
        bench.progress.stage(training.stage)
        model = language.rewound()
        masks = masks_over(model, training)
        if not training.learns:
            masks.scores.requires_grad_(False)
        try:
            history = _trained(language, training, masks, folder)
            ticket = masks.ticket().where(
                kind=training.start.about.kind if not training.learns else "winning",
                task=MLM,
                seed=bench.seed,
                encoder=bench.settings.name,
                weight_hash=bench.weight_hash,
            )
            device = bench.accelerator.device
            rows = language.rows(training.report_as, masks, ticket, training.steps)
            distance = held_out_distance(masks, language.held, MaskObjective("distillation"), device)
            rows.append(language.row(training.report_as, "distance", distance, training.steps))
        finally:
            masks.take_off()
        ticket.save(folder / TICKET)
        keep_head(model, folder / HEAD)
        return {"rows": rows, "history": history, "steps": training.steps, "changed": _changed(training.start, ticket)}

    bench.run.stage(training.stage, train_stage)
    return Ticket.load(folder / TICKET, space=training.start.space, weight_hash=bench.weight_hash)


def masks_over(model: MaskedLanguageModel, training: MaskTraining) -> LearnedMasks:
    """The masks of a training, on, with the scores they start from. A distillation predicts nothing: it has no use for
    the head."""
    used = training.objective.kind != "distillation"
    return LearnedMasks(
        model,
        encoder_of(model),
        training.start,
        allocation=training.allocation,
        beside=head_parameters(model.network) if used else (),
        decay_scores=training.decay_scores,
    )


def keep_head(model: MaskedLanguageModel, path: Path) -> None:
    """Writes the masked-language head, by the names it has in the network; the tied vocabulary matrix is no part of
    it."""
    wanted = {id(parameter) for parameter in head_parameters(model.network)}
    head = {name: p.detach().contiguous() for name, p in model.network.named_parameters() if id(p) in wanted}
    with written_whole(path) as part:
        save_file(head, part)


def _trained(language: Language, training: MaskTraining, masks: LearnedMasks, folder: Path) -> list[dict[str, Any]]:
    bench = language.bench

    def reset(step: int) -> None:
        if step % training.reset_every == 0:
            masks.reset()

    what = {
        "start": language.start_digest,
        "settings": language.deciding(),
        "mask": training.start.digest(),
        "training": [training.steps, training.reset_every, training.allocation, training.learns, training.decay_scores],
        "objective": asdict(training.objective),
        "optimiser": training.optimiser.model_dump(mode="json"),
        "seed": bench.seed,
    }
    result = train(
        masks,
        Course([(language.prepared.long.trained, training.steps)]),
        training.objective,
        TrainSettings(epochs=1, optimiser=training.optimiser, checkpoint_seconds=language.settings.checkpoint_seconds),
        bench.accelerator,
        seed=derived_seed(bench.seed, "train", MLM),
        identity=digest(what),
        checkpoint=folder / CHECKPOINT,
        on_step=bench.progress.advance,
        after_step=reset if training.learns else None,
    )
    bench.run.log(f"{training.stage}: {result.steps} steps, {result.seconds:.1f} s")
    return result.history


def _changed(before: Ticket, after: Ticket) -> float:
    """The share of the kept units that are others than at the start."""
    kept = sum(int(units.sum()) for units in after.units.values())
    new = sum(int((units & ~before.units[part]).sum()) for part, units in after.units.items())
    return new / max(1, kept)


def put_head(model: MaskedLanguageModel, head: dict[str, torch.Tensor]) -> None:
    """Puts a head that :func:`keep_head` wrote into the network."""
    model.network.load_state_dict(head, strict=False)
