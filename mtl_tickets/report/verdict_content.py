"""The first section of a report: what is shown, and what is not. And its sentences, which other sections use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtl_tickets.report import figures
from mtl_tickets.report.data import FULL, Difference, Judgement, ReportData
from mtl_tickets.report.document import (
    SIGNS,
    Block,
    Bullets,
    Figure,
    Fold,
    Heading,
    Mark,
    Paragraph,
    Said,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
)
from mtl_tickets.report.standings import HEADINGS, standings
from mtl_tickets.report.tables import AVERAGE
from mtl_tickets.report.words import is_or_are, listed, p_value

# name -> what it is
BASELINES = {
    "dense": ", one multi-task model without tickets",
    "single-task": ", one fine-tuned encoder for each task",
    FULL: ", the whole encoder fine-tuned on each task",
}
# sentences about another baseline than the first: more than these are shown on demand
FEW = 4
NEEDED = "a multi-task model and a baseline"


def verdict(data: ReportData) -> Iterable[Block]:
    if not data.judgements:
        needed = f"a sub-network on every task, and {FULL}" if "sparsity" in data.sections else NEEDED
        yield Paragraph(f"There is nothing to compare{' yet' if data.missing else ''}: a verdict needs {needed}.")
        return
    yield Paragraph(Strong(in_short(data.judgements[0])))
    yield standings_table(data, data.judgements[0])
    for i, judgement in enumerate(data.judgements):
        what = BASELINES.get(judgement.baseline, "")
        yield Heading(f"Against {judgement.baseline}{what}")
        every = Bullets(tuple(map(said, judgement.average)))
        if i == 0 or len(every.items) <= FEW:
            yield every
        else:
            yield Paragraph(in_short(judgement))
            yield Fold(f"Every comparison with {judgement.baseline}", (every,))
        if len(data.seeds) > 1:
            yield Figure(figures.differences(judgement), finding_of(judgement), interval_caption(judgement))
    yield Paragraph(
        "Points are differences between scores of 0 to 100, on the average over tasks. Tests are paired t tests over "
        "seeds, and speak of another training on these rows and not of other rows; p is Holm-corrected over the "
        "comparisons of a list. Not shown is not the same as equal."
    )


def said(item: Difference) -> Text:
    """A comparison as a sentence, with its mark where it was tested."""
    sentence = f"{item.sentence.removeprefix('not shown: ')}."
    return sentence if item.outcome == "one seed" else (Mark(item.outcome), ": ", sentence)


def in_short(judgement: Judgement) -> str:
    items, baseline = judgement.average, judgement.baseline
    if all(item.outcome == "one seed" for item in items):
        return (
            f"One seed: no test over seeds is possible, so that no method is shown to differ from {baseline}. What "
            "these very models do on other rows is under Scores."
        )
    better, worse = ([item.method for item in items if item.outcome == word] for word in ("better", "worse"))
    parts = [f"{listed(better)} {is_or_are(better)} better than {baseline}"] if better else []
    parts += [f"{listed(worse)} {is_or_are(worse)} worse than {baseline}"] if worse else []
    rest = len(items) - len(better) - len(worse)
    if not parts:
        of = "The method is" if len(items) == 1 else f"None of the {len(items)} methods is"
        return f"{of} {'not ' if len(items) == 1 else ''}shown to differ from {baseline} on the average over tasks."
    more = f"; for {rest} more no difference is shown" if rest else ""
    return f"{' and '.join(parts)} on the average over tasks{more}."


def finding_of(judgement: Judgement) -> str:
    said = []
    for item in judgement.average:
        between = "" if item.low is None else f", interval {item.low:+.1f} to {item.high:+.1f}"
        said.append(f"{item.method} {item.difference:+.1f} points ({item.outcome}{between})")
    return f"Differences to {judgement.baseline} on the average over tasks: {'; '.join(said)}."


def interval_caption(judgement: Judgement) -> str:
    return (
        f"Points above {judgement.baseline} on the average over tasks: mean over seeds and 95 % interval of each "
        "comparison by itself. Filled diamonds: a difference is shown; hollow circles: it is not."
    )


def standings_table(data: ReportData, judgement: Judgement) -> Table:
    rows = []
    for item in standings(data, judgement):
        head, *cells = item.cells()
        last: Text = Mark(item.against.outcome) if item.against else cells[-1]
        rows.append(TableRow(Said(head), (*map(TableCell, cells[:-1]), TableCell(last))))
    caption = f"From the best average to the worst, against {judgement.baseline}"
    return Table(caption, HEADINGS, tuple(rows), frozenset({len(HEADINGS) - 1}))


def signed(item: Difference) -> str:
    points = round(item.difference, 1)
    text = (f"{points:+.1f}" if points else "0.0") + ("" if item.sd is None else f" ± {item.sd:.1f}")
    return f"{text} {SIGNS[item.outcome]}" if item.outcome in ("better", "worse") else text


def differences(judgement: Judgement, average: bool = True, of: str = "task", where: str = "") -> Table:
    """A line for each task, or other thing that the judgement is over, and one for their ``average``."""

    def cells(items: Sequence[Difference]) -> tuple[TableCell, ...]:
        return tuple(TableCell(signed(item)) for item in items)

    rows = [TableRow(Said(task), cells(items)) for task, items in judgement.tasks.items()]
    if average:
        rows.append(TableRow(AVERAGE, cells(judgement.average), sums=True))
    tested = any(item.p is not None for item in judgement.average)
    if tested and average:
        rows.append(TableRow("p of the average", tuple(TableCell(p_value(item.p)) for item in judgement.average)))
    families = (
        ": on the average over the methods, on tasks over all tasks and methods" if average else ", over all here"
    )
    better, worse = SIGNS["better"], SIGNS["worse"]
    said = (
        f"Differences to {judgement.baseline}{where} in points, mean ± standard deviation over seeds; {better} {worse} "
        f"where one is shown (p at most 0.05 after Holm's correction{families})"
        if tested
        else f"Differences to {judgement.baseline}{where} in points; one seed, so that none of them can be tested"
    )
    return Table(said, (of, *(Said(item.method) for item in judgement.average)), tuple(rows))
