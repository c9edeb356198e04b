"""What tickets are drawn, shared and judged by: scores of single tasks, what training all of them tells of each one's
units, and how far their gradients agree. Each is a stage of the run directory, done once and found again after a stop.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mtl_tickets.model import store, weight_masks
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.recipes.jobs import Learning, Scoring
from mtl_tickets.recipes.run_directory import CHECKPOINT
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.scoring import score_tasks
from mtl_tickets.scoring.gradients import gradient_products
from mtl_tickets.scoring.tall import tall_shares
from mtl_tickets.tickets.gradients import half_agreement
from mtl_tickets.tickets.scores import ScoreOrigin, Scores
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.learned_gates import LearnedGates
from mtl_tickets.training.loop import train


def score_each(bench: Workbench, scorings: Sequence[Scoring], within: Ticket | None = None) -> dict[str, Scores]:
    """The scores of every task, side by side where the run has workers. ``within``: the base, of heads and blocks, that
    the scored weights were trained in."""
    for scoring in scorings:
        bench.run.take(scoring.stage, bench.made_from.scoring(scoring))
    left = [scoring for scoring in scorings if not bench.run.is_done(scoring.stage)]
    bench.each(functools.partial(score, bench, within=within), left, len(scorings))
    return {scoring.task: score(bench, scoring, within) for scoring in scorings}


def score(bench: Workbench, scoring: Scoring, within: Ticket | None = None) -> Scores:
    """Scores the weights that stage ``scoring.trained`` kept, seen through ``within``, on the task's training rows."""
    stage, task = scoring.stage, scoring.task
    space = _space(bench, within)
    file = bench.run.stage_folder(stage) / "scores.safetensors"

    def score_stage(folder: Path) -> dict[str, Any]:
        bench.progress.stage(stage)
        model = bench.start([task]).rewound()
        model.load_state_dict(load_file(bench.run.stage_folder(scoring.trained) / "weights.safetensors"))
        scores = score_tasks(
            model,
            space,
            {task: bench.data[task].train},
            scoring.settings,
            bench.accelerator,
            pad_id=bench.tokenizer.pad_token_id,
            seed=derived_seed(bench.seed, "score", task),
            within=within,
        )[task]
        scores.save(file)
        agreement = scores.about.agreement
        rows = []
        if agreement is not None:
            rows.append(bench.run.row("scores", task, "train", "rank_agreement", agreement, scores.about.rows or 0))
        return {"rows": rows}

    bench.run.stage(stage, score_stage, bench.made_from.scoring(scoring))
    return Scores.load(file, space=space)


def tall_scores(
    bench: Workbench, together: Path, alone: Mapping[str, str], threshold: float, within: Ticket | None = None
) -> dict[str, Scores]:
    """For every task the share of each unit's weights in the model at ``together`` that are the task's own.
    ``alone``: task -> the stage that kept the weights it has alone."""
    space, found = _space(bench, within), {}

    @functools.cache
    def both() -> tuple[MultiTaskModel, dict[str, torch.Tensor]]:
        start = bench.start(bench.learned[:1]).rewound(base=bench.base).encoder
        weight_masks.take_off(start, keep_zeros=True)
        return store.load(together), {name: w.detach().cpu().clone() for name, w in start.named_parameters()}

    for task in bench.learned:
        stage = f"scores/tall-{threshold:g}/{task}"
        file = bench.run.stage_folder(stage) / "scores.safetensors"

        def tall_stage(_: Path, task: str = task, stage: str = stage, file: Path = file) -> dict[str, Any]:
            bench.progress.stage(stage)
            model, before = both()
            kept = load_file(bench.run.stage_folder(alone[task]) / "weights.safetensors")
            own = {name.removeprefix("encoder."): w for name, w in kept.items() if name.startswith("encoder.")}
            weights = dict(model.encoder.named_parameters())
            values = tall_shares(model.encoder, space, before, own, weights, threshold)
            Scores(space, values, ScoreOrigin(task=task, score="tall", seed=bench.seed)).save(file)
            return {"rows": []}

        bench.run.stage(stage, tall_stage)
        found[task] = Scores.load(file, space=space)
    return found


def learn_tickets(bench: Workbench, learning: Learning, within: Ticket | None = None) -> dict[str, Scores]:
    """The numbers that a training of the encoder with its gates gave to every task's units."""
    stage, tasks, settings = learning.stage, tuple(learning.start), learning.settings
    space = _space(bench, within)
    folder = bench.run.stage_folder(stage)

    def learn_stage(_: Path) -> dict[str, Any]:
        bench.progress.stage(stage)
        start = bench.start(tasks)
        speed = learning.gate_lr / settings.optimiser.lr
        learned = LearnedGates(start.rewound(base=bench.base), learning.start, learning.draw, speed, learning.overlap)
        told: dict[str, Any] = {
            task: [values[part].tolist() for part in sorted(values)] for task, values in learning.start.items()
        }
        identity = bench.identity(
            start,
            tasks,
            settings,
            {
                "numbers": told,
                "gate_lr": learning.gate_lr,
                "overlap": learning.overlap,
                **({} if bench.base is None else {"base": bench.base.digest()}),
            },
        )
        seed = derived_seed(bench.seed, "train", *sorted(tasks))
        result = train(
            learned,
            bench.batches(tasks, settings, seed),
            learned.loss,
            settings,
            bench.accelerator,
            seed=seed,
            identity=identity,
            checkpoint=folder / CHECKPOINT,
            on_step=bench.progress.advance,
        )
        for task in tasks:
            origin = ScoreOrigin(task=task, score="learned", seed=bench.seed)
            Scores(space, learned.of_task(task), origin).save(folder / f"{task}.safetensors")
        return {"rows": [], "history": result.history, "steps": result.steps}

    bench.run.stage(stage, learn_stage)
    return {task: Scores.load(folder / f"{task}.safetensors", space=space) for task in tasks}


def compare_gradients(bench: Workbench, together: Path, rows: int, within: Ticket | None = None) -> None:
    """Writes ``stages/gradients/products.safetensors``: how the learned tasks' gradients stand to each other at the
    model in ``together``, from at most so many training rows of each. No sharing rule looks at it. Where the model was
    trained in a base, ``within``, it is seen through that.

    Left out where there is nothing to compare: fewer than two tasks, or one of a single row.
    """
    sizes = bench.rows()
    if len(sizes) < 2 or min(sizes.values()) < 2:
        return

    def gradients_stage(folder: Path) -> dict[str, Any]:
        bench.progress.stage("gradients")
        products = gradient_products(
            store.load(together, device=bench.accelerator.device),
            _space(bench, within),
            {task: bench.data[task].train for task in bench.learned},
            bench.accelerator,
            pad_id=bench.tokenizer.pad_token_id,
            rows=rows,
            seed=derived_seed(bench.seed, "gradients"),
            through_tickets=within is not None,
        )
        products.save(folder / "products.safetensors")
        return {
            "rows": [
                bench.run.row("gradients", task, "train", "half_agreement", found["cosine"], min(rows, sizes[task]))
                for task, found in half_agreement(products).items()
            ]
        }

    bench.run.stage("gradients", gradients_stage)


def _space(bench: Workbench, within: Ticket | None) -> StructuredSpace:
    """The units there are scores of: a base may have neurons for units, too."""
    if within is None:
        return bench.space
    assert isinstance(within.space, StructuredSpace)
    return within.space
