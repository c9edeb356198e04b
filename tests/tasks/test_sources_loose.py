"""Any file, read as rows of a task that does not mention it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_tickets.errors import DataError
from mtl_tickets.tasks.sources import read_file
from mtl_tickets.tasks.spec import load_task

Write = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("mrpc", "mine.csv", 'sentence1,sentence2,label\n"a, b",c,equivalent\n'),
        ("mrpc", "mine.tsv", 'Quality\t#1 String\t#2 String\n1\t"a, b\tc\n'),
        ("mrpc", "mine.jsonl", '{"sentence1": "a, b", "sentence2": "c", "label": 1}\n'),
        ("ax", "mine.tsv", "Premise\tHypothesis\tLabel\na, b\tc\tneutral\n"),
        ("mnli", "mine.csv", 'premise,hypothesis,label\n"a, b",c,neutral\n'),
        ("paws", "mine.tsv", "a, b\tc\t1\n"),
        ("snli", "mine.tsv", "sentence1\tsentence2\tgold_label\na\tb\t-\na, b\tc\tneutral\n"),
    ],
)
def test_the_columns_of_the_first_source_that_fits(write: Write, name: str, file: str, content: str) -> None:
    rows = read_file(load_task(name), write(file, content))
    assert rows.texts[0][0].strip('"') == "a, b"
    assert rows.texts[1] == ["c"]
    assert rows.labels.tolist() == [1]


def test_columns_can_be_given_and_labels_left_out(write: Write) -> None:
    path = write("mine.csv", "left,right,truth\na,b,equivalent\n")
    spec = load_task("mrpc")
    assert read_file(spec, path, text=["left", "right"], label="truth").labels.tolist() == [1]
    assert read_file(spec, path, labelled=False, text=["left", "right"]).labels is None


def test_what_does_not_fit_is_refused(write: Write) -> None:
    spec = load_task("mrpc")
    with pytest.raises(DataError, match=r"mine\.csv: line 1: this column is missing; found 'sentence1'"):
        read_file(spec, write("mine.csv", "left,right,truth\na,b,equivalent\n"))
    with pytest.raises(DataError, match=r"other\.csv: line 2: this label is not listed; found 'same'"):
        read_file(spec, write("other.csv", "sentence1,sentence2,label\na,b,same\n"))
    with pytest.raises(DataError, match=r"othr\.csv: this file must exist; did you mean 'other\.csv'"):
        read_file(spec, write("other.csv", "").with_name("othr.csv"))


def test_a_row_that_lacks_a_column_is_refused_and_no_other_column_read(write: Write) -> None:
    """The sources of mrpc call the texts sentence1 and sentence2, or #1 String and #2 String."""
    first = '{"sentence1": "a", "sentence2": "b", "#1 String": "1", "#2 String": "2", "label": 1, "Quality": 1}'
    path = write("mine.jsonl", first + '\n{"#1 String": "3", "#2 String": "4", "label": 1, "Quality": 1}\n')
    with pytest.raises(DataError, match=r"mine\.jsonl: line 2: this column is missing; found 'sentence1'"):
        read_file(load_task("mrpc"), path)
