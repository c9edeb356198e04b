"""IMP: lottery tickets by iterative magnitude pruning, and how they transfer.

Chen et al., "The Lottery Ticket Hypothesis for Pre-trained BERT Networks", NeurIPS 2020, arXiv 2007.12223; after
Frankle and Carbin 2019, arXiv 1803.03635. A round trains what is left to the end, drops the weights of least magnitude
and rewinds the rest. The training of round k is that of the ticket round k - 1 has left, rewound, with a fresh head: it
is the ticket's evaluation, too. (Not where a defect below is asked for: every ticket is then trained once more.)

Deviations, each off with its switch of ``compat``: rewinding rewinds (the published language-model code writes the
trained weights onto themselves); every round has a learning rate that falls to 0; heads start anew in every round. The
last round, which drops everything that is left, is not done.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.recipes.base import FULL, MLM, RECIPES, RecipeSettings, percent
from mtl_tickets.recipes.compat import Compat
from mtl_tickets.recipes.jobs import PRETRAINED, Origin, Prune, Training
from mtl_tickets.recipes.language import Language, LanguageSettings, LanguageTraining
from mtl_tickets.recipes.measured import yardsticks
from mtl_tickets.recipes.overrides import TrainOverride
from mtl_tickets.recipes.run_directory import Input
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.scoring.magnitude import weight_magnitudes
from mtl_tickets.settings import InvalidSetting, Settings
from mtl_tickets.tasks.data import SelectionSettings
from mtl_tickets.tickets.budget import exact
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.overlap import overlap
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.optim import OptimiserSettings

Control = Literal["magnitude", "random", "reinitialised", "shuffled"]


class PrunableSettings(Settings):
    """Which matrices may be pruned, beside the six of every layer."""

    pooler: bool = pydantic.Field(True, description="the pooler's, where task heads read it")
    embeddings: bool = pydantic.Field(False, description="the word embeddings")

    def space(self, bench: Workbench) -> WeightSpace:
        model = bench.start(bench.learned[:1]).model
        pooler = self.pooler and getattr(model.encoder, "pooler", None) is not None
        return weight_space_of(model.config, self.embeddings, pooler)


class ImpCompat(Compat):
    """Published defects (METHODS 4.5), off by default. ``compat: reference`` is all of them."""

    alias_rewind: bool = pydantic.Field(False, description="defect 1: rewinding keeps the trained weights")
    full_horizon: bool = pydantic.Field(
        False, description="defect 2: the learning rate of each round falls as if all rounds were one training"
    )
    carry_head: bool = pydantic.Field(False, description="defect 4: task heads are not rewound between rounds")


@RECIPES.register("imp")
class Imp(RecipeSettings):
    """IMP lottery tickets (Chen et al. 2020): train, prune, rewind; controls of equal size; transfer between tasks."""

    kind: Literal["imp"] = "imp"
    train: TrainSettings = TrainSettings(epochs=3, optimiser=OptimiserSettings(lr=2e-5, weight_decay=0.0, warm_up=0.0))
    per_task: dict[str, TrainOverride] = pydantic.Field({}, description="epochs, lr, batch_size of single tasks")
    language: LanguageSettings | None = pydantic.Field(
        None, description="a text: masked-language modelling is then a task (mlm), too"
    )
    sources: tuple[str, ...] = pydantic.Field(
        (), description="tasks to find tickets on, mlm among them; none: all, and mlm where there is a text"
    )
    rounds: pydantic.PositiveInt = 9
    fraction: float = pydantic.Field(0.1, gt=0, lt=1, description="of the weights, dropped by a round")
    amount: Literal["of_original", "of_remaining"] = pydantic.Field(
        "of_original",
        description="of_original: a fraction of all weights, as the published code does; of_remaining: of those left, "
        "as the published text says",
    )
    allocation: Literal["global", "per_matrix"] = pydantic.Field(
        "global", description="global: one threshold for all matrices; per_matrix: each loses the same fraction"
    )
    prunable: PrunableSettings = PrunableSettings()
    rewind: float = pydantic.Field(
        0.0, ge=0, lt=1, description="to the weights after this part of the full training; 0: to the pretrained ones"
    )
    at: tuple[pydantic.PositiveInt, ...] = pydantic.Field(
        (7,),
        description="rounds whose tickets are compared with controls and tried on other tasks; none: only the rounds",
    )
    controls: tuple[Control, ...] = ("magnitude", "random", "reinitialised", "shuffled")
    transfer: bool = pydantic.Field(True, description="every source's ticket on every other task")
    selection: SelectionSettings = SelectionSettings()
    yardsticks: tuple[Literal["majority", "bag_of_words"], ...] = ("majority", "bag_of_words")
    compat: ImpCompat = ImpCompat()

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = []
        if self.amount == "of_original" and self.rounds * exact(self.fraction) >= 1:
            rule = f"{self.rounds} rounds of {self.fraction:g} of all weights must leave some"
            problems.append(Problem(rule, place="rounds", found=self.rounds))
        problems += [
            Problem(f"must be one of the {self.rounds} rounds", place=f"at.{place}", found=number)
            for place, number in enumerate(self.at)
            if number > self.rounds
        ]
        for key, values in (("at", self.at), ("sources", self.sources)):
            if len(set(values)) != len(values):
                problems.append(Problem("each may stand only once", place=key, found=list(values)))
        names = [self.percent(number) for number in range(1, self.rounds + 1)]
        if len({"0", "100", *names}) < len(names) + 2:
            rule = "rounds must have sparsities that differ in their first decimal, between 0 and 100 %"
            problems.append(Problem(rule, place="fraction", found=self.fraction))
        if MLM in self.sources and self.language is None:
            rule = "needs a text to be a source: give recipe.language"
            problems.append(Problem(rule, place=f"sources.{self.sources.index(MLM)}", found=MLM))
        if self.compat.alias_rewind and self.rewind:
            rule = "nothing is rewound with compat.alias_rewind: it must be 0"
            problems.append(Problem(rule, place="rewind", found=self.rewind))
        if problems:
            raise InvalidSetting(problems)
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        return ("yardsticks", "full", "rounds", "controls", "transfer")

    def columns(self) -> dict[str, str]:
        headings = {f"yardstick/{name}": name.replace("_", " ") for name in self.yardsticks} | {FULL: "full model"}
        for number in self.at:
            percent = self.percent(number)
            headings[f"imp/{percent}"] = f"IMP {percent} %"
            names = {"magnitude": "one-shot magnitude", "reinitialised": "IMP, weights drawn anew"}
            names |= {"shuffled": "IMP, layers shuffled", "random": "random"}
            headings |= {f"{control}/{percent}": f"{names[control]} {percent} %" for control in self.controls}
            if self.transfer and self.language is not None and (not self.sources or MLM in self.sources):
                headings[f"transfer/{percent}/{MLM}"] = f"IMP on text {percent} %"
        return headings

    def reported(self, stage: str, task: str) -> bool:
        kind = stage.partition("/")[0]
        if kind == "transfer" and task == MLM:  # which has its own column
            return False
        on_sources = kind in ("imp", "reinitialised", "shuffled")
        return not on_sources or not self.sources or task in self.sources

    # -- sizes --------------------------------------------------------------------------------------------------------

    def sparsity(self, number: int) -> float:
        """The share of the weights that is gone after so many rounds, before rounding to whole weights."""
        fraction = exact(self.fraction)
        return float(fraction * number if self.amount == "of_original" else 1 - (1 - fraction) ** number)

    def percent(self, number: int) -> str:
        """The sparsity of a round, in stages and headings."""
        return percent(self.sparsity(number))

    def dropped(self, space: WeightSpace, number: int) -> int:
        """Weights gone after so many rounds, rounded down in each."""
        fraction, gone = exact(self.fraction), 0
        if self.amount == "of_original":
            return math.floor(space.total * fraction * number)
        for _ in range(number):
            gone += math.floor((space.total - gone) * fraction)
        return gone

    # -- the algorithm ------------------------------------------------------------------------------------------------

    def run(self, bench: Workbench) -> None:
        yardsticks(bench, self.yardsticks)
        bench.reached("yardsticks")

        space, language = self.prunable.space(bench), self._language(bench)
        sources = self._sources(bench)
        rewinding = self._rewinding_points(bench, language)

        left: dict[str, list[Ticket]] = {source: [] for source in sources}  # after each round
        for number in range(self.rounds + 1):  # round 0 trains the full model; the last training prunes no more
            prune = Prune(space, self.dropped(space, number + 1), self.allocation) if number < self.rounds else None
            everyone = sources if number else self._targets(bench)
            trained = {
                source: self._round(source, number, left.get(source), prune if source in sources else None, rewinding)
                for source in everyone
            }
            self._train_each(bench, language, trained)
            if prune is not None:
                for source in sources:
                    left[source].append(bench.pruned_after(trained[source].stage, space).where(recipe=self.kind))
            if number == 0:
                bench.reached(FULL)
        if not self._rounds_evaluate:
            self._train_each(bench, language, self._evaluations(left, rewinding))
        tickets = {number: {source: left[source][number - 1] for source in sources} for number in self.at}
        for number, of_round in tickets.items():
            self._keep(bench, f"imp-{self.percent(number)}", of_round)
        bench.reached("rounds")

        controls = {number: self._controls(bench, space, number, tickets[number], rewinding) for number in self.at}
        self._train_each(bench, language, {name: t for of_round in controls.values() for name, t in of_round.items()})
        bench.reached("controls")

        if self.transfer:
            moved = {
                name: training
                for number in self.at
                for name, training in self._moved(number, tickets[number], self._targets(bench), rewinding).items()
            }
            self._train_each(bench, language, moved)
            for number in self.at:  # a source's own score under its ticket is known: that of its round
                for source in sources:
                    row = f"transfer/{self.percent(number)}/{source}"
                    bench.same_as(f"{row}/{source}", f"{self._evaluated_in(number)}/{source}", row)
        bench.reached("transfer")

    # -- its steps ----------------------------------------------------------------------------------------------------

    def _targets(self, bench: Workbench) -> list[str]:
        return [*bench.learned, *([MLM] if self.language is not None else [])]

    def _sources(self, bench: Workbench) -> list[str]:
        return list(self.sources) or self._targets(bench)

    def _language(self, bench: Workbench) -> Language | None:
        return None if self.language is None else Language(bench, self.language, bench.cache)

    def inputs(self, bench: Workbench) -> list[Input]:
        language = self._language(bench)
        return [] if language is None else language.inputs()

    def _rewinding_points(self, bench: Workbench, language: Language | None) -> dict[str, Origin]:
        """Task -> the weights that tickets are rewound to before they are trained on it, wherever they are found."""
        targets, horizon = self._targets(bench), self._horizon
        if not self.rewind:
            return dict.fromkeys(targets, PRETRAINED)
        trainings: dict[str, Training | LanguageTraining] = {}
        for target in targets:
            stage = f"rewind/{target}"
            if target == MLM:
                assert self.language is not None
                steps = max(1, round(self.rewind * self.language.steps))
            else:
                steps = max(1, round(self.rewind * bench.steps([target], self._settings(target))))
            trainings[target] = self._training(stage, "rewind", target, horizon=horizon, until=steps, keep_weights=True)
        self._train_each(bench, language, trainings)
        return {target: Origin("stage", stage=f"rewind/{target}") for target in targets}

    @property
    def _horizon(self) -> int:
        return self.rounds + 1 if self.compat.full_horizon else 1

    def _round(
        self, source: str, number: int, left: list[Ticket] | None, prune: Prune | None, rewinding: Mapping[str, Origin]
    ) -> Training | LanguageTraining:
        """What is left after ``number`` rounds, trained to the end."""
        before = f"round-{number - 1}/{source}"
        changes: dict[str, Any] = {"prune": prune, "horizon": self._horizon}
        if number and left:
            changes |= {"base": left[number - 1], "origin": rewinding[source]}
            if self.compat.alias_rewind:
                changes["origin"] = Origin("stage", stage=before)
            if self.compat.carry_head and source != MLM:
                changes["heads_from"] = before
        changes["keep_weights"] = self.compat.alias_rewind or self.compat.carry_head
        report_as = f"{'imp' if self._rounds_evaluate else 'round'}/{self.percent(number)}" if number else FULL
        return self._training(f"round-{number}/{source}", report_as, source, **changes)

    @property
    def _rounds_evaluate(self) -> bool:
        """Whether the training of a round is that of its ticket on the weights it is rewound to, with a fresh head."""
        return not any(dict(self.compat).values())

    def _evaluated_in(self, number: int) -> str:
        return f"round-{number}" if self._rounds_evaluate else f"final-{number}"

    def _evaluations(
        self, left: Mapping[str, list[Ticket]], rewinding: Mapping[str, Origin]
    ) -> dict[str, Training | LanguageTraining]:
        """Every round's ticket, rewound in truth and trained with a fresh head."""
        found = {}
        for source, tickets in left.items():
            for number, ticket in enumerate(tickets, 1):
                stage, name = f"{self._evaluated_in(number)}/{source}", f"imp/{self.percent(number)}"
                found[stage] = self._training(stage, name, source, base=ticket, origin=rewinding[source])
        return found

    def _training(self, stage: str, report_as: str, target: str, **changes: Any) -> Training | LanguageTraining:
        if target == MLM:
            return LanguageTraining(stage, report_as, **changes)
        return Training(stage, report_as, (target,), self._settings(target), **changes)

    def _train_each(
        self, bench: Workbench, language: Language | None, trainings: Mapping[str, Training | LanguageTraining]
    ) -> None:
        bench.fine_tune_each([training for training in trainings.values() if isinstance(training, Training)])
        on_text = [training for training in trainings.values() if isinstance(training, LanguageTraining)]
        if on_text:
            assert language is not None
            language.train_each(on_text)

    def _controls(
        self,
        bench: Workbench,
        space: WeightSpace,
        number: int,
        tickets: Mapping[str, Ticket],
        rewinding: Mapping[str, Origin],
    ) -> dict[str, Training | LanguageTraining]:
        """Stage -> a training at the size of the round's tickets. Magnitude and random tickets are tried on every task,
        IMP tickets on other weights on their source."""
        percent, budget = self.percent(number), {"weights": self.dropped(space, number)}
        encoder = bench.start(bench.learned[:1]).rewound().encoder
        rankings = {
            "magnitude": lambda: weight_magnitudes(encoder, space),
            "random": lambda: Scores.random(space, derived_seed(bench.seed, "random ticket", percent)),
        }
        found: dict[str, Training | LanguageTraining] = {}
        for control in self.controls:
            name = f"{control}/{percent}"
            if control in rankings:
                ticket = draw(rankings[control](), budget, allocation=self.allocation).where(
                    kind="random" if control == "random" else "winning",
                    score=control,
                    seed=bench.seed,
                    recipe=self.kind,
                    encoder=bench.settings.name,
                    weight_hash=bench.weight_hash,
                )
                self._keep(bench, f"{control}-{percent}", {"all": ticket})
                each = {target: (ticket, rewinding[target]) for target in self._targets(bench)}
            else:
                origin = Origin(control, seed=derived_seed(bench.seed, control))  # type: ignore[arg-type]
                each = {source: (ticket, origin) for source, ticket in tickets.items()}
            for target, (ticket, origin) in each.items():
                stage = f"control/{name}/{target}"
                found[stage] = self._training(stage, name, target, base=ticket, origin=origin)
        return found

    def _moved(
        self, number: int, tickets: Mapping[str, Ticket], targets: list[str], rewinding: Mapping[str, Origin]
    ) -> dict[str, Training | LanguageTraining]:
        """Stage -> the training of a task under another one's ticket, from the weights its own is rewound to."""
        percent = self.percent(number)
        return {
            stage: self._training(stage, f"transfer/{percent}/{source}", target, base=ticket, origin=rewinding[target])
            for source, ticket in tickets.items()
            for target in targets
            if source != target
            for stage in [f"transfer/{percent}/{source}/{target}"]
        }

    def _keep(self, bench: Workbench, name: str, tickets: Mapping[str, Ticket]) -> None:
        """Writes tickets to the run's ``tickets`` and how they overlap to the stage's result."""

        def keep_stage(_: Path) -> dict[str, Any]:
            for source, ticket in tickets.items():
                ticket.save(bench.run.path / "tickets" / name / source)
            return {"rows": [], "overlap": overlap(dict(tickets)) if len(tickets) > 1 else None}

        bench.run.stage(f"tickets/{name}", keep_stage)

    def _settings(self, task: str) -> TrainSettings:
        return self.per_task.get(task, TrainOverride()).on(self.train)

    def steps(self, bench: Workbench) -> int:
        targets, sources = self._targets(bench), self._sources(bench)
        each = {
            target: self.language.steps
            if target == MLM and self.language
            else bench.steps([target], self._settings(target))
            for target in targets
        }
        total = functools.partial(_sum_of, each)
        rewinding = round(self.rewind * total(targets))
        on_all = sum(control in ("magnitude", "random") for control in self.controls)
        controls = len(self.at) * (on_all * total(targets) + (len(self.controls) - on_all) * total(sources))
        moved = len(self.at) * (len(sources) * total(targets) - total(sources)) if self.transfer else 0
        rounds = self.rounds * total(sources) * (1 if self._rounds_evaluate else 2)
        return total(targets) + rounds + rewinding + controls + moved


def _sum_of(steps: Mapping[str, int], names: list[str]) -> int:
    return sum(steps[name] for name in names)
