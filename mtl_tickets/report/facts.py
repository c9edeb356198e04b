"""The answer of ``check`` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtl_tickets.checking import Checked

MOST_LABELS = 8
MOST_WORDS = 40


def print_checked(item: Checked, console: Console) -> None:
    """What a file says, a line for each split that was read, and a sample of each task."""
    console.print(Text.assemble((f"{item.kind} {item.name}", "bold"), f"  {item.file}"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in item.facts.items():
        if value:
            grid.add_row(f"  {name}", Text(_said(value)))
    for task, why in item.not_read.items():
        grid.add_row("  not read", Text(f"{task} ({why})", style="yellow"))
    console.print(grid)
    if item.splits:
        console.print()
        console.print(_splits(item.splits))
        console.print()
        console.print(_samples(item.splits))
    console.print()


def _splits(splits: list[dict[str, Any]]) -> Table:
    measured = any("lengths" in split for split in splits)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("task", style="cyan", overflow="fold")
    table.add_column("split", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("labels", overflow="fold")
    if measured:
        for heading in ("median", "99 %", "max"):
            table.add_column(Text(f"tokens\n{heading}"), justify="right", no_wrap=True)
        table.add_column(Text("at the\nlimit"), justify="right", no_wrap=True)
    previous = None
    for split in splits:
        name = split["task"] if split["task"] != previous else ""
        previous = split["task"]
        rows = f"{split['rows']:,}" + "".join(f"\n-{n:,} {why}" for why, n in split.get("left_out", {}).items())
        cells = [Text(name), Text(split["split"]), Text(rows), Text(_labels(split["labels"]))]
        if measured:
            cells += [Text(str(split["lengths"][key])) for key in ("median", "99 %", "max")]
            cells.append(Text(f"{split['at_limit'] / max(split['rows'], 1):.1%}"))
        table.add_row(*cells)
    return table


def _samples(splits: list[dict[str, Any]]) -> Table:
    """The first example of each task's first split, from its line to its tokens."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    seen = set()
    for split in splits:
        if split["task"] in seen:
            continue
        seen.add(split["task"])
        sample = split["sample"]
        name = split["task"]
        for text in sample["texts"]:
            grid.add_row(name, "text", Text(_cut(text.split(" "), MOST_WORDS)))
            name = ""
        if sample["label"] is not None:
            grid.add_row("", "label", Text(str(sample["label"])))
        if "tokens" in sample:
            grid.add_row("", "tokens", Text(_cut(sample["tokens"], MOST_WORDS), style="dim"))
    return grid


def _labels(labels: Mapping[str, Any] | None) -> str:
    if labels is None:
        return "none"
    if set(labels) == {"min", "mean", "max"} and any(isinstance(value, float) for value in labels.values()):
        return f"{labels['min']:g} to {labels['max']:g}\nmean {labels['mean']:.2f}"
    shown = [f"{name} {count:,}" for name, count in list(labels.items())[:MOST_LABELS]]
    more = [f"and {len(labels) - MOST_LABELS} more"] if len(labels) > MOST_LABELS else []
    # one below the other: names must not be broken where the terminal is narrow
    return "\n".join([*shown, *more])


def _cut(words: Sequence[str], most: int) -> str:
    """The first words; --json has all of them."""
    return " ".join(words[:most]) + (" ..." if len(words) > most else "")


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
