"""``run`` and ``check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtl_tickets.cli.console import err, out, same_command_resumed, size_of, speaks
from mtl_tickets.errors import InputError, Problem

if TYPE_CHECKING:
    from mtl_tickets.experiment import Loaded
    from mtl_tickets.running import RunSummary

PANEL = "Experiments"

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, for example limit.train=500. Repeatable."),
]


def add_to(app: typer.Typer) -> None:
    app.command("run", rich_help_panel=PANEL)(run)
    app.command("check", rich_help_panel=PANEL)(check)


def run(
    experiment: Annotated[
        str, typer.Argument(help="An experiment file, or the name of a shipped one (mtl-tickets experiments).")
    ],
    settings: Settings = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="1,2,3", help="Run these seeds instead of the file's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run was stopped.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what there is and start again.")] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage; --resume goes on from it.")
    ] = None,
) -> None:
    """Run an experiment: every stage, every seed, then the table and the report."""
    if resume and restart:
        raise InputError(Problem("--resume and --restart exclude each other", file="--restart"))
    wanted = None if seeds is None else _seeds(seeds)
    console = out()
    with console.status("loading libraries"):
        from mtl_tickets.experiment import load_experiment
        from mtl_tickets.report.progress import make_progress
        from mtl_tickets.running import run_experiment
    loaded = load_experiment(experiment, settings or ())
    console.print(f"writing to {loaded.folder}", markup=False, soft_wrap=True)
    with make_progress(console) as progress:
        runs = run_experiment(loaded, seeds=wanted, resume=resume, restart=restart, to=to, progress=progress)
    if not speaks():
        return
    if all(summary.finished for summary in runs):
        _show_table(loaded, runs)
    else:
        _show_stages(loaded, runs, str(to))


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        rule = "must be whole numbers of at least 0, separated by commas"
        raise InputError(Problem(rule, file="--seeds", found=text, hint="for example --seeds 1,2,3"))
    seeds = [int(part) for part in parts]
    if len(set(seeds)) != len(seeds):
        raise InputError(Problem("each seed may stand only once", file="--seeds", found=text))
    return seeds


def _show_table(loaded: Loaded, runs: list[RunSummary]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mtl_tickets.report.summary import summarise, write_markdown, written
    from mtl_tickets.report.tables import terminal_tables

    summary = summarise(loaded, runs)
    write_markdown(summary, loaded.folder / "summary.md")
    console = out()
    console.print()
    for said, part in summary.tables.items():
        if said:
            console.print(said, style="dim")
        for table in terminal_tables(part, console.width):
            console.print(table)
            console.print()
    notes = Table.grid(padding=(0, 2))
    notes.add_column(style="bold", no_wrap=True)
    notes.add_column(overflow="fold")
    for label, text in summary.notes.items():
        notes.add_row(label, Text(text))
    console.print(notes)
    console.print()
    # paths are printed whole, to be copied
    paths = written(loaded, runs) | _report(loaded.folder)
    for label, path in paths.items():
        console.print(Text.assemble((f"{label:<{max(map(len, paths))}}  ", "bold"), str(path)), soft_wrap=True)


def _report(folder: Path) -> dict[str, Path]:
    """Where the report is. What keeps it from being made (another seed's broken files, say) fails no finished run."""
    from rich.text import Text

    from mtl_tickets.errors import MtlTicketsError
    from mtl_tickets.report.write import write_report

    try:
        return {"report": write_report(folder)}
    except (MtlTicketsError, OSError) as error:
        err().print(Text(f"no report was written: {error}", style="yellow"), soft_wrap=True)
        return {}


def _show_stages(loaded: Loaded, runs: list[RunSummary], to: str) -> None:
    stages = list(loaded.experiment.recipe.stages)
    position = stages.index(to) + 1
    console = out()
    for summary in runs:
        if summary.finished:
            console.print(f"seed {summary.seed}: finished", markup=False)
        else:
            done, rest = ", ".join(stages[:position]), ", ".join(stages[position:]) or "nothing"
            console.print(f"seed {summary.seed}: done {done}; still to do {rest}", markup=False, soft_wrap=True)
    console.print(f"go on with: {same_command_resumed()}", markup=False, soft_wrap=True)


def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Experiment and task files, or shipped names.")],
    data: Annotated[
        bool | None,
        typer.Option(
            "--data/--no-data", help="Insist on reading the data, or leave it alone. By default it is read if possible."
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Tokenizer for task files; an experiment brings its own.", show_default=False)
    ] = None,
    settings: Settings = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data of task files that say none.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Check experiment and task files: all problems at once, then labels, lengths and an encoded sample."""
    from mtl_tickets.checking import check_files

    status = err().status("reading")
    with status:
        checked = check_files(
            files,
            data=data,
            encoder=encoder,
            root=root,
            overrides=settings or (),
            said=lambda text: status.update(text),
        )
    if as_json:
        out().print_json(json.dumps([item.to_json() for item in checked], ensure_ascii=False))
        return
    from mtl_tickets.report.facts import print_checked

    console = out()
    for item in checked:
        print_checked(item, console)
    console.print(f"{size_of(len(checked), 'file')} checked, no problem found", style="green")
