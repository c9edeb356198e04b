"""Finding out on a task which weights to keep: scores are trained, the weights, task head included, are not.

SRNets, Liu et al. 2022, https://arxiv.org/abs/2210.05211; METHODS 3.6. The loss is the task's, or one with a model of
its bias beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mtl_tickets.files import written_whole
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.weight_masks import write_zeros
from mtl_tickets.recipes.jobs import PRETRAINED, Origin, TaskObjective, put_on_top
from mtl_tickets.recipes.measured import after_epoch, evaluated, remaining_rows, tell_unmoved
from mtl_tickets.recipes.run_directory import CHECKPOINT
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.scoring.magnitude import weight_magnitudes
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.learned_masks import LearnedMasks
from mtl_tickets.training.loop import TrainResult, TrainSettings, total_steps, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.schedules import cubic

TICKET, WEIGHTS = "ticket.safetensors", "weights.safetensors"


def head_matrix(task: str) -> str:
    """The task head's matrix as a part of a weight space: no encoder has a parameter of this name."""
    return f"heads.{task}.linear.weight"


@dataclass(frozen=True)
class TaskMasks:
    """One training of a mask of ``task`` over the weights in ``space``, of which a fraction ``sparsity`` is dropped.

    The weights are those of ``origin``, with the head that the stage ``heads_from`` has kept, or a fresh one; both stay
    as they are. ``rises_from``: the sparsity it starts with, from where it rises to ``sparsity`` at resets, which come
    after every ``reset_every`` steps; None: it has it from the start. ``stays_first``: published defect: the mask that
    comes out has the first sparsity. ``objective``: None for the task's own loss. ``keep_model``: the folder of a model
    for use.
    """

    stage: str
    report_as: str
    task: str
    settings: TrainSettings
    space: WeightSpace
    sparsity: float
    reset_every: int
    origin: Origin = PRETRAINED
    heads_from: str = ""
    objective: TaskObjective | None = None
    rises_from: float | None = None
    stays_first: bool = False
    keep_model: Path | None = None

    def budget(self, sparsity: float) -> Budget:
        """Weights dropped, each matrix its share."""
        return Budget.fractions(self.space, {"weights": sparsity})


def train_task_masks_each(bench: Workbench, trainings: Sequence[TaskMasks]) -> dict[str, Ticket]:
    """The ticket of every training, by stage; side by side where the run has workers."""
    found = bench.each_once(
        lambda training: train_task_masks(bench, training),
        trainings,
        lambda training: bench.steps([training.task], training.settings),
    )
    return {training.stage: ticket for training, ticket in zip(trainings, found, strict=True)}


def train_task_masks(bench: Workbench, training: TaskMasks) -> Ticket:
    """Trains, writes the mask that comes out into the weights, evaluates these, and keeps ticket and weights."""
    folder = bench.run.stage_folder(training.stage)

    def train_stage(_: Path) -> dict[str, Any]:
        bench.progress.stage(training.stage)
        model = _start(bench, training)
        masks = _masks(model, training)
        try:
            result = _trained(bench, training, masks, folder)
            if training.stays_first and training.rises_from is not None:
                masks.budget = training.budget(training.rises_from)
            ticket = masks.ticket().where(
                kind="winning",
                task=training.task,
                seed=bench.seed,
                encoder=bench.settings.name,
                weight_hash=bench.weight_hash,
            )
        finally:
            masks.take_off()
        write_zeros(model.encoder, ticket, model)
        rows = evaluated(bench, model, training.report_as, (training.task,), result.history, result.steps, folder)
        rows += remaining_rows(bench, training.report_as, training.task, None, of_encoder(ticket))
        ticket.save(folder / TICKET)
        # without the head's matrix, what other recipes can take as a base
        of_encoder(ticket).save(bench.run.path / "tickets" / training.report_as.replace("/", "-") / training.task)
        with written_whole(folder / WEIGHTS) as part:
            save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, part)
        if training.keep_model:
            bench.keep_model(model, training.keep_model, training.stage, (training.task,))
        bench.run.log(f"{training.stage}: {result.steps} steps, {result.seconds:.1f} s")
        unmoved = tell_unmoved(bench, training.stage, result.history)
        return {"rows": rows, "history": result.history, "steps": result.steps, "unmoved": unmoved}

    bench.run.stage(training.stage, train_stage)
    return Ticket.load(folder / TICKET, space=training.space, weight_hash=bench.weight_hash)


def of_encoder(ticket: Ticket) -> Ticket:
    """The part of a ticket that is not of a task head: what can be put on an encoder."""
    kept = {name: units for name, units in ticket.units.items() if not name.startswith("heads.")}
    if len(kept) == len(ticket.units):
        return ticket
    space = WeightSpace({name: units.shape for name, units in kept.items()})
    return Ticket(space, kept, ticket.about)


def _start(bench: Workbench, training: TaskMasks) -> MultiTaskModel:
    model = bench.start((training.task,)).rewound()
    training.origin.put_into(model.encoder, bench.run.path / "stages")
    if training.heads_from:
        put_on_top(model, bench.run.stage_folder(training.heads_from))
    return model


def _masks(model: MultiTaskModel, training: TaskMasks) -> LearnedMasks:
    """As published: of a constant size, from the one-shot magnitude ticket; of a rising one from the magnitudes
    themselves, which know what to drop next."""
    magnitudes = weight_magnitudes(model.encoder, training.space, otherwise=model)
    if training.rises_from is not None:
        first = training.budget(training.rises_from)
        return LearnedMasks(model, model.encoder, magnitudes, first, allocation="per_matrix")
    ticket = draw(magnitudes, training.budget(training.sparsity), allocation="per_matrix")
    return LearnedMasks(model, model.encoder, ticket, allocation="per_matrix")


def _trained(bench: Workbench, training: TaskMasks, masks: LearnedMasks, folder: Path) -> TrainResult:
    seed = derived_seed(bench.seed, "train", training.task)
    batches = bench.batches((training.task,), training.settings, seed)
    steps = bench.steps((training.task,), training.settings)
    objective, first = training.objective, training.rises_from

    def resize(step: int) -> None:
        if first is not None:
            masks.budget = training.budget(cubic(first, training.sparsity, step / steps))

    def before(step: int) -> None:
        if objective is not None:
            objective.before_step(step)

    def after(step: int) -> None:
        if step % training.reset_every == 0 or step == steps:
            resize(step)
            masks.reset()

    def on_epoch(epoch: int) -> dict[str, Any]:
        # what is measured has the size it is said to have
        resize(total_steps(batches, training.settings.model_copy(update={"epochs": epoch + 1})))
        masks.reset()
        return {**after_epoch(bench, masks.model, (training.task,)), "sparsity": masks.sparsity()}  # type: ignore[arg-type]

    what = {
        "masks": [training.sparsity, training.reset_every, first, training.space.to_json()],
        "origin": asdict(training.origin),
        "heads_from": training.heads_from,
        "objective": None if objective is None else objective.digest,
    }
    return train(
        masks,
        batches,
        task_loss if objective is None else objective,
        training.settings,
        bench.accelerator,
        seed=seed,
        identity=bench.identity(bench.start((training.task,)), (training.task,), training.settings, what),
        checkpoint=folder / CHECKPOINT,
        on_epoch=on_epoch,
        on_step=bench.progress.advance,
        before_step=before,
        after_step=after,
    )
