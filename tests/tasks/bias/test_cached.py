"""The cache: what is found is what would be made, and it is found only for the same question."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bias_rows import planted, rows, task
from safetensors.numpy import load_file, save_file

from mtl_tickets.errors import ConfigError, DataError
from mtl_tickets.tasks.bias import BiasModel, bias_log_probs
from mtl_tickets.tasks.bias.cached import cache_key
from mtl_tickets.tasks.bias.from_file import FromFile
from mtl_tickets.tasks.bias.one_text import OneText
from mtl_tickets.tasks.bias.word_overlap import WordOverlap
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spec import TaskSpec

Write = Callable[[str, str | bytes], Path]
MODEL = WordOverlap(against="entailment")
ROWS = planted(60, seed=0)


class Counted(WordOverlap):
    """Counts how often it is fitted."""

    def log_probs(self, spec: TaskSpec, rows: Rows) -> np.ndarray:
        CALLS.append(len(rows))
        return super().log_probs(spec, rows)


CALLS: list[int] = []


def test_a_second_time_nothing_is_fitted_and_every_bit_is_equal(tmp_path: Path) -> None:
    CALLS.clear()
    model = Counted(against="entailment")
    fresh = bias_log_probs(model, task(), ROWS, None)
    first = bias_log_probs(model, task(), ROWS, tmp_path)
    assert CALLS == [60, 60]
    second = bias_log_probs(model, task(), ROWS, tmp_path)
    assert CALLS == [60, 60]
    assert fresh.dtype == second.dtype == np.float64
    assert np.array_equal(fresh, first) and np.array_equal(first, second)
    (file,) = tmp_path.rglob("*.*")
    assert file.parent.name == "bias" and file.name.startswith("t-") and file.suffix == ".safetensors"
    stored = load_file(file)
    assert np.array_equal(stored["log_probs"], fresh)
    assert stored["lines"].dtype == np.int64 and stored["lines"].tolist() == list(ROWS.lines)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "words", "other rows", "no digest"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = bias_log_probs(MODEL, task(), ROWS, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    replaced = {"cut": content[: len(content) // 2], "flip": flipped, "empty": b"", "words": b"hello"}
    if damage == "other rows":
        other = bias_log_probs(MODEL, task(), planted(50, seed=1), tmp_path / "other")
        (stranger,) = (tmp_path / "other").rglob("*.safetensors")
        assert len(other) == 50
        stranger.replace(file)
    elif damage == "no digest":
        save_file(load_file(file), file)
    else:
        file.write_bytes(replaced[damage])
    with caplog.at_level(logging.WARNING):
        again = bias_log_probs(MODEL, task(), ROWS, tmp_path)
    assert f"{file} is damaged" in caplog.text and "is made anew" in caplog.text
    assert np.array_equal(again, expected)
    caplog.clear()
    assert np.array_equal(bias_log_probs(MODEL, task(), ROWS, tmp_path), expected)
    assert not caplog.text


def test_the_key_changes_with_whatever_changes_the_content(write: Write) -> None:
    one, two = write("one.vec", "a 1 2\n"), write("two.vec", "a 1 3\n")
    said, later = write("one.jsonl", '{"line": 2}\n'), write("two.jsonl", '{"line": 3}\n')
    texts = [["other", *ROWS.texts[0][1:]], ROWS.texts[1]]
    moved = Rows(ROWS.texts, ROWS.labels, np.arange(3, 63), ROWS.label_names)
    models: list[BiasModel] = [
        WordOverlap(),
        MODEL,
        MODEL.model_copy(update={"folds": 2}),
        MODEL.model_copy(update={"vectors": one}),
        MODEL.model_copy(update={"vectors": two}),
        OneText(),
        OneText(text=2),
        FromFile(file=said),
        FromFile(file=said, log=True),
        FromFile(file=later),
    ]
    keys = [cache_key(model, task(), ROWS) for model in models]
    keys += [
        cache_key(MODEL, task(version=2), ROWS),
        cache_key(MODEL, task(["neutral", "entailment", "contradiction"]), ROWS),
        cache_key(MODEL, task(), rows(*texts, labels=ROWS.labels)),
        cache_key(MODEL, task(), rows(*ROWS.texts, labels=[0, *ROWS.labels[1:-1], 1 - ROWS.labels[-1] % 2])),
        cache_key(MODEL, task(), moved),
        cache_key(MODEL, task(), ROWS.select(np.arange(60)[::-1])),
    ]
    assert len(set(keys)) == len(keys)
    # where a file lies does not matter, what it holds does
    copy = write("elsewhere/copy.vec", one.read_bytes())
    assert cache_key(MODEL.model_copy(update={"vectors": copy}), task(), ROWS) == keys[3]


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs pairs"):
        bias_log_probs(MODEL, task(), rows(["a"], labels=[1]), tmp_path)
    with pytest.raises(DataError, match="this file must exist"):
        bias_log_probs(MODEL.model_copy(update={"vectors": tmp_path / "none.vec"}), task(), ROWS, tmp_path)
    assert not list(tmp_path.iterdir())
