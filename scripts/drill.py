"""What drills share: a small world that is soon trained, and commands in processes of their own with a seeded fate."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TASKS, PAIRS = ["play_acceptability", "play_similarity"], "play_paraphrase_small"
TRAIN = {"epochs": 1, "optimiser": {"lr": 1e-3}, "batches": {"size": 16}, "checkpoint_seconds": 0}
TEXT = {"text": ["playground"], "playground_tokens": 6000, "length": 32, "batch_size": 8, "steps": 4}
# the five systems, small: every kind of stage is in one of them
RECIPES: dict[str, dict[str, Any]] = {
    "super_tickets": {
        "kind": "super_tickets",
        "train": TRAIN,
        "ladder": {"kind": "free", "heads": [0.25, 0.25], "ffn": [0.0, 0.5]},
        "controls": ["random"],
        "sharing": ["own", "adaptive", {"kind": "learned"}, {"kind": "tall"}],
        "gradients": 20,
    },
    "imp": {"kind": "imp", "train": TRAIN, "language": TEXT, "rounds": 2, "fraction": 0.25, "at": [2]},
    "mask_training": {
        "kind": "mask_training",
        "train": TRAIN,
        "language": TEXT,
        "sparsities": [0.5],
        "methods": ["mlm", "magnitude", "random"],
        "mask_steps": 6,
        "reset_every": 3,
    },
    "robust": {
        "kind": "robust",
        "bias": {PAIRS: {"kind": "word_overlap"}},
        "train": TRAIN,
        "masks": {"epochs": 1, "optimiser": {"lr": 0.02, "weight_decay": 0.0}, "reset_every": 2},
        "sparsities": [0.5],
        "full": ["standard", "product_of_experts"],
        "after": [{"method": "masks", "loss": "product_of_experts"}, {"method": "imp", "loss": "standard"}],
        "isolated": [{"ticket": "masks", "loss": "standard"}],
        "rising": [{"first": 0.3, "last": 0.6}],
    },
    "progressive": {
        "kind": "progressive",
        "train": TRAIN,
        "student": {**TRAIN, "epochs": 2},
        "sparsities": [0.5],
        "methods": ["progressive", "magnitude"],
        "updates": 2,
    },
}


@dataclass(frozen=True)
class World:
    """A folder with an encoder, and an experiment of every recipe and a study beside it."""

    folder: Path

    def experiment(self, recipe: str) -> str:
        return str(self.folder / f"{recipe}.yaml")


def make_world(folder: Path) -> World:
    """Pre-trains the encoder and writes the experiments, where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "encoder").exists():
        shape = ["--layers", "2", "--hidden", "32", "--heads", "4", "--vocabulary-size", "300", "--length", "32"]
        text = ["--text", "playground", "--set", "playground_tokens=20000", "--tokens", "20000"]
        code, said = command(["pretrain", str(folder / "encoder"), *text, *shape, "--cache", str(folder / "cache")])
        if code:
            raise SystemExit(said)
    for name, recipe in RECIPES.items():
        experiment = {
            "name": name.replace("_", "-"),
            "encoder": {"name": str(folder / "encoder"), "max_length": 32},
            "tasks": [PAIRS] if name == "robust" else TASKS,
            "limit": {"train": 64, "dev": 40},
            "output": str(folder / "runs"),
            "cache": str(folder / "cache"),
            "recipe": recipe,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    study = {
        "name": "grid",
        "experiment": "super_tickets.yaml",
        "rules": ["own"],
        "seeds": [1, 2],
        "set": {"recipe.gradients": None, "recipe.controls": []},
        "grid": {"recipe.multi.epochs": [1, 2]},
        "output": str(folder / "studies"),
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return World(folder)


def command(
    arguments: Sequence[str],
    fate: Callable[[int], None] | None = None,
    before: Callable[[], None] | None = None,
    limit: float = 300.0,
) -> tuple[int, str]:
    """Runs the command line in a process of its own, forked from this one, which has loaded the libraries: its exit
    status (negative: the signal that killed it) and what it said. ``fate`` is called with its number, in this process;
    ``before`` in that one."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(list(arguments), theirs, before))
    process.start()
    theirs.close()
    assert process.pid is not None
    if fate is not None:
        fate(process.pid)
    said = ""
    end = time.monotonic() + limit
    while process.is_alive() and time.monotonic() < end:
        if ours.poll(0.05):
            with contextlib.suppress(EOFError):
                said += ours.recv()
            break
    process.join(max(0.0, end - time.monotonic()))
    if process.is_alive():
        kill_all(process.pid)
        process.join()
        return 124, said + "\ntime limit"
    with contextlib.suppress(EOFError, OSError):
        while ours.poll(0):
            said += ours.recv()
    return process.exitcode or 0, said


def _main(arguments: list[str], told: Any, before: Callable[[], None] | None) -> None:
    from mtl_tickets.cli import app

    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = io.StringIO()
    sys.stdout = sys.stderr = out
    sys.argv = ["mtl-tickets", *arguments]
    code = 0
    try:
        if before is not None:
            before()
        app(args=arguments, prog_name="mtl-tickets")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        out.write(traceback.format_exc())
        code = 70
    with contextlib.suppress(OSError):
        told.send(out.getvalue()[-20_000:])
    os._exit(code)


def kill_all(number: int, sent: signal.Signals = signal.SIGKILL) -> None:
    """Sends a process and what it has forked a signal, if they are there still."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(number, sent)


def content_of(folder: Path, pattern: str) -> dict[str, str]:
    """Path below ``folder`` -> a hash of the file's bytes."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.glob(pattern))
        if file.is_file()
    }
