"""The final table of an experiment: tasks by methods, from result rows alone.

A comparison is a value; how it looks (a terminal, markdown) is decided by the functions below it. A row that should be
there and is not is an error that names it, never an empty cell.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.evaluation.records import Row, one
from mtl_tickets.recipes.base import HELD_OUT, MLM

AVERAGE = "average"
REMAINING = "remaining %"
NOT_APPLICABLE = "–"
# what the table of masked-language modelling says
LOSS, ACCURACY = "loss", "accuracy %"

Reported = Callable[[str, str], bool]
"""Whether a recipe makes a number: stage, task."""


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1 below the line); None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Cell:
    """One number for each seed; none where the line says nothing about the column (a yardstick has no parameters, a
    recipe tries some controls on some tasks alone).

    ``copies``: how many models the number is needed for (single-task fine-tuning keeps one encoder a task).
    ``fixed``: the number may not depend on the seed at all (a yardstick, the parameters of a dense model); where it
    does not, there is no spread to show.
    """

    values: tuple[float, ...]
    copies: int = 1
    fixed: bool = False
    decimals: int = 1

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds (n - 1 below the line); None for a single seed."""
        if len(self.values) < 2 or (self.fixed and len(set(self.values)) == 1):
            return None
        return statistics.stdev(self.values)

    def __str__(self) -> str:
        if not self.values:
            return NOT_APPLICABLE
        text = f"{self.mean:.{self.decimals}f}"
        if self.spread is not None:
            text += f" ± {self.spread:.{self.decimals}f}"
        return f"{text} x {self.copies}" if self.copies > 1 else text


@dataclass(frozen=True)
class Comparison:
    """Headings of the columns, and for each line (a task, the average, the parameters) one cell a column."""

    headings: tuple[str, ...]
    lines: Mapping[str, tuple[Cell, ...]]
    seeds: tuple[int, ...]
    less_is_better: tuple[str, ...] = ()
    """Lines of losses."""
    of: str = "task"
    """What stands above the names of the lines."""

    def best(self, line: str) -> float | None:
        """The best mean of a line, as printed: the highest, of losses the lowest; None where marking it would say
        nothing."""
        means = [round(cell.mean, cell.decimals) for cell in self.lines[line] if cell.values]
        if line == REMAINING or len(set(means)) < 2:
            return None
        return min(means) if line in self.less_is_better else max(means)

    def marked(self, line: str) -> tuple[bool, ...]:
        """For each cell of a line whether it is its best, as printed."""
        best = self.best(line)
        return tuple(
            best is not None and bool(cell.values) and round(cell.mean, cell.decimals) == best
            for cell in self.lines[line]
        )


def always(stage: str, task: str) -> bool:
    """Every column has every task."""
    return True


def comparison(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    splits: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    reported: Reported = always,
) -> Comparison:
    """The table of a recipe.

    ``columns``: stage name -> heading. ``splits``: task -> the dev splits it is reported on; the score of a task is
    the mean of the metric ``score`` over them. ``average`` is the unweighted mean over tasks, taken within each seed,
    of the columns that have every task. The last line is the share of parameters kept, mean over tasks.

    Raises :class:`CheckpointError` naming the first row that is missing or stands twice; what the recipe does not make
    (``reported``) is not missing.
    """
    lines = {task: _score_cells(rows, columns, task, splits[task], seeds, reported) for task in splits}
    lines[AVERAGE] = tuple(map(_average, zip(*lines.values(), strict=True)))
    lines[REMAINING] = tuple(
        _remaining(rows, stage, [task for task in splits if reported(stage, task)], seeds) for stage in columns
    )
    return Comparison(tuple(columns.values()), lines, tuple(seeds))


def evaluation_only(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    splits: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    reported: Reported = always,
) -> Comparison:
    """The table of the tasks that are answered by another task's head: no average, no parameters, no yardsticks
    (a bag of words trained on another task's rows is no yardstick for these)."""
    there = {(row.stage, row.task) for row in rows}  # they are where their heads are

    def made(stage: str, task: str) -> bool:
        return reported(stage, task) or (stage, task) in there

    models = {stage: heading for stage, heading in columns.items() if not _is_yardstick(stage)}
    lines = {task: _score_cells(rows, models, task, splits[task], seeds, made) for task in splits}
    return Comparison(tuple(models.values()), lines, tuple(seeds))


def language_modelling(
    rows: Sequence[Row], columns: Mapping[str, str], seeds: Sequence[int], reported: Reported = always
) -> Comparison | None:
    """The table of masked-language modelling on held-out text: loss in nats per predicted token, and accuracy, of the
    columns that have them; None where none has."""
    models = {stage: heading for stage, heading in columns.items() if not _is_yardstick(stage) and reported(stage, MLM)}

    def cells(metric: str, decimals: int) -> tuple[Cell, ...]:
        which = {"task": MLM, "split": HELD_OUT, "metric": metric}
        values = (tuple(one(rows, stage=stage, seed=seed, **which).value for seed in seeds) for stage in models)
        return tuple(Cell(of_column, decimals=decimals) for of_column in values)

    lines = {LOSS: cells("loss", 3), ACCURACY: cells("score", 1)}
    return Comparison(tuple(models.values()), lines, tuple(seeds), (LOSS,), MLM) if models else None


