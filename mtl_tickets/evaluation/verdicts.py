"""What tests say, in plain words: better, worse, or not shown, and then what could have been.

The words keep apart what tests keep apart. "Not shown" is no claim of equality: the sentence says which differences
such a comparison misses. "Same scores" is a fact about the runs and no test result. One seed is never tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.evaluation.row_tests import Resampled, RowBootstrap
from mtl_tickets.evaluation.statistics import (
    Interval,
    Scores,
    SeedTest,
    differences,
    holm,
    minimum_detectable,
    paired_test,
    require_share,
)

Outcome = Literal["better", "worse", "not shown", "same scores", "one seed"]
Member = TypeVar("Member", str, tuple[str, str])


@dataclass(frozen=True)
class Verdict:
    """``outcome`` is about the method that ``sentence`` names first."""

    outcome: Outcome
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Contrast:
    """Method ``a`` against method ``b`` over seeds, in points (scores of 0 to 100).

    ``where``: what the scores are of ("on cola"); may be empty. ``test`` is None with one seed. ``p`` is the paired t
    test's, Holm-corrected for the ``family`` of comparisons it is one of; None without a test. The interval of the
    test has level 1 - alpha for this comparison alone, whatever the family.
    """

    a: str
    b: str
    where: str
    mean_a: float
    mean_b: float
    seeds: int
    test: SeedTest | None
    p: float | None
    family: int
    alpha: float
    power: float

    @property
    def difference(self) -> float:
        """Mean of a - b."""
        return self.test.difference if self.test else self.mean_a - self.mean_b

    @property
    def detectable(self) -> float | None:
        """The smallest true difference found with probability ``power`` at alpha / family, which is what the smallest
        p of a family is held against; None without a test, or without spread to judge by."""
        if self.test is None or self.test.sd == 0:
            return None
        return minimum_detectable(self.seeds, self.test.sd, self.alpha / self.family, self.power)

    @property
    def verdict(self) -> Verdict:
        if self.test is None or self.p is None:
            text = _Words(self.a, self.b, self.where, self.difference).standing
            return Verdict("one seed", f"{text} with one seed: a test over seeds is impossible, so nothing is shown")
        if self.test.identical:
            text = f"{self.a} and {self.b} have the same score{_after(self.where)} with each of {self.seeds} seeds"
            return Verdict("same scores", f"{text}: there is no difference to test")
        least = self.detectable if self.p > self.alpha else None
        words = _Words(self.a, self.b, self.where, self.difference, self.test.interval, least)
        units, missed = f"{self.seeds} seeds", ""
        if self.test.interval is None:  # no spread
            units += ", the same difference with each"
            missed = f"; {self.seeds} seeds without spread give no p below {_p(self.test.p)}"
        elif least is not None:
            reliably = f"reliably ({100 * self.power:g} % of the time)"
            missed = f"; {self.seeds} seeds find true differences {reliably} only from {words.points(least)} up"
        return words.verdict(self.test.p, self.p, self.family, self.alpha, units, missed)


@dataclass(frozen=True)
class Contrasts:
    """Every method against ``baseline``: ``average`` by method, ``tasks`` by task and method."""

    baseline: str
    average: Mapping[str, Contrast]
    tasks: Mapping[str, Mapping[str, Contrast]]


def compare(
    a: str, scores_a: Scores, b: str, scores_b: Scores, *, where: str = "", alpha: float = 0.05, power: float = 0.8
) -> Contrast:
    """One comparison that is in no family. Raises :class:`InputError` for seeds that are not the same, none, or scores
    that are not finite."""
    require_share("alpha", alpha)
    require_share("power", power)
    seeds = len(differences(scores_a, scores_b))
    test = paired_test(scores_a, scores_b, 1 - alpha) if seeds > 1 else None
    mean_a, mean_b = (float(np.mean(list(scores.values()))) for scores in (scores_a, scores_b))
    return Contrast(a, b, where, mean_a, mean_b, seeds, test, test.p if test else None, 1, alpha, power)


def compare_all(
    scores: Mapping[str, Mapping[str, Scores]], baseline: str, *, alpha: float = 0.05, power: float = 0.8
) -> Contrasts:
    """task -> method -> seed -> score: each method against the baseline, on the average and on each task.

    The primary family is all methods on the unweighted average over tasks, one number a seed: what a study is decided
    by. The secondary family is all tasks x methods: where a difference comes from. Each is Holm-corrected by itself,
    so that the chance of any false "better" or "worse" is at most alpha in the one, and at most alpha in the other.

    Raises :class:`InputError` naming every task and method that does not fit the first task's methods and seeds.
    """
    _require_rectangle(scores, baseline)
    methods = [method for method in next(iter(scores.values())) if method != baseline]
    seeds = next(iter(scores.values()))[baseline]
    average = {
        method: {seed: float(np.mean([by_method[method][seed] for by_method in scores.values()])) for seed in seeds}
        for method in (*methods, baseline)
    }

    def against(by_method: Mapping[str, Scores], method: str, where: str) -> Contrast:
        return compare(method, by_method[method], baseline, by_method[baseline], where=where, alpha=alpha, power=power)

    where = f"on the average of {len(scores)} tasks" if len(scores) > 1 else f"on {next(iter(scores))}"
    primary = _corrected({method: against(average, method, where) for method in methods})
    secondary = _corrected(
        {(task, method): against(scores[task], method, f"on {task}") for task in scores for method in methods}
    )
    return Contrasts(baseline, primary, {task: {m: secondary[task, m] for m in methods} for task in scores})


def verdict_on_rows(
    a: str, b: str, result: RowBootstrap, *, where: str = "", p: float | None = None, family: int = 1
) -> Verdict:
    """The verdict for other rows like these, answered by the same trained models. The metric is a share of 1, told in
    points. ``p``: the result's, Holm-corrected over a ``family``, where it is in one.

    "Same scores" where the difference is 0 in every resample.
    """
    if result.difference == 0 and result.sd == 0:
        text = f"{a} and {b} have the same score{_after(where)} however the {result.rows:,} rows are resampled"
        return Verdict("same scores", text)
    interval = Interval(100 * result.interval.low, 100 * result.interval.high, result.interval.level)
    words = _Words(a, b, where, 100 * result.difference, interval)
    units = f"{result.rows:,} rows, " + (f"mean of {result.seeds} seeds" if result.seeds > 1 else "one seed")
    return words.verdict(result.p, result.p if p is None else p, family, 1 - interval.level, units, "")


@dataclass(frozen=True)
class RowContrast:
    """Method ``a`` against method ``b`` over rows. ``p`` is Holm-corrected for the ``family`` of comparisons it is one
    of; the interval of ``result`` is of this comparison alone."""

    a: str
    b: str
    result: RowBootstrap
    p: float
    family: int
    verdict: Verdict


@dataclass(frozen=True)
class RowContrasts:
    """Every method against ``baseline`` over rows: ``average`` by method, ``tasks`` by task and method."""

    baseline: str
    average: Mapping[str, RowContrast]
    tasks: Mapping[str, Mapping[str, RowContrast]]


def compare_all_on_rows(found: Resampled, baseline: str, methods: Sequence[str]) -> RowContrasts:
    """As :func:`compare_all` with rows for seeds: the same two families, each Holm-corrected by itself.

    Raises :class:`InputError` for a baseline or a method that is not among those resampled.
    """
    if unknown := [name for name in (baseline, *methods) if name not in found.methods]:
        raise InputError([Problem(f"must be one of {list(found.methods)}", found=name) for name in unknown])
    many = len(found.tasks)
    where = f"on the average of {many} tasks" if many > 1 else f"on {next(iter(found.tasks))}"
    primary = {method: (method, where, found.on_average(method, baseline)) for method in methods}
    secondary = {
        (task, method): (method, f"on {task}", found.on_task(task, method, baseline))
        for task in found.tasks
        for method in methods
    }
    on_tasks = _corrected_on_rows(secondary, baseline)
    by_task = {task: {method: on_tasks[task, method] for method in methods} for task in found.tasks}
    return RowContrasts(baseline, _corrected_on_rows(primary, baseline), by_task)


def _corrected_on_rows(
    family: Mapping[Member, tuple[str, str, RowBootstrap]], baseline: str
) -> dict[Member, RowContrast]:
    """Of method, where, and result."""
    adjusted = holm({member: result.p for member, (_, _, result) in family.items()})
    contrasts = {}
    for member, (method, where, result) in family.items():
        p, size = adjusted[member], len(family)
        verdict = verdict_on_rows(method, baseline, result, where=where, p=p, family=size)
        contrasts[member] = RowContrast(method, baseline, result, p, size, verdict)
    return contrasts


def _require_rectangle(scores: Mapping[str, Mapping[str, Scores]], baseline: str) -> None:
    if not scores:
        raise InputError(Problem("a comparison needs the scores of at least one task"))
    task, first = next(iter(scores.items()))
    if baseline not in first or len(first) < 2:
        raise InputError(
            Problem(f"a comparison needs the baseline {baseline!r} and another method", place=task, found=sorted(first))
        )
    methods, seeds = set(first), set(first[baseline])
    wrong = [
        Problem(f"must have the methods of {task}: {sorted(methods)}", place=other, found=sorted(by_method))
        for other, by_method in scores.items()
        if set(by_method) != methods
    ]
    wrong += [
        Problem(f"must have the seeds of {task}: {sorted(seeds)}", place=f"{other}: {method}", found=sorted(by_seed))
        for other, by_method in scores.items()
        for method, by_seed in by_method.items()
        if set(by_seed) != seeds
    ]
    if wrong:
        raise InputError(wrong)


def _corrected(family: Mapping[Member, Contrast]) -> dict[Member, Contrast]:
    adjusted = holm({member: contrast.p for member, contrast in family.items() if contrast.p is not None})
    return {
        member: replace(contrast, p=adjusted.get(member), family=len(family)) for member, contrast in family.items()
    }


# -- words -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """A difference between two methods in words, all its numbers to the same decimals."""

    a: str
    b: str
    where: str
    difference: float
    interval: Interval | None = None
    detectable: float | None = None

    @property
    def decimals(self) -> int:
        """The fewest, from one to four, at which no number but 0 reads as 0, nor two ends of an interval as one."""
        low, high = (self.interval.low, self.interval.high) if self.interval else (0.0, 0.0)
        numbers = [number for number in (self.difference, self.detectable, low, high) if number]

        def suffices(count: int) -> bool:
            told_apart = low == high or round(low, count) != round(high, count)
            return told_apart and all(round(number, count) for number in numbers)

        return next((count for count in (1, 2, 3) if suffices(count)), 4)

    @property
    def standing(self) -> str:
        """What the means are, without a claim."""
        if self.difference == 0:
            return f"{self.a} and {self.b} have the same mean{_after(self.where)}"
        side = "above" if self.difference > 0 else "below"
        return f"{self.a} scores {self.points(abs(self.difference))} {side} {self.b}{_after(self.where)}"

    def points(self, value: float) -> str:
        return f"{self._number(value)} points"

    def verdict(self, p: float, corrected: float, family: int, alpha: float, units: str, missed: str) -> Verdict:
        """``p`` before and after correction; ``units``: what was tested over; ``missed``: what is added where nothing
        is shown."""
        shown = corrected <= alpha + 1e-12
        outcome: Outcome = "not shown" if not shown else "better" if self.difference > 0 else "worse"
        found = f"{'Holm-corrected ' if family > 1 else ''}p {_p(corrected, True)}"
        evidence = ", ".join(text for text in (self._interval(mirrored=outcome == "worse"), found, units) if text)
        if shown:
            claim = f"{self.a} is {outcome} than {self.b} by {self.points(abs(self.difference))}{_after(self.where)}"
            return Verdict(outcome, f"{claim} ({evidence})")
        if p <= alpha:  # the interval leaves out 0, which would puzzle
            missed = f"; it would be shown but for the {family - 1} other comparisons of the family{missed}"
        return Verdict("not shown", f"not shown: {self.standing} ({evidence}){missed}")

    def _interval(self, mirrored: bool) -> str:
        """Mirrored, it is of how much worse."""
        if self.interval is None:
            return ""
        ends = (-self.interval.high, -self.interval.low) if mirrored else (self.interval.low, self.interval.high)
        return f"{100 * self.interval.level:g} % interval {self._number(ends[0])} to {self._number(ends[1])}"

    def _number(self, value: float) -> str:
        return f"{round(value, self.decimals) + 0.0:.{self.decimals}f}"  # never -0.0


def _after(where: str) -> str:
    return f" {where}" if where else ""


def _p(value: float, sign: bool = False) -> str:
    if value < 0.001:
        return "< 0.001"
    return f"{'= ' if sign else ''}{value:.3g}"
