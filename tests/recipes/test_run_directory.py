import json
import shutil

import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.files import locked
from mtl_tickets.recipes import run_directory
from mtl_tickets.recipes.run_directory import Input, RunDirectory


class Killed(BaseException):
    pass


def opened(path, resume=False, restart=False):
    run = RunDirectory(path / "x-1" / "seed-1", {"name": "x"}, "1", 1)
    with run.opened(resume, restart):
        pass
    return run


@pytest.fixture
def whole(tmp_path):
    """A finished run of one stage."""
    run = RunDirectory(tmp_path / "x-1" / "seed-1", {"name": "x"}, "1", 1)
    with run.opened(False, False):
        run.stage("single", lambda folder: {"rows": [run.row("single", "a", "dev", "score", 1.0, 3)]})
        (run.path / "tickets").mkdir()
        run.finish()
    return run


def test_a_restart_killed_at_any_moment_leaves_no_run_that_seems_whole(whole, tmp_path, monkeypatch):
    """Killed before any of its deletions: what is left is the whole run, or none that could be gone on with."""
    real, moment = shutil.rmtree, 0
    while True:
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        shutil.copytree(tmp_path / "x-1", tmp_path / "again" / "x-1")
        calls = []

        def counted(work, calls=calls, moment=moment):
            def call(*args, **settings):
                calls.append(args)
                if len(calls) > moment:
                    raise Killed
                return work(*args, **settings)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(run_directory.shutil, "rmtree", counted(real))
            patch.setattr(run_directory.os, "replace", counted(run_directory.os.replace))
            try:
                opened(tmp_path / "again", restart=True)
                break
            except Killed:
                pass
        left = tmp_path / "again" / "x-1" / "seed-1"
        assert not run_directory.run_finished(left)
        if (left / "stages").exists():
            assert (left / "stages" / "single" / "done.json").exists() and (left / "tickets").exists()
            with pytest.raises(CheckpointError, match="--resume"):
                opened(tmp_path / "again")
        else:
            assert not opened(tmp_path / "again").finished
            assert not (left / run_directory.THROWN_AWAY).exists()
        moment += 1
    assert moment > 2


def test_rows_of_stages_that_are_not_visited_again_stay(tmp_path):
    order = ["single/b", "single/a", "multi/own"]

    def visited(stages):
        run = RunDirectory(tmp_path / "x-1" / "seed-1", {}, "1", 1)
        with run.opened(resume=True, restart=False):
            for stage in stages:
                run.stage(stage, lambda folder, s=stage: {"rows": [run.row(s, "t", "dev", "score", 1.0, 3)]})
            run.write_results()
        return [json.loads(line)["stage"] for line in (run.path / "results.jsonl").read_text().splitlines()]

    assert visited(order) == order
    # as --to does: the stages that are reached come first, in the order of the recipe, and none is lost or doubled
    for reached in range(len(order) + 1):
        told = visited(order[:reached])
        assert told[:reached] == order[:reached] and sorted(told) == sorted(order)
    # a stage that is done anew does not push out those that wait behind it
    shutil.rmtree(tmp_path / "x-1" / "seed-1" / "stages" / "single" / "b")
    assert visited(order[:1]) == ["single/b", "multi/own", "single/a"]


def test_what_a_killed_process_was_writing_is_swept(whole):
    half = whole.path / "stages" / "single" / ".checkpoint.safetensors.abcd1234.part"
    half.write_text("half")
    (whole.path / "mine.part").write_text("kept")
    opened(whole.path.parents[1])
    assert not half.exists()
    assert (whole.path / "mine.part").exists()


def test_nothing_is_swept_under_another_process(whole, monkeypatch):
    half = whole.path / ".weights.abcd1234.part"
    half.write_text("half")
    monkeypatch.setattr(run_directory, "locked", lambda path, patience: locked(path))
    with locked(whole.path), pytest.raises(CheckpointError, match="only one process"):
        opened(whole.path.parents[1])
    assert half.exists()


HERE, THERE = {"data": "here"}, {"data": "there"}
TASKS = {"rte": {"kind": "classification"}}
INPUTS = [
    Input("encoder", "bert", "e"),
    Input("task a, split train", "a.csv", "1"),
    Input("task a, split dev", "b", "2"),
]


@pytest.mark.parametrize("places", [HERE, THERE])
def test_a_run_goes_on_with_the_same_content_wherever_it_lies(whole, places):
    whole.keep_inputs(INPUTS, HERE, TASKS)
    assert not whole.began_elsewhere(HERE) and whole.began_elsewhere(THERE)
    again = opened(whole.path.parents[1], resume=True)
    again.keep_inputs([Input(i.name, f"{places}/{i.file}", i.key) for i in INPUTS], places, TASKS)
    assert not again.began_elsewhere(places)


def test_every_other_content_is_refused_and_named(whole):
    whole.keep_inputs(INPUTS, HERE, TASKS)
    before = (whole.path / "inputs.json").read_text()
    changed = [Input("encoder", "bert", "e"), *(Input(i.name, f"new/{i.file}", "other") for i in INPUTS[1:])]
    with pytest.raises(CheckpointError) as caught:
        whole.keep_inputs(changed, THERE, TASKS)
    train, dev = caught.value.problems
    assert str(train).startswith("new/a.csv: task a, split train: ") and "--restart" in str(train)
    assert str(dev).startswith("new/b: task a, split dev: ")
    assert (whole.path / "inputs.json").read_text() == before


def test_data_that_no_stage_has_used_may_change(whole):
    whole.keep_inputs(INPUTS, HERE, TASKS)
    shutil.rmtree(whole.path / "stages")
    changed = [Input(i.name, i.file, "other") for i in INPUTS]
    whole.keep_inputs(changed, HERE, TASKS)
    (whole.stage_folder("single")).mkdir(parents=True)
    (whole.stage_folder("single") / run_directory.CHECKPOINT).write_text("under way")
    whole.keep_inputs(changed, HERE, TASKS)
    with pytest.raises(CheckpointError):
        whole.keep_inputs(INPUTS, HERE, TASKS)


def test_a_restart_forgets_the_inputs(whole):
    whole.keep_inputs(INPUTS, HERE, TASKS)
    opened(whole.path.parents[1], restart=True).keep_inputs([Input("encoder", "bert", "other")], THERE, TASKS)


def test_the_record_says_what_the_run_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "commit", lambda: "first")
    run = RunDirectory(tmp_path / "x-1" / "seed-1", {}, "1", 1)
    with run.opened(False, False):
        monkeypatch.setattr(run_directory, "commit", lambda: "moved on")
        run.finish()
    record = json.loads((run.path / "record.json").read_text())
    assert record["commit"] == "first" and record["finished"] and len(record["starts"]) == 1
