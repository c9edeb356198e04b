"""Files of runs -> :class:`ReportData`.

Numbers come from result rows; histories, sizes and times from what stages kept. A row that a finished run must have and
has not is an error. A run that is not finished is reported as far as it got, and what is not there yet is named.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.report.breakdowns import breakdowns
from mtl_tickets.report.choosing import optimism
from mtl_tickets.report.courses import costs, courses, ladders
from mtl_tickets.report.data import FULL, Method, ReportData, SeedFacts, TaskFacts
from mtl_tickets.report.judging import judgements
from mtl_tickets.report.keeping import tickets_of
from mtl_tickets.report.row_findings import on_rows
from mtl_tickets.report.runs import Run, fullest, read_runs
from mtl_tickets.report.stage_costs import stage_costs
from mtl_tickets.report.subnetworks import curves, gaps, transfers
from mtl_tickets.report.tables import (
    comparison,
    evaluation_only,
    language_modelling,
)
from mtl_tickets.report.words import numbers
from mtl_tickets.tasks.breakdown import values_of

SCORED = ("score", "remaining", "loss")
FEW = 8  # trainings that are named in a note


def gather(place: str | Path, baselines: Sequence[str] = (), seeds: Sequence[int] | None = None) -> ReportData:
    """What there is to say about the experiment folder, or the single run, at ``place``. ``baselines``: the rules that
    all others are held against, each with a correction of its own, in place of the recipe's first baseline; the first
    decides. ``seeds``: those that count, None for all there are.

    Raises :class:`CheckpointError` where there is no run, none has begun, or a row is missing.
    """
    place = Path(place)
    runs = [run for run in read_runs(place) if seeds is None or run.seed in seeds]
    begun = [run for run in runs if run.begun]
    if not begun:
        raise CheckpointError(Problem("no run has begun here: there is nothing to report yet", file=str(place)))
    recipe = begun[0].experiment.recipe  # all runs have one configuration
    headings = recipe.columns()
    used, stages = fullest(begun, headings)
    first = used[0]
    methods = tuple(Method(stage, headings[stage], _name(stage, headings[stage])) for stage in stages)
    rows = [row for run in used for row in run.rows if row.metric in SCORED]
    shown_seeds = tuple(run.seed for run in used)
    learned = {task: first.splits[task] for task in first.learned}
    extra = {task: splits for task, splits in first.splits.items() if task not in learned}
    shown = {method.stage: method.heading for method in methods}
    scores = comparison(rows, shown, learned, shown_seeds, recipe.reported) if shown and learned else None
    named = [f"multi/{name}" for name in baselines] or recipe.baselines[:1]
    judged = judgements(scores, methods, [*named, *recipe.baselines[1:]], recipe.compared) if scores else ()
    models = tuple(method for method in methods if not method.stage.startswith("yardstick/"))
    challenged = evaluation_only(rows, shown, extra, shown_seeds, recipe.reported) if extra and models else None
    pruned = "sparsity" in recipe.sections
    all_rungs = getattr(getattr(recipe, "search", None), "kind", "all") == "all"
    alone = (place / "config.yaml").is_file()
    asked = () if alone else first.experiment.seeds if seeds is None else seeds
    return ReportData(
        name=first.record["name"] if alone else place.resolve().name,
        description=first.experiment.description,
        recipe=recipe.kind,
        methods=methods,
        seeds=shown_seeds,
        scores=scores,
        extra=challenged,
        extra_judgements=judgements(challenged, models, named[:1], recipe.compared) if challenged else (),
        language=language_modelling(rows, shown, shown_seeds, recipe.reported) if recipe.has_text else None,
        judgements=judged,
        on_rows=on_rows(used, methods, {item.baseline: [m.method for m in item.average] for item in judged}),
        curves=curves(used, headings) if pruned else (),
        transfers=transfers(used, headings) if pruned else (),
        overfitting=gaps(used, headings) if "overfitting" in recipe.sections else (),
        ladders=ladders(used, all_rungs),
        all_rungs=all_rungs,
        optimism=optimism(used, methods),
        tickets=tickets_of(used) if hasattr(recipe, "sharing") else None,
        courses=courses(used, methods),
        costs=stage_costs(used, headings) if pruned else costs(used, methods),
        breakdowns=breakdowns(used, methods, named[0], recipe.compared),
        sections=recipe.sections,
        notes=_notes(first, used),
        missing=tuple(_missing(runs, used, headings, stages, asked)),
        tasks=tuple(_task(first, task) for task in first.splits),
        runs=tuple(_seed(run) for run in runs),
        config=(first.path / "config.yaml").read_text(encoding="utf-8"),
        command=_command(first, [run.seed for run in runs]),
    )


def _name(stage: str, heading: str) -> str:
    """What sentences and figures call a column."""
    kind, _, name = stage.partition("/")
    names = {"multi": name, "yardstick": name.replace("_", " "), "single": "single-task", "full": FULL}
    return names.get(kind, heading)


# -- what a reader must know -------------------------------------------------------------------------------------------


def _notes(first: Run, used: Sequence[Run]) -> Mapping[str, str]:
    from mtl_tickets.report.summary import notes_of

    chosen = [
        run.row("choose", task, "selection", "rung")
        for run in used
        for task in run.learned
        if run.has("choose", task, "selection", "rung")
    ]
    complete = len(chosen) == len(used) * len(first.learned)
    found = {"encoder": first.experiment.encoder.name}
    found |= notes_of(first.experiment, chosen if complete else [], first.learned, [run.seed for run in used])
    stages = [(run.seed, name, run.stage(name)) for run in used for name in run.stages("**")]
    if taken := sum("taken" in stage for _, _, stage in stages):
        found["taken over"] = f"{taken:,} of {len(stages):,} stages are another run's, done from the same inputs"
    unmoved = [(f"{task} in {name}", seed) for seed, name, stage in stages for task in stage.get("unmoved", ())]
    if unmoved:
        found["not learned"] = _unmoved(unmoved)
    return found


def _unmoved(found: Sequence[tuple[str, int]]) -> str:
    """Trainings in which a task's loss stood still, with their seeds."""
    seeds: dict[str, list[int]] = {}
    for training, seed in found:
        seeds.setdefault(training, []).append(seed)
    named = [f"{training} (seed {numbers(its)})" for training, its in seeds.items()]
    rest = f" and {len(named) - FEW:,} more" if len(named) > FEW else ""
    return f"the loss on held-out rows stood still: {', '.join(named[:FEW])}{rest}"


