"""Finding each task's rung: successive halving against training every rung to the end.

    python scripts/benchmark_search.py EXPERIMENT --output RUNS [--seeds 1,2,3] [--json FILE] [--set KEY=VALUE ...]

Both searches are run by `mtl-tickets run` (stopped, it goes on where it was). Of each task and seed: optimiser steps
of the ladder; the rung chosen; and, where the two choices differ, how far the rung that halving chose lies below the
best by the selection score of the full search, in standard errors of the best one's score. A standard error follows
from the number of selection rows: that of a share for accuracy and F1, (1 - r^2) / sqrt(n) for correlations. It is that
of one score, as in the rule of one standard error; of the difference of two scores on the same rows it would be less.

The full search's best is the highest of many noisy scores on the very rows that the two choices are then compared on,
which favours it. So the dev scores of the two choices are given too, with what halving's lie above: dev rows chose
nothing.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import machine, write

from mtl_tickets.evaluation.records import Row, one, read_rows, select
from mtl_tickets.experiment import load_experiment

WAYS = {
    "all": ["recipe.search.kind=all"],
    "halving": ["recipe.search.kind=halving"],
}
# a rung trained to the end, or looked at on the way
RUNG = re.compile(r"(?:look-\d+/)?ladder/winning-(\d+)")
CORRELATIONS = ("matthews", "pearson", "spearman")


def searched(experiment: str, way: str, output: Path, seeds: str, overrides: list[str]) -> list[list[Row]]:
    """The rows of each seed."""
    settings = [*overrides, *WAYS[way], f"output={output / way}"]
    folder = load_experiment(experiment, settings).folder
    command = [sys.executable, "-m", "mtl_tickets", "run", experiment, "--seeds", seeds, "--to", "choose", "--resume"]
    subprocess.run([*command, *(part for setting in settings for part in ("--set", setting))], check=True)
    return [read_rows(folder / f"seed-{seed}" / "results.jsonl") for seed in seeds.split(",")]


def ladder_steps(rows: list[Row], task: str) -> int:
    """Optimiser steps of a task's rungs: those at the last that is known of each."""
    last: dict[str, int] = {}
    for row in select(rows, task=task):
        if found := RUNG.fullmatch(row.stage):
            last[found[1]] = max(row.step, last.get(found[1], 0))
    return sum(last.values())


def selection_score(rows: list[Row], task: str, rung: int) -> Row:
    return one(rows, stage=_stage(rung), task=task, split="selection", metric="score")


def dev_score(rows: list[Row], task: str, rung: int) -> float:
    """Mean over the dev splits."""
    found = select(rows, stage=_stage(rung), task=task, metric="score")
    return statistics.fmean(row.value for row in found if row.split != "selection")


def _stage(rung: int) -> str:
    return f"ladder/winning-{rung}" if rung else "single"


def chosen(rows: list[Row], task: str) -> int:
    return int(one(rows, stage="choose", task=task, metric="rung").value)


def standard_error(rows: list[Row], task: str, best: Row) -> float:
    """Of a selection score, which is a mean of metrics times 100."""
    metrics = {row.metric for row in select(rows, task=task, stage="single")}
    value = min(1.0, abs(best.value) / 100)
    if metrics & set(CORRELATIONS):
        return 100 * (1 - value**2) / math.sqrt(best.n)
    return 100 * math.sqrt(value * (1 - value) / best.n)


def cell(full: list[Row], quick: list[Row], task: str) -> dict[str, Any]:
    """What the two searches of a task and seed did."""
    rungs = {"all": chosen(full, task), "halving": chosen(quick, task)}
    best, other = (selection_score(full, task, rung) for rung in rungs.values())
    error = standard_error(full, task, best)
    return {
        "task": task,
        "seed": best.seed,
        "steps": {"all": ladder_steps(full, task), "halving": ladder_steps(quick, task)},
        "rungs": rungs,
        "selection_scores": {"all": round(best.value, 2), "halving": round(other.value, 2)},
        "selection_rows": best.n,
        "standard_error": round(error, 2),
        "within": bool(best.value - other.value <= error),
        "dev_scores": {way: round(dev_score(full, task, rung), 2) for way, rung in rungs.items()},
    }


def _summary(differences: list[float]) -> dict[str, float]:
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return {"mean": round(statistics.fmean(differences), 2), "standard_error": round(error, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = {way: searched(given.experiment, way, given.output, given.seeds, given.set) for way in WAYS}
    tasks = list(dict.fromkeys(row.task for row in rows["all"][0] if row.stage == "choose"))
    cells = [
        cell(full, quick, task) for full, quick in zip(rows["all"], rows["halving"], strict=True) for task in tasks
    ]
    steps = {way: sum(found["steps"][way] for found in cells) for way in WAYS}
    differing = [found["within"] for found in cells if found["rungs"]["all"] != found["rungs"]["halving"]]
    result = {
        "what": "search",
        "shape": f"experiment {load_experiment(given.experiment).experiment.name}",
        # not where the data lie here
        "settings": [setting for setting in given.set if not setting.startswith("data.root=")],
        "comparisons": [
            {
                "what": f"finding the tickets of {len(tasks)} tasks, {len(rows['all'])} seeds",
                "unit": "training steps",
                "of": "successive halving",
                "over": "every rung trained to the end",
                "ratio": round(steps["halving"] / steps["all"], 4),
                "medians": {"successive halving": steps["halving"], "every rung trained to the end": steps["all"]},
            }
        ],
        "choices": {
            "all": len(cells),
            "equal": len(cells) - len(differing),
            "differing_within_one_standard_error": sum(differing),
            "equal_or_within": round(statistics.fmean(found["within"] for found in cells), 4),
        },
        "dev_halving_above_all": _summary(
            [found["dev_scores"]["halving"] - found["dev_scores"]["all"] for found in cells]
        ),
        "cells": cells,
        **machine(load_experiment(given.experiment).experiment.mixed_precision.replace("no", "fp32")),
    }
    write(given.json, result)


if __name__ == "__main__":
    main()
