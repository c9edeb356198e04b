"""Files of a run that were damaged while nobody looked: found, said, made anew, and never believed."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mtl_tickets.cli import app
from mtl_tickets.errors import CheckpointError
from mtl_tickets.experiment import load_experiment
from mtl_tickets.report.gather import gather
from mtl_tickets.running import run_experiment
from tests.end_to_end.world import write_world

KEPT = [
    "stages/single/same/weights.safetensors",
    "stages/single/same/predictions-same-dev.safetensors",
    "stages/scores/same/scores.safetensors",
    "stages/ladder/same/winning-1/done.json",
    "stages/multi/own/done.json",
    "stages/multi/own/SHA256SUMS",
    "tickets/own/same.safetensors",
    "model/own/model.safetensors",
]
OF_THE_RUN = ["results.jsonl", "record.json", "inputs.json", "config.yaml", "SHA256SUMS"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = write_world(tmp_path_factory.mktemp("damage"))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    # rules that train for their votes do so inside the stage that shares
    content["recipe"] |= {"controls": [], "sharing": ["own", {"kind": "learned"}, {"kind": "tall"}]}
    content["recipe"]["train"]["epochs"] = 1
    content["recipe"]["ladder"] = {"kind": "free", "heads": [0.25], "ffn": [0.0]}
    path.write_text(yaml.safe_dump(content | {"tasks": ["feelings", "same"]}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(world):
    return run_experiment(load_experiment(world))[0].path


@pytest.fixture
def copied(world, finished, tmp_path):
    """The experiment with a copy of the finished run."""
    shutil.copytree(finished.parents[1], tmp_path / "runs")
    return load_experiment(world, [f"output={tmp_path / 'runs'}"])


def harm(file, how):
    content = bytearray(file.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    else:
        content[int(np.random.default_rng(len(content)).integers(len(content)))] ^= 1
    file.write_bytes(content)


def stopped_before_its_end(run):
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps(record | {"finished": None}))
    (run / "SHA256SUMS").unlink()


def all_but(run, *names):
    """What all files of a run hold, but of those that say when."""
    mine = {"log.txt", ".lock", "record.json", "SHA256SUMS", "done.json", *names}
    return {f.relative_to(run).as_posix(): f.read_bytes() for f in run.rglob("*") if f.is_file() and f.name not in mine}


@pytest.mark.parametrize("how", ["cut", "bit"])
@pytest.mark.parametrize("name", KEPT)
def test_what_a_stage_has_kept_is_made_anew(copied, finished, name, how, caplog):
    run = copied.folder / "seed-1"
    stopped_before_its_end(run)
    harm(run / name, how)
    run_experiment(copied, resume=True)
    assert str(run / name) in caplog.text and "it is made anew" in caplog.text
    assert "found damaged" in (run / "log.txt").read_text()
    assert (run / "results.jsonl").read_bytes() == (finished / "results.jsonl").read_bytes()
    assert all_but(run, "config.yaml") == all_but(finished, "config.yaml")


@pytest.mark.parametrize("how", ["cut", "bit"])
@pytest.mark.parametrize("name", OF_THE_RUN)
def test_a_finished_run_that_was_damaged_is_not_believed(copied, finished, name, how):
    run = copied.folder / "seed-1"
    harm(run / name, how)
    with pytest.raises(CheckpointError) as refused:
        gather(copied.folder)
    assert str(run / name) in str(refused.value) and "--resume" in str(refused.value)
    with pytest.raises(CheckpointError, match="this run is damaged") as refused:
        run_experiment(copied)
    assert str(run / name) in str(refused.value)
    (again,) = run_experiment(copied, resume=True)
    assert again.finished
    assert all_but(run, "config.yaml") == all_but(finished, "config.yaml")
    assert gather(copied.folder).scores == gather(finished.parent).scores


def test_a_whole_run_is_said_nothing_about(copied, caplog):
    run = copied.folder / "seed-1"
    stopped_before_its_end(run)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("done.json")}
    run_experiment(copied, resume=True)
    run_experiment(copied)
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("done.json")}
    assert not caplog.text


def test_a_damaged_answer_of_a_finished_run_is_not_believed_and_made_anew(copied, finished):
    run = copied.folder / "seed-1"
    file = run / "stages/multi/own/predictions-same-dev.safetensors"
    harm(file, "bit")
    with pytest.raises(CheckpointError, match=r"predictions-same-dev.*--resume"):
        gather(copied.folder)
    run_experiment(copied, resume=True)
    assert file.read_bytes() == (finished / file.relative_to(run)).read_bytes()
    assert gather(copied.folder).scores == gather(finished.parent).scores


def test_a_run_that_was_killed_at_its_last_word_is_finished(copied):
    """Between the record and the list of sums."""
    run = copied.folder / "seed-1"
    (run / "SHA256SUMS").unlink()
    (summary,) = run_experiment(copied)
    assert summary.finished and gather(copied.folder).seeds == (1,)


def test_a_full_disk_stops_a_run_that_goes_on_where_there_is_room(world, finished, small_disk):
    arguments = ["run", str(world), "--set", f"output={small_disk}", "--resume"]
    stopped = CliRunner().invoke(app, arguments)
    assert stopped.exit_code == 2 and "Traceback" not in stopped.output
    assert "No space left on device" in stopped.stderr and "make room" in stopped.stderr
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (results,) = small_disk.glob("*/seed-1/results.jsonl")
    assert results.read_bytes() == (finished / "results.jsonl").read_bytes()
