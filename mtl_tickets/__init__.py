"""One pretrained encoder for many tasks: find each task's ticket, share them, train, compare.

``import mtl_tickets as mt`` is cheap: every name below is imported from its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtl_tickets._version import __version__

# name -> the module it lives in
_PLACES = {
    "run": "mtl_tickets.verbs",
    "run_study": "mtl_tickets.verbs",
    "write_report": "mtl_tickets.report.write",
    "check": "mtl_tickets.checking:check_files",
    "evaluate": "mtl_tickets.serving",
    "export": "mtl_tickets.exporting",
    "predict": "mtl_tickets.serving",
    "serve": "mtl_tickets.serving",
    "load_model": "mtl_tickets.serving",
    "pretrain": "mtl_tickets.pretraining.pretrain",
    "PretrainSettings": "mtl_tickets.pretraining.settings",
    "load_experiment": "mtl_tickets.experiment",
    "load_task": "mtl_tickets.tasks.spec",
    "TaskSpec": "mtl_tickets.tasks.spec",
    "MultiTaskModel": "mtl_tickets.model.multitask",
    "TaskInfo": "mtl_tickets.model.multitask",
    "compact": "mtl_tickets.model.compact",
    "Ticket": "mtl_tickets.tickets.ticket",
    "Scores": "mtl_tickets.tickets.scores",
    "StructuredSpace": "mtl_tickets.tickets.space",
    "WeightSpace": "mtl_tickets.tickets.space",
    "Budget": "mtl_tickets.tickets.budget",
    "draw": "mtl_tickets.tickets.draw",
    "find_tickets": "mtl_tickets.locate",
    "InputError": "mtl_tickets.errors",
    "MtlTicketsError": "mtl_tickets.errors",
}

__all__ = ["__version__", *sorted(_PLACES)]

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from mtl_tickets.checking import check_files as check
    from mtl_tickets.errors import InputError, MtlTicketsError
    from mtl_tickets.experiment import load_experiment
    from mtl_tickets.exporting import export
    from mtl_tickets.locate import find_tickets
    from mtl_tickets.model.compact import compact
    from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
    from mtl_tickets.pretraining.pretrain import pretrain
    from mtl_tickets.pretraining.settings import PretrainSettings
    from mtl_tickets.report.write import write_report
    from mtl_tickets.serving import evaluate, load_model, predict, serve
    from mtl_tickets.tasks.spec import TaskSpec, load_task
    from mtl_tickets.tickets.budget import Budget
    from mtl_tickets.tickets.draw import draw
    from mtl_tickets.tickets.scores import Scores
    from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
    from mtl_tickets.tickets.ticket import Ticket
    from mtl_tickets.verbs import run, run_study


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _PLACES[name].partition(":")
    value = getattr(importlib.import_module(module), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
