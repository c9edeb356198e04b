"""What a stage's result is made from, as a key: runs of a study that need the same do it once.

A key stands for everything that decides the result: the package and torch, the encoder's weights and settings, the
seed, the tasks with the rows of every split that is read, and the settings of the work itself. Two runs with one key
would compute the same, bit for bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mtl_tickets.files import digest
from mtl_tickets.provenance import versions
from mtl_tickets.recipes.jobs import PRETRAINED, Look, Scoring, Training
from mtl_tickets.tasks.encode import tokenizer_fingerprint

if TYPE_CHECKING:
    from mtl_tickets.recipes.workbench import Workbench

LENGTH = 32


class MadeFrom:
    """The keys of one run's stages. Every one is None where the run shares nothing."""

    def __init__(self, bench: Workbench):
        self._bench = bench
        self._common_of: dict[tuple[str, ...], list[Any]] = {}
        self._trained: dict[str, str] = {}

    def training(self, training: Training) -> str | None:
        """None also where a training leaves more than its stage: a model for use."""
        if self._bench.run.shared is None or training.keep_model is not None:
            return None
        tickets = {task: ticket.digest() for task, ticket in (training.tickets or {}).items()}
        settings = training.settings.deciding()
        work: list[Any] = [training.stage, training.report_as, training.keep_weights]
        base = training.base if training.base is not None else self._bench.base
        if base is not None:
            work.append(["base", base.digest()])
        if training.until is not None:
            work.append(["until", training.until])
        if training.horizon > 1:
            work.append(["horizon", training.horizon])
        if training.prune is not None:
            prune = training.prune
            work.append(["prune", prune.space.to_json(), prune.dropped, prune.allocation])
        if training.objective is not None:
            work.append(["objective", training.objective.digest])
        if training.fit:
            work.append("fit")
        if training.origin != PRETRAINED:
            work.append(["origin", asdict(training.origin)])
        for before in filter(None, (training.origin.stage, training.heads_from)):
            if before not in self._trained:
                return None
            work.append(["after", self._trained[before]])
        self._trained[training.stage] = digest([self._common(training.tasks), work, tickets, settings], LENGTH)
        return self._trained[training.stage]

    def look(self, look: Look) -> str | None:
        training = self.training(look.training)
        return None if training is None else digest([training, look.stage, look.until], LENGTH)

    def scoring(self, scoring: Scoring) -> str | None:
        """Of scores taken on the weights of a training that this run has asked for the key of."""
        weights = self._trained.get(scoring.trained)
        if weights is None:
            return None
        return digest([weights, scoring.stage, scoring.task, scoring.settings.model_dump(mode="json")], LENGTH)

    def _common(self, tasks: Sequence[str]) -> list[Any]:
        if tuple(tasks) not in self._common_of:
            bench = self._bench
            data: dict[str, list[Any]] = {}
            for task in [*tasks, *(extra for extra in bench.extra if bench.tasks[extra].head in tasks)]:
                spec, read = bench.tasks[task], bench.data[task]
                data[task] = [spec.model_dump(mode="json", exclude={"description", "sources", "default_source"})]
                data[task] += [read.dev_key(split) for split in spec.dev_splits]
                if task in tasks:
                    data[task] += [read.train_key, read.selection_key]
            known = versions()
            encoder = bench.settings.model_dump(mode="json", exclude={"name"})
            self._common_of[tuple(tasks)] = [
                [known["mtl_tickets"], known["torch"]],
                [bench.weight_hash, encoder, tokenizer_fingerprint(bench.tokenizer)],
                [bench.seed, str(bench.accelerator.mixed_precision)],
                data,
            ]
        return self._common_of[tuple(tasks)]
