import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertTokenizer, PreTrainedTokenizerFast

from mtl_tickets.errors import DataError
from mtl_tickets.tasks.encode import EncodedTask, cache_key, encode, tokenizer_fingerprint
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spec import TaskSpec

SPEC = TaskSpec.model_validate(
    {
        "name": "t",
        "labels": ["no", "yes"],
        "metrics": ["accuracy"],
        "splits": {"train": "labelled"},
        "sources": {"f": {"kind": "files", "text": ["a", "b"], "label": "c", "splits": {"train": "t.tsv"}}},
    }
)
FIRST = ["the cat sat on the mat .", "a dog", "it ran and ran and ran on and on .", "the"]
SECOND = ["a cat", "not a dog .", "the dog", ""]


def rows(**changes: Any) -> Rows:
    settings = {"texts": [FIRST, SECOND], "labels": [0, 1, 1, 0], "lines": [2, 3, 4, 5], "label_names": ["no", "yes"]}
    given = settings | changes
    arrays = {name: None if given[name] is None else np.asarray(given[name]) for name in ("labels", "lines")}
    return Rows(**(given | arrays))


class Counted:
    """A tokenizer that counts how often it is asked."""

    def __init__(self, inner: Any):
        self.inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.inner(*args, **kwargs)


def same(one: EncodedTask, two: EncodedTask) -> bool:
    ids, types = one.gather(np.arange(len(one)))
    other_ids, other_types = two.gather(np.arange(len(two)))
    pairs = [*zip(ids, other_ids, strict=True), *zip(types, other_types, strict=True), (one.labels, two.labels)]
    return all(np.array_equal(a, b) for a, b in pairs) and np.array_equal(one.rows, two.rows)


