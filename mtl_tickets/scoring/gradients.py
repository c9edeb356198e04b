"""The tasks' loss gradients at one and the same encoder, unit by unit, as inner products."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.slices import own_weights, unit_matrices
from mtl_tickets.processes import share_of
from mtl_tickets.scoring.engine import only_these_learn, sample_rows
from mtl_tickets.tasks.batches import BatchSettings, passes_over
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tickets.gradients import GradientOrigin, GradientProducts
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.training.objectives.task_loss import task_loss

# units are multiplied so many numbers at a time, in float64
AT_ONCE = 2**24

Gradients = list[dict[str, torch.Tensor]]
"""Layer by layer the matrices of its units, by their names in the layer."""


def gradient_products(
    model: MultiTaskModel,
    space: StructuredSpace,
    tasks: Mapping[str, EncodedTask],
    accelerator: Accelerator,
    *,
    pad_id: int,
    rows: int | None,
    seed: int = 0,
    forward_rows: int = 64,
    memory: int = 2**32,
    through_tickets: bool = False,
) -> GradientProducts:
    """Inner products of the tasks' gradients with respect to the weights of every unit of ``space``.

    ``tasks``: training examples by task name; each must be a task of the model. At most ``rows`` of a task are drawn,
    the same ones of tasks with equally many; its halves are the even and the odd ones of these. The gradient of a half
    is that of the mean of its rows' losses, in eval mode, in float32 whatever trainings compute in, without tickets
    unless ``through_tickets`` asks for the model's own. Which weights are a unit's,
    :func:`~mtl_tickets.model.slices.own_weights` says: no biases, embeddings or heads of tasks. The order of ``tasks``
    does not matter, and the model is left as it was.

    Gradients of all halves must be there at once: 2 x tasks float32 copies of a layer's weights on the CPU (eight tasks
    on BERT-base: 16 x 28 MB, and twice that while they are multiplied). As many layers as fit into ``memory`` bytes,
    at least one, are done in one pass over the rows; what does not fit (BERT-base and eight tasks take 5.4 GB) takes
    further passes.

    Raises :class:`InputError` with all tasks of fewer than two rows or without labels, and for a model from which units
    were removed, whose weights are no longer those of the space.
    """
    names = sorted(tasks)
    sampled = {task: sample_rows(tasks[task], rows, seed) for task in names}
    problems = [
        Problem("needs at least 2 labelled rows for the two halves of its gradient", place=task, found=len(encoded))
        for task, encoded in sampled.items()
        if len(encoded) < 2 or encoded.labels is None
    ]
    if model.present:
        problems.append(Problem("gradients of units need a model that has them all"))
    if problems:
        raise InputError(problems)
    layers = layers_of(model.encoder)
    weights = [_weights_of(layer, unit_matrices(model.anatomy)) for layer in layers]
    size = 2 * len(names) * 4 * max(sum(weight.numel() for weight in of_layer.values()) for of_layer in weights)
    at_once = max(1, memory // size)
    found: list[dict[str, np.ndarray]] = []
    for first in range(0, len(layers), at_once):
        group = weights[first : first + at_once]
        kept: list[Gradients] = []
        with only_these_learn(model, _all(group)), contextlib.nullcontext() if through_tickets else model.gates.off():
            for task, encoded in sampled.items():
                for half in (0, 1):
                    part = {task: encoded.select(np.arange(half, len(encoded), 2))}
                    kept.append(_mean_gradient(model, part, group, accelerator, pad_id, forward_rows))
        for position in range(len(group)):
            of_halves = [of_half[position] for of_half in kept]
            stacked = {name: torch.stack([of_half.pop(name) for of_half in of_halves]) for name in group[position]}
            found.append(_products(own_weights(stacked, model.anatomy, space.heads)))
    shape = (len(names), 2) * 2
    values = {
        part: np.stack([of_layer[part] for of_layer in found]).reshape(*space.parts[part], *shape)
        for part in space.parts
    }
    about = GradientOrigin(seed=seed, rows={task: len(encoded) for task, encoded in sampled.items()})
    return GradientProducts(space, tuple(names), values, about)


def _weights_of(layer: nn.Module, names: Sequence[str]) -> dict[str, nn.Parameter]:
    return {name: layer.get_parameter(name) for name in names}


def _all(group: Sequence[Mapping[str, nn.Parameter]]) -> list[nn.Parameter]:
    return [weight for of_layer in group for weight in of_layer.values()]


def _mean_gradient(
    model: MultiTaskModel,
    part: dict[str, EncodedTask],
    group: Sequence[Mapping[str, nn.Parameter]],
    accelerator: Accelerator,
    pad_id: int,
    forward_rows: int,
) -> Gradients:
    """On the CPU, of the mean loss over the rows of one task."""
    ((task, encoded),) = part.items()
    weights = _all(group)
    total = [torch.zeros_like(weight) for weight in weights]
    index, size = {task: model.task_index(task)}, BatchSettings(size=forward_rows)
    for batch in passes_over(part, size, pad_id, index, share=share_of(accelerator)):
        loss = task_loss(model, batch.to(accelerator.device)) / len(encoded)
        for summed, gradient in zip(total, torch.autograd.grad(loss, weights), strict=True):
            summed.add_(gradient)
    every = iter(accelerator.reduce(summed, "sum") for summed in total)
    return [{name: next(every).cpu() for name in of_layer} for of_layer in group]


def _products(own: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Part -> float64 ``[units, halves, halves]`` of one layer, from its units' gradients ``[halves, units, numbers]``;
    the block's are the sums over its neurons."""
    found = {part: _gram(vectors) for part, vectors in own.items()}
    return {**found, "ffn": found["neurons"].sum(0)}


def _gram(vectors: torch.Tensor) -> np.ndarray:
    halves, units, numbers = vectors.shape
    step = max(1, AT_ONCE // (halves * numbers))
    grams = []
    for first in range(0, units, step):
        some = vectors[:, first : first + step].transpose(0, 1).double()
        grams.append(some @ some.transpose(1, 2))
    gram = torch.cat(grams)
    return ((gram + gram.transpose(1, 2)) / 2).numpy()  # exactly symmetric, whatever order was added in
