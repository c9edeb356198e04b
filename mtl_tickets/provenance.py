"""Where numbers come from: versions, device, commit, time. Floor 0."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from mtl_tickets._version import __version__


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy", "scikit-learn", "scipy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"mtl_tickets": __version__, "python": platform.python_version(), **found}


def device() -> dict[str, Any]:
    """What the work runs on."""
    import torch

    if torch.cuda.is_available():
        return {"kind": "cuda", "name": torch.cuda.get_device_name(0), "count": torch.cuda.device_count()}
    return {"kind": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}


def commit() -> str | None:
    """The git commit the package runs from, with a mark where files are changed; None outside a checkout."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
