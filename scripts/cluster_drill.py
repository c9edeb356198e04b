"""A study on a real Ray cluster of several nodes on this machine, some workers killed, against one process.

    python scripts/cluster_drill.py FOLDER [--seeds 6] [--nodes 2] [--killed 1] > scripts/results/cluster_drill.md

Every run's rows are compared byte for byte with those of the same study done by one process, and so is the table. The
workers that die are drawn from a seed: whoever is at work at that moment.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from pathlib import Path

import yaml
from drill import make_world

from mtl_tickets.provenance import versions
from mtl_tickets.report.gather import gather
from mtl_tickets.study.plan import Study, load_study
from mtl_tickets.study.runs import run_study


def planned(folder: Path, seeds: int, output: str, *settings: str) -> Study:
    """Four points with so many seeds each."""
    content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    content |= {"name": "cluster", "seeds": [*range(1, seeds + 1)], "rules": ["own", "adaptive"]}
    content["grid"] = {"recipe.multi.epochs": [1, 2], "limit.train": [48, 64]}
    (folder / "cluster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_study(folder / "cluster.yaml", [f"output={folder.parent / output}", *settings])


def kill_some(study: Study, killed: int, ended: threading.Event, victims: list[int]) -> None:
    """The holders of the locks of runs that are at work, at moments that are drawn."""
    drawn = random.Random(0)
    while len(victims) < killed and not ended.wait(drawn.uniform(1.0, 4.0)):
        working = [run.path / ".lock" for run in study.runs if (run.path / ".lock").exists() and not run.finished]
        holders = {int(text) for lock in working if (text := lock.read_text()).isdecimal()}
        alive = [number for number in holders if number != os.getpid() and Path(f"/proc/{number}").exists()]
        if alive:
            victims.append(drawn.choice(sorted(alive)))
            os.kill(victims[-1], signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--killed", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    world = make_world(given.folder.resolve() / "world").folder
    alone = planned(world, given.seeds, "alone")
    started = time.monotonic()
    run_study(alone)
    seconds = time.monotonic() - started

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    for _ in range(given.nodes - 1):
        cluster.add_node(**small)
    ray.init(address=cluster.address, log_to_driver=False)  # else Ray's own words stand between the table's
    far = planned(world, given.seeds, "far", "executor=ray")
    lines: list[str] = []
    victims: list[int] = []
    ended = threading.Event()
    killer = threading.Thread(target=kill_some, args=(far, given.killed, ended, victims))
    killer.start()
    started = time.monotonic()
    run_study(far, told=lines.append)
    on_ray = time.monotonic() - started
    ended.set()
    killer.join()
    ray.shutdown()
    cluster.shutdown()

    same = sum(
        (one.path / "results.jsonl").read_bytes() == (other.path / "results.jsonl").read_bytes()
        for one, other in zip(alone.runs, far.runs, strict=True)
    )
    tables = sum(
        gather(one.loaded.folder).scores == gather(other.loaded.folder).scores
        for one, other in zip(alone.points, far.points, strict=True)
    )
    known = versions()
    print("# A study on a Ray cluster, workers killed on the way\n")
    print(f"    python scripts/cluster_drill.py FOLDER --seeds {given.seeds} --nodes {given.nodes} "
          f"--killed {given.killed}\n")  # fmt: skip
    software = f"ray {ray.__version__}, torch {known['torch']}, transformers {known['transformers']}"
    print(f"{os.cpu_count()} cores; {software}, python {known['python']}.\n")
    print(f"| what | figure |\n|---|---:|\n| runs | {len(far.runs)} |\n| nodes, of one CPU each | {given.nodes} |")
    print(f"| workers killed | {len(victims)} |")
    print(f"| runs that went on on another worker | {sum('its worker was lost' in line for line in lines)} |")
    print(f"| runs finished | {sum(run.finished for run in far.runs)} |")
    print(f"| runs with the rows of one process, byte for byte | {same} |")
    print(f"| tables equal, of {len(far.points)} points | {tables} |")
    print(f"| seconds of one process | {seconds:.0f} |\n| seconds on the cluster | {on_ray:.0f} |")


if __name__ == "__main__":
    main()
