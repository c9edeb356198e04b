"""What choosing on dev would have claimed: the optimism that choosing on rows of its own keeps out of a report.

A choice is made among candidates by their scores on the selection split. Had it been made by their dev scores, the best
of those would be reported: as high or higher by construction. The difference, both scored on dev, is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from mtl_tickets.recipes.choice import WHOLE
from mtl_tickets.report.data import Choice, Method, Optimism
from mtl_tickets.report.runs import Run

# rules that are there to be compared with, not to be chosen
CONTROLS = ("random", "losing")


def optimism(runs: Sequence[Run], methods: Sequence[Method]) -> Optimism | None:
    """None before every task of every run has chosen, and of runs that did not keep what they chose from.

    Raises :class:`CheckpointError` where a row of a candidate is missing.
    """
    first = runs[0]
    if first.experiment.recipe.selection_settings.dev:
        return Optimism(True, (), None)
    stages = [f"choose/{task}" for task in first.learned]
    if not stages or not all(run.is_done(stage) and "curve" in run.stage(stage) for run in runs for stage in stages):
        return None
    return Optimism(False, tuple(_rungs(runs, task) for task in first.learned), _rules(runs, methods))


def _rungs(runs: Sequence[Run], task: str) -> Choice:
    chose, best, points = [], [], []
    for run in runs:
        kept = run.stage(f"choose/{task}")
        on_dev = {rung: _dev(run, "single" if rung == WHOLE else f"ladder/{rung}", task) for rung in kept["curve"]}
        # rungs stand from the largest ticket to the smallest: of equals the smallest is chosen, as the recipe does
        places = {rung: place for place, rung in enumerate(on_dev)}
        chose.append(str(kept["chosen"]))
        best.append(max(on_dev, key=lambda rung: (on_dev[rung], places[rung])))
        points.append(on_dev[best[-1]] - on_dev[chose[-1]])
    return Choice(task, tuple(chose), tuple(best), tuple(points))


def _rules(runs: Sequence[Run], methods: Sequence[Method]) -> Choice | None:
    """Among the rules that are no controls, the dense model with them; the better by its mean score over tasks."""
    recipe, tasks = runs[0].experiment.recipe, runs[0].learned
    kinds: Mapping[str, str] = {f"multi/{name}": rule.kind for name, rule in getattr(recipe, "rules", {}).items()}
    columns = [stage for stage in recipe.columns() if stage.startswith("multi/")]
    names = {method.stage: method.name for method in methods}
    candidates = [stage for stage in columns if kinds.get(stage) not in CONTROLS]
    if len(candidates) < 2 or not all(stage in names for stage in columns):
        return None
    chose, best, points = [], [], []
    for run in runs:
        selection = {
            stage: statistics.fmean(run.row(stage, task, "selection", "score").value for task in tasks)
            for stage in candidates
        }
        on_dev = {stage: statistics.fmean(_dev(run, stage, task) for task in tasks) for stage in candidates}
        remaining = {stage: run.row(stage, "average", "all", "remaining").value for stage in candidates}
        # of equals the smallest tickets
        by_selection = max(candidates, key=lambda stage: (selection[stage], -remaining[stage]))
        by_dev = max(candidates, key=lambda stage: (on_dev[stage], -remaining[stage]))
        chose.append(names[by_selection])
        best.append(names[by_dev])
        points.append(on_dev[by_dev] - on_dev[by_selection])
    return Choice("rules", tuple(chose), tuple(best), tuple(points))


def _dev(run: Run, stage: str, task: str) -> float:
    return statistics.fmean(run.row(stage, task, split, "score").value for split in run.splits[task])
