"""Metric rows of what a run makes: of trained models, of what is left of them, and of what they have to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_tickets.evaluation.evaluate import Evaluation, evaluate, predictions, save_predictions
from mtl_tickets.evaluation.yardsticks import YARDSTICKS
from mtl_tickets.model import weight_masks
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.recipes.base import TRAIN_SCORE
from mtl_tickets.scoring.engine import sample_rows
from mtl_tickets.tasks.breakdown import broken_down
from mtl_tickets.tasks.data import SPLIT_SEED
from mtl_tickets.tasks.metrics import compute, score
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket

if TYPE_CHECKING:
    from mtl_tickets.recipes.workbench import Workbench


def yardsticks(bench: Workbench, names: Sequence[str]) -> None:
    """What a model has to beat, on the same rows."""
    for name in names:
        for task in bench.learned:

            def yardstick_stage(folder: Path, name: str = name, task: str = task) -> dict[str, Any]:
                bench.progress.stage(f"yardstick/{name}/{task}")
                spec, data = bench.tasks[task], bench.data[task]
                rows = []
                for split in spec.dev_splits:
                    questions = data.raw(split)
                    answers = YARDSTICKS.get(name)(spec, data.raw("train"), questions)
                    metrics = compute(spec, answers, np.asarray(questions.labels))
                    rows += _metric_rows(bench, f"yardstick/{name}", task, split, metrics, len(data.dev[split]), 0)
                return {"rows": rows}

            bench.run.stage(f"yardstick/{name}/{task}", yardstick_stage)


def evaluated(
    bench: Workbench,
    model: MultiTaskModel,
    report_as: str,
    tasks: Sequence[str],
    history: list[dict[str, Any]],
    steps: int,
    folder: Path,
    fit: bool = False,
) -> list[dict[str, Any]]:
    """The rows of a trained model on its tasks, and on those that are answered by their heads: of every dev split,
    and on selection rows the score of the last epoch. Answers go to ``folder``. ``fit``: also their scores on training
    rows, by which one sees how far the model is better on what it knows."""
    pad = bench.tokenizer.pad_token_id
    rows = []
    for task in tasks:
        chosen = bench.data[task].selection
        if history:  # a training that ends within its first epoch has none
            value = history[-1]["selection"][task]
            rows.append(bench.run.row(report_as, task, "selection", "score", value, len(chosen), steps))
        if fit:
            value, sampled = training_score(bench, model, task)
            rows.append(bench.run.row(report_as, task, "train", TRAIN_SCORE, value, sampled, steps))
    asked = [*tasks, *(extra for extra in bench.extra if bench.tasks[extra].head in tasks)]
    for task in asked:
        for split, encoded in bench.data[task].dev.items():
            result = evaluate(model, bench.tasks[task], encoded, bench.accelerator, pad)
            save_predictions(folder / f"predictions-{task}-{split}.safetensors", result)
            rows += _metric_rows(bench, report_as, task, split, result.metrics, result.rows, steps)
            if not bench.tasks[task].breakdown:  # texts are looked up for nothing else
                continue
            answers = predictions(model, bench.tasks[task], result.logits)
            for part in broken_down(bench.tasks[task], bench.data[task].raw(split), answers):
                rows.append(bench.run.row(report_as, task, split, part.metric, part.accuracy, part.rows, steps))
    return rows


def remaining_rows(
    bench: Workbench, report_as: str, task: str, ticket: Ticket | None, base: Ticket | None = None
) -> list[dict[str, Any]]:
    """What is left of all parameters, in %, and of the weights that may be pruned where single ones are."""
    if ticket is not None and isinstance(ticket.space, WeightSpace):
        ticket, base = None, ticket
    remaining = weight_masks.remaining(bench.space, ticket, base)
    rows = [bench.run.row(report_as, task, "all", "remaining", remaining, bench.space.total)]
    if base is not None:
        kept, size = base.remaining_percent(), base.space.total
        rows.append(bench.run.row(report_as, task, "all", "weights_kept", kept, size))
    return rows


def training_score(bench: Workbench, model: MultiTaskModel, task: str) -> tuple[float, int]:
    """The score on training rows, as many as there are selection rows and the same in every run; and how many."""
    data = bench.data[task]
    sample = sample_rows(data.train, len(data.selection), SPLIT_SEED)
    return evaluate(model, bench.tasks[task], sample, bench.accelerator, bench.tokenizer.pad_token_id).score, len(
        sample
    )


def _metric_rows(
    bench: Workbench, stage: str, task: str, split: str, metrics: dict[str, float], n: int, step: int
) -> list[dict[str, Any]]:
    values = {**metrics, "score": score(bench.tasks[task], metrics)}
    return [bench.run.row(stage, task, split, name, value, n, step) for name, value in values.items()]


# a task whose loss changes by no more than this share of it over all epochs has learned nothing
STANDS_STILL = 1e-3


def after_epoch(bench: Workbench, model: MultiTaskModel, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """For the history of a training: every task's score on its selection rows, and the mean loss of these."""
    found = {task: _on_selection(bench, model, task) for task in tasks}
    return {
        "selection": {task: result.score for task, result in found.items()},
        "selection_loss": {task: result.loss for task, result in found.items()},
    }


def tell_unmoved(bench: Workbench, stage: str, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tasks whose loss has not moved over the epochs of a training, which is told and logged."""
    courses: dict[str, list[float]] = {}
    for epoch in history:
        for task, loss in epoch["selection_loss"].items():
            courses.setdefault(task, []).append(loss)
    unmoved = [
        task
        for task, losses in courses.items()
        if len(losses) > 1 and max(losses) - min(losses) <= STANDS_STILL * abs(losses[0])
    ]
    for task in unmoved:
        text = f"{stage}: the loss of {task} has not moved from {courses[task][0]:.4g} in {len(history)} epochs"
        bench.run.log(text)
        bench.progress.say(f"{text}: is its learning rate too small, or are its labels of another file?")
    return unmoved


def selection_scores(bench: Workbench, model: MultiTaskModel, tasks: Sequence[str]) -> dict[str, float]:
    return {task: _on_selection(bench, model, task).score for task in tasks}


def _on_selection(bench: Workbench, model: MultiTaskModel, task: str) -> Evaluation:
    pad = bench.tokenizer.pad_token_id
    return evaluate(model, bench.tasks[task], bench.data[task].selection, bench.accelerator, pad)
