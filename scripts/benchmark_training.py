"""Examples a second of multi-task training on a GLUE mix, side by side with what users run today.

    python scripts/benchmark_training.py --glue GLUE [--shape 4x256] [--repeats 5] [--json FILE]

GLUE is a folder of the official layout. Rows of the eight tasks in the proportions of the official training sets, real
text, at most 128 tokens; the same BERT with random weights, AdamW, dropout 0.1, batches of 32, sdpa:

- mtl_tickets: tasks mixed in a batch, like lengths together;
- one task a batch, rows in random order, padded to the longest: as MT-DNN and Super Tickets train;
- transformers Trainer on rows padded to 128, as run_glue.py sets it up (one task's head: its speed does not depend on
  the task).

Then the same in bf16; in either precision also rows packed without padding, and compiled layers (what compiling takes
is not counted); what tickets on every task cost; and how the speed changes with the number of tasks on the same rows.
Rounds alternate; a round's first steps are not counted; a ratio is the median over rounds of ratios.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from measuring import UNCOUNTED, Stopwatch, comparison, machine, rounds, write
from mix import (
    MAX_LENGTH,
    config,
    device,
    info,
    lengths,
    mix,
    model,
    published_batches,
    random_tickets,
    split_in,
    tokenizer,
)
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings

ROWS, RATE = 32, 1e-4
OURS, PUBLISHED, TRAINER = "mtl_tickets", "one task a batch, random order", "transformers Trainer, padded to 128"
PACKED, COMPILED = "mtl_tickets, packed rows", "mtl_tickets, compiled layers"
BATCHES = {OURS: BatchSettings(size=ROWS), PUBLISHED: published_batches(ROWS)}


def ours(
    shape: str,
    tasks: dict[str, EncodedTask],
    batches: BatchSettings,
    precision: str,
    prepare: Callable[[MultiTaskModel], None] = lambda _: None,
    *,
    attention: str = "sdpa",
    compiled: bool = False,
) -> float:
    """Trains one epoch."""
    split = tokenizer()
    made = model(shape, [info(name, load_task(name.split("-")[0])) for name in tasks], attention).to(device())
    prepare(made)
    source = TaskBatches(tasks, batches, 0, split.pad_token_id)
    watch = Stopwatch([sum(len(rows.indices) for rows in batch) for batch in source.plan(0)])
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision)
    settings = TrainSettings(epochs=1, optimiser=OptimiserSettings(lr=RATE), batches=batches, compile=compiled)
    train(made, source, task_loss, settings, accelerator, seed=0, on_step=watch.step)
    return watch.speed


def trainer(shape: str, tasks: dict[str, EncodedTask], precision: str, steps: int) -> float:
    """The Trainer on rows of all tasks, padded as run_glue.py does; labels do not matter to its speed."""
    pad = tokenizer().pad_token_id
    rows = []
    for task in tasks.values():
        for ids, types in zip(*task.gather(np.arange(len(task))), strict=True):
            empty = MAX_LENGTH - len(ids)
            rows.append(
                {
                    "input_ids": [*ids.tolist(), *[pad] * empty],
                    "token_type_ids": [*types.tolist(), *[0] * empty],
                    "attention_mask": [1] * len(ids) + [0] * empty,
                    "labels": 0,
                }
            )
    watch = Stopwatch([ROWS] * steps)

    class Watching(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

    torch.manual_seed(0)
    AcceleratorState._reset_state()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=ROWS,
            max_steps=steps,
            learning_rate=RATE,
            bf16=precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        Trainer(
            BertForSequenceClassification(config(shape)),
            arguments,
            train_dataset=rows,  # type: ignore[arg-type]
            callbacks=[Watching()],
        ).train()
    return watch.speed


def with_tickets(made: MultiTaskModel) -> None:
    made.set_tickets(random_tickets(made, 0.7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--shape", default="4x256", choices=["4x256", "base"])
    parser.add_argument("--rows", type=int, default=2048, help="rows of a round (default: 2048)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape, repeats, unit = given.shape, given.repeats, "examples/s"
    tasks = mix(given.glue, given.rows)
    comparisons = []
    for precision in ("no", "bf16"):
        ways = {
            **{
                way: lambda batches=batches, precision=precision: ours(shape, tasks, batches, precision)
                for way, batches in BATCHES.items()
            },
            # padded to one length every step takes the same time: fewer are enough
            TRAINER: lambda precision=precision: trainer(
                shape, tasks, precision, UNCOUNTED + max(5, given.rows // 128)
            ),
        }
        figures = rounds(ways, repeats, unit)
        told = {"precision": "fp32" if precision == "no" else precision}
        what = "training on a GLUE mix"
        comparisons += [comparison(what, figures, unit, OURS, other) | told for other in (TRAINER, PUBLISHED)]
        ways = {
            OURS: lambda precision=precision: ours(shape, tasks, BATCHES[OURS], precision, with_tickets),
            PACKED: lambda precision=precision: ours(
                shape, tasks, BATCHES[OURS], precision, with_tickets, attention="packed"
            ),
            COMPILED: lambda precision=precision: ours(
                shape, tasks, BATCHES[OURS], precision, with_tickets, compiled=True
            ),
        }
        # the first round compiles, and is not counted; later ones find what it made
        ways[COMPILED]()
        figures = rounds(ways, repeats, unit)
        what = "training through tickets"
        comparisons += [comparison(what, figures, unit, other, OURS) | told for other in (PACKED, COMPILED)]
    gated = {
        "tickets on every task": lambda: ours(shape, tasks, BATCHES[OURS], "no", with_tickets),
        "no tickets": lambda: ours(shape, tasks, BATCHES[OURS], "no"),
    }
    figures = rounds(gated, 2 * repeats, unit)
    comparisons.append(comparison("training through tickets", figures, unit, *gated))
    numbers = [1, 2, 4, 8, 16]
    grown = {
        f"{number} tasks": lambda number=number: ours(
            shape, split_in(tasks, "qqp", number), BATCHES[OURS], "no", with_tickets
        )
        for number in numbers
    }
    figures = rounds(grown, repeats, unit)
    comparisons += [comparison("the same rows as tasks", figures, unit, f"{n} tasks", "1 tasks") for n in numbers[1:]]
    setting = {"shape": shape, "batch": f"{ROWS} rows", "rows": lengths(tasks), "optimiser": "AdamW", "dropout": 0.1}
    write(given.json, {"what": "training", **setting, "comparisons": comparisons, **machine("fp32")})


if __name__ == "__main__":
    main()
