"""What a report says, section by section: :class:`ReportData` -> :class:`Document`. The verdict comes first."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from mtl_tickets.report import figures
from mtl_tickets.report.breakdown_content import by_parts
from mtl_tickets.report.choice_content import honest_choice
from mtl_tickets.report.data import (
    Ladder,
    ReportData,
    Rung,
)
from mtl_tickets.report.document import (
    Block,
    Code,
    Document,
    Figure,
    Fold,
    Gallery,
    Paragraph,
    Said,
    Section,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
)
from mtl_tickets.report.overfitting_content import overfitting
from mtl_tickets.report.row_content import on_other_rows
from mtl_tickets.report.run_content import cost, training, what_was_run
from mtl_tickets.report.sparsity_content import sparsity, transfer
from mtl_tickets.report.tables import AVERAGE, NOT_APPLICABLE, REMAINING, Comparison
from mtl_tickets.report.ticket_content import tickets
from mtl_tickets.report.verdict_content import differences, verdict
from mtl_tickets.report.words import count, mean, numbers


def document(data: ReportData) -> Document:
    lead: list[Block] = []
    if data.description:
        lead.append(Paragraph(Said(data.description)))
    tasks = count(len(data.scores.lines) - 2 if data.scores else len(data.tasks), "task")
    over = f"{count(len(data.seeds), 'seed')} ({', '.join(map(str, data.seeds))})"
    lead.append(Paragraph(("Recipe ", Code(data.recipe), f", {tasks}, {over}.")))
    if data.missing:
        lead.append(Paragraph((Strong("This report is of an unfinished experiment. "), " ".join(data.missing)), True))
    return Document(
        Said(data.name),
        tuple(lead),
        (
            Section("verdict", "Verdict", tuple(verdict(data))),
            Section("scores", "Scores", tuple(_scores(data))),
            *(Section(name, *_of_recipe(name, data)) for name in data.sections if _is_due(name, data)),
            *([_parts(data)] if data.breakdowns else []),
            Section("cost", "Cost", tuple(cost(data))),
            Section("run", "What was run", tuple(what_was_run(data))),
        ),
    )


def _parts(data: ReportData) -> Section:
    return Section("parts", "Kinds of rows", tuple(by_parts(data.breakdowns, data.seeds)))


def _of_recipe(name: str, data: ReportData) -> tuple[str, tuple[Block, ...]]:
    """Title and blocks of a section that not every recipe has."""
    title, blocks = {
        "sparsity": ("Sparsity", sparsity),
        "transfer": ("Transfer", transfer),
        "overfitting": ("Overfitting", overfitting),
        "ladders": ("Phase transition", _ladders),
        "choice": ("Honest choice", honest_choice),
        "tickets": ("Tickets", tickets),
        "training": ("Training", training),
    }[name]
    return title, tuple(blocks(data))


def _is_due(name: str, data: ReportData) -> bool:
    """Whether there is, or will be, something to say: not every experiment tries tickets on other tasks."""
    return name != "transfer" or bool(data.transfers or data.missing)


# -- scores ------------------------------------------------------------------------------------------------------------


def _scores(data: ReportData) -> Iterable[Block]:
    if data.scores is None:
        yield Paragraph("No column of the table is complete yet.")
        return
    about = data.notes["scores"]
    yield _comparison(data.scores, f"Scores: {about}. ★ marks the best of a line; {REMAINING} is the mean over tasks.")
    if data.extra is not None:
        yield _comparison(data.extra, "Tasks answered by another task's head")
    if data.language is not None:
        yield _comparison(data.language, "Masked-language modelling (mlm) on held-out text: loss in nats per token")
    for i, judgement in enumerate(data.judgements):
        table = differences(judgement)
        yield table if i == 0 else Fold(f"The same against {judgement.baseline}", (table,))
    for judgement in data.extra_judgements:
        yield differences(judgement, average=False, where=" where another task's head answers")
    yield from on_other_rows(data)


def _comparison(table: Comparison, caption: str) -> Table:
    rows = []
    for name, cells in table.lines.items():
        shown = (TableCell(str(cell), best) for cell, best in zip(cells, table.marked(name), strict=True))
        head: Text = name if name in (AVERAGE, REMAINING) else Said(name)
        rows.append(TableRow(head, tuple(shown), sums=name == AVERAGE))
    return Table(caption, (table.of, *(Said(heading) for heading in table.headings)), tuple(rows))


# -- ladders -----------------------------------------------------------------------------------------------------------


def _ladders(data: ReportData) -> Iterable[Block]:
    if not data.ladders:
        yield Paragraph("No rung of any ladder is trained yet.")
        return
    over = "mean over seeds, bars of one standard deviation" if len(data.seeds) > 1 else "one seed"
    yield Paragraph(
        f"Dev scores of single-task models whose tickets keep fewer and fewer parameters; {over}. The star and the "
        "dotted line are the whole encoder; rings mark rungs that a seed chose, on rows of its own. Winning tickets "
        "keep the units with the highest scores; random and losing ones, where the run has them, are as large."
    )
    if not data.all_rungs:
        yield Paragraph(
            "Rungs that were stopped early are not shown, so that there is no average over tasks. Where only some "
            "seeds trained a rung to the end its marker is hollow: its mean is over those, and not comparable with the "
            "others."
        )
    yield Gallery(
        tuple(Figure(figures.ladder(item), _finding_of_ladder(item), _caption(item)) for item in data.ladders)
    )
    yield Fold("Numbers of the ladders", tuple(_rungs(item) for item in data.ladders))


def _caption(item: Ladder) -> str:
    return "average over tasks" if item.task == AVERAGE else _chosen(item)


def _chosen(item: Ladder) -> str:
    chosen = [rung for rung in item.rungs if rung.chosen_by]
    if not chosen:
        return "no rung is chosen yet"
    several = len(item.dense.seeds) > 1
    parts = [f"rung {rung.number}" + (f" (seed {numbers(rung.chosen_by)})" if several else "") for rung in chosen]
    return f"chosen: {', '.join(parts)}"


def _finding_of_ladder(item: Ladder) -> str:
    dense, winning = item.dense, item.of("winning")
    said = [f"{item.task}: the whole encoder scores {dense.mean:.1f}"]
    if winning:
        best = max(winning, key=lambda rung: rung.mean)
        least = min(winning, key=lambda rung: rung.mean_kept)
        said.append(f"winning tickets score at most {best.mean:.1f}, with {best.mean_kept:.0f} % of the parameters")
        said.append(f"the smallest, with {least.mean_kept:.0f} %, scores {least.mean:.1f}")
    for kind in item.kinds:
        pairs = [(mine, of_kind) for mine in winning for of_kind in item.of(kind) if mine.number == of_kind.number]
        if kind != "winning" and pairs:
            gap = statistics.fmean(mine.mean - of_kind.mean for mine, of_kind in pairs)
            side = "below" if gap >= 0 else "above"
            said.append(f"{kind} tickets score {abs(gap):.1f} points {side} winning ones on the mean of all rungs")
    if item.task != AVERAGE:
        said.append(_chosen(item))
    return "; ".join(said) + "."


def _rungs(item: Ladder) -> Table:
    kinds = item.kinds
    numbers = sorted({rung.number for rung in item.rungs})
    rows = []
    for number in numbers:
        of_number = {rung.kind: rung for rung in item.rungs if rung.number == number}
        found = [of_number.get(kind, item.dense if number == 0 else None) for kind in kinds]
        kept = next(rung for rung in found if rung is not None).mean_kept
        cells = (f"{kept:.1f}", *(NOT_APPLICABLE if rung is None else _rung(rung, item) for rung in found))
        rows.append(TableRow(str(number), tuple(map(TableCell, cells))))
    return Table((Said(item.task), ": score by rung"), ("rung", "kept %", *kinds), tuple(rows))


def _rung(rung: Rung, ladder: Ladder) -> str:
    few = f" ({count(len(rung.seeds), 'seed')})" if len(rung.seeds) < len(ladder.dense.seeds) else ""
    return mean(rung.scores) + few
