"""What there is to choose from, generated from the registries and the shipped files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer

from mtl_tickets.cli.console import out

PANEL = "What is available"


def add_to(app: typer.Typer) -> None:
    for command in (experiments, tasks, recipes, rules, scores, samplers, encoders):
        app.command(rich_help_panel=PANEL)(command)


def experiments() -> None:
    """The experiment files that come with the package."""
    from mtl_tickets.documents import read_yaml
    from mtl_tickets.tasks.spec import task_config_folder

    folder = task_config_folder() / "experiments"
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        data = read_yaml(path, search=[folder]).data
        recipe = data.get("recipe", "")
        kind = recipe.get("kind", "") if isinstance(recipe, dict) else recipe
        rows.append((path.stem, len(data.get("tasks", [])), kind, data.get("description", "")))
    _print(("experiment", "tasks", "recipe", "description"), rows)


def tasks() -> None:
    """The tasks that come with the package."""
    from mtl_tickets.tasks.spec import load_task, shipped_tasks

    rows = []
    for name in shipped_tasks():
        spec = load_task(name)
        head = f" (answered by the head of {spec.head})" if spec.head else ""
        # one below the other: names must not be broken where the terminal is narrow
        lists = ("\n".join(names) for names in (spec.labels or ["a number"], spec.metrics, spec.sources))
        rows.append((name, spec.description + head, *lists))
    _print(("task", "description", "labels", "metrics", "sources"), rows)


def recipes() -> None:
    """The published procedures that can be run."""
    from mtl_tickets.recipes import RECIPES

    _print(("recipe", "what it does"), RECIPES.summaries().items())


def rules() -> None:
    """The rules by which tasks share their tickets."""
    from mtl_tickets.tickets.sharing import RULES

    _print(("sharing rule", "what it does"), RULES.summaries().items())


def scores() -> None:
    """The measures of how much a unit matters to a task."""
    from mtl_tickets.scoring import SCORES

    _print(("score", "what it measures"), SCORES.summaries().items())


def samplers() -> None:
    """The orders in which the batches of several tasks are drawn."""
    from mtl_tickets.tasks.samplers import SAMPLERS

    _print(("sampler", "what it does"), SAMPLERS.summaries().items())


def encoders() -> None:
    """The encoders that come with the package, and the architectures that any other may have."""
    from mtl_tickets.serving import known_encoders

    _print(("encoder", "what it is"), known_encoders().items())


def _print(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1), pad_edge=False)
    for position, heading in enumerate(headings):
        table.add_column(heading, no_wrap=position == 0, style="cyan" if position == 0 else "")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    out().print(table)
