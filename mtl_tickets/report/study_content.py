"""What the report of a study says: the verdict of every point first, then its points side by side.

The report of a study of one point is that point's, with what was studied beside it; of several, each has a report of
its own, which is linked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mtl_tickets.report import figures
from mtl_tickets.report.content import document
from mtl_tickets.report.data import Judgement, ReportData
from mtl_tickets.report.document import (
    SIGNS,
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    Fold,
    Gallery,
    Heading,
    Link,
    Listing,
    Paragraph,
    Said,
    Section,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
)
from mtl_tickets.report.study import StudyData, StudyPoint
from mtl_tickets.report.tables import AVERAGE, NOT_APPLICABLE
from mtl_tickets.report.verdict_content import finding_of, in_short, interval_caption, signed, standings_table
from mtl_tickets.report.words import count, numbers

Numbered = Sequence[tuple[str, StudyPoint]]
"""Points with what tables call them."""

Judged = Sequence[tuple[str, StudyPoint, ReportData, Judgement]]


def study_document(study: StudyData) -> Document:
    if len(study.points) == 1 and (alone := study.points[0].report) is not None:
        return _of_one(study, alone)
    points = [(f"point {number}", point) for number, point in enumerate(study.points, 1)]
    lead: list[Block] = [Paragraph(Said(study.description))] if study.description else []
    size = f"{count(len(points), 'point')}, {count(len(study.seeds), 'seed')} ({numbers(study.seeds)})"
    lead.append(Paragraph(("Study of ", Code(study.experiment), f": {size}.")))
    missing = [(name, point) for name, point in points if point.report is None or point.report.missing]
    if missing:
        names = ", ".join(name for name, _ in missing)
        lead.append(Paragraph((Strong("This study is unfinished. "), f"Runs are missing: {names}; see Points."), True))
    judged = _judged(points, study.baselines[0])
    return Document(
        Said(study.name),
        tuple(lead),
        (
            Section("verdict", "Verdict", tuple(_verdict(judged))),
            Section("points", "Points", tuple(_points(points))),
            Section("rules", "Rules", tuple(_rules(judged))),
            Section("run", "What was run", tuple(_what_was_run(study))),
        ),
    )


def _of_one(study: StudyData, report: ReportData) -> Document:
    made = document(replace(report, name=study.name, description=study.description or report.description))
    *others, last = made.sections
    return replace(made, sections=(*others, replace(last, blocks=(*last.blocks, *_what_was_run(study)))))


def _judged(points: Numbered, baseline: str) -> Judged:
    """The points that are held against the study's first baseline already."""
    return [
        (name, point, point.report, judgement)
        for name, point in points
        if point.report is not None
        for judgement in point.report.judgements
        if judgement.baseline == baseline
    ]


def _verdict(judged: Judged) -> Iterable[Block]:
    if not judged:
        yield Paragraph("There is nothing to compare yet: a verdict needs a multi-task model and a baseline.")
        return
    yield Bullets(tuple((Strong(name), " (", Said(point.name), "): ", in_short(j)) for name, point, _, j in judged))
    drawn = [(name, point, judgement) for name, point, _, judgement in judged if judgement.average[0].sd is not None]
    if drawn:
        yield Paragraph(interval_caption(drawn[0][2]))
        yield Gallery(
            tuple(
                Figure(
                    figures.differences(judgement, name.replace(" ", "-"), name),
                    f"{name}, {point.name}: {finding_of(judgement)}",
                    (f"{name}: ", Said(point.name)),
                )
                for name, point, judgement in drawn
            )
        )
    yield Paragraph(
        "Each point is judged by itself: p is Holm-corrected over the rules of a point, not over the points. A rule "
        "that is shown to be better at one point and not at another is not shown to differ between them."
    )


def _points(points: Numbered) -> Iterable[Block]:
    keys = list(dict.fromkeys(key for _, point in points for key in point.values))
    rows = []
    for name, point in points:
        cells: list[Text] = [Said(point.values.get(key, NOT_APPLICABLE)) for key in keys]
        cells.append(_seeds_of(point))
        cells.append(Link("report", f"{point.folder}/report.html") if point.report is not None else NOT_APPLICABLE)
        rows.append(TableRow(name, tuple(map(TableCell, cells))))
    headings: tuple[Text, ...] = ("point", *map(Code, keys), "seeds", "report")
    yield Table("The points of the grid", headings, tuple(rows), frozenset(range(1, len(headings))))
    for name, point in points:
        if point.report is not None and point.report.missing:
            yield Paragraph((Strong(f"{name}. "), " ".join(point.report.missing)))


def _seeds_of(point: StudyPoint) -> str:
    if point.report is None:
        return "has not begun"
    return numbers(point.report.seeds) + (" (unfinished)" if point.report.missing else "")


def _rules(judged: Judged) -> Iterable[Block]:
    if not judged:
        yield Paragraph("No column of any table is complete yet.")
        return
    yield _averages(judged)
    yield _differences(judged)
    for name, point, report, judgement in judged:
        yield Fold(f"{name}, from best to worst", (Paragraph(Said(point.name)), standings_table(report, judgement)))


def _averages(judged: Judged) -> Table:
    by_heading: dict[str, dict[str, tuple[str, bool]]] = {}
    for name, _, report, _ in judged:
        assert report.scores is not None  # there is a judgement
        cells = zip(report.methods, report.scores.lines[AVERAGE], report.scores.marked(AVERAGE), strict=True)
        for method, cell, is_best in cells:
            by_heading.setdefault(method.heading, {})[name] = (str(cell), is_best)
    caption = "Average over tasks, mean ± standard deviation over seeds; ★ the best of a point"
    return _side_by_side(caption, judged, by_heading)


def _differences(judged: Judged) -> Table:
    by_rule: dict[str, dict[str, tuple[str, bool]]] = {}
    for name, _, _, judgement in judged:
        for item in judgement.average:
            by_rule.setdefault(item.method, {})[name] = (signed(item), False)
    baseline = judged[0][3].baseline
    caption = (
        f"Differences to {baseline} on the average over tasks, in points, mean ± standard deviation over seeds; "
        f"{SIGNS['better']} {SIGNS['worse']} where one is shown"
    )
    return _side_by_side(caption, judged, by_rule)


def _side_by_side(
    caption: str,
    judged: Judged,
    cells: dict[str, dict[str, tuple[str, bool]]],
) -> Table:
    """One line for each method, one column for each point."""
    names = [name for name, *_ in judged]
    rows = tuple(
        TableRow(Said(rule), tuple(TableCell(*of_point.get(name, (NOT_APPLICABLE, False))) for name in names))
        for rule, of_point in cells.items()
    )
    return Table(caption, ("method", *names), rows)


def _what_was_run(study: StudyData) -> Iterable[Block]:
    yield Heading("The study")
    yield Paragraph(
        (
            "Points and seeds are runs of ",
            Code(study.experiment),
            ", each with the settings below; what they have in common is computed once and taken over.",
        )
    )
    yield Fold("Settings of the study", (Listing(study.file, "study"),))
