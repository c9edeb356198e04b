"""The application: commands, and the options that stand before them."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mtl_tickets._version import __version__
from mtl_tickets.cli import experiments, lists, models, report, studies, tickets
from mtl_tickets.cli.console import SafeGroup

app = typer.Typer(
    name="mtl-tickets",
    cls=SafeGroup,
    help="One pretrained encoder for many tasks: find each task's ticket, share them, train, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="rich",
)


def main() -> None:
    """The entry point. ``--debug`` may stand anywhere."""
    # tokenizers are called from one process at a time here, and warn on every fork unless told
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app(args=[argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="mtl-tickets")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mtl-tickets {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    pass


experiments.add_to(app)
studies.add_to(app)
report.add_to(app)
models.add_to(app)
app.add_typer(tickets.app, name="tickets", rich_help_panel=tickets.PANEL)
lists.add_to(app)
