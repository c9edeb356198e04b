"""Two processes that work as one, without a launcher: what ``torchrun`` says to them is said here."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def pair(code: str, *arguments: str, **environment: str) -> list[subprocess.Popen[str]]:
    """Process 0 and 1, which run ``code``, on CPUs and with one thread each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    at |= {"ACCELERATE_USE_CPU": "true", **environment}
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **at, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
