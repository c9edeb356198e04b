"""Methods against a baseline, over seeds, from numbers that a table shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_tickets.evaluation.verdicts import Contrast, compare_all
from mtl_tickets.report.data import Difference, Judgement, Method
from mtl_tickets.report.tables import AVERAGE, REMAINING, Cell, Comparison


def judgements(
    scores: Comparison, methods: Sequence[Method], baselines: Sequence[str], compared: Sequence[str]
) -> tuple[Judgement, ...]:
    """The methods that are ``compared`` against each of ``baselines`` (both by stage). ``methods``: the columns of the
    table. What :func:`judged` can say nothing of is left out."""
    tasks = {task: cells for task, cells in scores.lines.items() if task not in (AVERAGE, REMAINING)}
    found = (judged(tasks, scores.seeds, methods, stage, compared) for stage in baselines)
    return tuple(judgement for judgement in found if judgement is not None)


def judged(
    lines: Mapping[str, Sequence[Cell]],
    seeds: Sequence[int],
    methods: Sequence[Method],
    baseline: str,
    compared: Sequence[str],
) -> Judgement | None:
    """``lines``: name -> a cell for each of ``methods``. None where the baseline is not there, or has nothing to stand
    against; a method that lacks a number is left out."""
    complete = [
        (place, method)
        for place, method in enumerate(methods)
        if not method.stage.startswith("yardstick/")  # a rule may be called as one
        and all(cells[place].values for cells in lines.values())
    ]
    stages = [method.stage for _, method in complete]
    against = [stage for stage in stages if stage in compared and stage != baseline]
    if baseline not in stages or not against:
        return None
    names = {method.stage: method.name for _, method in complete}
    places = {method.stage: place for place, method in complete}
    values = {
        line: {
            names[stage]: dict(zip(seeds, cells[places[stage]].values, strict=True)) for stage in (*against, baseline)
        }
        for line, cells in lines.items()
    }
    contrasts = compare_all(values, names[baseline])
    return Judgement(
        names[baseline],
        tuple(_difference(contrast) for contrast in contrasts.average.values()),
        {line: tuple(map(_difference, by.values())) for line, by in contrasts.tasks.items()},
    )


def _difference(contrast: Contrast) -> Difference:
    verdict, test = contrast.verdict, contrast.test
    interval = test.interval if test else None
    return Difference(
        contrast.a,
        verdict.outcome,
        verdict.sentence,
        contrast.difference,
        test.sd if test else None,
        interval.low if interval else None,
        interval.high if interval else None,
        contrast.p,
    )
