"""Run directories made of made-up numbers: what a report is made from, without any training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from mtl_tickets.experiment import Experiment
from mtl_tickets.files import write_json, write_jsonl
from mtl_tickets.tasks.metrics import METRICS
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import against, halves_of, products_of

CONFIG = "0123456789"
TASKS = ("calm", "likeness", "rte")


class World:
    """An experiment of ``tasks`` and ``rules``; ``write`` makes the folder of a seed. Scores differ in every cell.

    With ``rows``, predictions of so many are kept, and scores are those of them; of ``numbers``, tasks of regression.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[str] = TASKS,
        rules: Sequence[str] = ("own", "union"),
        layers: int = 2,
        heads: int = 4,
        rungs: int = 2,
        controls: Sequence[str] = ("random",),
        extra: Sequence[str] = (),
        epochs: int = 2,
        rows: int = 0,
        numbers: Sequence[str] = (),
        gradients: bool = False,
        **settings: Any,
    ):
        self.folder, self.tasks, self.rules, self.extra, self.epochs = folder, tuple(tasks), rules, extra, epochs
        self.dev_rows, self.numbers = rows, numbers
        self.rungs, self.kinds, self.gradients = rungs, ("winning", *controls), gradients
        self.space = StructuredSpace.of(layers=layers, heads=heads, hidden=2 * heads, intermediate=48, total=200_000)
        recipe = {"kind": "super_tickets", "sharing": list(rules), "controls": list(controls)}
        recipe |= settings.pop("recipe", {})
        content = {"name": "made", "tasks": [*tasks, *extra], "recipe": recipe, **settings}
        self.config = Experiment.model_validate(content).model_dump(mode="json")
        self.specs = {
            task: {"description": f"is it {task}", "kind": "classification", "labels": ["no", "yes"]} for task in tasks
        }
        self.note = "chosen rung winning-1"
        self.device: dict[str, Any] = {"kind": "cpu", "name": "x86_64", "threads": 2}

    def write(self, seed: int, until: str = "multi") -> Path:
        """The run of a seed; of ``until`` and what is before it, stages are done. ``multi`` is the end."""
        made = _Made(self, seed)
        for stage in ("yardsticks", "single", "scores", "ladder", "choose", "share", "multi"):
            getattr(made, stage)()
            if stage == until:
                break
        if self.gradients and until == "multi":
            made.gradients()
        made.close(finished=until == "multi")
        return made.path


