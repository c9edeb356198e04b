"""``study``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mtl_tickets.cli.console import out, speaks
from mtl_tickets.cli.experiments import PANEL, Settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mtl_tickets.report.data import Judgement, ReportData
    from mtl_tickets.report.study import StudyPoint


def add_to(app: typer.Typer) -> None:
    app.command("study", rich_help_panel=PANEL)(study)


def study(
    file: Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a shipped one.")],
    settings: Settings = None,
    executor: Annotated[
        str | None,
        typer.Option("--executor", metavar="KIND", help="Who does the runs: local, ray. Changes no number."),
    ] = None,
    only_table: Annotated[
        bool, typer.Option("--table", help="Run nothing: the table and the report of what is there.")
    ] = False,
) -> None:
    """Run a grid of settings with several seeds, and compare sharing rules. Started again, it goes on."""
    console = out()
    with console.status("loading libraries"):
        from mtl_tickets.report.progress import make_progress
        from mtl_tickets.report.write import report_study
        from mtl_tickets.study.plan import load_study
        from mtl_tickets.study.runs import run_study, write_index
    asked = load_study(file, settings or (), executor)
    console.print(f"writing to {asked.folder}", markup=False, soft_wrap=True)
    with make_progress(console) as progress:
        if only_table:
            write_index(asked)
        else:
            run_study(asked, progress, told=progress.say)
        if not speaks():
            return
        found, report = report_study(asked.folder, len(asked.points), progress)
    for point in found.points:
        _show(console, point)
    console.print()
    console.print(f"report  {report}", markup=False, soft_wrap=True)
    console.print(f"runs    {asked.folder / 'runs'}", markup=False, soft_wrap=True)


def _show(console: Console, point: StudyPoint) -> None:
    from mtl_tickets.report.verdict_content import in_short

    console.print()
    if point.name:
        console.print(point.name, style="bold", markup=False)
    if point.report is None:
        console.print("has not begun", style="yellow")
        return
    for text in point.report.missing:
        console.print(text, style="yellow", markup=False, soft_wrap=True)
    for number, judgement in enumerate(point.report.judgements):
        if number > 0:  # the report says it comparison by comparison
            console.print(in_short(judgement), markup=False, soft_wrap=True)
            continue
        console.print(_table(point.report, judgement, console.width))
        console.print()
        console.print(in_short(judgement), style="bold", markup=False, soft_wrap=True)
        for item in judgement.average:
            console.print(f"- {item.sentence}", markup=False, soft_wrap=True)


def _table(report: ReportData, judgement: Judgement, width: int) -> Table:
    """Without the bounds of intervals where there is no room for them; the sentences below have them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mtl_tickets.report.standings import BASELINE, HEADINGS, NARROW, standings

    found = standings(report, judgement)
    wide = _width(HEADINGS, [item.cells() for item in found]) <= width
    view = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for number, heading in enumerate(HEADINGS if wide else NARROW):
        view.add_column(heading, justify="right" if 0 < number < len(HEADINGS) - 1 else "left", no_wrap=number > 0)
    styles = {"better": "bold green", "worse": "red", BASELINE: "dim"}
    for item in found:
        view.add_row(*map(Text, item.cells(bounds=wide)), style=styles.get(item.outcome, ""))
    return view


def _width(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """With three blanks between columns."""
    return sum(max(map(len, column)) for column in zip(headings, *rows, strict=True)) + 3 * (len(headings) - 1)
