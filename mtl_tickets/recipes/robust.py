"""Sparse and robust sub-networks: which losses and which masks make a task's network good on a challenge set, too.

Liu et al., "A Win-win Deal: Towards Sparse and Robust Pre-trained Language Models", NeurIPS 2022, arXiv 2210.05211
(SRNets; METHODS 3). Three scenarios, each with the task's own loss or one with a model of the task's bias beside it:

* ``after``: fine-tune everything with one loss, then find a sub-network with another: by mask training, the weights
  frozen, or by iterative pruning, in which they train on;
* ``isolated``: find a sub-network, rewind it to the pretrained weights, and fine-tune it;
* ``untrained``: train a mask on pretrained weights and a random head, of which nothing is ever trained.

``rising`` goes from a low sparsity to a high one within one mask training; ``starts`` trains masks from unfinished
fine-tunings. Challenge sets are tasks of the experiment that are answered by another task's head.

Deviations: the last state is evaluated, as everywhere in this package, not the best on dev; a round of iterative
pruning is a training of whole epochs with a learning rate of its own, and no rounds follow the largest sparsity asked
for (published: ten rounds in the epochs of one training). Added rows of a challenge set have the first label of the
other task that leads to theirs, unless ``added.<task>.labels`` says which (published: contradiction for HANS's
non-entailment). Published defects (METHODS 3.8) are off and have switches in ``compat``. The untrained head is kept
with its mask, so that it reloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from mtl_tickets.recipes.base import FULL, RECIPES, percent
from mtl_tickets.recipes.debiased import ask_teacher, bias_of, debiased
from mtl_tickets.recipes.jobs import Origin, TaskObjective, Training
from mtl_tickets.recipes.measured import yardsticks
from mtl_tickets.recipes.overrides import TrainOverride
from mtl_tickets.recipes.pruning_rounds import STEP, Rounds, prune_in_rounds
from mtl_tickets.recipes.robust_settings import CODES, After, Loss, RobustSettings
from mtl_tickets.recipes.task_masks import TaskMasks, head_matrix, of_encoder, train_task_masks_each
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.tickets.budget import exact
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.loop import TrainSettings


@RECIPES.register("robust")
class Robust(RobustSettings):
    """SRNets (Liu et al. 2022): sub-networks that are good in and out of distribution."""

    kind: Literal["robust"] = "robust"

    # -- the algorithm ------------------------------------------------------------------------------------------------

    def run(self, bench: Workbench) -> None:
        if self.all_losses != {"standard"}:  # a bias model that is not for its task is refused before any training
            for task in bench.learned:
                bias_of(bench, task, self.bias[task])
        yardsticks(bench, self.yardsticks)
        bench.reached("yardsticks")

        self._fine_tune_full(bench, ("standard",))
        if "confidence" in self.all_losses:
            for task in bench.learned:
                ask_teacher(bench, task, _full("standard", task))
        self._fine_tune_full(bench, self.losses[1:])
        bench.reached(FULL)

        found = train_task_masks_each(bench, [*self._masks_after(bench)])
        pruned = self._prune_each(bench)
        bench.reached("after")

        bench.fine_tune_each([*self._isolated(bench, found | pruned)])
        bench.reached("isolated")

        train_task_masks_each(bench, [*self._untrained(bench)])
        bench.reached("untrained")

        train_task_masks_each(bench, [*self._rising(bench)])
        bench.reached("rising")

        self._from_starts(bench)
        bench.reached("starts")

    # -- its steps ----------------------------------------------------------------------------------------------------

    def _fine_tune_full(self, bench: Workbench, losses: Iterable[Loss]) -> None:
        bench.fine_tune_each(
            [
                Training(
                    _full(loss, task),
                    _full_name(loss),
                    (task,),
                    self._settings(task),
                    objective=self._objective(bench, task, loss, self._settings(task)),
                    keep_weights=True,
                    keep_model=self._model(bench, _full_name(loss), task),
                )
                for loss in losses
                for task in bench.learned
            ]
        )

    def _objective(self, bench: Workbench, task: str, loss: Loss, settings: TrainSettings) -> TaskObjective | None:
        return None if loss == "standard" else debiased(bench, task, loss, settings, self.bias[task], self.anneal)

    def _masks(self, bench: Workbench, stage: str, name: str, task: str, loss: Loss, **changes: Any) -> TaskMasks:
        sparsity = changes.pop("sparsity")
        settings = self.masks.on(self._settings(task))
        return TaskMasks(
            stage,
            name,
            task,
            settings,
            self._space(bench, task, classifier=self.classifier),
            sparsity,
            self.masks.reset_every,
            objective=self._objective(bench, task, loss, settings),
            keep_model=self._model(bench, name, task),
            **changes,
        )

    def _model(self, bench: Workbench, name: str, task: str) -> Path | None:
        return bench.model_folder(f"{name.replace('/', '-')}-{task}") if self.keep_models else None

    def _masks_after(self, bench: Workbench) -> Iterable[TaskMasks]:
        wanted = [item for item in self.after if item.method == "masks"]
        if any(item.ticket == "masks" for item in self.isolated) and FOR_ISOLATED not in wanted:
            wanted.append(FOR_ISOLATED)
        for item in wanted:
            for sparsity in self.sparsities:
                for task in bench.learned:
                    name, full = f"{item.name}/{percent(sparsity)}", _full(item.full, task)
                    yield self._masks(
                        bench, f"{name}/{task}", name, task, item.loss,
                        sparsity=sparsity, origin=Origin("stage", stage=full), heads_from=full,
                    )  # fmt: skip

    def _untrained(self, bench: Workbench) -> Iterable[TaskMasks]:
        for loss in self.untrained:
            for sparsity in self.sparsities:
                for task in bench.learned:
                    name = f"untrained-{CODES[loss]}/{percent(sparsity)}"
                    yield self._masks(bench, f"{name}/{task}", name, task, loss, sparsity=sparsity)

    def _rising(self, bench: Workbench) -> Iterable[TaskMasks]:
        for item in self.rising:
            for task in bench.learned:
                name, full = f"{item.name}/{percent(item.last)}", _full(item.full, task)
                yield self._masks(
                    bench, f"{name}/{task}", name, task, item.loss,
                    sparsity=item.last, rises_from=item.first if item.first < item.last else None,
                    origin=Origin("stage", stage=full), heads_from=full, stays_first=self.compat.stays_first,
                )  # fmt: skip

    def _from_starts(self, bench: Workbench) -> None:
        partly = []
        for start in self.starts:
            for task in bench.learned:
                steps = max(1, round(start * bench.steps([task], self._settings(task))))
                stage = f"full-at/{percent(start)}/{task}"
                partly.append(
                    Training(stage, f"full-at-{percent(start)}", (task,), self._settings(task), until=steps,
                             keep_weights=True)
                )  # fmt: skip
        bench.fine_tune_each(partly)
        trainings = []
        for start in self.starts:
            for sparsity in self.sparsities:
                for task in bench.learned:
                    before = f"full-at/{percent(start)}/{task}"
                    name = f"start{percent(start)}-poe/{percent(sparsity)}"
                    trainings.append(
                        self._masks(
                            bench, f"{name}/{task}", name, task, "product_of_experts",
                            sparsity=sparsity, origin=Origin("stage", stage=before), heads_from=before,
                        )
                    )  # fmt: skip
        train_task_masks_each(bench, trainings)

    # -- iterative pruning --------------------------------------------------------------------------------------------

    def _prune_each(self, bench: Workbench) -> dict[str, Ticket]:
        """``name/percent/task`` -> ticket, of every iterative pruning."""
        found: dict[str, Ticket] = {}
        for item in self.after:
            if item.method == "imp":
                found |= self._prune(bench, item.name, item.full, item.loss)
        if any(item.ticket == "imp" for item in self.isolated):
            found |= self._prune(bench, REWOUND, None, "product_of_experts")
        return found

    def _prune(self, bench: Workbench, name: str, full: Loss | None, loss: Loss) -> dict[str, Ticket]:
        """From the fine-tuned model, whose weights train on, the last ticket, too; or, with ``full`` None, rewound to
        the pretrained weights in every round."""
        round_settings = {
            task: self._settings(task).model_copy(update={"epochs": self.masks.epochs_per_round})
            for task in bench.learned
        }
        return prune_in_rounds(
            bench,
            Rounds(
                name,
                self._space(bench, bench.learned[0]),
                self._sizes(full is None),
                round_settings,
                {task: self._objective(bench, task, loss, settings) for task, settings in round_settings.items()},
                {} if full is None else {task: _full(full, task) for task in bench.learned},
                aliased=self.compat.alias_rewind,
                one_horizon=self.compat.full_horizon,
            ),
        )

    def _sizes(self, rewinds: bool) -> tuple[float, ...]:
        """The sparsities that rounds are trained at; a rewound ticket of the last one is left to who asks for it."""
        reached = round(self.sparsities[-1] / STEP)
        return tuple(float(exact(STEP) * number) for number in range(1, reached + (0 if rewinds else 1)))

    # -- in isolation -------------------------------------------------------------------------------------------------

    def _isolated(self, bench: Workbench, found: Mapping[str, Ticket]) -> Iterable[Training]:
        for item in self.isolated:
            source = FOR_ISOLATED.name if item.ticket == "masks" else REWOUND
            for sparsity in self.sparsities:
                for task in bench.learned:
                    name = f"{item.name}/{percent(sparsity)}"
                    yield Training(
                        f"{name}/{task}",
                        name,
                        (task,),
                        self._settings(task),
                        base=of_encoder(found[f"{source}/{percent(sparsity)}/{task}"]),
                        objective=self._objective(bench, task, item.loss, self._settings(task)),
                        keep_weights=True,
                        keep_model=self._model(bench, name, task),
                    )

    # -- sizes --------------------------------------------------------------------------------------------------------

    def _space(self, bench: Workbench, task: str, classifier: bool = False) -> WeightSpace:
        space = self.prunable.space(bench)
        if not classifier:
            return space
        name = head_matrix(task)
        return WeightSpace({**space.matrices, name: tuple(bench.start((task,)).model.get_parameter(name).shape)})

    def _settings(self, task: str) -> TrainSettings:
        return self.per_task.get(task, TrainOverride()).on(self.train)

    def steps(self, bench: Workbench) -> int:
        total = 0
        sizes = len(self.sparsities)
        masked = sum(item.method == "masks" for item in self.after) + len(self.untrained) + len(self.starts)
        if any(item.ticket == "masks" for item in self.isolated) and FOR_ISOLATED not in self.after:
            masked += 1
        pruned = sum(item.method == "imp" for item in self.after) * len(self._sizes(rewinds=False))
        if any(item.ticket == "imp" for item in self.isolated):
            pruned += len(self._sizes(rewinds=True))
        for task in bench.learned:
            whole = bench.steps([task], self._settings(task))
            of_mask = bench.steps([task], self.masks.on(self._settings(task)))
            a_round = self._settings(task).model_copy(update={"epochs": self.masks.epochs_per_round})
            total += whole * (len(self.losses) + sizes * len(self.isolated))
            total += of_mask * (sizes * masked + len(self.rising)) + bench.steps([task], a_round) * pruned
            total += sum(max(1, round(start * whole)) for start in self.starts)
        return total


# the tickets that sub-networks in isolation have (METHODS 3.2)
FOR_ISOLATED = After(method="masks", full="standard", loss="product_of_experts")
REWOUND = "rewound-poe"


def _full(loss: Loss, task: str) -> str:
    """The stage of the full model that is fine-tuned with a loss."""
    return f"{_full_name(loss)}/{task}"


def _full_name(loss: Loss) -> str:
    return FULL if loss == "standard" else f"{FULL}-{CODES[loss]}"