class _Made:
    def __init__(self, world: World, seed: int):
        self.world, self.seed = world, seed
        self.path = world.folder / f"seed-{seed}"
        self.rows: list[dict[str, Any]] = []
        self.rng = np.random.default_rng(seed)
        self.values = {
            task: Scores(world.space, {p: self.rng.random(s) for p, s in world.space.parts.items()})
            for task in world.tasks
        }

    def row(self, stage: str, task: str, split: str, metric: str, value: float, n: int = 20) -> None:
        name = f"{self.world.folder.name}/seed-{self.seed}"
        values = (name, stage, task, split, metric, float(value), n, self.seed, 10, CONFIG)
        names = ("run", "stage", "task", "split", "metric", "value", "n", "seed", "step", "config")
        self.rows.append(dict(zip(names, values, strict=True)))

    def scored(self, stage: str, level: float, ticket: Ticket | None, tasks: Sequence[str], selection: bool) -> None:
        for i, task in enumerate(tasks):
            value = level + 3 * i + self.rng.normal()
            if selection:
                self.row(stage, task, "selection", "score", value - 1, 7)
            metrics = {"accuracy": value / 100}
            if self.world.dev_rows and not stage.startswith(("yardstick", "ladder")):
                metrics = self.predicted(f"{stage}/{task}" if stage == "single" else stage, task, value / 100)
                value = 100 * metrics.get("accuracy", metrics.get("pearson", 0))
            for name, found in metrics.items():
                self.row(stage, task, "dev", name, found)
            self.row(stage, task, "dev", "score", value)
            if ticket is not None:
                self.row(stage, task, "all", "remaining", ticket.remaining_percent(), self.world.space.total)

    def predicted(self, stage: str, task: str, share: float) -> dict[str, float]:
        """The metrics of predictions that are kept; labels depend on the task alone."""
        world, rows = self.world, self.world.dev_rows
        labels = np.random.default_rng(len(task)).integers(0, 2, rows)
        if task in world.numbers:
            made = (labels + self.rng.normal(size=rows) / share).astype(np.float32)[:, None]
            labels = labels.astype(np.float32)
            found = {name: METRICS.get(name)(made[:, 0], labels) for name in ("pearson", "mse")}
        else:
            answers = np.where(self.rng.random(rows) < share, labels, 1 - labels)
            made = np.eye(2, dtype=np.float32)[answers]
            found = {"accuracy": METRICS.get("accuracy")(answers, labels)}
        file = self.path / "stages" / stage / f"predictions-{task}-dev.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"logits": made, "labels": labels}, file)
        return found

    def done(self, stage: str, **content: Any) -> None:
        write_json(self.path / "stages" / stage / "done.json", {"rows": [], **content, "seconds": 1.5 + self.seed})

    def history(self, tasks: Sequence[str], level: float) -> list[dict[str, Any]]:
        return [
            {"epoch": e, "step": 5 * e, "loss": 1 / e, "selection": dict.fromkeys(tasks, level + e)}
            for e in range(1, self.world.epochs + 1)
        ]

    def yardsticks(self) -> None:
        for i, name in enumerate(("majority", "bag_of_words")):
            self.scored(f"yardstick/{name}", 20.0 + i, None, self.world.tasks, False)

    def single(self) -> None:
        dense = Ticket.dense(self.world.space)
        self.scored("single", 60.0, dense, self.world.tasks, True)
        self.scored("single", 40.0, None, self.world.extra, False)
        for task in self.world.tasks:
            self.done(f"single/{task}", history=self.history([task], 50), steps=10)
            (self.path / "stages" / "single" / task / "weights.safetensors").write_bytes(b"0" * 1000)

    def scores(self) -> None:
        for task, scores in self.values.items():
            scores.save(self.path / "stages" / "scores" / task / "scores.safetensors")
            self.done(f"scores/{task}")

    def rung(self, task: str, kind: str, number: int) -> Ticket:
        space = self.world.space
        budget = Budget({"heads": number * space.layers * space.heads // (self.world.rungs + 1), "ffn": number // 2})
        values = {"winning": self.values[task], "losing": self.values[task].reversed()}
        return draw(values.get(kind) or Scores.random(space, number), budget)

    def ladder(self) -> None:
        for kind in self.world.kinds:
            for number in range(1, self.world.rungs + 1):
                for task in self.world.tasks:
                    self.scored(f"ladder/{kind}-{number}", 60 - 3 * number, self.rung(task, kind, number), [task], True)
                    self.done(f"ladder/{task}/{kind}-{number}", history=[], steps=10)

    def choose(self) -> None:
        for task in self.world.tasks:
            ticket = self.rung(task, "winning", 1).where(task=task, note=self.world.note)
            ticket.save(self.path / "tickets" / "own" / task)
            self.row("choose", task, "selection", "rung", 1, self.world.rungs + 1)
            rungs = [f"winning-{number}" for number in range(1, self.world.rungs + 1)]
            curve = {"dense": 59.0} | {rung: 61.0 - number for number, rung in enumerate(rungs)}
            self.done(f"choose/{task}", chosen="winning-1", curve=curve)

    def share(self) -> None:
        own = {task: self.rung(task, "winning", 1) for task in self.world.tasks}
        union = Ticket.dense(self.world.space)
        for rule in ("dense", *self.world.rules):
            for task, ticket in own.items():
                if rule != "own":
                    shared = union if rule in ("dense", "union") else ticket
                    shared.where(task=task).save(self.path / "tickets" / rule / task)
            self.done(f"share/{rule}")

    def multi(self) -> None:
        for i, rule in enumerate(("dense", *self.world.rules)):
            self.scored(f"multi/{rule}", 62.0 + i, None, self.world.tasks, True)
            self.scored(f"multi/{rule}", 42.0 + i, None, self.world.extra, False)
            self.row(f"multi/{rule}", "average", "all", "remaining", 100.0 - 10 * i, self.world.space.total)
            history = self.history(self.world.tasks, 50 + i)
            self.done(f"multi/{rule}", history=history, steps=30, model=f"model/{rule}")
            model = {"tasks": [], "extra": {"tasks": self.world.specs}}
            write_json(self.path / "model" / rule / "tasks.json", model)

    def gradients(self) -> None:
        """The first task pulls against the second; the halves of the last pull against each other."""
        halves = {task: halves_of(self.world.space, 10 * self.seed + i) for i, task in enumerate(self.world.tasks)}
        first, second, last = self.world.tasks[0], self.world.tasks[1], self.world.tasks[-1]
        halves[second] = against(halves[first])
        halves[last][1] = against(halves[last])[0]
        rows = dict.fromkeys(self.world.tasks, 16)
        products_of(self.world.space, halves, rows=rows).save(self.path / "stages" / "gradients" / "products")
        self.done("gradients")

    def close(self, finished: bool) -> None:
        write_jsonl(self.path / "results.jsonl", self.rows)
        config = yaml.safe_dump(self.world.config, sort_keys=False, allow_unicode=True)
        (self.path / "config.yaml").write_text(config, encoding="utf-8")
        inputs = [f"task {task}, split {split}" for task in self.world.tasks for split in ("train", "dev")]
        inputs += [f"task {task}, split dev" for task in self.world.extra]
        content = {name: {"file": "made", "key": "1"} for name in ("encoder", *inputs)}
        write_json(self.path / "inputs.json", {"places": {}, "inputs": content, "tasks": self.world.specs})
        write_json(
            self.path / "record.json",
            {
                "name": f"{self.world.folder.name}/seed-{self.seed}",
                "config": CONFIG,
                "seed": self.seed,
                "starts": ["2026-01-02T03:04:05+00:00"],
                "finished": "2026-01-02T04:04:05+00:00" if finished else None,
                "commit": "abc123",
                "versions": {"mtl_tickets": "0.1.0", "torch": "2.0"},
                "device": self.world.device,
            },
        )


def lose_row(run: Path, **which: object) -> None:
    """Takes the one row that fits out of a run."""
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [row for row in rows if not all(row[key] == value for key, value in which.items())]
    assert len(kept) == len(rows) - 1
    write_jsonl(run / "results.jsonl", kept)
