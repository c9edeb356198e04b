"""What a report says of other rows: the tests that hold the trained models fixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtl_tickets.report.data import Difference, OnRows, ReportData, RightOrWrong, RowJudgement
from mtl_tickets.report.document import (
    SIGNS,
    Block,
    Bullets,
    Fold,
    Heading,
    Paragraph,
    Said,
    Strong,
    Table,
    TableCell,
    TableRow,
)
from mtl_tickets.report.tables import AVERAGE
from mtl_tickets.report.verdict_content import FEW, said
from mtl_tickets.report.words import count, p_value


def on_other_rows(data: ReportData) -> Iterable[Block]:
    found = data.on_rows
    if found is None:
        return
    yield Heading("On other rows like these")
    missing = " ".join(found.missing)
    if not found.judgements:
        yield Paragraph(f"There are no tests over rows. {missing}")
        return
    yield Paragraph(_about(found, data.seeds))
    for i, judgement in enumerate(found.judgements):
        every = Bullets(tuple(map(said, judgement.average)))
        if i == 0 or len(every.items) <= FEW:
            yield Paragraph(Strong(f"Against {judgement.baseline}"))
            yield every
        else:
            yield Fold(f"Other rows, every comparison with {judgement.baseline}", (every,))
    if len(data.seeds) == 1:
        yield Paragraph(
            "With one seed these are the only tests there are. Better and worse are said of the models that were "
            "trained and not of the methods: another training of the same methods may come out otherwise."
        )
    if missing:
        yield Paragraph(missing, warns=True)
    for judgement in found.judgements:
        yield Fold(f"Other rows, task by task, against {judgement.baseline}", (_by_task(judgement, found),))
    right = [judgement for judgement in found.judgements if judgement.right]
    for judgement in right:
        yield Fold(f"Right or wrong, row by row, against {judgement.baseline}", (_right(judgement),))


def _about(found: OnRows, seeds: Sequence[int]) -> str:
    models = f"the models of {len(seeds)} seeds enter as their mean" if len(seeds) > 1 else "one model of each method"
    said = (
        "Would another dev set come out so? Here the trained models are fixed, and the rows they answered are "
        f"resampled within each task and split, the same rows for every method ({models}; paired bootstrap, "
        f"{found.resamples:,} resamples). This speaks of other rows and says nothing of another training."
    )
    if len(seeds) > 1:
        said += " The verdict stands on the tests over seeds, which speak of another training on these rows."
    if found.undefined:
        often = ", ".join(f"{times:,} resamples of {task}" for task, times in found.undefined.items())
        said += f" A metric that is undefined counts as 0, as that of some model does in {often}."
    return said


def _by_task(judgement: RowJudgement, found: OnRows) -> Table:
    def cells(items: Sequence[Difference], rows: int) -> tuple[TableCell, ...]:
        return (TableCell(f"{rows:,}"), *(TableCell(_between(item)) for item in items))

    lines = [TableRow(Said(task), cells(items, found.rows[task])) for task, items in judgement.tasks.items()]
    lines.append(TableRow(AVERAGE, cells(judgement.average, sum(found.rows.values())), sums=True))
    caption = (
        f"Differences to {judgement.baseline} in points on resampled rows, 95 % interval of each comparison by itself; "
        f"{SIGNS['better']} {SIGNS['worse']} where one is shown (p at most 0.05 after Holm's correction: on the "
        "average over the methods, on tasks over all tasks and methods)"
    )
    return Table(caption, ("task", "rows", *(Said(item.method) for item in judgement.average)), tuple(lines))


def _between(item: Difference) -> str:
    text = _points(item.difference)
    if item.low is not None and item.high is not None and item.outcome != "same scores":
        text += f" [{_points(item.low)}, {_points(item.high)}]"
    return f"{text} {SIGNS[item.outcome]}" if item.outcome in ("better", "worse") else text


def _points(value: float) -> str:
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def _right(judgement: RowJudgement) -> Table:
    def cells(test: RightOrWrong) -> tuple[TableCell, ...]:
        shown = (f"{test.wins:,}", f"{test.losses:,}", _points(test.difference))
        tested = map(p_value, (test.p, test.p_mid, test.corrected))
        return TableCell(Said(test.method)), *map(TableCell, (*shown, *tested))

    caption = (
        f"McNemar's test against {judgement.baseline} where accuracy is a metric: rows that more, or fewer, of a "
        f"method's models answer right, and the difference of accuracies; the last column is the mid-p after Holm's "
        f"correction over {count(len(judgement.right), 'test')}"
    )
    headings = ("task", "method", "more right", "fewer right", "points", "exact p", "mid-p", "p (Holm)")
    lines = tuple(TableRow(Said(test.task), cells(test)) for test in judgement.right)
    return Table(caption, headings, lines, frozenset({1}))
