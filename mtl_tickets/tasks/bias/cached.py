"""Bias log-probabilities, once: a safetensors file per task, named by everything that can change its content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mtl_tickets.files import digest, file_digest, numbers_digest, written_whole
from mtl_tickets.tasks.bias.base import BiasModel
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.sources.base import require_file

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

FORMAT = 1  # part of every key: raised when the file's layout or what a bias model computes changes


def bias_log_probs(settings: BiasModel, spec: TaskSpec, rows: Rows, cache_dir: Path | None) -> np.ndarray:
    """float64 [rows, classes]: what the bias model says of each row, classes in the order of ``spec.labels``.

    ``cache_dir=None`` keeps nothing; else the file is ``<cache_dir>/bias/<task>-<key>.safetensors``, with ``log_probs``
    and ``lines`` (int64 [rows], the place of each row in the task's data file). A file whose content is not what was
    written is made anew, with a warning.

    Raises ConfigError where the task is not of the model's kind, DataError for bad rows or files.
    """
    settings.require_task(spec, rows)
    if cache_dir is None:
        return settings.log_probs(spec, rows)
    path = cache_dir / "bias" / f"{spec.name}-{cache_key(settings, spec, rows)}.safetensors"
    if path.exists():
        try:
            return _read(path, rows, len(spec.labels))
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s is damaged (%s) and is made anew", path, error)
    log_probs = np.ascontiguousarray(settings.log_probs(spec, rows), dtype=np.float64)
    lines = rows.lines
    with written_whole(path) as part:
        save_file({"log_probs": log_probs, "lines": lines}, part, {"digest": _digest(log_probs, lines)})
    return log_probs


def cache_key(settings: BiasModel, spec: TaskSpec, rows: Rows) -> str:
    """A short hash of everything that decides the content of a file: settings, rows and their lines, the task's labels,
    the content of files that are read, and the versions of this room and of scikit-learn.

    Raises DataError where such a file is not there.
    """
    files = settings.files()
    return digest(
        {
            "format": FORMAT,
            "sklearn": importlib.metadata.version("scikit-learn"),
            "task": [spec.name, spec.version, spec.kind, list(spec.labels)],
            "model": settings.model_dump(mode="json", exclude=set(files)),
            "files": {field: file_digest(require_file(path)) for field, path in files.items()},
            "rows": rows.fingerprint,
            "lines": numbers_digest(rows.lines),
        },
        length=16,
    )


def _read(path: Path, rows: Rows, classes: int) -> np.ndarray:
    """Raises ValueError where the content is not what was written for these rows."""
    with safe_open(path, framework="numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        stored = (opened.metadata() or {}).get("digest")
    if set(arrays) != {"log_probs", "lines"} or stored != _digest(arrays["log_probs"], arrays["lines"]):
        raise ValueError("its digest does not match")
    if arrays["log_probs"].shape != (len(rows), classes) or not np.array_equal(arrays["lines"], rows.lines):
        raise ValueError("it is of other rows")
    return arrays["log_probs"]


def _digest(log_probs: np.ndarray, lines: np.ndarray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(log_probs).data)
    content.update(np.ascontiguousarray(lines).data)
    return content.hexdigest()
