"""``study``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mtl_tickets.cli.console import out
from mtl_tickets.cli.experiments import PANEL, Settings

if TYPE_CHECKING:
    from rich.table import Table

    from mtl_tickets.study.summary import PointSummary


def add_to(app: typer.Typer) -> None:
    app.command("study", rich_help_panel=PANEL)(study)


def study(
    file: Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a shipped one.")],
    settings: Settings = None,
    only_table: Annotated[bool, typer.Option("--table", help="Run nothing: the table of what is finished.")] = False,
) -> None:
    """Run a grid of settings with several seeds, and compare sharing rules. Started again, it goes on."""
    console = out()
    with console.status("loading libraries"):
        from mtl_tickets.report.progress import make_progress
        from mtl_tickets.study.plan import load_study
        from mtl_tickets.study.runs import run_study
        from mtl_tickets.study.summary import summarise_study, write_summary
    asked = load_study(file, settings or ())
    console.print(f"writing to {asked.folder}", markup=False, soft_wrap=True)
    if not only_table:
        with make_progress(console) as progress:
            run_study(asked, progress, told=progress.say)
    summaries = summarise_study(asked)
    for summary in summaries:
        console.print()
        if summary.point.name:
            console.print(summary.point.name, style="bold", markup=False)
        if summary.missing:
            console.print(f"not finished: seeds {', '.join(map(str, summary.missing))}", style="yellow")
        if summary.seeds:
            console.print(_table(summary, asked.settings.baseline))
            for contrast in (summary.contrasts.average if summary.contrasts else {}).values():
                console.print(f"- {contrast.verdict}", markup=False, soft_wrap=True)
    console.print()
    console.print(f"table  {write_summary(asked, summaries)}", markup=False, soft_wrap=True)
    console.print(f"runs   {asked.folder / 'runs'}", markup=False, soft_wrap=True)


def _table(summary: PointSummary, baseline: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mtl_tickets.study.summary import HEADINGS, lines

    view = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for number, heading in enumerate(HEADINGS):
        view.add_column(heading, justify="right" if 0 < number < len(HEADINGS) - 1 else "left", no_wrap=True)
    styles = {"better": "bold green", "worse": "red", "baseline": "dim"}
    for cells in lines(summary, baseline):
        view.add_row(*map(Text, cells), style=styles.get(cells[-1], ""))
    return view
