"""Scores of several tasks: one pass over mixed batches against a pass for each task; and how many examples are enough.

    python scripts/benchmark_scoring.py --glue GLUE [--shape 4x256] [--repeats 5] [--json FILE]

GLUE is a folder of the official layout. The same rows of the eight tasks through the same BERT, fp32, sdpa:

- mtl_tickets: all tasks in one pass, gates the only leaves, like lengths together, 64 rows a batch;
- a pass for each task, in file order, 32 rows a batch padded to the longest, with weight gradients: as Super Tickets
  scores.

Both must give the same scores. Then the time against the number of tasks on the same rows, and, on the package's own
encoder after one epoch of multi-task training, the rank agreement of scores on samples with those on all rows, and with
those on the rows that are not in the sample, which noise cannot help.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from measuring import comparison, machine, rounds, write
from mix import OFFICIAL, device, encoded_rows, info, lengths, model, split_in, tokenizer

from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.pretraining.encoders import resolve_encoder
from mtl_tickets.scoring.engine import SCORES, GateScore, ScoreSettings, score_tasks
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches, collate
from mtl_tickets.tasks.batches import Rows as BatchRows
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import example_losses, forward, task_loss
from mtl_tickets.training.optim import OptimiserSettings

OURS, PUBLISHED = "mtl_tickets, all tasks in one pass", "a pass for each task, with weight gradients"
BATCH, KIND, EXACT = 32, "first_order", tuple(range(1, 129))
SHARES = (0.0625, 0.125, 0.25, 0.5)
SAMPLES = 3
Values = dict[str, dict[str, np.ndarray]]


def accelerator() -> Accelerator:
    AcceleratorState._reset_state()
    return Accelerator()


def ours(made: MultiTaskModel, tasks: dict[str, EncodedTask], settings: ScoreSettings) -> Values:
    """The scores by task and part."""
    pad = tokenizer().pad_token_id
    found = score_tasks(made, made.space, tasks, settings, accelerator(), pad_id=pad)
    return {task: dict(scores.values) for task, scores in found.items()}


def published(made: MultiTaskModel, tasks: dict[str, EncodedTask], settings: ScoreSettings) -> Values:
    """The same, a task after the other, a batch after the other in file order; weights get gradients too."""
    score = SCORES.get(settings.kind)
    assert isinstance(score, GateScore)
    pad, result = tokenizer().pad_token_id, {}
    made.eval()
    for task, encoded in tasks.items():
        total = {part: np.zeros(shape) for part, shape in made.space.parts.items()}
        starts = range(0, len(encoded), settings.batch_size)
        for start in starts:
            rows = np.arange(start, min(start + settings.batch_size, len(encoded)))
            batch = collate([BatchRows(0, rows)], [encoded], [made.task_index(task)], pad, EXACT, len(rows))
            batch = batch.to(device())
            lead = batch.input_ids.shape if score.per_token else batch.input_ids.shape[:1]
            leaves = {
                part: torch.ones(*lead, *shape, device=device(), requires_grad=True)
                for part, shape in made.space.parts.items()
            }
            with made.gates.leaves(**leaves):
                ((logits,), (labels,)) = forward(made, batch), batch.labels
                example_losses(logits, labels).sum().backward()
            for part, leaf in leaves.items():
                assert leaf.grad is not None
                total[part] += score.reduce(leaf.grad).mean(0).double().cpu().numpy() / len(starts)
            made.zero_grad(set_to_none=True)
        result[task] = total
    return result


def difference(one: Values, two: Values) -> float:
    """The largest difference, as a share of the task's largest score."""
    return max(
        float(np.abs(one[task][part] - two[task][part]).max() / max(np.abs(v).max() for v in two[task].values()))
        for task in one
        for part in one[task]
    )


def seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def stability(root: Path, rows: int) -> dict[str, Any]:
    """On a trained encoder: agreement of scores on samples with those on all rows, by share of the rows."""
    tasks = encoded_rows(root, dict.fromkeys(OFFICIAL, rows))
    pad = tokenizer().pad_token_id
    infos = [info(name) for name in tasks]
    made = MultiTaskModel.from_encoder(str(resolve_encoder("mini")), infos, seed=0, pooling="mean", dropout=0.0)
    source = TaskBatches(tasks, BatchSettings(size=BATCH), 0, pad)
    settings = TrainSettings(epochs=1, optimiser=OptimiserSettings(lr=4e-4))
    train(made.to(device()), source, task_loss, settings, accelerator(), seed=0)
    settings = ScoreSettings(kind=KIND)
    full = score_tasks(made, made.space, tasks, settings, accelerator(), pad_id=pad)
    result = {}
    for share in SHARES:
        agreements: dict[str, list[float]] = {"with_all_rows": [], "with_the_other_rows": [], "of_its_halves": []}
        for seed in range(SAMPLES):
            sampled, others = {}, {}
            for task, encoded in tasks.items():
                order = np.random.default_rng([seed, len(encoded)]).permutation(len(encoded))
                wanted = max(2, round(share * len(encoded)))
                sampled[task] = encoded.select(np.sort(order[:wanted]))
                others[task] = encoded.select(np.sort(order[wanted:]))
            found = score_tasks(made, made.space, sampled, settings, accelerator(), pad_id=pad)
            rest = score_tasks(made, made.space, others, settings, accelerator(), pad_id=pad)
            for task, scores in found.items():
                agreements["with_all_rows"].append(scores.rank_agreement(full[task]))
                agreements["with_the_other_rows"].append(scores.rank_agreement(rest[task]))
                agreements["of_its_halves"].append(scores.about.agreement or 0.0)
        name = f"{share:.4g}"
        result[name] = {
            kind: {"mean": round(statistics.fmean(values), 4), "least": round(min(values), 4)}
            for kind, values in agreements.items()
        }
        print(f"{share:6.1%} of the rows: {result[name]}", flush=True)
    return {"rows": lengths(tasks), "samples": SAMPLES, "score": KIND, "by_share": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--shape", default="4x256", choices=["4x256", "base"])
    parser.add_argument("--rows", type=int, default=128, help="rows of a task in a round (default: 128)")
    parser.add_argument("--stability-rows", type=int, default=2000, help="rows of a task (default: 2000)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    settings = ScoreSettings(kind=KIND, batch_size=BATCH)
    tasks = encoded_rows(given.glue, dict.fromkeys(OFFICIAL, given.rows))
    made = model(given.shape, [info(name) for name in tasks]).to(device())
    unlike = difference(ours(made, tasks, settings), published(made, tasks, settings))
    print(f"largest difference between the two ways, as a share of the largest score: {unlike:.1e}")
    ways = {
        OURS: lambda: seconds(lambda: ours(made, tasks, settings)),
        PUBLISHED: lambda: seconds(lambda: published(made, tasks, settings)),
    }
    figures = rounds(ways, given.repeats, "s")
    comparisons = [comparison("scoring 8 tasks", figures, "s", OURS, PUBLISHED)]
    numbers = [1, 2, 4, 8]
    grown = {}
    for number in numbers:
        parts = split_in(encoded_rows(given.glue, {"qqp": 8 * given.rows}), "qqp", number)
        of_parts = model(given.shape, [info(name, load_task("qqp")) for name in parts]).to(device())
        grown[f"{number} tasks"] = lambda of_parts=of_parts, parts=parts: seconds(
            lambda: ours(of_parts, parts, settings)
        )
    figures = rounds(grown, given.repeats, "s")
    comparisons += [
        comparison("scoring the same rows as tasks", figures, "s", f"{n} tasks", "1 tasks") for n in numbers[1:]
    ]
    result = {
        "what": "scoring",
        "shape": given.shape,
        "rows": lengths(tasks),
        "score": KIND,
        "difference": float(f"{unlike:.2g}"),
        "comparisons": comparisons,
        "sampling": stability(given.glue, given.stability_rows),
        **machine("fp32"),
    }
    write(given.json, result)


if __name__ == "__main__":
    main()
