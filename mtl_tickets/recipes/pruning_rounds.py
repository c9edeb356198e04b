"""Iterative magnitude pruning within a task's own training: rounds that train what is left and drop a tenth more.

As SRNets prunes (METHODS 3.6): each matrix its share, the first tenth before any training, every round as long as the
others. The weights train on through the rounds, or each round is rewound to the pretrained ones. The recipe ``imp``,
whose rounds are whole trainings from a task's own start, has rounds of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtl_tickets.recipes.base import percent
from mtl_tickets.recipes.jobs import PRETRAINED, Origin, Prune, TaskObjective, Training
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.scoring.magnitude import weight_magnitudes
from mtl_tickets.tickets.budget import Budget, exact
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.loop import TrainSettings

# of all weights, dropped by a round; the first tenth goes before any training
STEP = 0.1


@dataclass(frozen=True)
class Rounds:
    """Rounds of every task of ``settings``, of which each is a training at the next of ``sizes``, a tenth apart.

    ``objectives``: None for a task's own loss. ``goes_on_from``: task -> the stage whose weights and head the first
    round begins with, and every later one with those of the round before; empty: every round begins with the
    pretrained weights and a fresh head. Published defects: ``aliased``: rewinding rewinds nothing; ``one_horizon``: the
    learning rate falls over all rounds.
    """

    name: str
    space: WeightSpace
    sizes: tuple[float, ...]
    settings: Mapping[str, TrainSettings]
    objectives: Mapping[str, TaskObjective | None]
    goes_on_from: Mapping[str, str] = field(default_factory=dict)
    aliased: bool = False
    one_horizon: bool = False

    @property
    def rewinds(self) -> bool:
        return not self.goes_on_from


def prune_in_rounds(bench: Workbench, rounds: Rounds) -> dict[str, Ticket]:
    """``name/percent/task`` -> ticket. Rows of weights that train on go under ``name/percent``; what is rewound is not
    finished before it is trained with a loss of its own, and its rounds' rows go under ``round/name/percent``. The
    rounds of all tasks go side by side."""
    tickets = {task: _first_tenth(bench, rounds, task) for task in rounds.settings}
    found: dict[str, Ticket] = {}
    for number, sparsity in enumerate(rounds.sizes, 1):
        trainings = {task: _round(rounds, number, task, ticket) for task, ticket in tickets.items()}
        bench.fine_tune_each(list(trainings.values()))
        for task, training in trainings.items():
            found[f"{rounds.name}/{percent(sparsity)}/{task}"] = tickets[task]
            if training.prune is not None:
                tickets[task] = bench.pruned_after(training.stage, rounds.space)
                found[f"{rounds.name}/{percent(_after(sparsity))}/{task}"] = tickets[task]
    return found


def _round(rounds: Rounds, number: int, task: str, ticket: Ticket) -> Training:
    sparsity = rounds.sizes[number - 1]
    before = f"{rounds.name}/{number - 1}/{task}" if number > 1 else rounds.goes_on_from.get(task, "")
    goes_on = bool(before) and (not rounds.rewinds or rounds.aliased)
    size = f"{rounds.name}/{percent(sparsity)}"
    last = not rounds.rewinds and number == len(rounds.sizes)
    return Training(
        f"{rounds.name}/{number}/{task}",
        f"round/{size}" if rounds.rewinds else size,
        (task,),
        rounds.settings[task],
        base=ticket,
        origin=Origin("stage", stage=before) if goes_on else PRETRAINED,
        heads_from=before if goes_on else "",
        prune=None if last else Prune(rounds.space, _dropped(rounds.space, _after(sparsity)), "per_matrix"),
        horizon=len(rounds.sizes) if rounds.one_horizon else 1,
        objective=rounds.objectives[task],
        keep_weights=True,
    )


def _first_tenth(bench: Workbench, rounds: Rounds, task: str) -> Ticket:
    encoder = bench.start((task,)).rewound().encoder
    if not rounds.rewinds:
        Origin("stage", stage=rounds.goes_on_from[task]).put_into(encoder, bench.run.path / "stages")
    budget = {"weights": _dropped(rounds.space, STEP)}
    return draw(weight_magnitudes(encoder, rounds.space), budget, allocation="per_matrix")


def _after(sparsity: float) -> float:
    return float(exact(sparsity) + exact(STEP))


def _dropped(space: WeightSpace, sparsity: float) -> int:
    return Budget.fractions(space, {"weights": sparsity})["weights"]
