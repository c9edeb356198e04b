"""What stands around the final table: what the numbers are, under which caps, how rungs were chosen, the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_tickets.evaluation.records import Row, one
from mtl_tickets.files import write_text
from mtl_tickets.report.tables import (
    Comparison,
    comparison,
    escaped,
    evaluation_only,
    language_modelling,
    markdown,
)

if TYPE_CHECKING:
    from mtl_tickets.experiment import Experiment, Loaded
    from mtl_tickets.running import RunSummary
    from mtl_tickets.tasks.data import SelectionSettings

EXTRA = "tasks answered by another task's head"
LANGUAGE = "masked-language modelling (mlm) on held-out text"


@dataclass(frozen=True)
class Summary:
    """The end of an experiment: the table, the tables of evaluation-only tasks and of masked-language modelling (None
    where there are none) and notes, label -> text."""

    name: str
    description: str
    main: Comparison
    extra: Comparison | None
    language: Comparison | None
    notes: Mapping[str, str]

    @property
    def tables(self) -> dict[str, Comparison]:
        """What stands above each -> the tables there are; nothing above the first."""
        found = {"": self.main, EXTRA: self.extra, LANGUAGE: self.language}
        return {said: table for said, table in found.items() if table is not None}


def summarise(loaded: Loaded, runs: Sequence[RunSummary]) -> Summary:
    """Tables and notes of finished runs; a :class:`CheckpointError` where a row they need is missing."""
    rows = [Row(**row) for run in runs for row in run.rows]
    seeds = [run.seed for run in runs]
    recipe = loaded.experiment.recipe
    columns, reported = recipe.columns(), recipe.reported
    learned = {name: spec.dev_splits for name, spec in loaded.tasks.items() if spec.head is None}
    extra = {name: spec.dev_splits for name, spec in loaded.tasks.items() if spec.head is not None}
    return Summary(
        loaded.folder.name,
        loaded.experiment.description,
        comparison(rows, columns, learned, seeds, reported),
        evaluation_only(rows, columns, extra, seeds, reported) if extra else None,
        language_modelling(rows, columns, seeds, reported) if recipe.has_text else None,
        notes(loaded, rows, list(learned), seeds),
    )


def notes(loaded: Loaded, rows: Sequence[Row], learned: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """What a reader must know to judge the table."""
    return notes_of(loaded.experiment, rows, learned, seeds)


def notes_of(
    experiment: Experiment, rows: Sequence[Row], learned: Sequence[str], seeds: Sequence[int]
) -> dict[str, str]:
    """The same, where the task files are not at hand."""
    recipe = experiment.recipe
    count = f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
    over = f"mean ± sample standard deviation over {count}" if len(seeds) > 1 else f"one seed ({seeds[0]}), no spread"
    found = {"scores": f"the metrics of each task on its dev sets x 100; {over}"}
    caps = [f"{value:,} {part} rows a task" for part, value in experiment.limit.non_defaults().items()]
    if caps:
        found["caps"] = f"at most {' and '.join(caps)}: not comparable with scores on all rows"
    if recipe.has_text:
        found["mlm"] = (
            "masked-language modelling on text that is held out of training: loss in nats per predicted token (lower "
            "is better), and the share of tokens predicted right"
        )
    if recipe.chooses:
        borrow = getattr(getattr(recipe, "choice", None), "borrow", 0.0)
        found["selection"] = _selection(recipe.selection_settings, borrow)
    rungs = _rungs(rows, learned, seeds)
    if rungs:
        found["rungs"] = rungs
    switches = [name for name, on in _compat(recipe).items() if on]
    if switches:
        found["compat"] = f"published defects switched on: {', '.join(switches)}"
    return found


def written(loaded: Loaded, runs: Sequence[RunSummary]) -> dict[str, Path]:
    """What was written where; a recipe may keep no models."""
    first = runs[0].path
    several = first.parent / "seed-*" if len(runs) > 1 else first
    kept = {
        "models": several / "model",
        "tickets": several / "tickets",
        "all rows": several / "results.jsonl",
    }
    there = {what: path for what, path in kept.items() if (runs[0].path / path.name).exists()}
    return {"table": loaded.folder / "summary.md"} | there


def write_markdown(summary: Summary, path: Path) -> None:
    """Writes the summary, whole or not at all."""
    parts = [f"# {escaped(summary.name)}", escaped(summary.description)]
    for said, table in summary.tables.items():
        parts += [f"{said[:1].upper()}{said[1:]}:" if said else "", markdown(table).strip()]
    parts += ["\n".join(f"- {escaped(label)}: {escaped(text)}" for label, text in summary.notes.items())]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def _selection(settings: SelectionSettings, borrow: float) -> str:
    if settings.dev:
        return "rungs were chosen on the dev rows that are reported (as published): scores are optimistic"
    share, most = settings.share, settings.most
    said = f"rungs were chosen on held-out training rows ({share:.0%} of a task's, at most {most:,}), never on dev"
    return said + (f"; what the other tasks found counts as {borrow:g} rows" if borrow else "")


def _rungs(rows: Sequence[Row], learned: Sequence[str], seeds: Sequence[int]) -> str:
    """``mrpc 3, cola 0`` or, with several seeds, ``mrpc 3/2/3``."""
    if not any(row.stage == "choose" and row.metric == "rung" for row in rows):
        return ""
    texts = []
    for task in learned:
        chosen = [one(rows, stage="choose", task=task, metric="rung", seed=seed) for seed in seeds]
        texts.append(f"{task} {'/'.join(f'{row.value:.0f}' for row in chosen)}")
    last = one(rows, stage="choose", task=learned[0], metric="rung", seed=seeds[0]).n - 1
    each = ", one number a seed" if len(seeds) > 1 else ""
    return f"{', '.join(texts)} (0 drops nothing, {last} the most{each})"


def _compat(recipe: object) -> dict[str, bool]:
    compat = getattr(recipe, "compat", None)
    return {} if compat is None else dict(compat)