def _average(cells: Sequence[Cell]) -> Cell:
    if not all(cell.values for cell in cells):
        return Cell(())
    return Cell(tuple(map(statistics.fmean, zip(*(cell.values for cell in cells), strict=True))), fixed=cells[0].fixed)


def _score_cells(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    task: str,
    splits: Sequence[str],
    seeds: Sequence[int],
    reported: Reported,
) -> tuple[Cell, ...]:
    if not splits:
        raise MtlTicketsError(f"{task}: a table needs at least one labelled split")
    return tuple(
        Cell(
            tuple(
                statistics.fmean(
                    one(rows, stage=stage, task=task, split=split, metric="score", seed=seed).value for split in splits
                )
                for seed in seeds
                if reported(stage, task)
            ),
            fixed=_is_yardstick(stage),
        )
        for stage in columns
    )


def _remaining(rows: Sequence[Row], stage: str, tasks: Sequence[str], seeds: Sequence[int]) -> Cell:
    if _is_yardstick(stage) or not tasks:
        return Cell(())
    which = {"stage": stage, "split": "all", "metric": "remaining"}
    if stage.startswith("multi/"):  # one model for all tasks
        return Cell(tuple(one(rows, **which, task=AVERAGE, seed=seed).value for seed in seeds), fixed=True)
    values = (statistics.fmean(one(rows, **which, task=task, seed=seed).value for task in tasks) for seed in seeds)
    return Cell(tuple(values), copies=len(tasks), fixed=True)


def _is_yardstick(stage: str) -> bool:
    return stage.startswith("yardstick/")


# -- on a terminal -----------------------------------------------------------------------------------------------------


def terminal_tables(table: Comparison, width: int) -> list[Table]:
    """The comparison as tables for a terminal of ``width`` columns: one where it fits, else the yardsticks first and
    the methods below them, each in as many tables as it takes. Every table has the first column."""
    first = max(map(len, (table.of, *table.lines)))
    everything = len(table.headings)
    cells = next(iter(table.lines.values()))
    methods = next((i for i, cell in enumerate(cells) if not cell.fixed), everything)
    groups = [(0, methods), (methods, everything)]
    if _total(first, _least_widths(table, 0, everything)) <= width:
        groups = [(0, everything)]
    blocks: list[Table] = []
    for start, end in groups:
        while start < end:
            stop = end
            while stop > start + 1 and _total(first, _least_widths(table, start, stop)) > width:
                stop -= 1
            widths = _least_widths(table, start, stop)
            unbroken = [max(w, len(h)) for w, h in zip(widths, table.headings[start:stop], strict=True)]
            blocks.append(_block(table, start, stop, unbroken if _total(first, unbroken) <= width else widths))
            start = stop
    return blocks


def _least_widths(table: Comparison, start: int, stop: int) -> list[int]:
    """Of each column: a heading may break between its words where room is short, a number never."""
    return [
        max(len(text) for text in (*table.headings[i].split(), *(str(cells[i]) for cells in table.lines.values())))
        for i in range(start, stop)
    ]


def _total(first: int, widths: Sequence[int]) -> int:
    # rich draws one blank for the box and one for the padding between two columns
    return first + sum(widths) + 2 * len(widths)


def _block(table: Comparison, start: int, stop: int, widths: Sequence[int]) -> Table:
    view = Table(
        box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1), collapse_padding=True, show_edge=False, pad_edge=False
    )
    view.add_column(table.of, no_wrap=True)
    for heading, width in zip(table.headings[start:stop], widths, strict=True):
        view.add_column(Text(heading), justify="right", width=width, vertical="bottom")
    for name, cells in table.lines.items():
        if name == AVERAGE:
            view.add_section()
        shown = zip(cells[start:stop], table.marked(name)[start:stop], strict=True)
        view.add_row(
            Text(name, style="dim" if name == REMAINING else ""),
            *(Text(str(cell), style=_style(name, cell, best)) for cell, best in shown),
        )
    return view


def _style(line: str, cell: Cell, best: bool) -> str:
    if line == REMAINING or not cell.values:
        return "dim"
    return "bold green" if best else ""


# -- in a file ---------------------------------------------------------------------------------------------------------


def markdown(table: Comparison) -> str:
    """The comparison as a markdown table, the best of each line in bold."""
    lines = [
        f"| {table.of} | " + " | ".join(escaped(heading) for heading in table.headings) + " |",
        "|---|" + "---:|" * len(table.headings),
    ]
    for name, cells in table.lines.items():
        texts = (f"**{cell}**" if best else str(cell) for cell, best in zip(cells, table.marked(name), strict=True))
        lines.append(f"| {escaped(name)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as it stands, in markdown: what would be markup or end a table cell is escaped, line breaks are blanks."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
