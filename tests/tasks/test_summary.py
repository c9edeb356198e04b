from pathlib import Path

from transformers import BertTokenizer

from mtl_tickets.files import digest
from mtl_tickets.tasks.encode import encode
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.tasks.summary import describe


def summary(name: str, split: str, folder: Path, tokenizer: BertTokenizer, max_length: int) -> dict:
    spec = load_task(name)
    rows = read_rows(spec, split, DataSettings(root=folder))
    return describe(spec, rows, encode(spec, split, rows, tokenizer, max_length, None, longer="drop"), tokenizer)


def test_a_split_is_described_in_numbers_and_an_example(tmp_path: Path, tokenizer: BertTokenizer, write) -> None:
    lines = ["a cat a cat a cat a cat\t1", "the cat\t1", "not a dog .\t0", "it\t1"]
    write("SST-2/train.tsv", "\n".join(["sentence\tlabel", *lines]))
    facts = summary("sst2", "train", tmp_path, tokenizer, 6)
    assert facts["labels"] == {"negative": 1, "positive": 2}
    assert facts["rows"] == 3
    assert facts["left_out"] == {"length": 1}
    assert facts["lengths"] == {"min": 3, "median": 4, "90 %": 6, "99 %": 6, "max": 6}
    assert facts["at_limit"] == 1
    sample = facts["sample"]
    assert (sample["line"], sample["texts"], sample["label"]) == (3, ["the cat"], "positive")
    assert sample["tokens"] == ["[CLS]", "the", "cat", "[SEP]"]
    assert sample["decoded"] == "[CLS] the cat [SEP]"
    assert digest(facts), "it is JSON"


def test_regression_and_unlabelled_splits(tmp_path: Path, tokenizer: BertTokenizer, write) -> None:
    write("STS-B/train.tsv", "sentence1\tsentence2\tscore\na\tthe\t1.5\na\ta\t5\n")
    write("STS-B/test.tsv", "sentence1\tsentence2\na\tthe\n")
    facts = summary("stsb", "train", tmp_path, tokenizer, 9)
    assert facts["labels"] == {"min": 1.5, "mean": 3.25, "max": 5.0}
    assert facts["sample"]["label"] == 1.5
    assert summary("stsb", "test", tmp_path, tokenizer, 9)["labels"] is None
