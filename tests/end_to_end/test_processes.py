"""The main job in two processes under accelerate's launcher: the numbers of one, written once, and killed at any moment
it goes on to the same."""

import json
import random
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.experiment import load_experiment
from mtl_tickets.running import run_experiment
from tests.end_to_end.world import write_world

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
TASKS = ["feelings", "same"]
COMPARED = ("single/feelings", "single/same", "multi/own", "scores/learned")
# the steps of Adam follow gradients, not the signs of those that are but rounding
OPTIMISER = {"lr": 2e-3, "eps": 0.1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = write_world(tmp_path_factory.mktemp("processes"))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    # learned tickets: a training that is not a model's own
    content["recipe"] |= {"controls": [], "sharing": ["own", {"kind": "learned"}], "gradients": 20}
    content["recipe"]["ladder"] = {"kind": "free", "heads": [0.25], "ffn": [0.5]}
    content["recipe"]["train"] |= {"optimiser": OPTIMISER, "checkpoint_seconds": 60}
    content["encoder"]["dropout"] = 0.0  # of which each process draws its own
    for task in TASKS:
        spec = yaml.safe_load((path.parent / f"{task}.yaml").read_text(encoding="utf-8"))
        (path.parent / f"{task}.yaml").write_text(yaml.safe_dump(spec | {"head_dropout": 0.0}), encoding="utf-8")
    content["tasks"] = TASKS
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def launched(world, output, *more, **options):
    command = [*LAUNCH, "-m", "mtl_tickets", "run", str(world), "--set", f"output={output}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def seed_folder(output):
    (folder,) = output.glob("*/seed-1")
    return folder


def losses(folder):
    """Of every epoch."""
    histories = [json.loads((folder / f"stages/{stage}/done.json").read_text())["history"] for stage in COMPARED]
    return [row["loss"] for history in histories for row in history]


@pytest.fixture(scope="module")
def together(world, tmp_path_factory):
    """What two processes said and wrote, undisturbed."""
    output = tmp_path_factory.mktemp("together")
    code, out, err = ended(launched(world, output))
    assert code == 0, err
    return seed_folder(output), out


def test_two_processes_find_and_write_what_one_does(world, together, tmp_path):
    folder, _ = together
    alone = run_experiment(load_experiment(world, [f"output={tmp_path}"]))[0]
    expected, seen = read_rows(alone.path / "results.jsonl"), read_rows(folder / "results.jsonl")
    assert [(r.stage, r.task, r.metric, r.n) for r in seen] == [(r.stage, r.task, r.metric, r.n) for r in expected]
    assert [r.value for r in seen] == pytest.approx([r.value for r in expected], abs=1e-4)
    assert losses(folder) == pytest.approx(losses(alone.path), abs=1e-5)
    files = [sorted(f.relative_to(root).as_posix() for f in root.rglob("*")) for root in (alone.path, folder)]
    assert files[0] == files[1]


def test_one_of_them_speaks_and_writes(together):
    folder, out = together
    assert out.count("writing to") == 1 and out.count("all rows") == 1
    trainings = [line.split()[1] for line in (folder / "log.txt").read_text().splitlines()]
    assert len(trainings) == len(set(trainings)) > 4


def test_a_killed_process_ends_both_and_loses_nothing(world, together, tmp_path):
    whole, _ = together
    process = launched(world, tmp_path, "--set", "recipe.train.checkpoint_seconds=0")
    while not [*tmp_path.glob("*/seed-1/stages/ladder/*/*/checkpoint.safetensors")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    rank = random.Random(0).choice("01")
    (victim,) = [c for c in psutil.Process(process.pid).children(True) if c.environ().get("RANK") == rank]
    victim.kill()
    code, out, _ = ended(process)
    assert code != 0 and "report" not in out

    code, _, err = ended(launched(world, tmp_path, "--resume"))
    assert code == 0, err
    assert (seed_folder(tmp_path) / "results.jsonl").read_bytes() == (whole / "results.jsonl").read_bytes()
