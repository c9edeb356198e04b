"""Super Tickets: finding every task's ticket, sharing them, training one multi-task encoder.

Liang et al., "Super Tickets in Pre-Trained Language Models: From Model Compression to Improving Generalization",
ACL 2021, arXiv 2105.12002. Deviations, all of them off with ``compat: reference``: rungs are chosen on held-out
training rows and not on the reported dev set; random tickets have exactly the winning ticket's size and leave a head
in every layer; gate gradients are zeroed between batches; batches are drawn anew each epoch.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.recipes.base import RECIPES, RecipeSettings
from mtl_tickets.recipes.choice import WHOLE, ChoiceSettings, best_rungs
from mtl_tickets.recipes.compat import CompatSettings
from mtl_tickets.recipes.evidence import compare_gradients, learn_tickets, score_each, tall_scores
from mtl_tickets.recipes.jobs import Learning, Scoring, Training
from mtl_tickets.recipes.overrides import MultiOverride, TrainOverride, sizes_without_effect
from mtl_tickets.recipes.search import SearchSettings, worth_finishing
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.scoring import ScoreSettings
from mtl_tickets.settings import InvalidSetting, one_of
from mtl_tickets.tasks.data import SelectionSettings
from mtl_tickets.tasks.samplers import Quota
from mtl_tickets.tickets.draw import Budget, LadderSettings, draw, ladder_budgets, reference_random_ticket
from mtl_tickets.tickets.overlap import overlap
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.adaptive import Adaptive
from mtl_tickets.tickets.sharing.operator import Poll
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.learned_gates import first_numbers
from mtl_tickets.training.loop import TrainSettings

if TYPE_CHECKING:
    AnyRule = Any  # mypy cannot follow a union made from a registry
else:
    AnyRule = one_of(RULES)


@RECIPES.register("super_tickets")
class SuperTickets(RecipeSettings):
    """Super Tickets (Liang et al. 2021): fine-tune, score, ladder, choose, share, train together."""

    kind: Literal["super_tickets"] = "super_tickets"
    train: TrainSettings = TrainSettings()
    per_task: dict[str, TrainOverride] = pydantic.Field({}, description="epochs, lr, batch_size of single tasks")
    multi: MultiOverride = MultiOverride()
    score: ScoreSettings = ScoreSettings()
    ladder: LadderSettings = LadderSettings()
    search: SearchSettings = SearchSettings()
    controls: tuple[Literal["random", "losing"], ...] = ()
    selection: SelectionSettings = SelectionSettings()
    choice: ChoiceSettings = ChoiceSettings()
    sharing: tuple[AnyRule, ...] = ("own", "adaptive")
    yardsticks: tuple[Literal["majority", "bag_of_words"], ...] = ("majority", "bag_of_words")
    gradients: int | None = pydantic.Field(
        256,
        ge=2,
        description="training rows of each task on which the tasks' gradients are compared at the dense multi-task "
        "model, for the report; None: not at all",
    )
    compat: CompatSettings = CompatSettings()

    @pydantic.field_validator("compat", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return dict.fromkeys(CompatSettings.model_fields, True) if value == "reference" else value

    @pydantic.field_validator("sharing")
    @classmethod
    def _each_once(cls, rules: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [rule.name for rule in rules]
        if len(set(names)) != len(names):
            raise ValueError("a sharing rule may stand only once")
        return rules

    @pydantic.model_validator(mode="after")
    def _batch_sizes_count(self) -> Self:
        tokens = self.train.batches.tokens
        if tokens is None or self.compat.fixed_batches:  # fixed batches are slices of a size, whatever tokens says
            return self
        overrides = {f"per_task.{task}": override for task, override in self.per_task.items()} | {"multi": self.multi}
        problems = sizes_without_effect(overrides, tokens)
        if problems:
            raise InvalidSetting(problems)
        return self

    @pydantic.model_validator(mode="after")
    def _all_rungs_are_there_to_borrow(self) -> Self:
        if self.choice.borrow and self.search.kind == "halving":
            rule = (
                "halving leaves a rung to the tasks it went well for, and what the others would have found is not "
                "known: with search.kind: halving it must be 0"
            )
            raise InvalidSetting([Problem(rule, place="choice.borrow", found=self.choice.borrow)])
        return self

    @pydantic.model_validator(mode="after")
    def _fixed_batches_come_once(self) -> Self:
        if self.multi.as_single and self.compat.fixed_batches:
            rule = (
                "fixed batches give every row once an epoch: leave out one of multi.as_single and compat.fixed_batches"
            )
            raise InvalidSetting([Problem(rule, place="multi.as_single", found=True)])
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        last = () if self.gradients is None else ("gradients",)
        return ("yardsticks", "single", "scores", "ladder", "choose", "share", "multi", *last)

    def columns(self) -> dict[str, str]:
        headings = {
            f"yardstick/{name}": name.replace("_", " ") + (" (yardstick)" if name in self.rules else "")
            for name in self.yardsticks
        }
        headings |= {"single": "single-task", "multi/dense": "dense multi-task"}
        names = {"own": "own tickets"}
        return headings | {f"multi/{name}": names.get(name, str(rule)) for name, rule in self.rules.items()}

    @property
    def rules(self) -> dict[str, Any]:
        """The sharing rules by the names of their stages and folders: the kind, where it stands only once."""
        kinds = [rule.kind for rule in self.sharing]
        return {rule.name if kinds.count(rule.kind) > 1 else rule.kind: rule for rule in self.sharing}

    # -- the algorithm ------------------------------------------------------------------------------------------------

    def run(self, bench: Workbench) -> None:
        self._try_sharing(bench)
        bench.yardsticks(self.yardsticks)
        bench.reached("yardsticks")

        bench.fine_tune_each(  # 1. fine-tune the whole encoder on every task
            [
                Training(f"single/{task}", "single", (task,), self._single(task), keep_weights=True)
                for task in bench.learned
            ]
        )
        bench.reached("single")

        scores = score_each(  # 2. how much each head and feed-forward block matters to the task
            bench, [Scoring(f"scores/{task}", task, f"single/{task}", self._score()) for task in bench.learned]
        )
        bench.reached("scores")

        # 3. draw a ladder of tickets for every task; rewind to the pretrained weights and train each rung
        rungs = {task: self._rungs(bench, task, scores[task]) for task in bench.learned}
        trainings = {
            task: {
                name: Training(f"ladder/{task}/{name}", f"ladder/{name}", (task,), self._single(task), {task: ticket})
                for name, ticket in of_task.items()
            }
            for task, of_task in rungs.items()
        }
        winning = {task: _winning(of_task) for task, of_task in trainings.items()}
        controls = [t for task, of_task in trainings.items() for n, t in of_task.items() if n not in winning[task]]
        bench.fine_tune_each([*worth_finishing(bench, self.search, winning), *controls])
        bench.reached("ladder")

        own = self._choose(bench, rungs)  # 4. the best rung
        bench.reached("choose")

        sharing = {"dense": RULES.get("dense")()} | self.rules
        shared = {  # 5. decide how the tasks' tickets are shared
            name: self._share(bench, name, rule, own, scores) for name, rule in sharing.items()
        }
        bench.reached("share")

        self._train_together(bench, shared)  # 6. train one encoder for all tasks, and the dense baseline beside it
        bench.reached("multi")

        if self.gradients is not None:  # 7. for the report: do the tasks pull the shared weights the same way?
            compare_gradients(bench, bench.model_folder("dense"), self.gradients)
        bench.reached("gradients")

    # -- its steps ----------------------------------------------------------------------------------------------------

    def _try_sharing(self, bench: Workbench) -> None:
        """A rule that does not fit the tasks says so now, and not when every ladder is trained."""
        tickets = {task: Ticket.dense(bench.space) for task in bench.learned}
        scores = {task: Scores.random(bench.space, 0) for task in bench.learned}
        for rule in self.sharing:
            rule(tickets, scores, bench.rows())

    def _rungs(self, bench: Workbench, task: str, scores: Scores) -> dict[str, Ticket]:
        """Winning tickets of every rung, and the controls of equal size."""
        seed = derived_seed(bench.seed, "random ticket", task)
        rankings = {"winning": scores}
        if "random" in self.controls:
            rankings["random"] = Scores.random(bench.space, seed)
        if "losing" in self.controls:
            rankings["losing"] = scores.reversed()
        rungs = {}
        for k, budget in enumerate(ladder_budgets(bench.space, self.ladder), 1):
            for kind, ranking in rankings.items():
                if kind == "random" and self.compat.random_with_replacement:
                    ticket = reference_random_ticket(bench.space, budget, derived_seed(seed, str(k)))
                else:
                    ticket = draw(ranking, budget, self.ladder.min_heads, self.ladder.allocation)
                rungs[f"{kind}-{k}"] = ticket.where(
                    task=task,
                    kind=kind,
                    score=self.score.kind,
                    seed=bench.seed,
                    recipe=self.kind,
                    encoder=bench.settings.name,
                    weight_hash=bench.weight_hash,
                )
        return rungs

    def _choose(self, bench: Workbench, rungs: dict[str, dict[str, Ticket]]) -> dict[str, Ticket]:
        """Every task's best rung of those that were trained to the end."""
        stages = {
            task: {WHOLE: f"single/{task}"}
            | {
                name: f"ladder/{task}/{name}"
                for name in _winning(of_task)
                if bench.run.is_done(f"ladder/{task}/{name}")
            }
            for task, of_task in rungs.items()
        }
        curves = {
            task: {name: bench.run.result(stage)["history"][-1]["selection"][task] for name, stage in of_task.items()}
            for task, of_task in stages.items()
        }
        rows = {task: len(bench.data[task].selection) for task in rungs}
        best = best_rungs(curves, rows, self.choice.borrow)
        return {task: self._keep_chosen(bench, task, rungs[task], curves[task], best[task]) for task in rungs}

    def _keep_chosen(
        self, bench: Workbench, task: str, rungs: dict[str, Ticket], curve: dict[str, float], best: str
    ) -> Ticket:
        path = bench.run.path / "tickets" / "own" / task

        def choose_stage(folder: Path) -> dict[str, Any]:
            looked_at = "dev" if self.selection_settings.dev else "held-out training rows"
            ticket = (Ticket.dense(bench.space) if best == WHOLE else rungs[best]).where(
                task=task,
                kind="winning" if best != WHOLE else "dense",
                score=self.score.kind,
                seed=bench.seed,
                recipe=self.kind,
                encoder=bench.settings.name,
                weight_hash=bench.weight_hash,
                note=f"chosen rung {best} on {looked_at}{' of all tasks' if self.choice.borrow else ''}",
            )
            ticket.save(path)
            rows = [
                bench.run.row("choose", task, "selection", "rung", float(_number(best)), len(_winning(rungs)) + 1),
                bench.run.row("choose", task, "all", "remaining", ticket.remaining_percent(), bench.space.total),
            ]
            return {"rows": rows, "chosen": best, "curve": curve}

        bench.run.stage(f"choose/{task}", choose_stage)
        return Ticket.load(path.with_suffix(".safetensors"), space=bench.space, weight_hash=bench.weight_hash)

    def _share(
        self, bench: Workbench, name: str, rule: Any, own: dict[str, Ticket], scores: dict[str, Scores]
    ) -> dict[str, Ticket]:
        folder = bench.run.path / "tickets" / name

        def share_stage(_: Path) -> dict[str, Any]:
            shared = rule(own, self._scores_for(bench, name, rule, own, scores), bench.rows(), bench.seed)
            for task, ticket in shared.items():
                if name != "own":  # those are there already, as chosen
                    ticket.where(
                        task=task,
                        seed=bench.seed,
                        recipe=self.kind,
                        encoder=bench.settings.name,
                        weight_hash=bench.weight_hash,
                        note=f"shared by {name}",
                    ).save(folder / task)
            return {"rows": [], "overlap": overlap(shared)}

        bench.run.stage(f"share/{name}", share_stage)
        return {
            task: Ticket.load(folder / f"{task}.safetensors", space=bench.space, weight_hash=bench.weight_hash)
            for task in bench.learned
        }

    def _scores_for(
        self, bench: Workbench, name: str, rule: Any, own: dict[str, Ticket], scores: dict[str, Scores]
    ) -> dict[str, Scores]:
        """The scores a rule is given; what some rules vote with has to be found out by training."""
        if rule.scored_by == "tall":
            dense = {task: Ticket.dense(bench.space) for task in bench.learned}
            bench.fine_tune_each([self._together(bench, "dense", dense)])
            alone = {task: f"single/{task}" for task in bench.learned}
            return tall_scores(bench, bench.model_folder("dense"), alone, rule.threshold)
        if rule.scored_by == "learned":
            first = Adaptive(kappa=rule.kappa)(own, scores, bench.rows(), bench.seed)
            poll = Poll(own, scores, bench.rows(), bench.seed)
            start = {task: first_numbers(first[task].units, scores[task].values) for task in bench.learned}
            learning = Learning(
                f"scores/{name}",
                start,
                lambda task, values: rule.redrawn(task, values, poll),
                self._multi(bench).model_copy(update={"compile": False}),
                rule.gate_lr,
                rule.overlap,
            )
            return learn_tickets(bench, learning)
        return scores

    def _together(self, bench: Workbench, name: str, tickets: dict[str, Ticket]) -> Training:
        stage, folder = f"multi/{name}", bench.model_folder(name)
        return Training(stage, stage, tuple(bench.learned), self._multi(bench), tickets, keep_model=folder)

    def _train_together(self, bench: Workbench, shared: dict[str, dict[str, Ticket]]) -> None:
        """One multi-task training a rule; a rule that gave the tickets of an earlier one takes over its numbers."""
        digests = {
            name: {task: ticket.digest() for task, ticket in tickets.items()} for name, tickets in shared.items()
        }
        twins = {name: next(other for other in shared if digests[other] == digests[name]) for name in shared}
        tasks, settings = tuple(bench.learned), self._multi(bench)
        # work that falls away is told before the rest begins, so that the time left is right
        bench.spared(tasks, settings, times=sum(twins[name] != name for name in shared))
        bench.fine_tune_each(
            [self._together(bench, name, tickets) for name, tickets in shared.items() if twins[name] == name]
        )
        for name, tickets in shared.items():
            if twins[name] != name:
                bench.same_as(f"multi/{name}", f"multi/{twins[name]}")
            value = self._mean_remaining(tickets)
            rows = [bench.run.row(f"multi/{name}", "average", "all", "remaining", value, bench.space.total)]
            bench.run.stage(f"remaining/{name}", functools.partial(_only_rows, rows))

    def _mean_remaining(self, tickets: dict[str, Ticket]) -> float:
        """Parameters kept, in %, mean over tasks; with the published defect, of the floored mean counts."""
        if self.compat.floored_remaining:
            space = next(iter(tickets.values())).space
            dropped = {part: int(np.mean([t.dropped(part) for t in tickets.values()])) for part in space.parts}
            return draw(Scores.random(space, 0), Budget(dropped), min_heads=0).remaining_percent()
        return float(np.mean([ticket.remaining_percent() for ticket in tickets.values()]))

    # -- settings with the compat switches applied --------------------------------------------------------------------

    def _single(self, task: str) -> TrainSettings:
        return self._batched(self.per_task.get(task, TrainOverride()).on(self.train))

    def _multi(self, bench: Workbench) -> TrainSettings:
        settings = self.multi.on(self.train)
        if self.multi.as_single:
            rows = bench.rows()
            seen = {task: rows[task] * self._single(task).epochs for task in bench.learned}
            epochs = max(1, round(sum(seen.values()) / sum(rows[task] for task in bench.learned)))
            quota = {task: max(1, round(number / epochs)) for task, number in seen.items()}
            batches = settings.batches.model_copy(update={"sampler": Quota(quota=quota)})
            settings = settings.model_copy(update={"epochs": epochs, "batches": batches})
        return self._batched(settings)

    def _batched(self, settings: TrainSettings) -> TrainSettings:
        if not self.compat.fixed_batches:
            return settings
        batches = settings.batches.model_copy(update={"fixed": True, "regime": "one_task", "tokens": None})
        return settings.model_copy(update={"batches": batches})

    def _score(self) -> ScoreSettings:
        if not self.compat.accumulate_gate_gradients:
            return self.score
        return self.score.model_copy(update={"accumulate": True})

    @property
    def selection_settings(self) -> SelectionSettings:
        return self.selection.model_copy(update={"dev": True}) if self.compat.selection_on_dev else self.selection

    @property
    def drop_long_rows(self) -> bool:
        return self.compat.drop_long_rows

    def steps(self, bench: Workbench) -> int:
        rungs = len(ladder_budgets(bench.space, self.ladder))
        single = 0
        for task in bench.learned:
            steps = bench.steps([task], self._single(task))
            single += steps * (1 + rungs * len(self.controls)) + self.search.steps(rungs, steps)
        together = len({"dense", *self.rules})
        together += sum(rule.scored_by == "learned" for rule in self.sharing)
        return single + bench.steps(bench.learned, self._multi(bench)) * together


def _winning(rungs: dict[str, Any]) -> dict[str, Any]:
    """The rungs that are no controls."""
    return {name: value for name, value in rungs.items() if name.startswith("winning-")}


def _number(rung: str) -> int:
    """``winning-3`` -> 3; the dense model is 0."""
    return 0 if rung == WHOLE else int(rung.rpartition("-")[2])


def _only_rows(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    return {"rows": rows}
