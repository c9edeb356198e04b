"""What every kind of bias model has in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl_tickets.errors import ConfigError, Problem
from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.sources import Rows

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

BIAS_MODELS: Registry[type[BiasModel]] = Registry("bias model", "mtl_tickets.tasks.bias")


class BiasModel(Settings):
    """Base of all kinds. A subclass adds ``kind: Literal[...]``, its own settings and ``log_probs``."""

    kind: str

    def log_probs(self, spec: TaskSpec, rows: Rows) -> np.ndarray:
        """float64 [rows, classes]: finite log-probabilities, each row's probabilities add up to 1; classes in the order
        of ``spec.labels``. Raises ConfigError where the task is not of the model's kind, DataError for bad data."""
        raise NotImplementedError

    def files(self) -> dict[str, Path]:
        """Field -> file: what is read beside the rows. Their content counts, not where they lie."""
        return {}

    def task_problems(self, spec: TaskSpec, rows: Rows) -> list[Problem]:
        """What the model cannot do with this task, beyond what no bias model can."""
        return []

    def require_task(self, spec: TaskSpec, rows: Rows) -> None:
        """Raises ConfigError, with every reason, where the model cannot be used for the task."""
        if spec.kind != "classification":
            rule = f"bias model {self.kind!r} needs a classification task"
            raise ConfigError(Problem(rule, file=spec.name, place="kind", found=spec.kind))
        problems = self.task_problems(spec, rows)
        if problems:
            raise ConfigError(problems)
