"""A run's model without what the wanted tasks do not need: as a model folder, or as ONNX graphs. Floor 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.files import folder_written_whole, write_json
from mtl_tickets.serving import serve

if TYPE_CHECKING:
    from mtl_tickets.model.multitask import MultiTaskModel

Format = Literal["dir", "onnx"]


@dataclass(frozen=True)
class Exported:
    """What one export wrote. ``parameters``: of the encoder and the heads that are there, and before the removal.
    ``difference``: of an ONNX graph, the largest from the model's logits; None for a model folder."""

    file: Path
    tasks: tuple[str, ...]
    parameters: int
    before: int
    difference: float | None = None


def export(
    path: str | Path,
    target: str | Path,
    tasks: Sequence[str] = (),
    form: Format = "dir",
    rule: str | None = None,
) -> list[Exported]:
    """Writes ``target``, a new folder, whole, from a run or a model folder; ``tasks``: all where none is given.

    ``dir``: one model for the tasks together, without the units that none of their tickets keeps; `evaluate` and
    `predict` read it, and so does :func:`mtl_tickets.load`. ``onnx``: for every task a graph of its own,
    ``<task>.onnx``, beside the tokenizer and ``export.json``, which says what labels and lengths are.

    Raises :class:`InputError` for a task the model does not have, a target that exists, or a package that ONNX needs
    and is not installed.
    """
    from mtl_tickets.model import store
    from mtl_tickets.model.compact import compact

    target = Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(Problem("must not exist yet", str(target)))
    served = serve(path, rule)
    model = served.model.cpu()
    asked = [served.task(name) for name in dict.fromkeys(tasks)] or [served.task(info.name) for info in model.tasks]
    specs = {spec.head or spec.name: spec for spec in asked}
    about = {
        "max_length": served.max_length,
        "tasks": {name: spec.model_dump(mode="json") for name, spec in specs.items()},
    }
    before = _parameters(model)
    if form == "dir":
        small = compact(model, tasks=list(specs))
        store.save(small, target, tokenizer=served.tokenizer, extra=about)
        return [Exported(target, tuple(specs), _parameters(small), before)]
    from mtl_tickets.model.onnx import save_onnx

    written = []
    with folder_written_whole(target) as part:
        for name in specs:
            difference = save_onnx(model, name, part / f"{name}.onnx")
            left = _parameters(compact(model, tasks=[name]))
            written.append(Exported(target / f"{name}.onnx", (name,), left, before, difference))
        served.tokenizer.save_pretrained(part)
        write_json(part / "export.json", about)
    return written


def _parameters(model: MultiTaskModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
