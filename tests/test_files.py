import errno
import json
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from mtl_tickets.errors import CheckpointError
from mtl_tickets.files import (
    digest,
    file_digest,
    folder_written_whole,
    locked,
    nothing_kept,
    read_json,
    recover_folder,
    sweep_parts,
    write_json,
    write_jsonl,
    writing_noted,
    written_whole,
)


class Stopped(Exception):
    """Stands for whatever stops a process in the middle of writing."""


def half_written(path):
    path.write_text("half")
    raise Stopped


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with written_whole(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_stopped_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(Stopped), written_whole(path) as part:
        half_written(part)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [0] * 5000)
    seen = []

    def read():
        while len(seen) < 200:
            seen.append(len(set(json.loads(path.read_text()))))

    reader = threading.Thread(target=read)
    reader.start()
    number = 0
    while reader.is_alive():
        number += 1
        write_json(path, [number] * 5000)
    reader.join()
    assert set(seen) == {1}


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "model"
    for content in ("one", "two"):
        with folder_written_whole(path) as part:
            (part / content).write_text(content)
        assert os.listdir(path) == [content]
    with pytest.raises(Stopped), folder_written_whole(path) as part:
        half_written(part / "three")
    assert os.listdir(path) == ["two"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_moved_aside_by_a_killed_process_is_put_back(tmp_path):
    aside = tmp_path / ".model.old"
    aside.mkdir()
    (aside / "weights").write_text("good")
    recover_folder(tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "good"
    recover_folder(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]


def test_the_copy_set_aside_survives_until_a_new_folder_is_whole(tmp_path):
    aside = tmp_path / ".model.old"
    aside.mkdir()
    with pytest.raises(Stopped), folder_written_whole(tmp_path / "model"):
        raise Stopped
    assert aside.exists()
    with folder_written_whole(tmp_path / "model"):
        pass
    assert os.listdir(tmp_path) == ["model"]


KILLED = """
import os, sys
from pathlib import Path
from mtl_tickets import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as part:
    if part.is_dir():
        (part / "weights").write_text("half")
    os._exit(9)
"""


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path):
    theirs = [".part", "notes.part", ".notes.part", ".notes.abcdefg.part", ".notes.ABCDEFGH.part", "a.abcdefgh.part"]
    (tmp_path / "deep").mkdir()
    for name in theirs:
        (tmp_path / "deep" / name).write_text("not ours")
    before = sorted(tmp_path.rglob("*"))
    for writer, name in (("written_whole", "deep/c.safetensors"), ("folder_written_whole", "deep/model")):
        done = subprocess.run([sys.executable, "-c", KILLED, writer, tmp_path / name], check=False)
        assert done.returncode == 9
    assert len(sorted(tmp_path.rglob("*"))) == len(before) + 3
    sweep_parts(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_json_round_trip_is_exact(tmp_path):
    value = {"b": 0.1 + 0.2, "a": [math.pi, "Grüße", None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]
    write_jsonl(tmp_path / "a.jsonl", [value, 1])
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [value, 1]


def test_what_is_no_json_is_refused_with_its_place(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(CheckpointError, match="must exist"):
        read_json(path)
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(CheckpointError, match=r"a\.json: line 2: must be JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="UTF-8"):
        read_json(path)
    with pytest.raises(CheckpointError, match="must be readable"):
        read_json(tmp_path)


def test_digests_look_at_content_only(tmp_path):
    assert digest({"a": 1, "b": [2.0]}) == digest({"b": [2.0], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
    assert len(digest("x", length=20)) == 20
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


LOCK = """
import sys
from pathlib import Path
from mtl_tickets.errors import CheckpointError
from mtl_tickets.files import locked
try:
    with locked(Path(sys.argv[1])):
        print("got it")
except CheckpointError as error:
    print(error)
"""


def test_one_process_at_a_time(tmp_path):
    def other():
        return subprocess.run([sys.executable, "-c", LOCK, tmp_path], capture_output=True, text=True, check=True).stdout

    with locked(tmp_path):
        assert f"only one process may write a run; found 'held by process {os.getpid()}'" in other()
    assert other() == "got it\n"
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_is_said_as_one_and_leaves_what_was_there(small_disk, folder):
    def fill(part):
        save_file({"x": np.zeros(10**6)}, part / "x" if folder else part)

    whole, path = folder_written_whole if folder else written_whole, small_disk / "a"
    with whole(path) as part:
        (part / "x" if folder else part).write_text("old")
    with pytest.raises(OSError, match="No space left on device") as full, whole(path) as part:
        fill(part)
    assert full.value.errno == errno.ENOSPC and full.value.filename == str(path)
    assert (path / "x" if folder else path).read_text() == "old"
    assert os.listdir(small_disk) == ["a"]


def test_what_is_noted_is_what_was_left(tmp_path):
    with writing_noted() as noted:
        write_json(tmp_path / "a.json", 1)
        write_json(tmp_path / "a.json", 2)
        write_json(tmp_path / "gone.json", 1)
        (tmp_path / "gone.json").unlink()
        with folder_written_whole(tmp_path / "folder") as part:
            write_json(part / "b.json", 1)
    write_json(tmp_path / "later.json", 1)
    assert noted == [tmp_path / "a.json", tmp_path / "folder/b.json"]


def test_where_nothing_is_kept_nothing_is_written(tmp_path):
    with nothing_kept(), writing_noted() as noted:
        write_json(tmp_path / "a.json", 1)
        with folder_written_whole(tmp_path / "folder") as part:
            write_json(part / "b.json", 1)
            (part / "c.txt").write_text("here as long as it takes")
            assert (part / "c.txt").exists()
    assert os.listdir(tmp_path) == [] and noted == []
    write_json(tmp_path / "a.json", 1)
    assert os.listdir(tmp_path) == ["a.json"]
