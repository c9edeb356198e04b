"""What a report says of sub-networks: how far they can be pruned, and what they are worth to other tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtl_tickets.evaluation.matching import Highest, highest_of
from mtl_tickets.recipes.base import MLM
from mtl_tickets.report import subnetwork_figures as figures
from mtl_tickets.report.data import FULL, ReportData
from mtl_tickets.report.document import (
    Block,
    Figure,
    Fold,
    Gallery,
    Heading,
    Paragraph,
    Said,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
    plain,
)
from mtl_tickets.report.subnetwork_data import Curve, Source, Subnetwork, Transfer
from mtl_tickets.report.subnetwork_figures import AS_GOOD, points
from mtl_tickets.report.tables import AVERAGE, NOT_APPLICABLE
from mtl_tickets.report.words import count, is_or_are, listed, mean, over

# signs: matches; some lower sparsity does not
MATCHES, GAP = "✓", "†"
DEFINITION = (
    f"Matching is a sub-network whose mean over seeds is at least that of {FULL} less one standard deviation of {FULL} "
    "over seeds (Chen et al. 2020)"
)


# -- over sparsity -----------------------------------------------------------------------------------------------------


def sparsity(data: ReportData) -> Iterable[Block]:
    if not data.curves:
        yield Paragraph("No sub-network is trained yet.")
        return
    several = len(data.seeds) > 1
    spread = "mean over seeds, bars of one standard deviation" if several else "one seed"
    band = ", the band one standard deviation of it on both sides" if several else ""
    yield Paragraph(
        f"Dev scores of sub-networks that keep fewer and fewer weights; {spread}. The star and the dotted line are "
        f"{FULL}{band}. Kinds that were tried at one size stand side by side."
        + (f" {MLM} is masked-language modelling: its loss on held-out text, of which less is better." * _text(data))
    )
    if several:
        yield Paragraph(
            f"{DEFINITION}, of a loss at most that plus one: the edge of the band. Hollow markers do not match; on the "
            "average over tasks, which the criterion is not for, none is hollow. It is no test: a sub-network that "
            "matches may be worse, and the more the full model varies over seeds, the more do match. What is shown to "
            "be worse is in the verdict."
        )
        if fixed := [item.task for item in data.curves if not item.spread]:
            yield Paragraph(
                (
                    Said(listed(fixed)),
                    f": {FULL} has the same number with every seed, which is what must be reached."
                    + (f" {MLM} is left out of the line of every task." if MLM in fixed else ""),
                )
            )
    else:
        yield Paragraph(f"One seed: which sub-networks match {FULL} is not decided, as its spread is not known.")
    yield Gallery(tuple(Figure(figures.curve(item), finding_of_curve(item), _caption(item)) for item in data.curves))
    if several:
        yield _highest(data.curves)
    yield Fold("Numbers over sparsity", tuple(_numbers(item) for item in data.curves))


def _text(data: ReportData) -> bool:
    return any(item.task == MLM for item in data.curves)


def finding_of_curve(item: Curve) -> str:
    what, decimals = ("a loss of ", 3) if item.less_is_better else ("", 1)
    verb = "has" if item.less_is_better else "scores"
    said = [f"{item.task}: {FULL} {verb} {what}{item.mean:.{decimals}f}"]
    for kind in item.kinds:
        numbers = " and ".join(f"{one.mean:.{decimals}f} at {_percent(one)} %" for one in item.ends(kind))
        said.append(f"{item.names[kind]} {verb} {numbers}{_up_to(item, kind)}")
    return "; ".join(said) + "."


def _up_to(item: Curve, kind: str) -> str:
    best = item.highest.get(kind)
    if best is None:
        return ""
    if len(item.of(kind)) == 1:
        return ", not matching" if best.sparsity is None else ", matching"
    if best.sparsity is None:
        return ", matching nowhere"
    return f", matching up to {best.sparsity:g} %{'' if best.every_lower else ' but not at every lower sparsity'}"


def _caption(item: Curve) -> str:
    if item.task == AVERAGE:
        return "average over tasks"
    good = [
        f"{item.names[kind]} {'at' if len(item.of(kind)) == 1 else 'up to'} {best.sparsity:g} %"
        + ("" if best.every_lower else ", not at every lower one")
        for kind in item.kinds
        if (best := item.highest.get(kind)) is not None and best.sparsity is not None
    ]
    if good:
        return f"matching: {'; '.join(good)}"
    return "nothing matches" if item.highest else "one seed"


def _percent(item: Subnetwork) -> str:
    return f"{item.mean_dropped:.1f}".removesuffix(".0")


def _highest(curves: Sequence[Curve]) -> Table:
    of_tasks = [item for item in curves if item.highest]
    names = {kind: name for item in of_tasks for kind, name in item.names.items()}
    kinds = [kind for kind in names if any(kind in item.highest for item in of_tasks)]
    rows = []
    for item in of_tasks:
        cells = (_at(item.highest.get(kind), item.strictest.get(kind)) for kind in kinds)
        rows.append(TableRow(Said(item.task), tuple(map(TableCell, cells))))
    # where the text is only read, not trained on, there is no spread that a ticket could be within
    counted = [item for item in of_tasks if item.task != MLM or item.spread]
    if len(counted) > 1:
        cells = (_at(*(_everywhere(counted, kind, strict) for strict in (False, True))) for kind in kinds)
        rows.append(TableRow("on every task", tuple(map(TableCell, cells)), sums=True))
    gaps = any(GAP in plain(cell.text) for row in rows for cell in row.cells)
    caption = (
        "Highest sparsity in % that is matching, and after the stroke the highest at which the mean of the full model "
        "is reached, of those that were tried"
    )
    if gaps:
        caption += f"; {GAP} some lower sparsity is not"
    return Table(caption, ("task", *(Said(names[kind]) for kind in kinds)), tuple(rows))


def _everywhere(of_tasks: Sequence[Curve], kind: str, strict: bool) -> Highest | None:
    """The highest sparsity at which a kind is good enough on every task; None where none was tried on all of them."""
    found = [{item.percent: item.reaches if strict else item.matches for item in one.of(kind)} for one in of_tasks]
    tried = {
        percent: [of_task[percent] for of_task in found] for percent in found[0] if all(percent in of for of in found)
    }
    return highest_of({float(percent): all(verdicts) for percent, verdicts in tried.items()}) if tried else None


def _at(best: Highest | None, strictest: Highest | None) -> str:
    if best is None or strictest is None:
        return NOT_APPLICABLE
    return " / ".join(
        "none" if one.sparsity is None else f"{one.sparsity:g}{'' if one.every_lower else GAP}"
        for one in (best, strictest)
    )


def _numbers(item: Curve) -> Table:
    what = "loss" if item.less_is_better else "score"
    sign = f"; {MATCHES} matches" if item.highest else ""
    return over_sizes(item, f": {what} by sparsity{over([0] * len(item.full))}{sign}")


def over_sizes(item: Curve, about: str) -> Table:
    """A line for each size, from the full model on. ``about``: the caption, after the task's name."""
    decimals = 3 if item.less_is_better else 1
    sizes = sorted({one.percent for one in item.found}, key=float)
    by_name = {(one.kind, one.percent): one for one in item.found}
    rows = [TableRow(FULL, (TableCell("100.0"), *(TableCell(mean(item.full, decimals)) for _ in item.kinds)))]
    for percent in sizes:
        found = [by_name.get((kind, percent)) for kind in item.kinds]
        kept = next(one for one in found if one is not None).kept
        cells = (
            NOT_APPLICABLE if one is None else mean(one.values, decimals) + (f" {MATCHES}" if one.matches else "")
            for one in found
        )
        rows.append(TableRow(f"{percent} %", (TableCell(f"{sum(kept) / len(kept):.1f}"), *map(TableCell, cells))))
    headings: tuple[Text, ...] = ("sparsity", "parameters kept %", *(Said(item.names[kind]) for kind in item.kinds))
    return Table((Said(item.task), about), headings, tuple(rows))


