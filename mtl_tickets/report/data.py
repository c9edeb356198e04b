"""What a report says, as a value made from the files of runs. Frozen, JSON-able, and without any words of layout.

Numbers over seeds stand in the order of the seeds beside them; what is not there yet is named in
:attr:`ReportData.missing` and stands nowhere else.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mtl_tickets.evaluation.verdicts import Outcome
from mtl_tickets.report.subnetwork_data import Curve, Transfer
from mtl_tickets.report.tables import Cell, Comparison, spread

# what sentences call the encoder of which nothing is pruned
FULL = "the full model"


@dataclass(frozen=True)
class Method:
    """A column of the tables. ``stage`` is that of its rows, ``heading`` the recipe's, ``name`` what sentences say."""

    stage: str
    heading: str
    name: str


@dataclass(frozen=True)
class Difference:
    """A method less a baseline, in points. ``p`` is Holm-corrected; None with one seed. ``low`` and ``high`` bound the
    interval of this comparison alone; None with one seed or without spread."""

    method: str
    outcome: Outcome
    sentence: str
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Judgement:
    """Every method against one baseline: on the average over tasks, and task -> on that task."""

    baseline: str
    average: tuple[Difference, ...]
    tasks: Mapping[str, tuple[Difference, ...]]


@dataclass(frozen=True)
class Breakdown:
    """A split of a task by the ``names`` of its breakdown: ``parts``, each its values, with so many ``rows``, and for
    each method, by its heading, the accuracy in % on every part. ``judgement``: the methods against the first baseline,
    part by part; None where there are too many parts to ask, or nothing to compare."""

    task: str
    split: str
    names: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    lines: Mapping[str, tuple[Cell, ...]]
    judgement: Judgement | None

    @property
    def shown(self) -> tuple[str, ...]:
        """The parts, as text."""
        return tuple(", ".join(part) for part in self.parts)


@dataclass(frozen=True)
class RightOrWrong:
    """McNemar's test of a method against a baseline on one task. ``wins`` and ``losses``: rows that more, or fewer, of
    its models answer right. ``difference``: of accuracies, in points. ``p`` is exact, ``p_mid`` its mid-p, and
    ``corrected`` that after Holm's correction over all tests against the baseline."""

    task: str
    method: str
    rows: int
    wins: int
    losses: int
    difference: float
    p: float
    p_mid: float
    corrected: float


@dataclass(frozen=True)
class RowJudgement:
    """Every method against one baseline on other rows, the trained models fixed. As :class:`Judgement`; ``sd`` is the
    standard error, and no interval is without spread."""

    baseline: str
    average: tuple[Difference, ...]
    tasks: Mapping[str, tuple[Difference, ...]]
    right: tuple[RightOrWrong, ...]


@dataclass(frozen=True)
class OnRows:
    """Tests over rows. ``rows``: task -> rows that were resampled; ``undefined``: task -> resamples in which a metric
    of some model was undefined, where there are any. ``missing``: what is not tested and why, in sentences."""

    judgements: tuple[RowJudgement, ...]
    rows: Mapping[str, int]
    resamples: int
    undefined: Mapping[str, int]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Rung:
    """The tickets of one size. ``kind``: winning, random or losing; ``number`` 0 is the whole encoder, kind dense.
    ``kept``: parameters in %, ``scores`` on dev, both by seed; ``chosen_by``: the seeds whose task chose it."""

    kind: str
    number: int
    seeds: tuple[int, ...]
    kept: tuple[float, ...]
    scores: tuple[float, ...]
    chosen_by: tuple[int, ...] = ()

    @property
    def mean_kept(self) -> float:
        return statistics.fmean(self.kept)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float | None:
        return spread(self.scores)


@dataclass(frozen=True)
class Ladder:
    """The rungs of a task (or, named ``average``, of all), each kind from the largest ticket to the smallest."""

    task: str
    rungs: tuple[Rung, ...]

    @property
    def dense(self) -> Rung:
        return next(rung for rung in self.rungs if rung.number == 0)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rung.kind for rung in self.rungs if rung.number))

    def of(self, kind: str) -> list[Rung]:
        """Without the whole encoder."""
        return [rung for rung in self.rungs if rung.number and rung.kind == kind]


@dataclass(frozen=True)
class Choice:
    """One choice, of a rung or of a rule, by seed: what selection ``chose``, what is ``best`` on dev, and by how many
    points of dev score the second is above the first."""

    of: str
    chose: tuple[str, ...]
    best: tuple[str, ...]
    optimism: tuple[float, ...]

    @property
    def agreed(self) -> int:
        """Seeds with which both are the same."""
        return sum(chose == best for chose, best in zip(self.chose, self.best, strict=True))


@dataclass(frozen=True)
class Optimism:
    """What choosing on dev would have claimed beyond what was chosen on selection rows: of the rungs of each task, and
    of sharing rules (None before all of them are trained). ``on_dev``: dev chose, so that nothing can be measured."""

    on_dev: bool
    rungs: tuple[Choice, ...]
    rules: Choice | None


@dataclass(frozen=True)
class Course:
    """How a multi-task training went: by seed, a number an epoch. ``selection``: the mean over tasks of the score on
    the rows held out of training. ``same_as``: the method whose training this one took over, with any seed."""

    method: str
    loss: tuple[tuple[float, ...], ...]
    selection: tuple[tuple[float, ...], ...]
    same_as: str | None = None


