"""``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtl_tickets.cli.console import err, out

PANEL = "Experiments"


def add_to(app: typer.Typer) -> None:
    app.command("report", rich_help_panel=PANEL)(report)


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A study, an experiment folder, or one run of it (seed-N).")
    ],
) -> None:
    """Write what a run found as report.html (one file), report.md and figures/, into its folder."""
    with err().status("reading the runs"):
        from mtl_tickets.report.write import write_report

        written = write_report(run)
    out().print(f"report: {written}", markup=False, soft_wrap=True)
