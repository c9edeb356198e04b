"""Kept predictions -> tests over rows: would another dev set come out so, with the models that were trained?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.evaluate import read_predictions
from mtl_tickets.evaluation.mcnemar import McNemar, mcnemar
from mtl_tickets.evaluation.row_tests import Resampled, RowSet, enough_resamples, resample
from mtl_tickets.evaluation.statistics import holm
from mtl_tickets.evaluation.verdicts import RowContrast, compare_all_on_rows
from mtl_tickets.report.data import Difference, Method, OnRows, RightOrWrong, RowJudgement
from mtl_tickets.report.runs import Run
from mtl_tickets.tasks.breakdown import values_of
from mtl_tickets.tasks.metrics import METRICS

Against = Mapping[str, Sequence[str]]
"""Baseline -> the methods that are held against it."""

# points by which a score may differ from the same made anew from predictions: rounding, and nothing else
SAME = 0.01


def on_rows(runs: Sequence[Run], methods: Sequence[Method], against: Against) -> OnRows | None:
    """Of the tasks that were learned; None where there is nothing to compare.

    A method without predictions, or with others than its scores were made from, is left out and named; where tasks
    cannot be judged, nothing is. Nothing of this is an error: the scores stand without it.
    """
    stages = {method.name: method.stage for method in methods}
    wanted = list(dict.fromkeys(name for pair in against.items() for name in (*pair[1], pair[0])))
    if not wanted:
        return None
    missing = []
    lacking = [name for name in wanted if not _all_kept(runs, stages[name])]
    if lacking:
        missing.append(f"Predictions that are not kept: {', '.join(lacking)}.")
    left = _without(against, lacking)
    metrics = {task: _metrics(runs[0], stages[wanted[0]], task) for task in runs[0].learned}
    unknown = sorted({name for of_task in metrics.values() for name in of_task} - set(METRICS.names()))
    if unknown:
        missing.append(f"Metrics that are not known here: {', '.join(unknown)}.")
    if unknown or not left:
        return OnRows((), {}, 0, {}, tuple(missing))
    used = {name: stages[name] for name in wanted if name not in lacking}
    resamples = enough_resamples(max(len(names) for names in left.values()) * len(metrics))
    try:
        sets = [
            _set(runs, used, task, split, names) for task, names in metrics.items() for split in runs[0].splits[task]
        ]
        found = resample(sets, resamples=resamples)
    except InputError as error:
        missing.append(f"Predictions that cannot be compared: {'; '.join(map(str, error.problems))}.")
        return OnRows((), {}, 0, {}, tuple(missing))
    others = [name for name, stage in used.items() if not _gives_its_scores(found, runs, name, stage)]
    if others:
        missing.append(f"Predictions from which other scores follow than those of the table: {', '.join(others)}.")
    left = _without(left, others)
    return OnRows(
        tuple(_judgement(found, sets, baseline, names) for baseline, names in left.items()),
        {task: sum(len(rows.labels) for rows in sets if rows.task == task) for task in metrics},
        resamples,
        {task: count for task in metrics if (count := found.undefined(task))},
        tuple(missing),
    )


def _without(against: Against, names: Sequence[str]) -> Against:
    left = {baseline: [name for name in methods if name not in names] for baseline, methods in against.items()}
    return {baseline: methods for baseline, methods in left.items() if methods and baseline not in names}


# -- predictions -------------------------------------------------------------------------------------------------------


def _file(run: Run, stage: str, task: str, split: str) -> Path | None:
    """Where a stage's predictions are, or those of the stage that it is the same as."""
    folder = run.made_by(stage, task)
    if folder is None:
        return None
    file = run.kept_by(folder, f"predictions-{task}-{split}.safetensors")
    return file if file.is_file() else None


def _all_kept(runs: Sequence[Run], stage: str) -> bool:
    return all(_file(run, stage, task, split) for run in runs for task in run.learned for split in run.splits[task])


def _metrics(run: Run, stage: str, task: str) -> list[str]:
    """The names of the task's metrics, from its rows: those of which a score is the mean, and errors."""
    split = run.splits[task][0]
    rows = (row for row in run.rows if (row.stage, row.task, row.split) == (stage, task, split))
    return [row.metric for row in rows if row.metric != "score" and values_of(row.metric) is None]


def _set(runs: Sequence[Run], stages: Mapping[str, str], task: str, split: str, metrics: Sequence[str]) -> RowSet:
    answers: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    regression = any("regression" in METRICS.get(name).kinds for name in metrics)
    for name, stage in stages.items():
        for run in runs:
            file = _file(run, stage, task, split)
            assert file is not None  # the others are left out
            logits, labels = read_predictions(file)
            answers.setdefault(name, {})[run.seed] = (logits[:, 0] if regression else logits.argmax(-1)), labels
    return RowSet.of(task, split, [name for name in metrics if METRICS.get(name).in_score], answers)


def _gives_its_scores(found: Resampled, runs: Sequence[Run], name: str, stage: str) -> bool:
    for task in found.tasks:
        rows = [run.row(stage, task, split, "score") for run in runs for split in run.splits[task]]
        if abs(100 * found.score(task, name) - statistics.fmean(row.value for row in rows)) > SAME:
            return False
    return True


# -- what is found -----------------------------------------------------------------------------------------------------


def _judgement(found: Resampled, sets: Sequence[RowSet], baseline: str, methods: Sequence[str]) -> RowJudgement:
    contrasts = compare_all_on_rows(found, baseline, methods)
    return RowJudgement(
        baseline,
        tuple(map(_difference, contrasts.average.values())),
        {task: tuple(map(_difference, by.values())) for task, by in contrasts.tasks.items()},
        _right(sets, baseline, methods),
    )


def _difference(contrast: RowContrast) -> Difference:
    result, verdict = contrast.result, contrast.verdict
    return Difference(
        contrast.a,
        verdict.outcome,
        verdict.sentence,
        100 * result.difference,
        100 * result.sd,
        100 * result.interval.low,
        100 * result.interval.high,
        contrast.p,
    )


def _right(sets: Sequence[RowSet], baseline: str, methods: Sequence[str]) -> tuple[RightOrWrong, ...]:
    """Of the tasks that accuracy is a metric of; the rows of all splits together."""
    tests: dict[tuple[str, str], McNemar] = {}
    for task in dict.fromkeys(rows.task for rows in sets if "accuracy" in rows.metrics):
        of_task = [rows for rows in sets if rows.task == task]
        right = {
            name: np.concatenate([rows.answers[name] == rows.labels for rows in of_task], 1)
            for name in (*methods, baseline)
        }
        tests |= {(task, name): mcnemar(right[name], right[baseline]) for name in methods}
    corrected = holm({key: test.p_mid for key, test in tests.items()})
    return tuple(
        RightOrWrong(
            task,
            name,
            test.rows,
            test.wins,
            test.losses,
            100 * test.difference,
            test.p,
            test.p_mid,
            corrected[task, name],
        )
        for (task, name), test in tests.items()
    )
