"""Super Tickets: finding every task's ticket, sharing them, training one multi-task encoder.

Liang et al., "Super Tickets in Pre-Trained Language Models: From Model Compression to Improving Generalization",
ACL 2021, arXiv 2105.12002. Deviations, all of them off with ``compat: reference``: rungs are chosen on held-out
training rows and not on the reported dev set; random tickets have exactly the winning ticket's size and leave a head
in every layer; gate gradients are zeroed between batches; batches are drawn anew each epoch.

With a ``base`` all of it happens inside a ticket that was found for no task in particular: what is whole, dense or all
units below is then what the base keeps.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mtl_tickets.model import weight_masks
from mtl_tickets.model.encoders import read_config
from mtl_tickets.recipes.base import RECIPES
from mtl_tickets.recipes.base_ticket import fitting_base
from mtl_tickets.recipes.choice import WHOLE, best_rungs
from mtl_tickets.recipes.evidence import compare_gradients, learn_tickets, score_each, tall_scores
from mtl_tickets.recipes.jobs import Learning, Scoring, Training
from mtl_tickets.recipes.measured import yardsticks
from mtl_tickets.recipes.run_directory import Input
from mtl_tickets.recipes.search import worth_finishing
from mtl_tickets.recipes.super_settings import SuperTicketSettings
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.tickets.draw import Budget, draw, ladder_budgets, reference_random_ticket
from mtl_tickets.tickets.overlap import overlap
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.adaptive import Adaptive
from mtl_tickets.tickets.sharing.operator import Poll
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin
from mtl_tickets.training.learned_gates import first_numbers


@RECIPES.register("super_tickets")
class SuperTickets(SuperTicketSettings):
    """Super Tickets (Liang et al. 2021): fine-tune, score, ladder, choose, share, train together."""

    kind: Literal["super_tickets"] = "super_tickets"

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
    def baselines(self) -> tuple[str, ...]:
        return ("multi/dense", "single")

    @property
    def compared(self) -> tuple[str, ...]:
        return tuple(stage for stage in self.columns() if stage.startswith("multi/"))

    @property
    def chooses(self) -> bool:
        return True

    @property
    def sections(self) -> tuple[str, ...]:
        return ("ladders", "choice", "tickets", "training")

    def inputs(self, bench: Workbench) -> list[Input]:
        """The base, which the workbench is given here, before anything is done on it."""
        if self.base is None:
            return []
        base = fitting_base(self.base, read_config(bench.encoder), bench.weight_hash)
        if isinstance(base.space, StructuredSpace):
            origin = TicketOrigin(kind="dense", encoder=bench.settings.name, weight_hash=bench.weight_hash)
            bench.within = Ticket(base.space, base.units, origin)
        else:
            bench.base = base
        return [Input("base", str(self.base), base.digest())]

    # -- the algorithm ------------------------------------------------------------------------------------------------

    def run(self, bench: Workbench) -> None:
        self._try_sharing(bench)
        yardsticks(bench, self.yardsticks)
        bench.reached("yardsticks")

        bench.fine_tune_each(  # 1. fine-tune the whole encoder on every task
            [
                Training(f"single/{task}", "single", (task,), self._single(task), alone, keep_weights=True)
                for task in bench.learned
                for alone in [None if bench.within is None else {task: bench.within}]
            ]
        )
        bench.reached("single")

        scores = score_each(  # 2. how much each head and feed-forward block matters to the task
            bench,
            [Scoring(f"scores/{task}", task, f"single/{task}", self._score()) for task in bench.learned],
            bench.within,
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
            compare_gradients(bench, bench.model_folder("dense"), self.gradients, bench.within)
        bench.reached("gradients")

    # -- its steps ----------------------------------------------------------------------------------------------------

    def _try_sharing(self, bench: Workbench) -> None:
        """A rule that does not fit the tasks says so now, and not when every ladder is trained."""
        tickets = dict.fromkeys(bench.learned, _whole(bench))
        scores = {task: Scores.random(_whole(bench).space, 0) for task in bench.learned}
        for rule in self.sharing:
            rule(tickets, scores, bench.rows(), bench.seed, bench.within)

    def _rungs(self, bench: Workbench, task: str, scores: Scores) -> dict[str, Ticket]:
        """Winning tickets of every rung, and the controls of equal size."""
        seed = derived_seed(bench.seed, "random ticket", task)
        rankings, space, within = {"winning": scores}, _whole(bench).space, bench.within
        if "random" in self.controls:
            rankings["random"] = Scores.random(space, seed)
        if "losing" in self.controls:
            rankings["losing"] = scores.reversed()
        rungs = {}
        for k, budget in enumerate(ladder_budgets(space, self.ladder, within), 1):
            for kind, ranking in rankings.items():
                if kind == "random" and self.compat.random_with_replacement:
                    ticket = reference_random_ticket(space, budget, derived_seed(seed, str(k)), within)
                else:
                    ticket = draw(ranking, budget, self.ladder.min_heads, self.ladder.allocation, within)
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
            ticket = (_whole(bench) if best == WHOLE else rungs[best]).where(
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
                bench.run.row("choose", task, "all", "remaining", _remaining(bench, ticket), bench.space.total),
            ]
            return {"rows": rows, "chosen": best, "curve": curve}

        bench.run.stage(f"choose/{task}", choose_stage)
        return self._kept(bench, path.with_suffix(".safetensors"))

    def _share(
        self, bench: Workbench, name: str, rule: Any, own: dict[str, Ticket], scores: dict[str, Scores]
    ) -> dict[str, Ticket]:
        folder = bench.run.path / "tickets" / name

        def share_stage(_: Path) -> dict[str, Any]:
            given = self._scores_for(bench, name, rule, own, scores)
            shared = rule(own, given, bench.rows(), bench.seed, bench.within)
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
        return {task: self._kept(bench, folder / f"{task}.safetensors") for task in bench.learned}

    def _kept(self, bench: Workbench, file: Path) -> Ticket:
        return Ticket.load(file, space=_whole(bench).space, weight_hash=bench.weight_hash)

    def _scores_for(
        self, bench: Workbench, name: str, rule: Any, own: dict[str, Ticket], scores: dict[str, Scores]
    ) -> dict[str, Scores]:
        """The scores a rule is given; what some rules vote with has to be found out by training."""
        if rule.scored_by == "tall":
            dense = dict.fromkeys(bench.learned, _whole(bench))
            bench.fine_tune_each([self._together(bench, "dense", dense)])
            alone = {task: f"single/{task}" for task in bench.learned}
            return tall_scores(bench, bench.model_folder("dense"), alone, rule.threshold, bench.within)
        if rule.scored_by == "learned":
            first = Adaptive(kappa=rule.kappa)(own, scores, bench.rows(), bench.seed, bench.within)
            poll = Poll(own, scores, bench.rows(), bench.seed, bench.within)
            start = {task: first_numbers(first[task].units, scores[task].values) for task in bench.learned}
            learning = Learning(
                f"scores/{name}",
                start,
                lambda task, values: rule.redrawn(task, values, poll),
                self._multi(bench).model_copy(update={"compile": False}),
                rule.gate_lr,
                rule.overlap,
            )
            return learn_tickets(bench, learning, bench.within)
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
            value = self._mean_remaining(bench, tickets)
            rows = [bench.run.row(f"multi/{name}", "average", "all", "remaining", value, bench.space.total)]
            bench.run.stage(f"remaining/{name}", functools.partial(_only_rows, rows))

    def _mean_remaining(self, bench: Workbench, tickets: dict[str, Ticket]) -> float:
        """Parameters kept, in %, mean over tasks; with the published defect, of the floored mean counts."""
        if self.compat.floored_remaining:
            space = next(iter(tickets.values())).space
            dropped = {part: int(np.mean([t.dropped(part) for t in tickets.values()])) for part in space.parts}
            return _remaining(bench, draw(Scores.random(space, 0), Budget(dropped), min_heads=0))
        return float(np.mean([_remaining(bench, ticket) for ticket in tickets.values()]))

    def steps(self, bench: Workbench) -> int:
        rungs = len(ladder_budgets(_whole(bench).space, self.ladder, bench.within))
        single = 0
        for task in bench.learned:
            steps = bench.steps([task], self._single(task))
            single += steps * (1 + rungs * len(self.controls)) + self.search.steps(rungs, steps)
        together = len({"dense", *self.rules})
        together += sum(rule.scored_by == "learned" for rule in self.sharing)
        return single + bench.steps(bench.learned, self._multi(bench)) * together


def _whole(bench: Workbench) -> Ticket:
    """What is there to be kept: every unit, or those of the base."""
    return Ticket.dense(bench.space) if bench.within is None else bench.within


def _remaining(bench: Workbench, ticket: Ticket) -> float:
    """Parameters kept, in %; weights that a base drops inside of kept units are gone too."""
    return weight_masks.remaining(bench.space, ticket, bench.base)


def _winning(rungs: dict[str, Any]) -> dict[str, Any]:
    """The rungs that are no controls."""
    return {name: value for name, value in rungs.items() if name.startswith("winning-")}


def _number(rung: str) -> int:
    """``winning-3`` -> 3; the dense model is 0."""
    return 0 if rung == WHOLE else int(rung.rpartition("-")[2])


def _only_rows(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    return {"rows": rows}
