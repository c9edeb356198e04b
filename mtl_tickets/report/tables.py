"""The final table of an experiment: tasks by methods, from result rows alone.

A comparison is a value; how it looks (a terminal, markdown) is decided by the functions below it. A row that should be
there and is not is an error that names it, never an empty cell.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.evaluation.records import Row, one

AVERAGE = "average"
REMAINING = "remaining %"
NOT_APPLICABLE = "–"


@dataclass(frozen=True)
class Cell:
    """One number for each seed; none where the line says nothing about the column (a yardstick has no parameters).

    ``copies``: how many models the number is needed for (single-task fine-tuning keeps one encoder a task).
    ``fixed``: the number may not depend on the seed at all (a yardstick, the parameters of a dense model); where it
    does not, there is no spread to show.
    """

    values: tuple[float, ...]
    copies: int = 1
    fixed: bool = False

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
        text = f"{self.mean:.1f}" if self.spread is None else f"{self.mean:.1f} ± {self.spread:.1f}"
        return f"{text} x {self.copies}" if self.copies > 1 else text


@dataclass(frozen=True)
class Comparison:
    """Headings of the columns, and for each line (a task, the average, the parameters) one cell a column."""

    headings: tuple[str, ...]
    lines: Mapping[str, tuple[Cell, ...]]
    seeds: tuple[int, ...]

    def best(self, line: str) -> float | None:
        """The highest mean of a line, as printed; None where marking it would say nothing."""
        means = [round(cell.mean, 1) for cell in self.lines[line] if cell.values]
        return max(means) if line != REMAINING and len(set(means)) > 1 else None

    def marked(self, line: str) -> tuple[bool, ...]:
        """For each cell of a line whether it is its best, as printed."""
        best = self.best(line)
        return tuple(
            best is not None and bool(cell.values) and round(cell.mean, 1) == best for cell in self.lines[line]
        )


def comparison(
    rows: Sequence[Row], columns: Mapping[str, str], splits: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> Comparison:
    """The table of a recipe.

    ``columns``: stage name -> heading. ``splits``: task -> the dev splits it is reported on; the score of a task is
    the mean of the metric ``score`` over them. ``average`` is the unweighted mean over tasks, taken within each seed.
    The last line is the share of parameters kept, mean over tasks.

    Raises :class:`CheckpointError` naming the first row that is missing or stands twice.
    """
    lines = {task: _score_cells(rows, columns, task, splits[task], seeds) for task in splits}
    lines[AVERAGE] = tuple(
        Cell(tuple(map(statistics.fmean, zip(*(cell.values for cell in cells), strict=True))), fixed=cells[0].fixed)
        for cells in zip(*lines.values(), strict=True)
    )
    lines[REMAINING] = tuple(_remaining(rows, stage, list(splits), seeds) for stage in columns)
    return Comparison(tuple(columns.values()), lines, tuple(seeds))


def evaluation_only(
    rows: Sequence[Row], columns: Mapping[str, str], splits: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> Comparison:
    """The table of the tasks that are answered by another task's head: no average, no parameters, no yardsticks
    (a bag of words trained on another task's rows is no yardstick for these)."""
    models = {stage: heading for stage, heading in columns.items() if not _is_yardstick(stage)}
    lines = {task: _score_cells(rows, models, task, splits[task], seeds) for task in splits}
    return Comparison(tuple(models.values()), lines, tuple(seeds))


def _score_cells(
    rows: Sequence[Row], columns: Mapping[str, str], task: str, splits: Sequence[str], seeds: Sequence[int]
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
            ),
            fixed=_is_yardstick(stage),
        )
        for stage in columns
    )


def _remaining(rows: Sequence[Row], stage: str, tasks: Sequence[str], seeds: Sequence[int]) -> Cell:
    if _is_yardstick(stage):
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
    first = max(map(len, ("task", *table.lines)))
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
    view.add_column("task", no_wrap=True)
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
        "| task | " + " | ".join(escaped(heading) for heading in table.headings) + " |",
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
