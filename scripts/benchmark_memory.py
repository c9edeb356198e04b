"""What tickets cost in memory and on disk: the peak of a training with and without them, and a stored task's bytes.

    python scripts/benchmark_memory.py --glue GLUE [--shape base] [--repeats 5] [--json FILE]

GLUE is a folder of the official layout. Eight tasks in the proportions of the official training sets, AdamW, fp32, a
new process for each training: on a CPU the peak is the largest resident set of the process, with torch and the data in
it, on a GPU what torch had allocated there. Then a model of two tasks is saved with tickets, and what the second task
adds is counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from measuring import comparison, machine, rounds, write
from mix import device, info, lengths, mix, model, random_tickets, tokenizer

from mtl_tickets.model import store
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings

ROWS, KEPT = 32, 0.7
WITH, WITHOUT = "tickets on every task", "no tickets"


def peak(glue: Path, shape: str, rows: int, tickets: bool) -> float:
    """MB, of this process."""
    tasks = mix(glue, rows)
    made = model(shape, [info(name) for name in tasks]).to(device())
    if tickets:
        made.set_tickets(random_tickets(made, KEPT))
    batches = BatchSettings(size=ROWS)
    source = TaskBatches(tasks, batches, 0, tokenizer().pad_token_id)
    settings = TrainSettings(epochs=1, optimiser=OptimiserSettings(lr=1e-4), batches=batches)
    train(made, source, task_loss, settings, Accelerator(), seed=0)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def in_a_new_process(*arguments: str) -> float:
    command = [sys.executable, __file__, *arguments]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(json.loads(answer.splitlines()[-1]))


def stored(shape: str) -> dict[str, Any]:
    """Bytes that a task adds to a stored model: its head and its ticket."""
    made = model(shape, [info("sst2"), info("mnli")])
    made.set_tickets(random_tickets(made, KEPT))
    with tempfile.TemporaryDirectory() as folder:
        store.save(made, folder)
        ticket = (Path(folder) / "tickets" / "mnli.safetensors").stat().st_size
        twin = (Path(folder) / "tickets" / "mnli.json").stat().st_size
        whole = (Path(folder) / "model.safetensors").stat().st_size
    head = sum(p.numel() * p.element_size() for p in made.heads["mnli"].parameters())
    return {"model": whole, "head": head, "ticket": ticket, "the_ticket_for_people_to_read": twin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--shape", default="base", choices=["4x256", "base"])
    parser.add_argument("--rows", type=int, default=256, help="rows of a training (default: 256)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=[WITH, WITHOUT], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(peak(given.glue, given.shape, given.rows, given.one == WITH))
        return
    shared = ["--glue", str(given.glue), "--shape", given.shape, "--rows", str(given.rows)]
    ways = {way: lambda way=way: in_a_new_process(*shared, "--one", way) for way in (WITH, WITHOUT)}
    figures = rounds(ways, given.repeats, "MB")
    result = {
        "what": "memory",
        "shape": given.shape,
        "batch": f"{ROWS} rows",
        "rows": lengths(mix(given.glue, given.rows)),
        "comparisons": [comparison("peak memory of training 8 tasks", figures, "MB", WITH, WITHOUT)],
        "stored_bytes": stored(given.shape),
        **machine("fp32"),
    }
    write(given.json, result)


if __name__ == "__main__":
    main()
