"""Arrays and texts that lie in memory or on disk: which of the two does not show."""

import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from mtl_tickets.tasks import spool
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import TaskSpec
from mtl_tickets.tasks.spool import Spool, TextColumn, TextSpool

SPEC = {
    "name": "long",
    "kind": "classification",
    "labels": ["no", "yes"],
    "metrics": ["accuracy"],
    "splits": {"train": "labelled"},
    "sources": {"f": {"kind": "files", "text": ["text"], "label": "label", "splits": {"train": "long.tsv"}}},
}
DRAW = random.Random(5)
TEXTS = ["", "a cat", "Straße", "\U0001f600 and ✓", *("x" * DRAW.randrange(40) for _ in range(3000)), "é", ""]


@pytest.fixture(params=["memory", "disk"])
def place(request, monkeypatch):
    monkeypatch.setattr(spool, "MOST", 1 << 24 if request.param == "memory" else 64)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.float64])
def test_a_spool_gives_back_what_was_added(place, dtype):
    made, pieces = Spool(dtype), [np.arange(5), np.arange(0), np.arange(100) % 7, [3, 4]]
    for piece in pieces:
        made.add(piece)
    array = made.array()
    assert array.dtype == dtype and array.tolist() == np.concatenate(pieces).astype(dtype).tolist()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_an_empty_spool_is_an_empty_array(place):
    assert Spool(np.int64).array().tolist() == [] and TextColumn.of([]) == []


def test_texts_are_the_sequence_that_was_given(place):
    texts = TextColumn.of(iter(TEXTS))
    assert texts == TEXTS and list(texts) == TEXTS and len(texts) == len(TEXTS)
    assert [texts[i] for i in (0, 2, 3, -1, -2)] == [TEXTS[i] for i in (0, 2, 3, -1, -2)]
    for which in (slice(None), slice(1, 5), slice(-3, None), slice(5, 2), slice(None, None, 700), slice(4, 0, -1)):
        assert texts[which] == TEXTS[which]
    assert np.concatenate(list(texts.characters())).tolist() == list(map(len, TEXTS))
    assert b"".join(texts.bytes(piece=100)).decode() == "".join(TEXTS)
    assert pickle.loads(pickle.dumps(texts)) == texts
    assert texts != TEXTS[:-1] and texts != [*TEXTS[:-1], "b"] and texts != "a cat"
    for beyond in (len(TEXTS), -len(TEXTS) - 1):
        with pytest.raises(IndexError):
            texts[beyond]


def test_half_a_character_is_refused_and_nothing_of_it_kept():
    made = TextSpool()
    made.add(["one"])
    with pytest.raises(UnicodeEncodeError):
        made.add(["two", "\ud800"])
    assert made.texts() == ["one"]


@pytest.mark.parametrize(("rows", "size"), [(1, 1000), (7, 50), (10_000, 100), (5, 1)])
def test_texts_that_are_taken_together_are_few_and_short_and_every_one_once(rows, size):
    texts, start, seen = TextColumn.of(TEXTS), 0, []
    while start < len(texts):
        stop = texts.fitting(start, rows, size)
        some = texts[start:stop]
        assert 1 <= len(some) <= rows and (len(some) == 1 or sum(len(text.encode()) for text in some) <= size)
        seen, start = seen + some, stop
    assert seen == TEXTS


def test_rows_on_disk_are_the_rows_in_memory(tmp_path, monkeypatch):
    write(tmp_path / "long.tsv", 30_000)
    data, spec = DataSettings(root=tmp_path), TaskSpec.model_validate(SPEC)
    rows = read_rows(spec, "train", data)
    monkeypatch.setattr(spool, "MOST", 1000)
    again = read_rows(spec, "train", data)
    assert again.fingerprint == rows.fingerprint and again.texts == rows.texts
    assert (again.lines == rows.lines).all() and (again.labels == rows.labels).all()
    chosen = np.array([29_999, 3, 3, 17])
    assert again.select(chosen).fingerprint == rows.select(chosen).fingerprint


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is one of Linux")
def test_a_file_larger_than_memory_is_read(tmp_path):
    """In a process that may have no more than 48 MiB of memory of its own; that is too little for the file's bytes."""
    rows = write(tmp_path / "long.tsv", 600_000)
    assert (tmp_path / "long.tsv").stat().st_size > 80 << 20
    code = f"""
import resource
from mtl_tickets.tasks import spool
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import TaskSpec
import numpy, mtl_tickets.tasks.sources.files, mtl_tickets.tasks.sources.formats
from pathlib import Path
spool.MOST = 1 << 20
spec, folder = TaskSpec.model_validate({SPEC!r}), Path({str(tmp_path)!r})
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (own + (48 << 20), own + (48 << 20)))
rows = read_rows(spec, "train", DataSettings(root=folder))
print(len(rows), rows.texts[0][-1], rows.labels[-1], rows.lines[-1], len(rows.fingerprint))
try:
    (folder / "long.tsv").read_bytes()
except MemoryError:
    print("too little")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:2] == [f"{rows} {text(rows - 1)} {(rows - 1) % 2} {rows + 1} 64", "too little"], (
        done.stderr
    )


def test_a_full_disk_is_said_with_the_folder(monkeypatch, tmp_path):
    """A limit on the size of files stands for it."""
    monkeypatch.setattr(spool, "MOST", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, kept[1]))
    try:
        made = Spool(np.int64)
        with pytest.raises(OSError, match=re.escape(str(tmp_path))):
            made.add(np.arange(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, ignored)


def text(row: int) -> str:
    return f"the {row}th row says what the others say " + "over and over " * 8


def write(path: Path, rows: int) -> int:
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\tlabel\n")
        file.writelines(f"{text(row)}\t{('no', 'yes')[row % 2]}\n" for row in range(rows))
    return rows
