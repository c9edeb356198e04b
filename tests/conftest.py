"""Shared by all tests: no network, few threads, and where the real data lies (if it does)."""

import os
import subprocess
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# one thread a process: tiny models gain nothing from more, and tests fork
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

SHARED = Path(os.environ.get("MTL_TICKETS_REAL", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with data/, weights/ and conformance/; the test is skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data at {SHARED} (set MTL_TICKETS_REAL)")
    return SHARED


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, where this user may have one."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=262144", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
