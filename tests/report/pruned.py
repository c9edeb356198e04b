"""Run directories of the recipe ``imp`` made of made-up numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_tickets.files import write_json
from tests.report.made import TASKS, World, _Made

MLM = "mlm"
SPACE = 10_000


class PrunedWorld(World):
    """An experiment of 4 rounds of 20 % on ``tasks``, and on a text where ``text`` says so; ``write`` makes the folder
    of a seed. What is pruned scores less and less, and scores differ in every cell."""

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[str] = TASKS,
        text: bool = True,
        sources: Sequence[str] = (),
        at: Sequence[int] = (2,),
        controls: Sequence[str] = ("magnitude", "random", "reinitialised", "shuffled"),
        transfer: bool = True,
        rows: int = 0,
        **settings: Any,
    ):
        super().__init__(folder, tasks, rows=rows)
        recipe: dict[str, Any] = {"kind": "imp", "rounds": 4, "fraction": 0.2, "at": list(at), "transfer": transfer}
        recipe |= {"controls": list(controls), "sources": list(sources)}
        recipe |= {"language": {"text": ["playground"]}} if text else {}
        from mtl_tickets.experiment import Experiment

        content = {"name": "made", "tasks": list(tasks), "recipe": recipe, **settings}
        self.config = Experiment.model_validate(content).model_dump(mode="json")
        self.targets = [*tasks, *([MLM] if text else [])]
        self.sources = list(sources) or self.targets
        self.at, self.controls, self.transfer = at, controls, transfer

    def write(self, seed: int, until: str = "transfer") -> Path:
        made = _Pruned(self, seed)
        for stage in ("yardsticks", "full", "rounds", "controls_", "moved"):
            getattr(made, stage)()
            if stage.rstrip("_") == until:
                break
        made.close(finished=until == "transfer")
        return made.path


class _Pruned(_Made):
    world: PrunedWorld

    def trained(self, folder: str, stage: str, task: str, level: float, kept: float = 100.0) -> None:
        """A training of one task (or on the text), under the rows' ``stage``."""
        before = len(self.rows)
        if task == MLM:
            loss = 10 - level / 10 + self.rng.normal() / 100
            accuracy = level / 100 + self.rng.normal() / 100
            for metric, value in {"loss": loss, "accuracy": accuracy, "score": 100 * accuracy}.items():
                self.row(stage, MLM, "held_out", metric, value, 500)
        else:
            value = level + self.rng.normal()
            metrics = {"accuracy": value / 100}
            if self.world.dev_rows:
                metrics = self.predicted(folder, task, value / 100)
                value = 100 * metrics["accuracy"]
            self.row(stage, task, "selection", "score", value - 1, 7)
            for name, found in {**metrics, "score": value}.items():
                self.row(stage, task, "dev", name, found)
        self.row(stage, task, "all", "remaining", 50 + kept / 2, self.world.space.total)
        if kept < 100:
            self.row(stage, task, "all", "weights_kept", kept, SPACE)
        write_json(
            self.path / "stages" / folder / "done.json",
            {"rows": self.rows[before:], "history": [], "steps": 10, "seconds": 1.5 + self.seed},
        )

    def full(self) -> None:
        for task in self.world.targets:
            self.trained(f"round-0/{task}", "full", task, 80)

    def rounds(self) -> None:
        for number in range(1, 5):
            for task in self.world.sources:
                kept = 100 - 20 * number
                self.trained(f"round-{number}/{task}", f"imp/{20 * number}", task, 80 - number**2, kept)

    def controls_(self) -> None:
        for number in self.world.at:
            for i, control in enumerate(self.world.controls):
                on_all = control in ("magnitude", "random")
                for task in self.world.targets if on_all else self.world.sources:
                    name = f"{control}/{20 * number}"
                    self.trained(f"control/{name}/{task}", name, task, 70 - 3 * i, 100 - 20 * number)

    def moved(self) -> None:
        for number in self.world.at if self.world.transfer else ():
            for i, source in enumerate(self.world.sources):
                name = f"transfer/{20 * number}/{source}"
                for task in self.world.targets:
                    if task != source:
                        self.trained(f"{name}/{task}", name, task, 74 + 2 * i, 100 - 20 * number)
                        continue
                    own = [row for row in self.rows if (row["stage"], row["task"]) == (f"imp/{20 * number}", task)]
                    self.rows += [{**row, "stage": name} for row in own]
                    same = {"rows": self.rows[-len(own) :], "steps": 10, "same_as": f"round-{number}/{task}"}
                    write_json(self.path / "stages" / name / task / "done.json", {**same, "seconds": 0.0})
