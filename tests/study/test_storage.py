"""Stages that workers without a common folder leave for each other at a URL."""

import json

import pytest

from mtl_tickets.files import write_json
from mtl_tickets.study.storage import Storage, StoredStages
from mtl_tickets.sums import SUMS, write_sums

KEY = "made-from-this"


@pytest.fixture
def worker(tmp_path):
    """A new worker's view of one storage."""

    def begin(name):
        return StoredStages(tmp_path / name / "shared", Storage(f"file://{tmp_path / 'bucket'}"), "study/shared")

    return begin


@pytest.fixture
def stored(tmp_path):
    return tmp_path / "bucket" / "study" / "shared" / KEY


def made(folder, weights=b"weights"):
    """The files of a stage that is done."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(weights)
    write_json(folder / "done.json", {"rows": []})
    write_sums(folder / SUMS, folder, [folder / "weights.safetensors", folder / "done.json"])
    return sorted(folder.iterdir())


def contents(files):
    return {file.name: file.read_bytes() for file in files}


def test_what_one_leaves_another_finds(worker, tmp_path, stored):
    files = made(tmp_path / "stage")
    first, second = worker("first"), worker("second")
    assert second.find(KEY) == (None, [])
    first.give(KEY, files)
    place, problems = second.find(KEY)
    assert problems == [] and place == tmp_path / "second" / "shared" / KEY
    (there,) = stored.iterdir()
    assert contents(place.iterdir()) == contents(files) == contents(there.iterdir())


def test_what_is_not_whole_there_is_not_found_and_left_whole_by_the_next(worker, tmp_path, stored):
    files = made(tmp_path / "stage")
    worker("first").give(KEY, files)
    (there,) = stored.iterdir()
    (there / "done.json").unlink()
    second = worker("second")
    assert second.find(KEY) == (None, [])
    second.give(KEY, files)
    assert contents(worker("third").find(KEY)[0].iterdir()) == contents(files)


def test_what_is_there_is_not_put_again(worker, tmp_path, stored):
    worker("first").give(KEY, made(tmp_path / "stage"))
    (there,) = stored.iterdir()
    before = contents(there.iterdir())
    worker("second").give(KEY, made(tmp_path / "other", b"of another device"))
    assert [*stored.iterdir()] == [there] and contents(there.iterdir()) == before


def test_two_that_leave_the_same_at_once_leave_it_whole(worker, tmp_path, stored, monkeypatch):
    workers, files = [worker("first"), worker("second")], made(tmp_path / "stage")
    for each in workers:
        monkeypatch.setattr(each, "_left", lambda made_from: [])  # neither sees the other
        each.give(KEY, files)
    assert len([*stored.iterdir()]) == 2
    place, problems = worker("third").find(KEY)
    assert problems == [] and contents(place.iterdir()) == contents(files)


@pytest.mark.parametrize("lost", ["weights.safetensors", SUMS])
def test_damage_is_said_and_mended_by_who_has_it_whole(worker, tmp_path, stored, lost):
    files = made(tmp_path / "stage")
    worker("first").give(KEY, files)
    (there,) = stored.iterdir()
    (there / lost).unlink()
    second = worker("second")
    place, problems = second.find(KEY)
    assert place is None and lost in str(problems[0])
    second.give(KEY, files)
    place, _ = worker("third").find(KEY)
    assert contents(place.iterdir()) == contents(files)


def test_a_storage_that_does_not_answer_costs_no_run(worker, tmp_path, monkeypatch, caplog):
    def refuse(*args, **named):
        raise ConnectionResetError("no route")

    files, first = made(tmp_path / "stage"), worker("first")
    monkeypatch.setattr(first._storage._fs, "info", refuse)
    assert first.find(KEY) == (None, [])
    first.give(KEY, files)
    assert caplog.text.count("stages are not shared now") == 2
    assert json.loads((first.folder / KEY / "done.json").read_text()) == {"rows": []}


def test_a_storage_that_does_not_answer_is_not_an_empty_one(tmp_path, monkeypatch):
    storage = Storage(f"file://{tmp_path / 'bucket'}")
    storage.pull("nothing", tmp_path / "here")
    monkeypatch.setattr(storage._fs, "info", lambda path: 1 / 0)
    with pytest.raises(OSError, match="division"):
        storage.pull("nothing", tmp_path / "here")
