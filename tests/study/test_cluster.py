"""Studies on a real Ray cluster of two nodes on this machine: the table of one process, whatever becomes of workers."""

import json
import os
import signal
import threading
import time

import pytest
import yaml

from mtl_tickets.errors import InputError
from mtl_tickets.progress import Silent
from mtl_tickets.report.study import gather_study
from mtl_tickets.study import load_study
from mtl_tickets.study.runs import run_study
from tests.end_to_end.world import write_world

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'mtl-tickets[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, of one CPU each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000},
    )
    made.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study of two runs: every worker loads the libraries anew, which is what takes the time here."""
    folder = tmp_path_factory.mktemp("cluster")
    write_world(folder)
    experiment = yaml.safe_load((folder / "small.yaml").read_text())
    experiment["tasks"] = ["feelings", "same"]
    experiment["recipe"]["controls"] = []
    experiment["recipe"]["ladder"] = {"kind": "free", "heads": [0.5], "ffn": [0.5]}
    (folder / "small.yaml").write_text(yaml.safe_dump(experiment))
    study = {"name": "far", "experiment": "small.yaml", "rules": ["own"], "seeds": [1, 2]}
    study["grid"] = {"recipe.multi.epochs": [1]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.fixture(scope="module")
def alone(place):
    study = load_study(place / "study.yaml", [f"output={place / 'alone'}"])
    run_study(study)
    return study


def results(study):
    return {(run.point.name, run.seed): (run.path / "results.jsonl").read_bytes() for run in study.runs}


def table(study):
    return [(point.name, point.report.scores, point.report.judgements) for point in gather_study(study.folder).points]


class Watched(Silent):
    def __init__(self):
        self.total = self.done = 0

    def begin(self, run, work):
        self.total += work

    def advance(self, work):
        self.done += work


def test_a_worker_that_is_killed_costs_nothing(cluster, place, alone):
    study = load_study(place / "study.yaml", [f"output={place / 'far'}", "executor=ray"])
    assert study.folder.name == alone.folder.name  # who does the runs changes no number
    lines, progress = [], Watched()

    def kill():
        """The worker of the first run that is in the middle of a training."""
        while not (found := [*study.folder.glob("runs/*/seed-1/stages/*/*/checkpoint.safetensors")]):
            time.sleep(0.02)
        os.kill(int((found[0].parents[3] / ".lock").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    run_study(study, progress, told=lines.append)
    killer.join()
    assert all(run.finished for run in study.runs)
    assert results(study) == results(alone) and table(study) == table(alone)
    assert sum("its worker was lost" in line for line in lines) == 1, lines
    assert sum(line.endswith(": done") for line in lines) == len(study.runs) == 2
    workers = {line.partition(" on ")[2] for line in lines if " on " in line}
    assert len(workers) >= 2, lines
    assert 0 < progress.total <= progress.done + 50 and progress.done > 50


def test_runs_are_kept_at_a_url_and_gone_on_with_from_there(cluster, place, alone, tmp_path):
    url = f"file://{tmp_path / 'bucket'}"
    settings = ["executor.kind=ray", f"executor.storage={url}", "seeds=[1]"]
    study = load_study(place / "study.yaml", [*settings, f"output={tmp_path / 'here'}"])
    run_study(study)
    (run,) = study.runs
    kept = tmp_path / "bucket" / study.folder.name / run.path.relative_to(study.folder)
    whole = (run.path / "results.jsonl").read_bytes()
    assert (kept / "results.jsonl").read_bytes() == whole
    assert not [*kept.rglob("*.part")]
    # another machine, to which half of the run is new
    for file in (*kept.glob("stages/multi/*/done.json"), kept / "stages/single/same/done.json"):
        file.unlink()
    record = json.loads((kept / "record.json").read_text())
    (kept / "record.json").write_text(json.dumps(record | {"finished": None}))
    before = {file: file.stat().st_mtime_ns for file in kept.glob("stages/single/*/done.json")}
    elsewhere = load_study(place / "study.yaml", [*settings, f"output={tmp_path / 'there'}"])
    run_study(elsewhere)
    (again,) = elsewhere.runs
    assert (again.path / "results.jsonl").read_bytes() == whole == (kept / "results.jsonl").read_bytes()
    # not where a worker had it
    assert yaml.safe_load((run.path / "config.yaml").read_text())["output"] == str(study.folder / "runs")
    assert before and before == {file: file.stat().st_mtime_ns for file in before}
    taken = json.loads((again.path / "stages/single/same/done.json").read_text())["taken"]
    assert [*(tmp_path / "bucket" / study.folder.name / "shared" / taken["made_from"]).glob("*/done.json")]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("executor.gpus=1000", "no machine of the cluster has so much"),
        ("executor.storage=nowhere://x", "must be a URL that fsspec can open"),
    ],
)
def test_what_no_cluster_can_do_is_refused(place, tmp_path, setting, message):
    study = load_study(place / "study.yaml", ["executor.kind=ray", setting, f"output={tmp_path}"])
    with pytest.raises(InputError, match=message):
        run_study(study)
