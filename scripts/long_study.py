"""A study of hundreds of tiny runs, left alone for an hour: do memory, open files or the time of a run grow?

    python scripts/long_study.py FOLDER [--runs 200] [--minutes 60] [--workers 2] > scripts/results/long_study.md

One process does the study (`mtl-tickets study`), as it would over a weekend; it is looked at from outside, twice a
second. The study gets as many runs as fill the minutes, by what the first runs took, and no fewer than `--runs`. No two
runs share a stage, so that all have the same to do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from drill import make_world

from mtl_tickets.provenance import device, versions
from mtl_tickets.study.plan import Study, load_study

SEEDS = 4


@dataclass
class Use:
    """Of one run: seconds by the clock, and of the processors, workers' included; and of every look while it was under
    way the resident memory of the study's process (bytes), its open files and its threads."""

    seconds: float = 0.0
    work: float = 0.0
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


def planned(folder: Path, name: str, runs: int, workers: int) -> Study:
    """So many runs, :data:`SEEDS` a learning rate."""
    content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    rates = [round(1e-3 + 1e-6 * i, 9) for i in range(-(-runs // SEEDS))]
    content |= {"name": name, "seeds": [*range(1, SEEDS + 1)], "rules": ["own", "adaptive"], "output": str(folder)}
    content["grid"] = {"recipe.train.optimiser.lr": rates}
    content["set"] |= {"workers": workers}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_study(folder / f"{name}.yaml")


def watched(study: Study, file: Path, log: Path) -> tuple[list[Use], int]:
    """Does the study in a process; what every run used, in the order of their ends, and the exit status."""
    uses = [Use()]
    with open(log, "w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mtl_tickets", "study", str(file)], stdout=said, stderr=subprocess.STDOUT
        )
        seen, began, worked, left = psutil.Process(process.pid), 0.0, 0.0, list(study.runs)
        while process.poll() is None and left:
            use, now = uses[-1], time.monotonic()
            began = began or now
            use.memory.append(seen.memory_info().rss)
            use.files.append(seen.num_fds())
            use.threads.append(seen.num_threads())
            if left[0].finished:
                left.pop(0)
                times = seen.cpu_times()
                work = times.user + times.system + times.children_user + times.children_system
                use.seconds, use.work, began, worked = now - began, work - worked, now, work
                uses.append(Use())
                print(f"{len(study.runs) - len(left)} of {len(study.runs)} runs", file=sys.stderr)
            time.sleep(0.5)
        code = process.wait()
    return uses[: len(study.runs)], code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    folder = make_world(given.folder.resolve() / "world").folder

    few = planned(folder, "few", 2 * SEEDS, given.workers)
    tried, _ = watched(few, folder / "few.yaml", folder / "few.log")
    each = statistics.median(use.seconds for use in tried[1:])
    wanted = max(given.runs, -(-int(1.1 * 60 * given.minutes) // max(1, int(each))))
    study = planned(folder, "many", wanted, given.workers)
    started = time.monotonic()
    uses, code = watched(study, folder / "many.yaml", folder / "many.log")
    minutes = (time.monotonic() - started) / 60

    known = versions()
    print("# A study of many runs in one process\n")
    print(f"    python scripts/long_study.py FOLDER --runs {given.runs} --minutes {given.minutes:g} "
          f"--workers {given.workers}\n")  # fmt: skip
    print(f"{device()['name']}, {os.cpu_count()} cores; torch {known['torch']}, transformers {known['transformers']}, "
          f"python {known['python']}.\n")  # fmt: skip
    finished = sum(run.finished for run in study.runs)
    print(
        f"{finished} of {len(study.runs)} runs finished in {minutes:.0f} minutes, reports included, exit status {code}."
    )
    print("Medians of every tenth of the runs; memory is the resident memory of the study's process.\n")
    print("| runs | seconds a run | of processors | memory, MB | most open files | most threads |")
    print("|---|---:|---:|---:|---:|---:|")
    size = -(-len(uses) // 10)
    for start in range(0, len(uses), size):
        some = uses[start : start + size]
        times = f"{seconds(some):.1f} | {work(some):.1f}"
        used = f"{memory(some) / 1e6:.1f} | {most(some, 'files')} | {most(some, 'threads')}"
        print(f"| {start + 1} to {start + len(some)} | {times} | {used} |")
    quarter = max(1, len(uses) // 4)
    first, last = uses[quarter : 2 * quarter], uses[-quarter:]
    ratios = {
        "time": seconds(last) / seconds(first),
        "time of processors": work(last) / work(first),
        "memory": memory(last) / memory(first),
        "open files": most(last, "files") / most(first, "files"),
    }
    print("\nThe last quarter of the runs over the second (the first fills caches): "
          + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()) + ".")  # fmt: skip


def seconds(uses: list[Use]) -> float:
    return statistics.median(use.seconds for use in uses)


def work(uses: list[Use]) -> float:
    return statistics.median(use.work for use in uses)


def memory(uses: list[Use]) -> float:
    return statistics.median(itertools.chain.from_iterable(use.memory for use in uses))


def most(uses: list[Use], what: str) -> int:
    return max(itertools.chain.from_iterable(getattr(use, what) for use in uses))


if __name__ == "__main__":
    main()
