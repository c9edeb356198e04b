"""What the trainings of a run cost, by what they are for: the folders of its stages say that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mtl_tickets.report.data import FULL, Cost
from mtl_tickets.report.runs import Run
from mtl_tickets.report.subnetworks import kind_names

# stages that train nothing and take no time to speak of
LEFT_OUT = ("yardstick", "tickets")
# folder -> what it is for, in the order of a run
NAMES = {
    "full": FULL,
    "rewind": "weights to rewind to",
    "round": "rounds of pruning",
    "rounds": "rounds of pruning",
    "final": "evaluation of the rounds' tickets",
    "control": "control",
    "before": "measured on text, untrained",
    "language": "measured on text, untrained",
    "find": "search on text",
    "fine-tune": "fine-tuning",
    "student": "students",
    "bias": "models of bias",
    "teacher": "answers of the full model",
    "rewound-poe": "rounds of pruning",
    "full-at": "unfinished fine-tunings",
    "transfer": "tickets on other tasks",
}
# of these folders the kind is told, too
OF_KINDS = ("control", "find", "fine-tune", "student")


def stage_costs(runs: Sequence[Run], headings: Mapping[str, str]) -> tuple[Cost, ...]:
    """Trainings, steps and time of each purpose, the whole encoder first. What some run has not begun yet is left
    out."""
    kinds = {**headings, **kind_names(headings)}
    found: dict[str, list[list[Mapping[str, object]]]] = {}
    for number, run in enumerate(runs):
        for name in run.stages("**"):
            what = _purpose(name, kinds)
            stage = run.stage(name)
            if what is not None and "same_as" not in stage:  # what was taken over took no time
                found.setdefault(what, [[] for _ in runs])[number].append(stage)
    names = list(dict.fromkeys(kinds.values()))
    purposes = [*dict.fromkeys(NAMES.values()), *names]

    def place(what: str) -> tuple[int, int]:
        purpose, _, kind = what.partition(": ")
        return _place(purpose, purposes), _place(kind, names)

    return tuple(_cost(what, found[what]) for what in sorted(found, key=place) if all(found[what]))


def _place(name: str, order: Sequence[str]) -> int:
    """Names that are not known stand last."""
    return order.index(name) if name in order else len(order)


def _cost(what: str, of_runs: Sequence[Sequence[Mapping[str, object]]]) -> Cost:
    trained = [[stage for stage in stages if "steps" in stage] for stages in of_runs]
    return Cost(
        what,
        max(map(len, trained)),
        tuple(sum(float(str(stage["seconds"])) for stage in stages) for stages in of_runs),
        tuple(sum(int(str(stage["steps"])) for stage in stages) for stages in trained) if any(trained) else (),
    )


def _purpose(stage: str, kinds: Mapping[str, str]) -> str | None:
    folder, _, rest = stage.partition("/")
    if folder in LEFT_OUT:
        return None
    if folder == "round-0":  # what is left after no round is all of it
        return FULL
    folder = re.sub(r"-\d+$", "", folder)
    kind = rest.partition("/")[0]
    return NAMES.get(folder, kinds.get(folder, folder)) + (f": {kinds.get(kind, kind)}" if folder in OF_KINDS else "")
