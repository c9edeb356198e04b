"""Where tasks pull against each other: their gradients, and the units that matter to the one and not to the other."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from mtl_tickets.report.data import Conflict, Pair, TaskGradient, Tickets
from mtl_tickets.report.document import Block, Fold, Heading, Paragraph, Said, Table, TableCell, TableRow
from mtl_tickets.report.tables import NOT_APPLICABLE
from mtl_tickets.report.words import count, mean, over
from mtl_tickets.tickets.gradients import balance


def against_each_other(found: Tickets) -> Iterable[Block]:
    """Of tickets of several tasks."""
    if found.gradients:
        yield Heading("Gradients")
        yield Paragraph(_cosines(found))
        yield Paragraph(_trust(found.gradients))
        yield Fold("Halves of the tasks' rows", (_halves(found),))
    yield Fold("Units in conflict", (_conflicts(found),))


def _cosines(found: Tickets) -> str:
    pairs = sorted(found.pairs, key=_by_cosine)
    most, least = (f"{' + '.join(pair.tasks)} ({mean(pair.cosine, 2)})" for pair in (pairs[-1], pairs[0]))
    tasks = len(found.tasks)
    extremes = f"of the pairs {most} point most alike and {least} least" if len(pairs) > 1 else f"{most}"
    return (
        "Cosines of the gradients of the tasks' mean training losses at the dense multi-task model, with respect to "
        f"the weights of all heads and feed-forward blocks: {extremes}. Below 0, a small step that helps the one task "
        "harms the other. But that model was trained on all tasks, and where a training has ended gradients balance: "
        f"{tasks} equally long ones that do have cosines of {balance(tasks):.2f} on average."
    )


def _by_cosine(pair: Pair) -> float:
    return statistics.fmean(pair.cosine)


def _trust(gradients: Sequence[TaskGradient]) -> str:
    best, worst = max(gradients, key=_by_halves), min(gradients, key=_by_halves)
    noisy = [item.task for item in gradients if _by_halves(item) <= 0]
    said = (
        "How far a direction is the task's own, and not that of the rows at hand, its even and odd rows tell: their "
        f"gradients agree most for {best.task} (cosine {mean(best.halves, 2)}), least for {worst.task} "
        f"({mean(worst.halves, 2)})."
    )
    if noisy:
        said += (
            f" They do not agree at all for {count(len(noisy), 'task')} ({', '.join(noisy)}), of whose cosines with "
            "others nothing can be said. One reason can be that a task is learned by heart: it then has next to no "
            "gradient left on its own rows."
        )
    return said


def _by_halves(item: TaskGradient) -> float:
    return statistics.fmean(item.halves)


def _halves(found: Tickets) -> Table:
    rows = []
    for item in found.gradients:
        drawn = str(item.rows[0]) if len(set(item.rows)) == 1 else mean(item.rows)
        rows.append(TableRow(Said(item.task), (TableCell(drawn), TableCell(mean(item.halves, 2)))))
    caption = f"The gradient of a task on its even rows and on its odd ones{over(found.seeds)}"
    return Table(caption, ("task", "training rows", "cosine of the two"), tuple(rows))


def _conflicts(found: Tickets) -> Table:
    gradients = ["gradients oppose"] if found.gradients else []
    rows = []
    for pair in sorted(found.pairs, key=lambda item: (_excess(item.conflict), item.tasks)):
        conflict = pair.conflict
        cells = [
            _counted(conflict.units),
            mean(conflict.expected),
            *([_counted(conflict.opposed)] if gradients else []),
            ", ".join(dict.fromkeys(unit for unit in conflict.farthest if unit)) or NOT_APPLICABLE,
        ]
        rows.append(TableRow(Said(" + ".join(pair.tasks)), tuple(map(TableCell, cells))))
    headings = ("pair", "units in conflict", "by chance", *gradients, "ranked farthest apart")
    return Table(
        "Units that the one task ranks in its top quarter and the other in its bottom quarter, the pairs with most "
        f"beyond chance first{over(found.seeds)}",
        headings,
        tuple(rows),
        frozenset({len(headings) - 1}),
    )


def _excess(conflict: Conflict) -> float:
    return statistics.fmean(conflict.expected) - statistics.fmean(conflict.units)


def _counted(values: Sequence[int]) -> str:
    return mean(values, int(len(values) > 1))
