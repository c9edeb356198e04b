"""Ladders, trainings and what they cost, from the rows and stages of runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_tickets.report.data import Cost, Course, Ladder, Method, Rung
from mtl_tickets.report.keeping import needed_percent
from mtl_tickets.report.runs import Run
from mtl_tickets.report.tables import AVERAGE

WINNING = "winning"


# -- ladders -----------------------------------------------------------------------------------------------------------


def ladders(runs: Sequence[Run], all_rungs: bool) -> tuple[Ladder, ...]:
    """The ladder of every task and, where every rung was trained to the end, of the average over tasks first; empty
    where no rung is there yet. A rung that a finished run must have and has not is an error."""
    numbers = _numbers(runs)
    if not numbers or not all(run.has("single", task, "all", "remaining") for run in runs for task in run.learned):
        return ()
    tasks = runs[0].learned
    found = {task: Ladder(task, tuple(_rungs(runs, task, numbers, all_rungs))) for task in tasks}
    averages = [average] if all_rungs and len(tasks) > 1 and (average := _average(list(found.values()))) else []
    return (*averages, *found.values())


def _numbers(runs: Sequence[Run]) -> dict[str, list[int]]:
    """Kind of ticket -> the numbers of its rungs, over all runs and tasks."""
    found: dict[str, set[int]] = {}
    for run in runs:
        for row in run.rows:
            if row.stage.startswith("ladder/"):
                kind, _, number = row.stage.removeprefix("ladder/").rpartition("-")
                found.setdefault(kind, set()).add(int(number))
    first = sorted(found, key=lambda kind: (kind != WINNING, kind != "random", kind))
    return {kind: sorted(found[kind]) for kind in first}


def _rungs(runs: Sequence[Run], task: str, numbers: dict[str, list[int]], all_rungs: bool) -> list[Rung]:
    chosen = {
        run.seed: int(run.row("choose", task, "selection", "rung").value)
        for run in runs
        if run.finished or run.has("choose", task, "selection", "rung")
    }
    rungs = [_rung("dense", 0, "single", runs, task, chosen)]
    for kind, of_kind in numbers.items():
        for number in of_kind:
            stage = f"ladder/{kind}-{number}"
            due = [run for run in runs if run.finished and (all_rungs or kind != WINNING)]
            there = [run for run in runs if run in due or run.has(stage, task, "all", "remaining")]
            if there:
                rungs.append(_rung(kind, number, stage, there, task, chosen if kind == WINNING else {}))
    return rungs


def _rung(kind: str, number: int, stage: str, runs: Sequence[Run], task: str, chosen: dict[int, int]) -> Rung:
    return Rung(
        kind,
        number,
        tuple(run.seed for run in runs),
        tuple(run.row(stage, task, "all", "remaining").value for run in runs),
        tuple(
            statistics.fmean(run.row(stage, task, split, "score").value for split in run.splits[task]) for run in runs
        ),
        tuple(seed for seed, rung in chosen.items() if rung == number),
    )


def _average(found: Sequence[Ladder]) -> Ladder | None:
    """Means over tasks, within each seed, of the rungs that every task has with the same seeds."""
    by_name = [{(rung.kind, rung.number): rung for rung in ladder.rungs} for ladder in found]
    rungs = []
    for name in by_name[0]:
        same = [rungs_of[name] for rungs_of in by_name if name in rungs_of]
        if len(same) == len(found) and len({rung.seeds for rung in same}) == 1:
            kept = zip(*(rung.kept for rung in same), strict=True)
            scores = zip(*(rung.scores for rung in same), strict=True)
            rungs.append(
                Rung(*name, same[0].seeds, tuple(map(statistics.fmean, kept)), tuple(map(statistics.fmean, scores)))
            )
    return Ladder(AVERAGE, tuple(rungs)) if any(rung.number for rung in rungs) else None


# -- trainings ---------------------------------------------------------------------------------------------------------


def courses(runs: Sequence[Run], methods: Sequence[Method]) -> tuple[Course, ...]:
    """The multi-task trainings of these methods, which must be done."""
    found = []
    for method in methods:
        if not method.stage.startswith("multi/"):
            continue
        histories = [run.stage(method.stage)["history"] for run in runs]
        found.append(
            Course(
                method.name,
                tuple(tuple(float(epoch["loss"]) for epoch in history) for history in histories),
                tuple(
                    tuple(statistics.fmean(epoch["selection"].values()) for epoch in history) for history in histories
                ),
                _twin(runs, method),
            )
        )
    return tuple(found)


def _twin(runs: Sequence[Run], method: Method) -> str | None:
    """The method whose numbers this one took over, where it is the same one with every seed."""
    stages = {run.stage(method.stage).get("same_as") for run in runs} if method.stage.startswith("multi/") else {None}
    (stage,) = stages if len(stages) == 1 else (None,)
    return stage.removeprefix("multi/") if stage else None


# -- costs -------------------------------------------------------------------------------------------------------------


def costs(runs: Sequence[Run], methods: Sequence[Method]) -> tuple[Cost, ...]:
    """What the models of these methods cost, and the search for tickets between them."""
    found = []
    for method in methods:
        if method.stage == "single":
            found.append(_single(runs, method))
            found += _search(runs)
        elif method.stage.startswith("multi/"):
            found.append(_together(runs, method))
    return tuple(found)


def _single(runs: Sequence[Run], method: Method) -> Cost:
    tasks = runs[0].learned
    stages = [[run.stage(f"single/{task}") for task in tasks] for run in runs]
    kept = [[run.bytes_of(f"stages/single/{task}/weights.safetensors") for task in tasks] for run in runs]
    total = [
        sum(row.n * row.value / 100 for row in (run.row("single", task, "all", "remaining") for task in tasks))
        for run in runs
    ]
    return Cost(
        method.heading,
        len(tasks),
        tuple(sum(float(stage["seconds"]) for stage in of_run) for of_run in stages),
        tuple(sum(int(stage["steps"]) for stage in of_run) for of_run in stages),
        parameters=tuple(value / len(tasks) for value in total),
        needed=tuple(total),
        stored=_all_kept(kept),
        models=len(tasks),
    )


def _search(runs: Sequence[Run]) -> list[Cost]:
    """Scoring, what rules that score by themselves add to it, and every training on the ladders; looks at trainings
    that were stopped early belong to them."""
    tasks = set(runs[0].learned)
    groups: dict[str, list[list[str]]] = {}
    for number, run in enumerate(runs):
        for name in [*run.stages("scores/**"), *run.stages("ladder/*/*"), *run.stages("look-*/*/*")]:
            first, _, rest = name.partition("/")
            of = rest.partition("/")[0]
            what = "ladders" if first != "scores" else "scores" if of in tasks else f"scores for {of}"
            groups.setdefault(what, [[] for _ in runs])[number].append(name)
    found = []
    for what, names in groups.items():
        if not all(names):  # a run that is not finished may have none yet
            continue
        done = [[run.stage(name) for name in of_run] for run, of_run in zip(runs, names, strict=True)]
        trainings = [_trainings(*of_run) for of_run in zip(names, done, strict=True)]
        found.append(
            Cost(
                what,
                max(map(len, trainings)),
                tuple(sum(float(stage["seconds"]) for stage in of_run) for of_run in done),
                tuple(sum(of_run.values()) for of_run in trainings) if any(trainings) else (),
            )
        )
    return found


def _trainings(names: Sequence[str], stages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Training -> its last step; a look at one is a part of it."""
    last: dict[str, int] = {}
    for name, stage in zip(names, stages, strict=True):
        if "steps" in stage:
            training = name.partition("/")[2]
            last[training] = max(int(stage["steps"]), last.get(training, 0))
    return last


def _together(runs: Sequence[Run], method: Method) -> Cost:
    stages = [run.stage(method.stage) for run in runs]
    rows = [run.row(method.stage, AVERAGE, "all", "remaining") for run in runs]
    twin = _twin(runs, method)
    folders = [
        run.bytes_of(str(stage["model"])) if stage.get("model") else None
        for run, stage in zip(runs, stages, strict=True)
    ]
    return Cost(
        method.heading,
        0 if twin else 1,
        tuple(float(stage["seconds"]) for stage in stages) if not twin else (),
        tuple(int(stage["steps"]) for stage in stages) if not twin else (),
        parameters=tuple(row.n * row.value / 100 for row in rows),
        needed=tuple(
            row.n * needed_percent(run.tickets(method.name)) / 100 for run, row in zip(runs, rows, strict=True)
        ),
        stored=_all_kept([[size] for size in folders]),
        models=1,
        same_as=twin,
    )


def _all_kept(sizes: Sequence[Sequence[int | None]]) -> tuple[int, ...]:
    """By seed; empty where the files of some seed are gone."""
    known = [[size for size in of_run if size is not None] for of_run in sizes]
    return tuple(map(sum, known)) if [list(of_run) for of_run in sizes] == known else ()