@dataclass(frozen=True)
class TaskTicket:
    """What a task keeps under one rule, by seed. ``heads`` ``[layers][heads]`` and ``ffn`` ``[layers]`` are shares of
    seeds that keep the unit; empty where units are no heads and blocks. ``notes``: what the tickets say of their
    origin."""

    task: str
    remaining: tuple[float, ...]
    kept: Mapping[str, tuple[int, ...]]
    of: Mapping[str, int]
    heads: tuple[tuple[float, ...], ...]
    ffn: tuple[float, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RuleMask:
    """A sharing rule's tickets together: the share of tasks x seeds that keep each unit, and by seed the parameters, in
    %, that any of the tasks needs."""

    rule: str
    heads: tuple[tuple[float, ...], ...]
    ffn: tuple[float, ...]
    needed: tuple[float, ...]


@dataclass(frozen=True)
class Conflict:
    """Units that one of two tasks ranks in its top quarter and the other in its bottom quarter, by seed: how many, how
    many by chance, how many of them have gradients that oppose (empty where a run has no gradients), and the unit that
    is ranked farthest apart (None where there is none)."""

    units: tuple[int, ...]
    expected: tuple[float, ...]
    opposed: tuple[int, ...]
    farthest: tuple[str | None, ...]


@dataclass(frozen=True)
class Pair:
    """Two tasks, by seed: the overlap of their tickets, what chance makes of it, whether their scores rank units alike,
    the cosine of their gradients, and the forecast made of all. ``cosine`` is empty where a run has no gradients."""

    tasks: tuple[str, str]
    jaccard: tuple[float, ...]
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rank_agreement: tuple[float, ...]
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    conflict: Conflict
    cosine: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.jaccard)

    @property
    def above(self) -> int:
        """Seeds with more overlap than chance gives."""
        return sum(value > bound for value, bound in zip(self.jaccard, self.high, strict=True))

    @property
    def below(self) -> int:
        return sum(value < bound for value, bound in zip(self.jaccard, self.low, strict=True))


@dataclass(frozen=True)
class TaskGradient:
    """By seed: the training rows that a task's gradient was taken on, and the cosine between that of the even and that
    of the odd ones."""

    task: str
    rows: tuple[int, ...]
    halves: tuple[float, ...]


@dataclass(frozen=True)
class Join:
    """Two groups of tasks that become one in the dendrogram."""

    groups: tuple[tuple[str, ...], tuple[str, ...]]
    similarity: float


@dataclass(frozen=True)
class SharedBy:
    """How many units exactly these tasks keep: pool -> mean over seeds."""

    tasks: tuple[str, ...]
    units: Mapping[str, float]


@dataclass(frozen=True)
class Tickets:
    """The tickets of one sharing rule, looked at closely, and those of all rules side by side."""

    rule: str
    space: str
    seeds: tuple[int, ...]
    tasks: tuple[TaskTicket, ...]
    rules: tuple[RuleMask, ...]
    pairs: tuple[Pair, ...]
    joins: tuple[Join, ...]
    sets: tuple[SharedBy, ...]
    units: Mapping[str, int]
    """Pool -> units in it."""
    gradients: tuple[TaskGradient, ...] = ()
    """Empty where a run has none."""


@dataclass(frozen=True)
class Cost:
    """What one column, or one step on the way to it, costs; tuples by seed, empty where it does not apply.

    ``seconds`` are of the stages, evaluation included. ``parameters`` are used by a task, ``needed`` by any of the
    tasks. ``stored``: bytes on disk. ``same_as``: the method whose model this one is.
    """

    what: str
    trainings: int
    seconds: tuple[float, ...]
    steps: tuple[int, ...] = ()
    parameters: tuple[float, ...] = ()
    needed: tuple[float, ...] = ()
    stored: tuple[int, ...] = ()
    models: int = 0
    same_as: str | None = None


@dataclass(frozen=True)
class TaskFacts:
    """A task as it was learned, or as another's head answers it."""

    task: str
    description: str
    kind: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: Mapping[str, int]
    """Split -> rows it was evaluated on."""


@dataclass(frozen=True)
class SeedFacts:
    """One run."""

    seed: int
    began: str
    ended: str | None
    starts: int
    commit: str | None
    device: str
    versions: Mapping[str, str]

    @property
    def made_on(self) -> str:
        return f"Run on {self.device}; {', '.join(f'{name} {version}' for name, version in self.versions.items())}."


@dataclass(frozen=True)
class ReportData:
    """All of it. ``seeds`` are those of the tables; None stands where nothing is there to be shown yet."""

    name: str
    description: str
    recipe: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    scores: Comparison | None
    extra: Comparison | None
    extra_judgements: tuple[Judgement, ...]
    """On the tasks of ``extra``; their average is of no interest."""
    language: Comparison | None
    judgements: tuple[Judgement, ...]
    on_rows: OnRows | None
    curves: tuple[Curve, ...]
    transfers: tuple[Transfer, ...]
    overfitting: tuple[Curve, ...]
    """Of training less dev score."""
    ladders: tuple[Ladder, ...]
    all_rungs: bool
    """Whether every rung was trained to the end; else the hopeless were stopped early and are not shown."""
    optimism: Optimism | None
    tickets: Tickets | None
    courses: tuple[Course, ...]
    costs: tuple[Cost, ...]
    breakdowns: tuple[Breakdown, ...]
    sections: tuple[str, ...]
    """What stands between the scores and the costs, as the recipe asks for."""
    notes: Mapping[str, str]
    missing: tuple[str, ...]
    tasks: tuple[TaskFacts, ...]
    runs: tuple[SeedFacts, ...]
    config: str
    command: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
