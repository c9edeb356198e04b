"""Which rungs of a ladder are worth training to the end.

As published (Liang et al. 2021) every rung of every task is. Successive halving (Jamieson and Talwalkar 2016,
https://arxiv.org/abs/1502.07943) trains all of them a part of the way, lets the best go on, and so on: a rung far from
the best shows early. A training that goes on is the very training that would have been done at once, bit for bit on a
CPU (learning rate and batches are those of the whole length), so nothing is paid twice and the numbers of the rungs
that finish are those of the full search. Deviation: rungs are compared by the mean of their scores at all looks so far,
because the selection split of a small task is small and a single look noisy.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from mtl_tickets.recipes.jobs import Look, Training
from mtl_tickets.recipes.measured import selection_scores
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.settings import Settings

Part = Annotated[float, pydantic.Field(gt=0, lt=1)]


class SearchSettings(Settings):
    """How the best rung is found."""

    kind: Literal["all", "halving"] = pydantic.Field(
        "all",
        description="all: every rung is trained to the end, as published; halving: the hopeless are stopped early",
    )
    looks: tuple[Part, ...] = pydantic.Field(
        (0.2, 0.3), min_length=1, description="halving: after these parts of the steps rungs are compared"
    )
    keep: tuple[pydantic.PositiveInt, ...] = pydantic.Field(
        (5, 2), min_length=1, description="halving: so many rungs of a task go on after each look"
    )

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        if len(self.looks) != len(self.keep):
            raise ValueError(f"looks and keep must be of one length; found {len(self.looks)} and {len(self.keep)}")
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks must rise; found {list(self.looks)}")
        if list(self.keep) != sorted(set(self.keep), reverse=True):
            raise ValueError(f"keep must fall; found {list(self.keep)}")
        return self

    def steps(self, rungs: int, steps: int) -> int:
        """Optimiser steps of a search over so many rungs of so many steps each."""
        if self.kind == "all":
            return rungs * steps
        total, left, done = 0, rungs, 0
        for part, keep in zip(self.looks, self.keep, strict=True):
            if left > keep:
                until = step_of(part, steps)
                total, left, done = total + left * (until - done), keep, until
        return total + left * (steps - done)


def step_of(part: float, steps: int) -> int:
    """The step of a look."""
    return min(steps, max(1, round(part * steps)))


def worth_finishing(
    bench: Workbench, settings: SearchSettings, rungs: Mapping[str, Mapping[str, Training]]
) -> list[Training]:
    """The trainings to do to the end, of those of every task by rung, in the order of the ladder.

    Rungs are compared by their mean score on the selection split over the looks so far; of equals the smaller ticket,
    further down the ladder, goes on.
    """
    left = {task: dict(of_task) for task, of_task in rungs.items()}
    seen: dict[str, list[float]] = {}
    if settings.kind == "halving":
        for number, (part, keep) in enumerate(zip(settings.looks, settings.keep, strict=True), 1):
            looks = {
                task: {
                    name: Look(
                        f"look-{number}/{task}/{name}",
                        training,
                        step_of(part, bench.steps(training.tasks, training.settings)),
                    )
                    for name, training in of_task.items()
                }
                for task, of_task in left.items()
                if len(of_task) > keep
            }
            scores = look_each(bench, [look for of_task in looks.values() for look in of_task.values()])
            for task, of_task in looks.items():
                means = {}
                for name, look in of_task.items():
                    so_far = seen.setdefault(look.training.stage, [])
                    so_far.append(scores[look.stage])
                    means[name] = statistics.fmean(so_far)
                places = {name: place for place, name in enumerate(of_task)}
                best = sorted(of_task, key=lambda name: (means[name], places[name]), reverse=True)
                for name in best[keep:]:
                    give_up(bench, of_task[name])
                left[task] = {name: left[task][name] for name in of_task if name in best[:keep]}
    return [training for of_task in left.values() for training in of_task.values()]


def look_each(bench: Workbench, looks: Sequence[Look]) -> dict[str, float]:
    """The selection score at every look, by stage; side by side where the run has workers."""
    for look in looks:
        bench.run.take(look.stage, bench.made_from.look(look))
    left = [look for look in looks if not bench.run.is_done(look.stage)]
    for look in looks:
        if look not in left:
            bench.count(look.training, look.until)
    bench.each(functools.partial(look_at, bench), left, len(looks))
    scores = {look.stage: look_at(bench, look) for look in looks}
    # workers have told of these steps, in memory that went with them
    bench.counted |= {look.training.stage: look.until for look in looks}
    return scores


def look_at(bench: Workbench, look: Look) -> float:
    """Trains a part of the way, keeps the checkpoint for who goes on, and scores the task on its selection split.

    ``training`` must be of one task.
    """
    training = look.training
    (task,) = training.tasks

    def look_stage(_: Path) -> dict[str, Any]:
        bench.progress.stage(look.stage)
        model, result = bench.trained(training, look.until)
        score = selection_scores(bench, model, [task])[task]
        name = f"{look.stage.partition('/')[0]}/{training.report_as}"
        row = bench.run.row(name, task, "selection", "score", score, len(bench.data[task].selection), look.until)
        return {"rows": [row], "score": score, "steps": result.steps}

    return float(bench.run.stage(look.stage, look_stage, bench.made_from.look(look))["score"])


def give_up(bench: Workbench, look: Look) -> None:
    """What was trained until here is not gone on with."""
    bench.run.drop_checkpoint(look.training.stage)
