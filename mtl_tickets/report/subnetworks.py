"""Sub-networks over their sparsity, and tickets on other tasks than their own, from the rows of runs.

Rows are under the stages ``KIND/PERCENT`` and ``transfer/PERCENT/SOURCE``, and of the whole encoder under ``full``. Not
every kind is at every size, nor on every task: what some finished run has, all must have.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence

from mtl_tickets.evaluation.matching import Matching, highest, matching, universal
from mtl_tickets.evaluation.statistics import ROUNDING
from mtl_tickets.recipes.base import FULL, HELD_OUT, MLM, TRAIN_SCORE
from mtl_tickets.report.runs import Run
from mtl_tickets.report.subnetwork_data import GAP, Curve, Moved, Source, Subnetwork, Transfer
from mtl_tickets.report.tables import AVERAGE

# the kind that a task's own ticket is of, and those that are found on no task
OWN, CONTROLS = "imp", ("magnitude", "random")
# trainings on the way to tickets, and what has sizes but no weights dropped
OTHER = ("round", "yardstick", "multi", "transfer")

SIZE = r"(\d+(?:\.\d+)?)"

Pairs = frozenset[tuple[str, str]]
"""Stage and task."""


def curves(runs: Sequence[Run], headings: Mapping[str, str]) -> tuple[Curve, ...]:
    """Of every task, of masked-language modelling where there is a text, and of the average over tasks first; empty
    where the full model is not there yet. ``headings``: of the columns of the table, by stage.

    Raises :class:`CheckpointError` where a finished run lacks a row.
    """
    return _curves(runs, headings, _tasks(runs), _metric)


def gaps(runs: Sequence[Run], headings: Mapping[str, str]) -> tuple[Curve, ...]:
    """The same of the score on training rows less that on dev rows, for the tasks; nothing of it matches."""
    return _curves(runs, headings, runs[0].learned, lambda task: GAP)


def _curves(
    runs: Sequence[Run], headings: Mapping[str, str], tasks: Sequence[str], metric: Callable[[str], str]
) -> tuple[Curve, ...]:
    due = _due(runs, headings)
    sizes = _sizes(due)
    names = kind_names(headings)
    names |= {kind: kind.replace("_", " ") for kind in sizes if kind not in names}
    found = {task: _curve(runs, task, metric(task), sizes, names, due) for task in tasks if (FULL, task) in due}
    of_tasks = [found[task] for task in runs[0].learned if task in found]
    average = [_average(of_tasks)] if 1 < len(of_tasks) == len(runs[0].learned) else []
    return tuple(curve for curve in (*average, *found.values()) if curve.found)


def kind_names(headings: Mapping[str, str]) -> dict[str, str]:
    """Kind -> what its columns are called, without the size; in the order of the table."""
    found = {}
    for stage, heading in headings.items():
        if size := re.fullmatch(rf"([^/]+)/{SIZE}", stage):
            found[size[1]] = heading.removesuffix(f" {size[2]} %")
    return found


def transfers(runs: Sequence[Run], headings: Mapping[str, str]) -> tuple[Transfer, ...]:
    """The matrix of every size, sources by targets; of unfinished runs, those that are whole. Raises as
    :func:`curves`."""
    due = _due(runs, headings)
    names = kind_names(headings)
    targets = tuple(task for task in _tasks(runs) if (FULL, task) in due)
    found: dict[str, list[str]] = {}
    for stage, _ in sorted(_pairs(runs)):
        if moved := re.fullmatch(rf"transfer/{SIZE}/(.+)", stage):
            sources = found.setdefault(moved[1], [])
            sources += [moved[2]] if moved[2] not in sources else []
    made = []
    for percent in sorted(found, key=float):
        sources = [*(task for task in targets if task in found[percent])]
        sources += [source for source in found[percent] if source not in sources]
        if transfer := _transfer(runs, percent, sources, targets, names, due):
            made.append(transfer)
    return tuple(made)


# -- which rows there are ----------------------------------------------------------------------------------------------


def _tasks(runs: Sequence[Run]) -> list[str]:
    return [*runs[0].learned, *([MLM] if runs[0].experiment.recipe.has_text else [])]


def _pairs(runs: Sequence[Run]) -> Pairs:
    return frozenset((row.stage, row.task) for run in runs for row in run.rows)


def _due(runs: Sequence[Run], headings: Mapping[str, str]) -> Pairs:
    """What is shown: of finished runs what they must have, of others what all of them have whole."""
    tasks, reported = _tasks(runs), runs[0].experiment.recipe.reported
    pairs = {(stage, task) for stage, task in _pairs(runs) if task in tasks}
    if all(run.finished for run in runs):
        columns = [stage for stage in headings if not stage.startswith("yardstick/")]
        return frozenset(pairs | {(stage, task) for stage in columns for task in tasks if reported(stage, task)})
    return frozenset(pair for pair in pairs if all(_whole(run, *pair) for run in runs))


def _whole(run: Run, stage: str, task: str) -> bool:
    splits = (HELD_OUT,) if task == MLM else run.splits[task]
    return all(run.has(stage, task, split, "score") for split in splits) and run.has(stage, task, "all", "remaining")


def _sizes(due: Pairs) -> dict[str, list[str]]:
    """Kind -> its sizes, from the largest sub-network to the smallest."""
    found: dict[str, set[str]] = {}
    for stage, _ in due:
        if (size := re.fullmatch(rf"([^/]+)/{SIZE}", stage)) and size[1] not in OTHER:
            found.setdefault(size[1], set()).add(size[2])
    return {kind: sorted(found[kind], key=float) for kind in sorted(found)}


def _value(run: Run, stage: str, task: str, metric: str) -> float:
    if task == MLM:
        return run.row(stage, MLM, HELD_OUT, metric).value
    dev = statistics.fmean(run.row(stage, task, split, "score").value for split in run.splits[task])
    return run.row(stage, task, "train", TRAIN_SCORE).value - dev if metric == GAP else dev


def _metric(task: str) -> str:
    return "loss" if task == MLM else "score"


# -- over sparsity -----------------------------------------------------------------------------------------------------


def _curve(
    runs: Sequence[Run],
    task: str,
    metric: str,
    sizes: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
    due: Pairs,
) -> Curve:
    full = tuple(_value(run, FULL, task, metric) for run in runs)
    found = [
        _subnetwork(runs, kind, percent, task, metric, full)
        for kind, of_kind in sizes.items()
        for percent in of_kind
        if (f"{kind}/{percent}", task) in due
    ]
    decided: dict[str, dict[float, Matching]] = {}
    for item in found if metric != GAP else ():
        decided.setdefault(item.kind, {})[float(item.percent)] = matching(item.values, full, task == MLM)
    return Curve(
        task,
        metric,
        full,
        tuple(found),
        names,
        {kind: best for kind, of_kind in decided.items() if (best := highest(of_kind)) is not None},
        {kind: best for kind, of_kind in decided.items() if (best := highest(of_kind, strict=True)) is not None},
    )


def _subnetwork(
    runs: Sequence[Run], kind: str, percent: str, task: str, metric: str, full: Sequence[float]
) -> Subnetwork:
    stage = f"{kind}/{percent}"
    # tickets of heads and blocks say nothing of single weights
    kept = "weights_kept" if any(run.has(stage, task, "all", "weights_kept") for run in runs) else "remaining"
    values = tuple(_value(run, stage, task, metric) for run in runs)
    verdict = matching(values, full, task == MLM) if metric != GAP else None
    return Subnetwork(
        kind,
        percent,
        tuple(100 - run.row(stage, task, "all", kept).value for run in runs),
        tuple(run.row(stage, task, "all", "remaining").value for run in runs),
        values,
        verdict.matches if verdict else None,
        verdict.reaches if verdict else None,
    )


def _average(found: Sequence[Curve]) -> Curve:
    """Means over tasks, within each seed, of the kinds and sizes that every task has."""
    by_name = [{(item.kind, item.percent): item for item in curve.found} for curve in found]
    same = [[of_task[name] for of_task in by_name] for name in by_name[0] if all(name in of for of in by_name)]
    return Curve(
        AVERAGE,
        found[0].metric,
        _means([curve.full for curve in found]),
        tuple(
            Subnetwork(
                items[0].kind,
                items[0].percent,
                _means([item.dropped for item in items]),
                _means([item.kept for item in items]),
                _means([item.values for item in items]),
                None,
                None,
            )
            for items in same
        ),
        found[0].names,
        {},
        {},
    )


def _means(values: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(map(statistics.fmean, zip(*values, strict=True)))


# -- on other tasks ----------------------------------------------------------------------------------------------------


def _transfer(
    runs: Sequence[Run],
    percent: str,
    sources: Sequence[str],
    targets: Sequence[str],
    names: Mapping[str, str],
    due: Pairs,
) -> Transfer | None:
    """None where some cell of unfinished runs is not there yet."""
    own = {
        task: next((stage for stage in (f"transfer/{percent}/{task}", f"{OWN}/{percent}") if (stage, task) in due), "")
        for task in targets
    }
    rows = [
        (source, False, {task: (task == source and own[task]) or f"transfer/{percent}/{source}" for task in targets})
        for source in sources
    ]
    finished = all(run.finished for run in runs)
    for kind in CONTROLS:
        stage = f"{kind}/{percent}"
        there = [(stage, task) in due for task in targets]
        if all(there) or (finished and any(there)):
            rows.append((names.get(kind, kind), True, dict.fromkeys(targets, stage)))
    if not finished and any((stage, task) not in due for *_, of_row in rows for task, stage in of_row.items()):
        return None
    made = (_source(runs, name, control, of_row, own) for name, control, of_row in rows)
    return Transfer(percent, tuple(targets), tuple(made))


def _source(runs: Sequence[Run], name: str, control: bool, stages: Mapping[str, str], own: Mapping[str, str]) -> Source:
    cells: list[Moved] = []
    decided: list[Matching] = []
    for task, stage in stages.items():
        scores, full = ([_value(run, where, task, "score") for run in runs] for where in (stage, FULL))
        best = statistics.fmean(_value(run, own[task], task, "score") for run in runs) if own[task] else None
        mean = statistics.fmean(scores)
        cells.append(
            Moved(
                task,
                tuple(score - whole for score, whole in zip(scores, full, strict=True)),
                None if best is None else mean - best >= -ROUNDING * max(abs(mean), abs(best)),
                not control and task == name,
            )
        )
        values, whole = ([_value(run, where, task, _metric(task)) for run in runs] for where in (stage, FULL))
        decided.append(matching(values, whole, task == MLM))
    return Source(name, control, tuple(cells), universal(decided))
