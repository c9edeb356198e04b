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
    assert contents(place.iterdir()) == contents(files) == contents(stored.iterdir())


def test_what_is_not_whole_there_is_not_found(worker, tmp_path, stored):
    worker("first").give(KEY, made(tmp_path / "stage"))
    (stored / "done.json").unlink()
    assert worker("second").find(KEY) == (None, [])


def test_what_is_there_is_not_put_again(worker, tmp_path, stored):
    worker("first").give(KEY, made(tmp_path / "stage"))
    before = contents(stored.iterdir())
    worker("second").give(KEY, made(tmp_path / "other", b"of another device"))
    assert contents(stored.iterdir()) == before


def test_damage_is_said_and_mended_by_who_has_it_whole(worker, tmp_path, stored):
    files = made(tmp_path / "stage")
    worker("first").give(KEY, files)
    (stored / "weights.safetensors").write_bytes(b"weighty")
    second = worker("second")
    place, problems = second.find(KEY)
    assert place is None and "weights.safetensors" in str(problems[0])
    second.give(KEY, files)
    place, problems = worker("third").find(KEY)
    assert problems == [] and contents(place.iterdir()) == contents(files)


def test_a_storage_that_does_not_answer_costs_no_run(worker, tmp_path, monkeypatch, caplog):
    def refuse(*args, **named):
        raise ConnectionResetError("no route")

    files, first = made(tmp_path / "stage"), worker("first")
    monkeypatch.setattr(first._storage._fs, "isfile", refuse)
    assert first.find(KEY) == (None, [])
    first.give(KEY, files)
    assert caplog.text.count("stages are not shared now") == 2
    assert json.loads((first.folder / KEY / "done.json").read_text()) == {"rows": []}
