"""How much memory it takes to read a TSV file and to turn it into token ids: the same for a small one and for 5 GB.

    python scripts/benchmark_loading.py FOLDER [--sizes 0.5 5] [--encoded 0.05 0.5] > scripts/results/loading.md

FOLDER takes the files, which are made here, and the temporary ones: room for twice the largest. Every file is read in a
new process. What counts is the process's own memory (anonymous pages, Linux), its most in the reading less what it was
before: pages of the files themselves the system takes away whenever it wants them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from mtl_tickets.provenance import device, versions
from mtl_tickets.tasks.encode import encode
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import TaskSpec

SPEC = TaskSpec.model_validate(
    {
        "name": "long",
        "labels": ["no", "yes"],
        "metrics": ["accuracy"],
        "splits": {"train": "labelled"},
        "sources": {
            "files": {"kind": "files", "text": ["one", "two"], "label": "label", "splits": {"train": "long.tsv"}}
        },
    }
)


class Own(threading.Thread):
    """The most memory of its own that this process has while it is watched, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self._now()
        self.start()

    def run(self) -> None:
        while True:
            self.most = max(self.most, self._now())
            time.sleep(0.02)

    def _now(self) -> int:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) << 10


def write(path: Path, size: float) -> None:
    """A file of that many bytes."""
    done = row = 0
    with open(path, "w", encoding="ascii") as file:
        file.write("one\ttwo\tlabel\n")
        while done < size:
            lines = [
                f"row {i} says what all the others say , and then {i % 977} words more\tin answer to row {i // 3} : "
                f"over and over and over again , the same {i % 31} words\t{('no', 'yes')[i % 2]}\n"
                for i in range(row, row + 10_000)
            ]
            file.writelines(lines)
            done, row = done + sum(map(len, lines)), row + len(lines)


def measured(folder: Path, encoded: bool) -> dict[str, Any]:
    """In this process."""
    tokenizer = None
    if encoded:
        from mtl_tickets.model.encoders import load_tokenizer
        from mtl_tickets.pretraining.encoders import resolve_encoder

        tokenizer = load_tokenizer(resolve_encoder("mini"))
        tokenizer("warm", "up")
    write(folder / "warm" / "long.tsv", 1e6)
    read_rows(SPEC, "train", DataSettings(root=folder / "warm"))
    own, started = Own(), time.monotonic()
    rows = read_rows(SPEC, "train", DataSettings(root=folder))
    if tokenizer is not None:
        encode(SPEC, "train", rows, tokenizer, 64, folder / "cache")
    return {"rows": len(rows), "bytes": own.most - own.before, "seconds": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.05, 0.5, 5.0], help="GB of files that are read")
    parser.add_argument("--encoded", type=float, nargs="+", default=[0.05, 0.5], help="GB of those tokenised, too")
    parser.add_argument("--measure", choices=["read", "encoded"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(args.folder, args.measure == "encoded")))
        return
    listed = [" ".join(f"{size:g}" for size in sizes) for sizes in (args.sizes, args.encoded)]
    print(f"    python scripts/benchmark_loading.py FOLDER --sizes {listed[0]} --encoded {listed[1]}\n")
    facts = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"Memory of loading a TSV file of pairs, on {device()['name']}, {os.cpu_count()} cores; {facts}.\n")
    print("| file | done | rows | memory, MB | minutes |\n|---|---|---:|---:|---:|")
    for what, sizes in (("read", args.sizes), ("encoded", args.encoded)):
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                (Path(folder) / "warm").mkdir()
                write(Path(folder) / "long.tsv", size * 1e9)
                command = [sys.executable, __file__, folder, "--measure", what]
                environment = {**os.environ, "TMPDIR": folder}
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found = json.loads(done.stdout.splitlines()[-1])
            said = {"read": "read and checked", "encoded": "and tokenised"}[what]
            memory, minutes = found["bytes"] / 1e6, found["seconds"] / 60
            print(f"| {size:g} GB | {said} | {found['rows']:,} | {memory:,.0f} | {minutes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
