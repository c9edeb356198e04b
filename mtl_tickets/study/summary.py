"""What a study has found so far: for every point each rule's average beside the baseline's, and what tests say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl_tickets.errors import ConfigError, Problem, nearest
from mtl_tickets.evaluation.records import Row, one, read_rows
from mtl_tickets.evaluation.statistics import Scores
from mtl_tickets.evaluation.verdicts import Contrasts, compare_all
from mtl_tickets.files import write_text
from mtl_tickets.report.tables import escaped
from mtl_tickets.study.plan import Point, Study
from mtl_tickets.study.runs import runs_of


@dataclass(frozen=True)
class PointSummary:
    """One point. ``headings``: rule -> what it is called; ``scores``: task -> rule -> seed -> score on dev; ``kept``:
    rule -> parameters kept in %, mean over seeds; ``contrasts``: every rule against the baseline, None before a second
    rule is there; ``missing``: the seeds that are not finished."""

    point: Point
    headings: Mapping[str, str]
    scores: Mapping[str, Mapping[str, Scores]]
    kept: Mapping[str, float]
    contrasts: Contrasts | None
    missing: tuple[int, ...]

    @property
    def seeds(self) -> list[int]:
        first = next(iter(next(iter(self.scores.values())).values()), {}) if self.scores else {}
        return sorted(first)

    def average(self, rule: str) -> dict[int, float]:
        """Seed -> mean over tasks."""
        return {seed: statistics.fmean(of[rule][seed] for of in self.scores.values()) for seed in self.seeds}


def summarise_study(study: Study) -> list[PointSummary]:
    """Of the runs that are finished. Raises :class:`ConfigError` for a baseline that no run has."""
    return [_of_point(study, point) for point in study.points]


def _of_point(study: Study, point: Point) -> PointSummary:
    runs = [run for run in runs_of(study) if run.point is point]
    done = [run for run in runs if run.finished]
    rows = {run.seed: read_rows(run.path / "results.jsonl") for run in done}
    columns = point.loaded.experiment.recipe.columns()
    headings = {stage.removeprefix("multi/"): text for stage, text in columns.items() if stage.startswith("multi/")}
    baseline = study.settings.baseline
    if baseline not in headings:
        hint = nearest(baseline, list(headings))
        raise ConfigError(Problem("must be one of the rules", study.file, "baseline", baseline, hint))
    splits = {name: spec.dev_splits for name, spec in point.loaded.tasks.items() if spec.head is None}
    scores = {
        task: {rule: {seed: _score(found, rule, task, of) for seed, found in rows.items()} for rule in headings}
        for task, of in splits.items()
    }
    kept = {
        rule: statistics.fmean(
            one(found, stage=f"multi/{rule}", task="average", metric="remaining").value for found in rows.values()
        )
        for rule in headings
        if rows
    }
    contrasts = compare_all(scores, baseline) if rows and len(headings) > 1 else None
    return PointSummary(point, headings, scores, kept, contrasts, tuple(run.seed for run in runs if not run.finished))


def _score(rows: Sequence[Row], rule: str, task: str, splits: Sequence[str]) -> float:
    found = [one(rows, stage=f"multi/{rule}", task=task, split=split, metric="score") for split in splits]
    return statistics.fmean(row.value for row in found)


def lines(summary: PointSummary, baseline: str) -> list[tuple[str, str, str, str, str, str]]:
    """Rule, average, kept %, difference to the baseline with its interval, corrected p, outcome; best average first."""
    found = []
    order = sorted(summary.headings, key=lambda rule: -statistics.fmean(summary.average(rule).values()))
    for rule in order:
        values = list(summary.average(rule).values())
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        cells = [summary.headings[rule], f"{statistics.fmean(values):.2f}{spread}", f"{summary.kept[rule]:.1f}"]
        if rule == baseline or summary.contrasts is None:
            found.append((*cells, "", "", "baseline" if rule == baseline else ""))
            continue
        contrast = summary.contrasts.average[rule]
        interval = contrast.test.interval if contrast.test else None
        bounds = f" [{interval.low:+.2f}, {interval.high:+.2f}]" if interval else ""
        p = "" if contrast.p is None else "< 0.001" if contrast.p < 0.001 else f"{contrast.p:.3f}"
        found.append((*cells, f"{contrast.difference:+.2f}{bounds}", p, contrast.verdict.outcome))
    return found  # type: ignore[return-value]


HEADINGS = ("rule", "average", "kept %", "difference [95 %]", "p (Holm)", "verdict")


def markdown(study: Study, summaries: Sequence[PointSummary]) -> str:
    """Every point's table, and what each comparison says in words."""
    parts = [f"# {escaped(study.folder.name)}", escaped(study.settings.description)]
    for summary in summaries:
        if len(summaries) > 1:
            parts.append(f"## {escaped(summary.point.name)}")
        if summary.missing:
            seeds = ", ".join(map(str, summary.missing))
            parts.append(f"Not finished, and not in the numbers: seeds {seeds}.")
        if not summary.seeds:
            continue
        table = [f"| {' | '.join(HEADINGS)} |", "|---|" + "---:|" * 4 + "---|"]
        table += [f"| {' | '.join(map(escaped, cells))} |" for cells in lines(summary, study.settings.baseline)]
        parts.append("\n".join(table))
        tasks = ", ".join(summary.scores)
        parts.append(f"Average dev score x 100 over {escaped(tasks)}; seeds {', '.join(map(str, summary.seeds))}.")
        if summary.contrasts is not None:
            said = [f"- {escaped(str(found.verdict))}." for found in summary.contrasts.average.values()]
            parts.append("\n".join(said))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_summary(study: Study, summaries: Sequence[PointSummary]) -> Path:
    path = study.folder / "summary.md"
    write_text(path, markdown(study, summaries))
    return path
