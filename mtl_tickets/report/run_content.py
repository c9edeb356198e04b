"""The sections of a report on how the numbers came about: training, cost, and what was run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from mtl_tickets.report import figures
from mtl_tickets.report.data import Cost, Course, ReportData
from mtl_tickets.report.document import (
    Block,
    Bullets,
    Code,
    Figure,
    Fold,
    Gallery,
    Listing,
    Paragraph,
    Said,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
)
from mtl_tickets.report.tables import NOT_APPLICABLE
from mtl_tickets.report.words import numbers, over

# -- training ----------------------------------------------------------------------------------------------------------


def training(data: ReportData) -> Iterable[Block]:
    drawn = [course for course in data.courses if course.same_as is None]
    if not drawn:
        yield Paragraph("No multi-task training is done yet.")
        return
    twins = [course for course in data.courses if course.same_as is not None]
    for course in twins:
        yield Paragraph(f"{course.method} has the tickets of {course.same_as}: its training was taken over.")
    seeds = " Mean over seeds; bands, where there are any, are their range." if len(data.seeds) > 1 else ""
    yield Gallery(
        (
            Figure(
                figures.courses(drawn, "loss"),
                f"Training loss from the first to the last epoch: {_ends(drawn, 'loss', 3)}.",
                f"Training loss of the multi-task trainings, mean over the steps of an epoch.{seeds}",
            ),
            Figure(
                figures.courses(drawn, "selection"),
                f"Score on held-out training rows from the first to the last epoch: {_ends(drawn, 'selection', 1)}.",
                f"Score on the rows held out of training, mean over tasks.{seeds}",
            ),
        )
    )


def _ends(drawn: Sequence[Course], what: str, decimals: int) -> str:
    said = []
    for course in drawn:
        first, last = (statistics.fmean(of_seed[i] for of_seed in getattr(course, what)) for i in (0, -1))
        said.append(f"{course.method} {first:.{decimals}f} to {last:.{decimals}f}")
    return ", ".join(said)


# -- cost --------------------------------------------------------------------------------------------------------------


def cost(data: ReportData) -> Iterable[Block]:
    if not data.costs:
        yield Paragraph("No training is done yet.")
        return
    sized = any(cost.parameters or cost.needed or cost.models for cost in data.costs)
    rows = []
    for cost in data.costs:
        head: Text = Said(cost.what) if cost.same_as is None else (Said(cost.what), f" (the model of {cost.same_as})")
        cells = (_times(cost), _whole(cost.steps), *(_sizes(cost) if sized else ()))
        rows.append(TableRow(head, (TableCell(str(cost.trainings or NOT_APPLICABLE)), *map(TableCell, cells))))
    yield Table(
        f"What it takes{over(data.seeds, 'a mean over')}",
        ("what", "trainings", "time", "steps", *(("parameters of a task", "of all tasks", "stored") if sized else ())),
        tuple(rows),
    )
    yield Paragraph(
        "Time is that of the stages, evaluation included, in the process that ended them; trainings that ran side by "
        "side shared the machine."
        + (
            " Parameters of a task are those its ticket keeps, those of all tasks what any ticket keeps (single-task "
            "models: their sum). A model is stored whole beside its tickets; mtl-tickets export writes what is needed "
            "alone."
            if sized
            else ""
        )
    )


def _times(cost: Cost) -> str:
    if not cost.seconds:
        return NOT_APPLICABLE
    seconds = statistics.fmean(cost.seconds)
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _sizes(cost: Cost) -> tuple[str, str, str]:
    stored = NOT_APPLICABLE
    if cost.stored:
        size = statistics.fmean(cost.stored)
        stored = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
    elif cost.models:
        stored = "not kept"
    return _whole(cost.parameters), _whole(cost.needed), stored


def _whole(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):,.0f}" if values else NOT_APPLICABLE


# -- what was run ------------------------------------------------------------------------------------------------------


def what_was_run(data: ReportData) -> Iterable[Block]:
    yield Bullets(tuple((Strong(label), ": ", Said(text)) for label, text in data.notes.items()))
    rows = []
    for item in data.tasks:
        splits = ", ".join(f"{split} {count:,}" for split, count in item.rows.items())
        cells: list[Text] = [", ".join(item.metrics), splits or NOT_APPLICABLE]
        cells += [Said(item.description or NOT_APPLICABLE), _labels(item.labels, item.kind)]
        rows.append(TableRow(Said(item.task), tuple(map(TableCell, cells))))
    headings = ("task", "metrics", "rows evaluated", "description", "labels")
    caption = "Tasks; a score is the mean of a task's metrics x 100"
    yield Table(caption, headings, tuple(rows), frozenset(range(1, len(headings))))
    yield _runs(data)
    yield _versions(data)
    yield Paragraph(("To do the same once more, beside what is there: ", Code(data.command)))
    yield Paragraph(
        "Paths are those of the folder it was run from. With the same commit and versions a CPU gives the same numbers "
        "bit for bit, a GPU about the same. Every number of this report is in results.jsonl of the runs."
    )
    yield Fold("Configuration, resolved", (Listing(data.config, "config.yaml"),))


def _labels(labels: Sequence[str], kind: str) -> Text:
    if not labels:
        return "a number" if kind == "regression" else NOT_APPLICABLE
    found: list[str | Said] = []
    for label in labels:
        found += [", ", Said(label)] if found else [Said(label)]
    return tuple(found)


def _runs(data: ReportData) -> Table:
    rows = []
    for run in data.runs:
        times = [_time(run.began), _time(run.ended) if run.ended else "not finished", str(run.starts)]
        cells: list[Text] = [*times, Said(run.device), Said(run.commit or "no checkout")]
        rows.append(TableRow(str(run.seed), tuple(map(TableCell, cells))))
    headings = ("seed", "began", "ended", "starts", "device", "commit")
    return Table("Runs; times are UTC", headings, tuple(rows), frozenset({4, 5}))


def _time(text: str) -> str:
    return text.removesuffix("+00:00").replace("T", " ")


def _versions(data: ReportData) -> Table:
    names = list(dict.fromkeys(name for run in data.runs for name in run.versions))
    rows = []
    for name in names:
        found: dict[str, list[int]] = {}
        for run in data.runs:
            found.setdefault(run.versions.get(name, NOT_APPLICABLE), []).append(run.seed)
        text = (
            next(iter(found))
            if len(found) == 1
            else "; ".join(f"{version} (seed {numbers(seeds)})" for version, seeds in found.items())
        )
        rows.append(TableRow(name, (TableCell(Said(text)),)))
    return Table("Versions", ("package", "version"), tuple(rows), frozenset({1}))
