"""Task-agnostic mask training (TAMT): which part of an encoder to keep is learned on plain text, for all tasks at once.

Liu et al., "Learning to Win Lottery Tickets in BERT Transfer via Task-agnostic Mask Training", NAACL 2022, arXiv
2204.11218. A score for every weight (or head and neuron) is trained by a straight-through estimator, with the weights
frozen: to predict masked words (``mlm``), to keep every layer's hidden states where they were (``distillation``), or
for both. What is found is fine-tuned on the tasks, beside tickets of equal size by iterative magnitude pruning on the
same text (``imp``), by one-shot ``magnitude`` and at ``random``.

As published, a mask is trained for as long as iterative pruning takes to reach its sparsity. Deviations: tickets that
are not trained get a masked-language head that has been trained as long as the others' (``loss``; with the checkpoint's
own head it is ``loss_before``), and so does what distillation finds, and the full model; one optimiser for all
objectives; the teacher has no dropout, padding counts nothing, and iterative pruning rewinds (``compat: reference``
puts the published defects back).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from mtl_tickets.errors import Problem
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.recipes.base import FULL, RECIPES, RecipeSettings, percent, sparsity_problems
from mtl_tickets.recipes.compat import Compat
from mtl_tickets.recipes.imp import PrunableSettings
from mtl_tickets.recipes.jobs import PRETRAINED, Origin, Prune, Training
from mtl_tickets.recipes.language import Language, LanguageSettings, LanguageTraining
from mtl_tickets.recipes.language_masks import MaskTraining, train_masks_each
from mtl_tickets.recipes.measured import yardsticks
from mtl_tickets.recipes.overrides import TrainOverride
from mtl_tickets.recipes.run_directory import Input
from mtl_tickets.recipes.workbench import Workbench, derived_seed
from mtl_tickets.scoring.engine import SCORES
from mtl_tickets.scoring.magnitude import weight_magnitudes
from mtl_tickets.settings import InvalidSetting
from mtl_tickets.tasks.data import SelectionSettings
from mtl_tickets.tickets.budget import Budget, exact, pool_sizes
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.learned_masks import Allocation
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.objectives.hidden_states import MaskObjective
from mtl_tickets.training.optim import OptimiserSettings

Objective = Literal["mlm", "distillation", "both"]
Method = Literal["mlm", "distillation", "both", "imp", "magnitude", "random"]
LEARNED: tuple[Objective, ...] = ("mlm", "distillation", "both")
# iterative pruning drops so much of all weights a round; the first tenth goes before any training
STEP = 0.1
NAMES = {
    "mlm": "mask training, MLM",
    "distillation": "mask training, distillation",
    "both": "mask training, MLM + distillation",
    "imp": "IMP on text",
    "magnitude": "one-shot magnitude",
    "random": "random",
}


class MaskCompat(Compat):
    """Published defects (METHODS 2.9), off by default. ``compat: reference`` is all of them."""

    teacher_dropout: bool = pydantic.Field(
        False, description="defect 1: the distilling teacher has the dropout that language.dropout gives"
    )
    alias_rewind: bool = pydantic.Field(False, description="defect 2: iterative pruning rewinds nothing")
    full_horizon: bool = pydantic.Field(
        False, description="defect 3: the learning rate of each round falls as if all rounds were one training"
    )
    spoiled: bool = pydantic.Field(False, description="defect 4: distillation reads text with tokens masked")
    count_padding: bool = pydantic.Field(False, description="defect 5: distillation counts padding")
    decay_scores: bool = pydantic.Field(False, description="defect 6: weight decay on the scores of distillation")


class MaskOptimiser(OptimiserSettings):
    """The optimiser of scores and of the head beside them."""

    lr: pydantic.PositiveFloat = 5e-5
    weight_decay: pydantic.NonNegativeFloat = 0.0
    warm_up: float = pydantic.Field(0.0, ge=0, le=1)


@RECIPES.register("mask_training")
class MaskTrainingRecipe(RecipeSettings):
    """TAMT (Liu et al. 2022): tickets trained on plain text with frozen weights, then fine-tuned on every task."""

    kind: Literal["mask_training"] = "mask_training"
    language: LanguageSettings = pydantic.Field(description="the text; steps and optimiser are those of a round of imp")
    units: Literal["weights", "structured"] = pydantic.Field(
        "weights", description="what is masked: single weights; or heads and neurons, which can be removed physically"
    )
    prunable: PrunableSettings = PrunableSettings(pooler=True, embeddings=True)
    sparsities: tuple[float, ...] = pydantic.Field((0.5, 0.7, 0.8), min_length=1)
    methods: tuple[Method, ...] = pydantic.Field(("mlm", "distillation", "imp", "magnitude", "random"), min_length=1)
    optimiser: MaskOptimiser = MaskOptimiser()
    mask_steps: pydantic.PositiveInt | None = pydantic.Field(
        None, description="steps of one mask training; None: as many as imp trains until it has reached the sparsity"
    )
    reset_every: pydantic.PositiveInt = pydantic.Field(
        1000, description="steps after which thresholds are set so that the sparsity is exact again"
    )
    train: TrainSettings = TrainSettings(epochs=3, optimiser=OptimiserSettings(lr=2e-5, weight_decay=0.0, warm_up=0.0))
    per_task: dict[str, TrainOverride] = pydantic.Field({}, description="epochs, lr, batch_size of single tasks")
    fine_tune: tuple[float, ...] | None = pydantic.Field(
        None, description="the sparsities whose tickets are fine-tuned on the tasks; None: all"
    )
    selection: SelectionSettings = SelectionSettings()
    yardsticks: tuple[Literal["majority", "bag_of_words"], ...] = ("majority", "bag_of_words")
    compat: MaskCompat = MaskCompat()

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = sparsity_problems("sparsities", self.sparsities)
        if self.fine_tune:
            problems += sparsity_problems("fine_tune", self.fine_tune)
        problems += [
            Problem(f"must be one of the sparsities {list(self.sparsities)}", place=f"fine_tune.{place}", found=value)
            for place, value in enumerate(self.fine_tune or ())
            if value not in self.sparsities
        ]
        if len(set(self.methods)) != len(self.methods):
            problems.append(Problem("each method may stand only once", place="methods", found=list(self.methods)))
        if "imp" in self.methods and self.units == "structured":
            rule = "iterative magnitude pruning drops single weights: leave it out with units: structured"
            problems.append(Problem(rule, place=f"methods.{self.methods.index('imp')}", found="imp"))
        rule = "must be a multiple of 0.1 and at least 0.2 where imp prunes, or says how long masks are trained"
        problems += [
            Problem(rule, place=f"sparsities.{place}", found=value, hint="leave imp out and give mask_steps")
            for place, value in enumerate(self.sparsities)
            if self._needs_rounds and (exact(value) % exact(STEP) or value < 2 * STEP)
        ]
        if problems:
            raise InvalidSetting(problems)
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        return ("yardsticks", "full", "find", "fine-tune")

    def columns(self) -> dict[str, str]:
        headings = {f"yardstick/{name}": name.replace("_", " ") for name in self.yardsticks} | {FULL: "full model"}
        return headings | {
            f"{method}/{percent(sparsity)}": f"{NAMES[method]} {percent(sparsity)} %"
            for sparsity in self._fine_tuned
            for method in self.methods
        }

    @property
    def _fine_tuned(self) -> tuple[float, ...]:
        return self.sparsities if self.fine_tune is None else self.fine_tune

    @property
    def _needs_rounds(self) -> bool:
        return "imp" in self.methods or self.mask_steps is None

    def inputs(self, bench: Workbench) -> list[Input]:
        return Language(bench, self.language, bench.cache).inputs()

    # -- the algorithm ------------------------------------------------------------------------------------------------

    def run(self, bench: Workbench) -> None:
        yardsticks(bench, self.yardsticks)
        bench.reached("yardsticks")

        language = Language(bench, self.language, bench.cache)
        language.measure("language/full", FULL, None, suffix="_before")
        bench.fine_tune_each([Training(f"full/{task}", FULL, (task,), self._settings(task)) for task in bench.learned])
        bench.reached(FULL)

        space = self.space(bench)
        first = {sparsity: self._first(bench, space, sparsity) for sparsity in self.sparsities}
        if "imp" in self.methods:
            assert isinstance(space, WeightSpace)
            for sparsity, ticket in self._pruned(bench, language, space).items():
                first[sparsity]["imp"] = ticket
        found = self._find(bench, language, first)
        self._give_heads(language, found, Ticket.dense(space))
        for name, ticket in found.items():
            self._keep(bench, name, ticket)
        bench.reached("find")

        bench.fine_tune_each(
            [
                self._fine_tuning(name, ticket, task)
                for name, ticket in found.items()
                if name in self.columns()
                for task in bench.learned
            ]
        )
        bench.reached("fine-tune")

    # -- its steps ----------------------------------------------------------------------------------------------------

    def space(self, bench: Workbench) -> UnitSpace:
        """What is masked. Heads and neurons compete in pools of their own; whole blocks are kept."""
        if self.units == "weights":
            return self.prunable.space(bench)
        return space_of(bench.start(bench.learned[:1]).model.config, neurons=True)

    def budget(self, space: UnitSpace, sparsity: float) -> Budget:
        """Units dropped: of single weights, or of heads and of neurons.

        Raises :class:`InvalidSetting` where that leaves a layer without a head.
        """
        pools = ("heads", "neurons") if isinstance(space, StructuredSpace) else tuple(pool_sizes(space))
        found = Budget.fractions(space, dict.fromkeys(pools, sparsity))
        if isinstance(space, StructuredSpace) and found["heads"] > space.layers * (space.heads - 1):
            rule = f"a head must stay in each of the {space.layers} layers of {space.heads} heads"
            raise InvalidSetting(Problem(rule, place="recipe.sparsities", found=sparsity))
        return found

    @property
    def _allocation(self) -> Allocation:
        return "per_matrix" if self.units == "weights" else "global"

    def _first(self, bench: Workbench, space: UnitSpace, sparsity: float) -> dict[str, Ticket]:
        """The tickets that look at no text: the start of every mask training, and the two controls."""
        model = bench.start(bench.learned[:1]).rewound()
        if isinstance(space, StructuredSpace):
            compute: Any = SCORES.get("magnitude")
            magnitudes = Scores(space, compute.compute(model, space, bench.seed))
        else:
            assert isinstance(space, WeightSpace)
            magnitudes = weight_magnitudes(model.encoder, space)
        chance = Scores.random(space, derived_seed(bench.seed, "random ticket", percent(sparsity)))
        budget = self.budget(space, sparsity)
        about = {
            "seed": bench.seed,
            "recipe": self.kind,
            "encoder": bench.settings.name,
            "weight_hash": bench.weight_hash,
        }
        return {
            name: draw(scores, budget, allocation=self._allocation).where(kind=kind, score=name, **about)
            for name, scores, kind in (("magnitude", magnitudes, "winning"), ("random", chance, "random"))
        }

    def _pruned(self, bench: Workbench, language: Language, space: WeightSpace) -> dict[float, Ticket]:
        """Iterative magnitude pruning on the text: sparsity -> ticket. The first tenth is dropped before any training,
        then a round trains what is left and drops a tenth more."""
        encoder = bench.start(bench.learned[:1]).rewound().encoder
        ticket = draw(weight_magnitudes(encoder, space), Budget.fractions(space, {"weights": STEP}), 1, "per_matrix")
        found: dict[float, Ticket] = {}
        rounds = _rounds(self.sparsities[-1])
        origin, reached = PRETRAINED, exact(STEP)
        for number in range(1, rounds + 1):
            stage, reached = f"rounds/{number}", reached + exact(STEP)
            dropped = Budget.fractions(space, {"weights": float(reached)})["weights"]
            training = LanguageTraining(
                stage,
                f"round/{percent(float(reached - exact(STEP)))}",
                base=ticket,
                origin=origin,
                prune=Prune(space, dropped, "per_matrix"),
                horizon=rounds if self.compat.full_horizon else 1,
                keep_weights=self.compat.alias_rewind,
            )
            language.train_each([training])
            ticket = bench.pruned_after(stage, space).where(recipe=self.kind)
            if self.compat.alias_rewind:
                origin = Origin("stage", stage=stage)
            found |= {sparsity: ticket for sparsity in self.sparsities if exact(sparsity) == reached}
        return found

    def _find(
        self, bench: Workbench, language: Language, first: Mapping[float, Mapping[str, Ticket]]
    ) -> dict[str, Ticket]:
        """``method/percent`` -> ticket. Masks are trained; tickets that are not get a head that was trained as long. To
        distil makes no use of the head: see :meth:`_give_heads`."""
        trainings: dict[str, MaskTraining] = {}
        for sparsity, tickets in first.items():
            for method in self.methods:
                name = f"{method}/{percent(sparsity)}"
                learned = method in LEARNED
                if not learned:
                    stage = f"before/{name}"
                    language.measure(stage, name, tickets[method], suffix="_before")
                trainings[name] = MaskTraining(
                    f"find/{name}",
                    f"distilled/{name}" if method == "distillation" else name,
                    tickets["magnitude" if learned else method],
                    self._objective(method if learned else "mlm"),  # type: ignore[arg-type]
                    self._optimiser(method),
                    self._steps(sparsity),
                    self.reset_every,
                    self._allocation,
                    learned,
                    self.compat.decay_scores and method == "distillation",
                )
        found = train_masks_each(language, list(trainings.values()))
        return {name: found[training.stage] for name, training in trainings.items()}

    def _give_heads(self, language: Language, found: Mapping[str, Ticket], dense: Ticket) -> None:
        """A head, trained as long as the others', for what was distilled and for the full model: their losses say
        something of their encoders then, and not of the heads they came with."""
        asked = {
            name: (ticket, float(name.partition("/")[2]) / 100)
            for name, ticket in found.items()
            if name.startswith("distillation/")
        }
        wanted = {name: (ticket, self._steps(sparsity)) for name, (ticket, sparsity) in asked.items()}
        wanted[FULL] = dense, self._steps(self.sparsities[-1])
        train_masks_each(
            language,
            [
                MaskTraining(
                    f"head/{name}",
                    name,
                    ticket,
                    self._objective("mlm"),
                    self._optimiser("mlm"),
                    steps,
                    self.reset_every,
                    self._allocation,
                    learns=False,
                )
                for name, (ticket, steps) in wanted.items()
            ],
        )

    def _optimiser(self, method: Method) -> OptimiserSettings:
        if not (self.compat.decay_scores and method == "distillation"):
            return self.optimiser
        # as published, where the settings say nothing
        return self.optimiser.model_copy(update={"weight_decay": self.optimiser.weight_decay or 0.01})

    def _objective(self, kind: Objective) -> MaskObjective:
        if kind != "distillation":
            return MaskObjective(kind)
        compat = self.compat
        return MaskObjective(kind, 1.0, compat.spoiled, compat.count_padding, compat.teacher_dropout)

    def _steps(self, sparsity: float) -> int:
        return self.mask_steps if self.mask_steps is not None else self.language.steps * _rounds(sparsity)

    def _fine_tuning(self, name: str, ticket: Ticket, task: str) -> Training:
        of_weights = isinstance(ticket.space, WeightSpace)
        return Training(
            f"fine-tune/{name}/{task}",
            name,
            (task,),
            self._settings(task),
            tickets=None if of_weights else {task: ticket},
            base=ticket if of_weights else None,
        )

    def _keep(self, bench: Workbench, name: str, ticket: Ticket) -> None:
        folder = name.replace("/", "-")

        def keep_stage(_: Path) -> dict[str, Any]:
            ticket.where(recipe=self.kind, score=name.partition("/")[0]).save(
                bench.run.path / "tickets" / folder / "all"
            )
            return {"rows": []}

        bench.run.stage(f"tickets/{folder}", keep_stage)

    def _settings(self, task: str) -> TrainSettings:
        return self.per_task.get(task, TrainOverride()).on(self.train)

    def steps(self, bench: Workbench) -> int:
        tasks = sum(bench.steps([task], self._settings(task)) for task in bench.learned)
        heads = len(self.methods) + ("distillation" in self.methods)
        found = sum(self._steps(sparsity) for sparsity in self.sparsities) * heads + self._steps(self.sparsities[-1])
        rounds = _rounds(self.sparsities[-1]) * self.language.steps if "imp" in self.methods else 0
        return tasks * (1 + len(self._fine_tuned) * len(self.methods)) + found + rounds


def _rounds(sparsity: float) -> int:
    """Trainings of iterative pruning until it has reached a sparsity: a tenth goes before the first."""
    return int((exact(sparsity) - exact(STEP)) / exact(STEP))