# -- on other tasks ----------------------------------------------------------------------------------------------------


def transfer(data: ReportData) -> Iterable[Block]:
    if not data.transfers:
        yield Paragraph("No ticket is tried on every other task yet.")
        return
    yield Paragraph(
        "The ticket that was found on a task, tried on every task: the encoder is rewound, pruned as the ticket says "
        f"and trained on the target with a fresh head. A number is its score less that of {FULL} on the target, in "
        f"points; {AS_GOOD} is at least as good as the target's own ticket on the mean over seeds, and the last column "
        "counts those, a ticket on its own task not among them."
        + (f" On {MLM} points are of accuracy." if any(MLM in item.targets for item in data.transfers) else "")
    )
    for item in data.transfers:
        if len(data.transfers) > 1:
            yield Heading(f"{item.percent} % pruned")
        yield Figure(figures.heat_map(item), finding_of_transfer(item), _shades(item))
        if len(data.seeds) > 1:
            yield Paragraph((Strong("Universal: "), *_universal(item)))
        yield _matrix(item, data.seeds)


def finding_of_transfer(item: Transfer) -> str:
    said = []
    for source in item.sources:
        worst = min(source.cells, key=lambda cell: cell.mean)
        best = max(source.cells, key=lambda cell: cell.mean)
        text = f"{source.name} {points(worst.mean)} ({worst.target}) to {points(best.mean)} ({best.target})"
        if source.as_good is not None:
            text += f", as good as the own ticket on {count(source.as_good, 'other task')}"
        said.append(text)
    return f"Points above {FULL} with {item.percent} % pruned, ticket by ticket: {'; '.join(said)}."


def _shades(item: Transfer) -> str:
    below = "; below the line tickets that were found on no task" if any(s.control for s in item.sources) else ""
    return (
        f"Rows: where the ticket with {item.percent} % pruned was found; columns: where it is tried. Blue is above "
        f"{FULL}, orange below, the deeper the farther; framed: a task's own ticket{below}."
    )


def _universal(item: Transfer) -> tuple[Said | str, ...]:
    good = [source.name for source in item.sources if source.universal]
    if not good:
        return ("no ticket is matching on every target.",)
    return Said(listed(good)), f" {is_or_are(good)} matching on every target."


def _matrix(item: Transfer, seeds: Sequence[int]) -> Table:
    counted = any(source.as_good is not None for source in item.sources)
    rows = tuple(_row(source, counted) for source in item.sources)
    caption = (
        f"Points above {FULL} with {item.percent} % pruned{over(seeds)}; {AS_GOOD} at least as good as the own ticket"
    )
    headings: list[Text] = ["found on", *map(Said, item.targets), *([AS_GOOD] if counted else [])]
    return Table(caption, tuple(headings), rows)


def _row(source: Source, counted: bool) -> TableRow:
    cells = []
    for cell in source.cells:
        values = mean(cell.differences)
        text = points(cell.mean) + (f" ±{values.partition('±')[2]}" if "±" in values else "")
        cells.append(TableCell(text + (f" {AS_GOOD}" if cell.as_good else "")))
    if counted:
        cells.append(TableCell(NOT_APPLICABLE if source.as_good is None else str(source.as_good)))
    head: Text = (Said(source.name), " (on no task)") if source.control else Said(source.name)
    return TableRow(head, tuple(cells))
