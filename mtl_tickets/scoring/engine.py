"""One pass over mixed batches gives the scores of all tasks.

Gates are the only leaves: weight gradients are off, and the gates' gradients of a batch hold every example (and, where
the score wants it, every token) apart. What is done with them is the score's own file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pydantic
import torch
from accelerate import Accelerator

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.processes import share_of
from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings, named
from mtl_tickets.tasks.batches import Batch, BatchSettings, named_rows, passes_over
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tickets.scores import ScoreOrigin, Scores
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.accumulation import accumulation_device
from mtl_tickets.training.objectives.task_loss import example_losses, forward

SCORES: Registry[Score] = Registry("score", "mtl_tickets.scoring")


@dataclass(frozen=True)
class GateScore:
    """A score made of gate gradients.

    ``per_token``: gates are [B, S, units] (one gate a token), else [B, units] (one gate an example).
    ``reduce`` turns the gradients of one batch, float32 [B, S, ...units] or [B, ...units], into one value per example
    and unit [B, ...units]; the gradient of row b is that of row b's own loss.
    """

    per_token: bool
    reduce: Callable[[torch.Tensor], torch.Tensor]
    __doc__: str = ""


@dataclass(frozen=True)
class WeightScore:
    """A score that looks at no data: ``compute(model, space, seed)`` -> part name -> float64 array."""

    compute: Callable[[MultiTaskModel, StructuredSpace, int], dict[str, np.ndarray]]
    __doc__: str = ""


Score = GateScore | WeightScore


class ScoreSettings(Settings):
    """Which score, and on how many training examples."""

    kind: str = pydantic.Field("first_order", description="the score's name; `mtl-tickets scores` lists them")
    examples: pydantic.PositiveInt | None = pydantic.Field(
        None, description="training examples a task is scored on, drawn once; None: all"
    )
    batch_size: pydantic.PositiveInt = pydantic.Field(
        32, description="the score is the mean over batches of this size in file order (METHODS 1.2)"
    )
    accumulate: bool = pydantic.Field(
        False, description="published defect: gate gradients are never zeroed, so that early batches weigh most"
    )

    @pydantic.field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        return named(kind, SCORES.names(), "score")


def score_tasks(
    model: MultiTaskModel,
    space: StructuredSpace,
    tasks: dict[str, EncodedTask],
    settings: ScoreSettings,
    accelerator: Accelerator,
    *,
    pad_id: int,
    seed: int = 0,
    forward_rows: int = 64,
    within: Ticket | None = None,
) -> dict[str, Scores]:
    """Scores of every task in ``tasks`` (training examples by task name; each must be a task of the model).

    The model is scored in eval mode, without its tickets, as it stands; or seen through the base ``within``, whose
    dropped units take no part and score 0. Row i of a task's n rows weighs
    1 / (T * size of the batch of file order it falls in), T the number of such batches: the mean over batches of
    METHODS 1.2, whatever batches are really computed. With ``accumulate`` that weight is multiplied by (T - j) for
    batch j = 0 .. T-1, which is the published defect 1 (gradients summed over all batches so far) in closed form:
    the sum over j of sums over i <= j, divided by T.

    ``Scores.about.agreement`` is the rank agreement (Spearman) of the scores of even and odd rows. Several processes
    share the batches, and each has all scores in the end.
    """
    score = SCORES.get(settings.kind)
    if isinstance(score, WeightScore):
        values = score.compute(model, space, seed)
        return {
            task: _inside(Scores(space, values, ScoreOrigin(task=task, score=settings.kind, seed=seed, rows=0)), within)
            for task in tasks
        }
    sampled = {task: sample_rows(encoded, settings.examples, seed) for task, encoded in tasks.items()}
    names = list(sampled)
    weights = {
        task: torch.from_numpy(row_weights(len(encoded), settings.batch_size, settings.accumulate))
        for task, encoded in sampled.items()
    }
    summing = accumulation_device(accelerator.device)
    # [half, task, units]: even and odd rows apart, for the agreement
    totals = {
        part: torch.zeros(2, len(names), *shape, dtype=torch.float64, device=summing)
        for part, shape in space.parts.items()
    }
    index = {task: model.task_index(task) for task in names}
    position = {index[task]: i for i, task in enumerate(names)}
    with only_these_learn(model):
        for batch in passes_over(sampled, BatchSettings(size=forward_rows), pad_id, index, share=share_of(accelerator)):
            on_device = batch.to(accelerator.device)
            per_example = gate_gradients(model, space, on_device, score, accelerator, within)
            rows = torch.from_numpy(batch.indices)
            _require_numbers(per_example, batch, {index[task]: (task, sampled[task]) for task in names})
            for number, start, stop in batch.segments:
                place = position[number]
                weight = weights[names[place]][rows[start:stop]].to(summing)
                odd = (rows[start:stop] % 2).to(summing)
                for part, value in per_example.items():
                    weighted = value[start:stop].to(summing).double() * weight.reshape(-1, *[1] * (value.ndim - 1))
                    totals[part][:, place].index_add_(0, odd, weighted)
    totals = {part: accelerator.reduce(total, "sum") for part, total in totals.items()}
    result = {}
    for i, task in enumerate(names):
        halves = [{part: total[half, i].cpu().numpy() for part, total in totals.items()} for half in (0, 1)]
        values = {part: halves[0][part] + halves[1][part] for part in totals}
        about = ScoreOrigin(task=task, score=settings.kind, rows=len(sampled[task]), seed=seed)
        agreement = Scores(space, halves[0], about).rank_agreement(Scores(space, halves[1], about), within)
        result[task] = _inside(Scores(space, values, replace(about, agreement=agreement)), within)
    return result


def _require_numbers(
    found: Mapping[str, torch.Tensor], batch: Batch, tasks: Mapping[int, tuple[str, EncodedTask]]
) -> None:
    """Raises :class:`MtlTicketsError` with the first rows of which a score is no number."""
    bad = torch.zeros(len(batch.indices), dtype=torch.bool)
    for values in found.values():
        bad |= ~values.flatten(1).isfinite().all(1).cpu()
    for task, shown in named_rows(batch, tasks, bad.nonzero().flatten().tolist()).items():
        raise MtlTicketsError(f"{task}: the scores of units are no numbers on {shown}: are the weights whole?")


def gate_gradients(
    model: MultiTaskModel,
    space: StructuredSpace,
    batch: Batch,
    score: GateScore,
    accelerator: Accelerator,
    within: Ticket | None = None,
) -> dict[str, torch.Tensor]:
    """The score of every example of one batch: part name -> float [B, units of the part]."""
    rows, tokens = batch.input_ids.shape
    lead = (rows, tokens) if score.per_token else (rows,)
    leaves = {part: torch.ones(*lead, *shape, device=batch.input_ids.device) for part, shape in space.parts.items()}
    for part, leaf in leaves.items():
        if within is not None:
            leaf *= torch.tensor(within.units[part], device=leaf.device)
        leaf.requires_grad_()
    with accelerator.autocast(), model.gates.leaves(**leaves):
        losses = [
            example_losses(logits, labels).sum()
            for logits, labels in zip(forward(model, batch), batch.labels, strict=True)
            if labels is not None
        ]
    gradients = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()))
    return {part: score.reduce(gradient) for part, gradient in zip(leaves, gradients, strict=True)}


def _inside(scores: Scores, base: Ticket | None) -> Scores:
    return scores if base is None else scores.inside(base)


def row_weights(rows: int, batch_size: int, accumulate: bool) -> np.ndarray:
    """float64 [rows]: what each row of a file weighs in the mean over batches (see :func:`score_tasks`)."""
    batches = -(-rows // batch_size)
    number = np.arange(rows) // batch_size
    size = np.bincount(number, minlength=batches)[number]
    weights = 1.0 / (batches * size)
    return weights * (batches - number) if accumulate else weights


def sample_rows(encoded: EncodedTask, examples: int | None, seed: int) -> EncodedTask:
    """At most so many of the rows, in their order; all of them for None."""
    if examples is None or examples >= len(encoded):
        return encoded
    return encoded.select(np.sort(np.random.default_rng(seed).permutation(len(encoded))[:examples]))


@contextlib.contextmanager
def only_these_learn(model: MultiTaskModel, weights: Iterable[torch.nn.Parameter] = ()) -> Iterator[None]:
    """Inside, eval mode and gradients of ``weights`` alone; afterwards everything as it was."""
    training = model.training
    asked = {parameter: parameter.requires_grad for parameter in model.parameters()}
    wanted = set(weights)
    try:
        model.eval()
        for parameter in asked:
            parameter.requires_grad_(parameter in wanted)
        yield
    finally:
        for parameter, before in asked.items():
            parameter.requires_grad_(before)
        model.train(training)