def _missing(
    runs: Sequence[Run], used: Sequence[Run], headings: Mapping[str, str], stages: Sequence[str], asked: Iterable[int]
) -> list[str]:
    """What is not there yet, in sentences. ``asked``: the seeds there should be."""
    found = []
    for run in runs:
        if not run.begun:
            found.append(f"Seed {run.seed} has not begun.")
        elif not run.finished:
            done = [headings[stage] for stage in headings if stage in fullest([run], headings)[1]]
            so_far = f"it has {', '.join(done)}" if done else "it has no column of the table yet"
            where = "" if run in used else "; its numbers are not used here"
            found.append(f"Seed {run.seed} is not finished: {so_far}{where}.")
    if unseen := sorted(set(asked) - {run.seed for run in runs}):
        found.append(f"Seeds of the configuration that have no run yet: {', '.join(map(str, unseen))}.")
    if absent := [heading for stage, heading in headings.items() if stage not in stages]:
        found.append(f"Columns that are not there yet: {', '.join(absent)}.")
    return found


def _task(first: Run, task: str) -> TaskFacts:
    spec = first.specs.get(task, {})
    rows = [row for row in first.rows if row.task == task]
    counts = {row.split: row.n for row in rows if row.metric == "score"}
    of_all = (row for row in rows if row.split in first.splits[task] and values_of(row.metric) is None)
    metrics = (row.metric for row in of_all if row.metric != "score")
    return TaskFacts(
        task,
        str(spec.get("description", "")),
        str(spec.get("kind", "")),
        tuple(map(str, spec.get("labels", ()))),
        tuple(dict.fromkeys(metrics)),
        counts,
    )


def _seed(run: Run) -> SeedFacts:
    record = run.record
    device = record["device"]
    unit, count = ("thread", device["threads"]) if "threads" in device else ("device", device.get("count", 1))
    return SeedFacts(
        run.seed,
        record["starts"][0],
        record["finished"],
        len(record["starts"]),
        record["commit"],
        f"{device['kind']} {device['name']}, {count} {unit}{'' if count == 1 else 's'}",
        record["versions"],
    )


def _command(first: Run, seeds: Sequence[int]) -> str:
    """What does the same once more, beside what there is; paths are as they were for the run."""
    config = first.experiment.output / first.record["name"] / "config.yaml"
    words = ["mtl-tickets", "run", str(config), "--seeds", ",".join(map(str, seeds)), "--set", "output=repeated"]
    return shlex.join(words)