def test_examples_are_what_the_tokenizer_says(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    encoded = encode(SPEC, "train", rows(), tokenizer, 64, tmp_path)
    for i, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        expected = {name: values[0] for name, values in tokenizer([a], [b]).items()}  # alone, "" would be no text
        assert encoded.input_ids(i).tolist() == expected["input_ids"]
        assert encoded.token_type_ids(i).tolist() == expected["token_type_ids"]
    assert encoded.labels is not None
    assert (encoded.labels.dtype, encoded.labels.tolist()) == (np.int64, [0, 1, 1, 0])
    assert (encoded.ids.dtype, encoded.types.dtype, encoded.lengths.dtype) == (np.int32, np.int8, np.int32)
    assert encoded.lengths.tolist() == [len(encoded.input_ids(i)) for i in range(len(encoded))]


def test_single_texts_regression_and_no_labels(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    single = encode(SPEC, "train", rows(texts=[FIRST], labels=None), tokenizer, 64, tmp_path)
    assert single.labels is None
    assert not single.types.any()
    assert single.input_ids(1).tolist() == tokenizer("a dog")["input_ids"]
    regression = SPEC.model_copy(update={"kind": "regression", "labels": []})
    values = encode(regression, "train", rows(labels=[0.5, 1.0, 2.25, 5.0]), tokenizer, 64, tmp_path).labels
    assert values is not None
    assert (values.dtype, values.tolist()) == (np.float32, [0.5, 1.0, 2.25, 5.0])


def test_longer_rows_are_cut_or_dropped(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    whole = encode(SPEC, "train", rows(), tokenizer, 64, tmp_path)
    limit = int(np.sort(whole.lengths)[-2])  # one row is longer
    cut = encode(SPEC, "train", rows(), tokenizer, limit, tmp_path)
    assert cut.lengths.tolist() == np.minimum(whole.lengths, limit).tolist()
    assert cut.input_ids(2)[-1] == tokenizer.sep_token_id
    dropped = encode(SPEC, "train", rows(), tokenizer, limit, tmp_path, longer="drop")
    assert same(dropped, whole.select(np.array([0, 1, 3])))
    assert dropped.rows.tolist() == [0, 1, 3]


@pytest.mark.parametrize("longer", ["truncate", "drop"])
def test_what_lies_on_disk_while_it_is_made_is_the_same(
    tokenizer: BertTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longer: Any
) -> None:
    expected = encode(SPEC, "train", rows(), tokenizer, 12, tmp_path / "memory", longer=longer)
    monkeypatch.setattr("mtl_tickets.tasks.spool.MOST", 8)
    monkeypatch.setattr("mtl_tickets.tasks.encode.SIZE", 20)
    encoded = encode(SPEC, "train", rows(), tokenizer, 12, tmp_path / "disk", longer=longer)
    assert same(encoded, expected)
    files = [file.read_bytes() for file in sorted(tmp_path.glob("*/encoded/*"))]
    assert len(files) == 2 and files[0] == files[1]


def test_no_row_within_the_limit_is_refused(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have a row of at most 5 tokens"):
        encode(SPEC, "train", rows(texts=[FIRST[:1], SECOND[:1]], labels=[0]), tokenizer, 5, tmp_path, longer="drop")
    with pytest.raises(DataError, match=r"max_length.*leave room.*3 special tokens; found 4"):
        encode(SPEC, "train", rows(), tokenizer, 4, tmp_path)


def test_a_second_time_nothing_is_tokenised_and_every_byte_is_equal(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    counted = Counted(tokenizer)
    first = encode(SPEC, "train", rows(), counted, 16, tmp_path)
    calls = counted.calls
    (file,) = tmp_path.rglob("*.arrow")
    content = file.read_bytes()
    second = encode(SPEC, "train", rows(), counted, 16, tmp_path)
    assert counted.calls == calls > 0
    assert same(first, second)
    assert file.read_bytes() == content
    assert file.name.startswith("t-train-")
    assert same(first, encode(SPEC, "train", rows(), tokenizer, 16, None)), "in memory"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "words"])
def test_a_damaged_file_is_made_anew(
    tokenizer: BertTokenizer, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = encode(SPEC, "train", rows(), tokenizer, 16, None)
    encode(SPEC, "train", rows(), tokenizer, 16, tmp_path)
    (file,) = tmp_path.rglob("*.arrow")
    content = file.read_bytes()
    at = content.index(np.asarray(expected.input_ids(0)).tobytes())
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    # a new file: the old one may still be mapped
    file.unlink()
    file.write_bytes({"cut": content[: len(content) // 2], "flip": flipped, "empty": b"", "words": b"hello"}[damage])
    with caplog.at_level(logging.WARNING):
        again = encode(SPEC, "train", rows(), tokenizer, 16, tmp_path)
    assert "is damaged" in caplog.text
    assert str(file) in caplog.text
    assert same(again, expected)
    assert file.read_bytes() == content


def test_the_key_changes_with_whatever_changes_the_bytes(tokenizer: BertTokenizer) -> None:
    shortened = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, model_input_names=["input_ids", "attention_mask"]
    )
    keys = [
        cache_key(SPEC, rows(), tokenizer, 16, "truncate"),
        cache_key(SPEC, rows(), tokenizer, 17, "truncate"),
        cache_key(SPEC, rows(), tokenizer, 16, "drop"),
        cache_key(SPEC, rows(labels=[1, 1, 1, 0]), tokenizer, 16, "truncate"),
        cache_key(SPEC, rows(texts=[SECOND, FIRST]), tokenizer, 16, "truncate"),
        cache_key(SPEC, rows(texts=[["the cat", *FIRST[1:]], SECOND]), tokenizer, 16, "truncate"),
        cache_key(SPEC.model_copy(update={"version": 2}), rows(), tokenizer, 16, "truncate"),
        cache_key(SPEC, rows(), shortened, 16, "truncate"),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key(SPEC, rows(lines=[7, 8, 9, 10], file="elsewhere"), tokenizer, 16, "truncate") == keys[0]


def test_fingerprints_tell_where_a_text_ends() -> None:
    one = rows(texts=[["ab", "c"]], labels=None)
    two = rows(texts=[["a", "bc"]], labels=None)
    assert one.fingerprint != two.fingerprint


def test_a_tokenizer_is_known_by_what_it_does(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a cat", "a"], padding="max_length", truncation=True, max_length=9)
    assert tokenizer_fingerprint(tokenizer) == before, "the last call leaves its padding behind"
    tokenizer.save_pretrained(tmp_path)
    copy = BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer_fingerprint(copy) == before
    copy.add_tokens(["catdog"])
    assert tokenizer_fingerprint(copy) != before


def test_tokenizers_without_token_types_get_the_number_of_the_text(tokenizer: BertTokenizer) -> None:
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, model_input_names=["input_ids", "attention_mask"]
    )
    encoded = encode(SPEC, "train", rows(), plain, 64, None)
    for i, (first, second) in enumerate(zip(FIRST, SECOND, strict=True)):
        both = tokenizer([first], [second])
        assert encoded.input_ids(i).tolist() == both["input_ids"][0]
        # special tokens are of no text
        special = np.isin(encoded.input_ids(i), tokenizer.all_special_ids)
        assert encoded.token_type_ids(i).tolist() == (np.array(both["token_type_ids"][0]) * ~special).tolist()
    assert not encode(SPEC, "train", rows(texts=[FIRST]), plain, 64, None).types.any()


def test_selections_are_views_in_the_order_asked(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    encoded = encode(SPEC, "train", rows(), tokenizer, 64, tmp_path)
    chosen = encoded.select(np.array([3, 1]))
    assert np.shares_memory(chosen.ids, encoded.ids)
    assert chosen.input_ids(0).tolist() == encoded.input_ids(3).tolist()
    assert chosen.lengths.tolist() == encoded.lengths[[3, 1]].tolist()
    assert chosen.rows.tolist() == [3, 1]
    assert chosen.select(np.array([1])).rows.tolist() == [1]
    ids, types = chosen.gather(np.array([1, 0, 1]))
    assert [len(i) for i in ids] == [len(t) for t in types] == chosen.lengths[[1, 0, 1]].tolist()
    assert all(np.shares_memory(i, encoded.ids) for i in ids)
    assert same(pickle.loads(pickle.dumps(chosen)), chosen)
