"""Does the fast way of making batches cost score? Multi-task training with it and with the published way, some seeds.

    python scripts/compare_batches.py --glue GLUE [--rows 1000] [--seeds 3] [--json FILE]

GLUE is a folder of the official layout. The package's own encoder, eight tasks, the same rows, epochs, learning rates
and rows a batch:

- mtl_tickets: tasks mixed in a batch, like lengths together, padded to one of a few lengths;
- published: one task a batch, rows in random order, padded to the longest.

Dev scores x 100; a difference is paired by seed. Seeds set the heads, dropout and the order of rows.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from measuring import machine, write
from mix import OFFICIAL, encoded_rows, lengths, published_batches, tokenizer

from mtl_tickets.evaluation.evaluate import evaluate
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.pretraining.encoders import resolve_encoder
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings

OURS, PUBLISHED = "mtl_tickets", "published"
ROWS, EPOCHS = 16, 3
BATCHES = {OURS: BatchSettings(size=ROWS), PUBLISHED: published_batches(ROWS)}
Tasks = dict[str, EncodedTask]


def scores(tasks: Tasks, dev: Tasks, batches: BatchSettings, seed: int) -> dict[str, float]:
    """Of one training, by task."""
    specs = {name: load_task(name) for name in tasks}
    pairs = {name: bool(any(types.any() for types in tasks[name].gather(range(4))[1])) for name in tasks}
    infos = [
        TaskInfo(name, spec.kind, tuple(spec.labels), spec.outputs, spec.head_dropout, 1 + pairs[name])
        for name, spec in specs.items()
    ]
    encoder = str(resolve_encoder("mini"))
    made = MultiTaskModel.from_encoder(encoder, infos, "eager", seed, pooling="aligned", dropout=0.0)
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16")
    made.to(accelerator.device)
    pad = tokenizer().pad_token_id
    settings = TrainSettings(epochs=EPOCHS, optimiser=OptimiserSettings(lr=4e-4, head_lr=2e-3), batches=batches)
    train(made, TaskBatches(tasks, batches, seed, pad), task_loss, settings, accelerator, seed=seed)
    return {name: evaluate(made, spec, dev[name], accelerator, pad).score for name, spec in specs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1000, help="training rows of a task, at most (default: 1000)")
    parser.add_argument("--dev-rows", type=int, default=1000, help="dev rows of a task, at most (default: 1000)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tasks = encoded_rows(given.glue, dict.fromkeys(OFFICIAL, given.rows))
    dev = encoded_rows(given.glue, dict.fromkeys(OFFICIAL, given.dev_rows), dev=True)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in BATCHES}
    for seed in range(1, given.seeds + 1):
        for way, batches in BATCHES.items():
            found[way].append(scores(tasks, dev, batches, seed))
            told = ", ".join(f"{task} {value:.1f}" for task, value in found[way][-1].items())
            print(f"seed {seed}  {way:11} average {statistics.fmean(found[way][-1].values()):.2f}: {told}", flush=True)
    averages = {way: [statistics.fmean(run.values()) for run in runs] for way, runs in found.items()}
    differences = [a - b for a, b in zip(averages[OURS], averages[PUBLISHED], strict=True)]
    result: dict[str, Any] = {
        "what": "batches and scores",
        "rows": lengths(tasks),
        "epochs": EPOCHS,
        "batch": f"{ROWS} rows",
        "scores": found,
        "averages": {way: _spread(values) for way, values in averages.items()},
        "difference": _spread(differences) | {"standard_error": round(_error(differences), 3)},
        **machine("bf16"),
    }
    write(given.json, result)


def _spread(values: list[float]) -> dict[str, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 3), "standard_deviation": round(spread, 3)}


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
