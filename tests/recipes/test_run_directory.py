import json
import shutil

import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.recipes import run_directory
from mtl_tickets.recipes.run_directory import RunDirectory


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
        assert not (left / "record.json").exists()
        if (left / "stages").exists():
            assert (left / "stages" / "single" / "done.json").exists() and (left / "tickets").exists()
            with pytest.raises(CheckpointError, match="--resume"):
                opened(tmp_path / "again")
        else:
            assert not opened(tmp_path / "again").finished
            assert not (left / run_directory.THROWN_AWAY).exists()
        moment += 1
    assert moment > 2


def test_the_record_says_what_the_run_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "commit", lambda: "first")
    run = RunDirectory(tmp_path / "x-1" / "seed-1", {}, "1", 1)
    with run.opened(False, False):
        monkeypatch.setattr(run_directory, "commit", lambda: "moved on")
        run.finish()
    record = json.loads((run.path / "record.json").read_text())
    assert record["commit"] == "first" and record["finished"] and len(record["starts"]) == 1
