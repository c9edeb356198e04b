"""``tickets show | overlap | diff``: looking at tickets. Needs neither torch nor the encoder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mtl_tickets.cli.console import out
from mtl_tickets.errors import InputError, Problem

if TYPE_CHECKING:
    from mtl_tickets.tickets.ticket import Ticket

PANEL = "Tickets"

app = typer.Typer(no_args_is_help=True, help="Show, compare and subtract tickets.")

Places = Annotated[
    list[str], typer.Argument(metavar="RUN|FILE...", help="Run or model folders, or ticket files (.safetensors).")
]
Rule = Annotated[
    str | None,
    typer.Option("--rule", help="Whose tickets of a run: a sharing rule (default: own).", show_default=False),
]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", help="Only the tickets of this task. Repeatable.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(places: Places, rule: Rule = None, task: Tasks = None, as_json: AsJson = False) -> None:
    """What each ticket keeps; with a single ticket, layer by layer."""
    from mtl_tickets.report.ticket_tables import picture, ticket_list

    tickets = _found(places, rule, task)
    if as_json:
        facts = {
            name: {
                "origin": ticket.about.to_json(),
                "remaining_percent": ticket.remaining_percent(),
                "kept": {part: {"kept": kept, "of": size} for part, (kept, size) in ticket.counts().items()},
                "digest": ticket.digest(),
                "units": ticket.picture(),
            }
            for name, ticket in tickets.items()
        }
        _print_json(facts)
        return
    console = out()
    console.print(ticket_list(tickets))
    if len(tickets) == 1:
        console.print()
        console.print(picture(next(iter(tickets.values()))))


@app.command()
def overlap(places: Places, rule: Rule = None, task: Tasks = None, as_json: AsJson = False) -> None:
    """How alike tickets are: Jaccard similarity, units kept by how many, agreement by layer, groups."""
    from mtl_tickets.report.ticket_tables import overlap_tables
    from mtl_tickets.tickets.overlap import overlap as overlap_of

    facts = overlap_of(_found(places, rule, task))
    if as_json:
        _print_json(facts)
        return
    console = out()
    for title, table in overlap_tables(facts):
        console.print(title, style="bold", markup=False)
        console.print(table)
        console.print()


@app.command()
def diff(places: Places, rule: Rule = None, task: Tasks = None, as_json: AsJson = False) -> None:
    """What two tickets keep in common and apart: two files, or a run and two --task."""
    from mtl_tickets.report.ticket_tables import difference

    tickets = _found(places, rule, task)
    if len(tickets) != 2:
        hint = "give two files, or name two tasks with --task"
        raise InputError(Problem("diff compares two tickets", found=list(tickets), hint=hint))
    (one, first), (two, second) = tickets.items()
    common = first & second  # refuses, field by field, tickets of different unit spaces
    if as_json:
        parts = {"both": common, f"only {one}": first - second, f"only {two}": second - first}
        _print_json(
            {
                "equal": first == second,
                "jaccard": first.jaccard(second),
                "units": {name: ticket.picture() for name, ticket in parts.items()},
            }
        )
        return
    console = out()
    console.print(ticket_pair(one, first, two, second), markup=False, soft_wrap=True)
    console.print(difference(one, first, two, second))


def ticket_pair(one: str, first: Ticket, two: str, second: Ticket) -> str:
    if first == second:
        return f"{one} and {two} keep the same units ({first.remaining_percent():.1f} % of the parameters)"
    return (
        f"{one} keeps {first.remaining_percent():.1f} % of the parameters, {two} {second.remaining_percent():.1f} %; "
        f"Jaccard similarity {first.jaccard(second):.2f}"
    )


def _found(places: list[str], rule: str | None, tasks: list[str] | None) -> dict[str, Ticket]:
    from mtl_tickets.locate import find_tickets

    return find_tickets(places, rule, tasks)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
