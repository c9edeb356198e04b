"""A model's metrics on one task's split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.files import written_whole
from mtl_tickets.model.fork import Fork
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.processes import share_of
from mtl_tickets.tasks.batches import BatchSettings, passes_over
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tasks.metrics import compute, score
from mtl_tickets.tasks.spec import TaskSpec
from mtl_tickets.training.objectives.task_loss import example_losses


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` by name in natural units; ``score``, their mean x100 (what tables show and selection uses);
    ``logits`` float32 [rows, outputs] and ``labels`` [rows], in the order of the data."""

    metrics: dict[str, float]
    score: float
    logits: np.ndarray
    labels: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.labels)

    @property
    def loss(self) -> float:
        """The mean loss of the rows, of a task that is answered by its own head: nats, or the squared error."""
        return float(example_losses(torch.from_numpy(self.logits), torch.from_numpy(self.labels)).mean())


def evaluate(
    model: MultiTaskModel,
    task: TaskSpec,
    encoded: EncodedTask,
    accelerator: Accelerator,
    pad_id: int,
    batch_size: int = 128,
) -> Evaluation:
    """The task's metrics on labelled examples, with the task's ticket on if the model has one for it.

    A task with ``head:`` is answered by that task's head (and ticket), and the answers are collapsed to its own labels.
    """
    if encoded.labels is None:
        raise ValueError(f"{task.name}: an evaluation needs labels")
    head = task.head or task.name
    logits = predict_logits(model, [head], encoded, accelerator, pad_id, batch_size)[head]
    metrics = compute(task, predictions(model, task, logits), encoded.labels)
    return Evaluation(metrics, score(task, metrics), logits, encoded.labels)


@torch.inference_mode()
def predict_logits(
    model: MultiTaskModel,
    heads: Sequence[str],
    encoded: EncodedTask,
    accelerator: Accelerator,
    pad_id: int,
    batch_size: int = 128,
) -> dict[str, np.ndarray]:
    """For each of these tasks' heads float32 [rows, outputs], rows in the order of the data; all in one pass
    (:meth:`MultiTaskModel.forward_all`). ``batch_size``: rows of the data times what the tasks make of them. Several
    processes share the batches, and each has all answers in the end."""
    was_training = model.training
    model.eval()
    grown = max(Fork.of(model.gates, [model.task_index(head) for head in heads]).sizes)
    settings = BatchSettings(size=max(1, batch_size // grown))
    outputs = {head: model.tasks[model.task_index(head)].n_out for head in heads}
    answers = {head: torch.zeros(len(encoded), n, device=accelerator.device) for head, n in outputs.items()}
    for batch in passes_over({"": encoded}, settings, pad_id, share=share_of(accelerator)):
        moved = batch.to(accelerator.device)
        with accelerator.autocast():
            logits = model.forward_all(moved.input_ids, moved.attention_mask, moved.token_type_ids, tasks=list(answers))
        rows = torch.from_numpy(batch.indices).to(accelerator.device)
        for head, found in logits.items():
            answers[head][rows] = found
    model.train(was_training)
    # rows of other processes are 0 here
    return {head: accelerator.reduce(found, "sum").cpu().numpy() for head, found in answers.items()}


def predictions(model: MultiTaskModel, task: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """Label ids int64 [rows] (classification) or values float32 [rows] (regression)."""
    if task.kind == "regression":
        return logits[:, 0]
    chosen = logits.argmax(-1)
    if task.head is None:
        return chosen
    return task.ids_from_head(model.tasks[model.task_index(task.head)].labels)[chosen]


def save_predictions(path: Path, evaluation: Evaluation) -> None:
    """Keeps logits and gold labels, so that paired tests over examples need no second run."""
    with written_whole(path) as part:
        save_file({"logits": evaluation.logits, "labels": np.ascontiguousarray(evaluation.labels)}, part)


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``[rows, outputs]`` and labels ``[rows]``, as :func:`save_predictions` keeps them. Raises
    :class:`CheckpointError` naming a file that holds anything else."""
    try:
        kept = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(Problem(f"must be a safetensors file ({error})", file=str(path))) from None
    shapes = {name: list(array.shape) for name, array in kept.items()}
    logits, labels = kept.get("logits"), kept.get("labels")
    if logits is None or labels is None or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        rule = "must have logits [rows, outputs] and as many labels"
        raise CheckpointError(Problem(rule, file=str(path), found=shapes))
    return logits, labels
