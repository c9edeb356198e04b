"""Files: the same rows from every format, and every kind of bad file refused with its line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_tickets.errors import DataError
from mtl_tickets.tasks.sources import DataSettings, Rows, formats, read_rows
from mtl_tickets.tasks.sources.formats import text_lines
from mtl_tickets.tasks.spec import TaskSpec

Write = Callable[[str, str | bytes], Path]

FIRST = ["a cat", 'a "dog", ran', "naïve \u2028 café", "  spaces  "]
SECOND = ["it sat", "", "ohne, Komma", "日本"]
LABELS = ["no", "yes", "yes", "no"]


def task(format_: str = "tsv", kind: str = "classification", **source: Any) -> TaskSpec:
    settings = {"kind": "files", "text": ["one", "two"], "label": "answer", "splits": {"train": f"train.{format_}"}}
    labels = (
        {"labels": ["no", "yes"], "metrics": ["accuracy"]} if kind == "classification" else {"metrics": ["pearson"]}
    )
    return TaskSpec.model_validate(
        {"name": "t", "kind": kind, "splits": {"train": "labelled"}, "sources": {"here": settings | source}} | labels
    )


def read(spec: TaskSpec, folder: Path) -> Rows:
    return read_rows(spec, "train", DataSettings(root=folder))


def refused(spec: TaskSpec, folder: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        read(spec, folder)
    return [str(problem) for problem in error.value.problems]


def records() -> list[dict[str, str]]:
    return [{"id": "x", "one": a, "two": b, "answer": c} for a, b, c in zip(FIRST, SECOND, LABELS, strict=True)]


def test_every_format_gives_the_same_rows(tmp_path: Path, write: Write) -> None:
    write("train.jsonl", "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records()))
    tsv = ["id\tone\ttwo\tanswer", *("\t".join(record.values()) for record in records())]
    write("train.tsv", "\n".join(tsv))
    quoted = [",".join('"' + value.replace('"', '""') + '"' for value in record.values()) for record in records()]
    write("train.csv", "\n".join(["id,one,two,answer", *quoted]) + "\n")
    pq.write_table(pa.Table.from_pylist(records()), tmp_path / "train.parquet")
    datasets.Dataset.from_list(records()).save_to_disk(str(tmp_path / "saved" / "train"))

    everything = {suffix: read(task(suffix), tmp_path) for suffix in ("tsv", "csv", "jsonl", "parquet")}
    everything["disk"] = read(disk_task(), tmp_path)
    for name, rows in everything.items():
        assert rows.texts == [FIRST, SECOND], name
        assert rows.labels.tolist() == [0, 1, 1, 0], name
    assert len({rows.fingerprint for rows in everything.values()}) == 1
    places = {name: list(rows.lines) for name, rows in everything.items()}
    assert places["tsv"] == places["csv"] == [2, 3, 4, 5]
    assert places["jsonl"] == places["parquet"] == places["disk"] == [1, 2, 3, 4]


def disk_task() -> TaskSpec:
    source = {
        "kind": "disk",
        "folder": "saved",
        "text": ["one", "two"],
        "label": "answer",
        "splits": {"train": "train"},
    }
    return TaskSpec.model_validate(task().model_dump() | {"sources": {"disk": source}, "default_source": "disk"})


def test_a_byte_order_mark_and_crlf_are_no_text(tmp_path: Path, write: Write) -> None:
    write("train.tsv", b"\xef\xbb\xbfone\ttwo\tanswer\r\na cat\tsat\tyes\r\n\r\n")
    rows = read(task(), tmp_path)
    assert (rows.texts, rows.labels.tolist(), rows.lines.tolist()) == ([["a cat"], ["sat"]], [1], [2])


def test_columns_of_a_headerless_file_by_number_and_by_name(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "x\ta cat\tsat\tyes\nx\ta dog\tran\tno\n")
    by_number = read(task(header=False, text=[1, 2], label=3), tmp_path)
    by_name = read(task(header=False, columns=["id", "one", "two", "answer"]), tmp_path)
    assert by_number.texts == by_name.texts == [["a cat", "a dog"], ["sat", "ran"]]
    assert by_number.lines.tolist() == [1, 2]


def test_one_split_may_be_laid_out_otherwise(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "first\tsecond\tlabel\nA\tB\tyes\n")
    split = {"file": "train.tsv", "header": True, "text": ["first", "second"], "label": "label"}
    rows = read(task(header=False, columns=["one", "two", "answer"], splits={"train": split}), tmp_path)
    assert rows.texts == [["A"], ["B"]]


def test_a_csv_row_over_several_lines_is_placed_at_its_first(tmp_path: Path, write: Write) -> None:
    write("train.csv", 'one,two,answer\n"a\ncat",sat,yes\na dog,ran,maybe\n')
    (problem,) = refused(task("csv"), tmp_path)
    assert f"{tmp_path}/train.csv: line 4: this label is not listed; found 'maybe'" in problem


def test_the_first_file_there_counts(tmp_path: Path, write: Write) -> None:
    write("second.tsv", "one\ttwo\tanswer\nA\tB\tyes\n")
    spec = task(splits={"train": ["first.tsv", "second.tsv"]})
    assert read(spec, tmp_path).file == str(tmp_path / "second.tsv")
    (problem,) = refused(task(splits={"train": ["first.tsv", "third.tsv"]}), tmp_path)
    assert "one of these files must exist" in problem
    assert "second.tsv" in problem


def test_rows_are_left_out_only_on_demand_and_counted(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "one\ttwo\tanswer\nA\tB\tyes\nA\tB\t-\nA\tB\nA\tB\tno\n")
    assert len(refused(task(), tmp_path)) == 2
    rows = read(task(drop_labels=["-"], broken_rows="drop"), tmp_path)
    assert (rows.labels.tolist(), rows.lines.tolist()) == ([1, 0], [2, 5])
    assert rows.dropped == {"label": [3], "columns": [4]}


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        ("train.tsv", "one\ttwo\tanswer\n", ["a split must have rows"]),
        ("train.tsv", "", ["a split must have rows"]),
        ("train.csv", "", ["a split must have rows"]),
        ("train.jsonl", "\n\n", ["a split must have rows"]),
        (
            "train.tsv",
            "one\ttow\tanswer\nA\tB\tyes\n",
            ["line 1: this column is missing; found 'two'; did you mean 'tow'? (columns: one, tow, answer)"],
        ),
        (
            "train.tsv",
            "one\tone\ttwo\tanswer\nA\tA\tB\tyes\n",
            ["line 1: this column may stand only once; found 'one'"],
        ),
        (
            "train.tsv",
            "one\ttwo\tanswer\nA\tB\nA\tB\tyes\tmore\n\nA\tB\tno\n",
            ["line 2: must have 3 columns like the header", "line 3: must have 3 columns", "line 4: must have 3"],
        ),
        ("train.csv", "one,two,answer\nA,B,yes\nA,B\n", ["line 3: must have 3 columns like the header"]),
        ("train.csv", 'one,two,answer\nA,B,yes\n"A,B,yes\n', ["line 3: must be rows with quoted fields"]),
        (
            "train.tsv",
            b"one\ttwo\tanswer\nA\tB\tyes\nA\xff\tB\tno\nA\tB\tno\n\xe2\x82\tB\tno\n",
            ["line 3: must be UTF-8 text (byte 2 of the line is not)", "line 5: must be UTF-8 text (byte 1"],
        ),
        (
            "train.tsv",
            "one\ttwo\tanswer\nA\tB\tyess\nA\tB\t\nA\tB\t1\n",
            [
                "line 2: this label is not listed; found 'yess'; did you mean 'yes'?",
                "line 3: this label is not listed; found ''; choose from no, yes",
                "line 4: this label is not listed; found '1'",
            ],
        ),
        ("train.tsv", "one\ttwo\tanswer\n\t  \tyes\n", ["line 2: a row must have some text"]),
        (
            "train.jsonl",
            '{"one": 5, "two": "B", "answer": "yes"}\n{"one": "A", "two": null, "answer": "no"}\n',
            ["line 1: must be text (text 1); found 5", "line 2: must be text (text 2); found 'null'"],
        ),
        (
            "train.jsonl",
            '{"one": "A", "two": "B", "answer": "yes"}\n{"one": "A", "two": "B"}\n["A"]\n{"one": \n',
            [
                "line 2: this column is missing; found 'answer'",
                "line 3: must be a JSON object; found ['A']",
                "line 4: must be JSON (",
            ],
        ),
        (
            "train.jsonl",
            '{"one": "A", "too": "B", "answer": "yes"}\n',
            ["line 1: this column is missing; found 'two'; did you mean 'too'?"],
        ),
        (
            "train.jsonl",
            '{"one": "A", "two": "B", "answer": null}\n{"one": "A", "two": "B", "answer": 1}\n'
            '{"one": "A", "two": "B", "answer": [1]}\n',
            ["line 1: a label is required; found 'null'", "line 2: this label is not listed; found 1", "line 3: this"],
        ),
        ("train.parquet", b"PAR1 and no more", ["must be a parquet file"]),
    ],
)
def test_bad_files_are_refused_with_their_lines(
    tmp_path: Path, write: Write, name: str, content: str | bytes, messages: list[str]
) -> None:
    path = write(name, content)
    problems = refused(task(path.suffix[1:]), tmp_path)
    assert len(problems) == len(messages), problems
    for problem, message in zip(problems, messages, strict=True):
        assert problem.startswith(f"{path}: {message}"), problem


@pytest.mark.parametrize("bad", ["nan", "inf", "four", "", "1e999"])
def test_a_regression_label_must_be_a_finite_number(tmp_path: Path, write: Write, bad: str) -> None:
    write("train.tsv", f"one\ttwo\tanswer\nA\tB\t2.5\nA\tB\t3\nA\tB\t{bad}\n")
    (problem,) = refused(task(kind="regression"), tmp_path)
    assert f"train.tsv: line 4: the label must be a finite number; found {bad!r}" in problem
    write("train.tsv", "one\ttwo\tanswer\nA\tB\t2.5\nA\tB\t3\n")
    assert read(task(kind="regression"), tmp_path).labels.tolist() == [2.5, 3.0]


def test_twenty_problems_are_listed_and_the_rest_counted(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "one\ttwo\tanswer\n" + "A\tB\tmaybe\n" * 50)
    problems = refused(task(), tmp_path)
    assert len(problems) == 21
    assert "line 21" in problems[19]
    assert "30 more" in problems[20]


def test_a_missing_file_lists_its_folder(tmp_path: Path, write: Write) -> None:
    write("data/trian.tsv", "")
    write("data/other.txt", "")
    (problem,) = refused(task(folder="data"), tmp_path)
    assert problem.startswith(f"{tmp_path}/data/train.tsv: this file must exist; did you mean 'trian.tsv'?")
    assert "other.txt, trian.tsv" in problem
    (problem,) = refused(task(folder="dota"), tmp_path)
    assert f"did you mean 'data'? {tmp_path} holds data/" in problem


def test_a_file_of_unknown_format_is_refused(tmp_path: Path, write: Write) -> None:
    write("train.txt", "one\ttwo\tanswer\nA\tB\tyes\n")
    (problem,) = refused(task("txt"), tmp_path)
    assert "the format must be given" in problem
    assert read(task("txt", format="tsv"), tmp_path).labels.tolist() == [1]


def test_no_root_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="the folder of the data must be given"):
        read_rows(task(), "train")


def test_an_unlabelled_split_needs_no_label_column(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "one\ttwo\nA\tB\n")
    spec = task().model_copy(update={"splits": {"train": "unlabelled"}})
    assert read(spec, tmp_path).labels is None


def test_parquet_files_bring_their_class_names(tmp_path: Path) -> None:
    features = datasets.Features({"one": datasets.Value("string"), "two": datasets.Value("string")})
    features["answer"] = datasets.ClassLabel(names=["yes", "no"])  # the other way round than the task
    rows = {"one": ["A", "A"], "two": ["B", "B"], "answer": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    assert read(task("parquet"), tmp_path).labels.tolist() == [1, 0]


def test_half_characters_are_refused(tmp_path: Path, write: Write) -> None:
    write(
        "train.jsonl",
        '{"one": "A", "two": "\\ud83d\\ude00", "answer": "no"}\n{"one": "\\ud83d", "two": "", "answer": "no"}\n',
    )
    (problem,) = refused(task("jsonl"), tmp_path)
    assert "train.jsonl: line 2: must be text of whole characters" in problem


def test_labels_written_as_numbers_may_be_listed_as_numbers(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "one\ttwo\tanswer\nA\tB\t0\nA\tB\t1\nA\tB\t-1\n")
    rows = read(task(label_map={0: "yes", 1: "no"}, drop_labels=[-1]), tmp_path)
    assert (rows.labels.tolist(), rows.dropped) == ([1, 0], {"label": [4]})


def test_a_task_may_lie_elsewhere_than_the_others(tmp_path: Path, write: Write) -> None:
    write("here/train.tsv", "one\ttwo\tanswer\nA\tB\tno\n")
    write("there/train.tsv", "one\ttwo\tanswer\nA\tB\tyes\n")
    data = DataSettings.model_validate({"root": tmp_path / "here", "per_task": {"t": {"root": tmp_path / "there"}}})
    assert read_rows(task(), "train", data).labels.tolist() == [1]
    other = task().model_copy(update={"name": "other"})
    assert read_rows(other, "train", data).labels.tolist() == [0]


def test_selected_rows_keep_their_lines(tmp_path: Path, write: Write) -> None:
    write("train.tsv", "one\ttwo\tanswer\nA\tB\tno\nC\tD\tyes\nE\tF\tno\n")
    rows = read(task(), tmp_path)
    chosen = rows.select(np.array([2, 1]))
    assert (chosen.texts, chosen.labels.tolist(), chosen.lines.tolist()) == ([["E", "C"], ["F", "D"]], [0, 1], [4, 3])
    assert chosen.fingerprint != rows.fingerprint


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_lines_do_not_depend_on_how_much_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, mark: bytes
) -> None:
    monkeypatch.setattr(formats, "BLOCK", block)
    lines = ["naïve \u2028 café", "", "", "a" * 100, "日本語", "\x0b\x0c\x1c", "end"]
    for end in ("\n", "\r\n"):
        for tail in ("", end, end * 4):
            path = tmp_path / "lines.txt"
            path.write_bytes(mark + (end.join(lines) + tail).encode())
            assert list(text_lines(path)) == lines
    for nothing in (b"", b"\n\n", b"\r\n"):
        path.write_bytes(mark + nothing)
        assert list(text_lines(path)) == []


@pytest.mark.parametrize("block", [1, 16, 1 << 20])
def test_every_line_that_is_not_utf8_is_named_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(formats, "BLOCK", block)
    path = tmp_path / "lines.txt"
    path.write_bytes(b"fine\n" * 10 + b"caf\xe9 \n" + b"fine\n" * 10 + b"\xff")
    with pytest.raises(DataError) as error:
        list(text_lines(path))
    places = [problem.place for problem in error.value.problems]
    assert places == ["line 11", "line 22"]
    assert "byte 4 of the line is not" in str(error.value)


def test_a_line_longer_than_any_text_is_refused_before_all_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "BLOCK", 10)
    monkeypatch.setattr(formats, "LONGEST", 1000)
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\ntwo\n" + b"x" * 2000)
    with pytest.raises(DataError, match=r"lines.txt: line 3: a line must have at most 1,000 bytes"):
        list(text_lines(path))
    path.write_bytes(b"one\n" + b"x" * 990 + b"\nthree")
    assert [len(line) for line in text_lines(path)] == [3, 990, 5]


@pytest.mark.parametrize("format_", ["tsv", "csv", "jsonl", "parquet"])
def test_rows_read_in_pieces_are_the_rows(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    made = [{"one": f"a {i}", "two": f"b {i}", "answer": ("no", "yes")[i % 3 == 0]} for i in range(50)]
    if format_ == "parquet":
        pq.write_table(pa.Table.from_pylist(made), tmp_path / "train.parquet", row_group_size=7)
    elif format_ == "jsonl":
        write("train.jsonl", "".join(json.dumps(row) + "\n" for row in made))
    else:
        sign = {"tsv": "\t", "csv": ","}[format_]
        write(
            f"train.{format_}", "".join(sign.join(row) + "\n" for row in [list(made[0]), *(r.values() for r in made)])
        )
    whole = read(task(format_), tmp_path)
    monkeypatch.setattr(formats, "PIECE", 8)
    monkeypatch.setattr(formats, "BLOCK", 100)
    rows = read(task(format_), tmp_path)
    assert rows.texts == [[row["one"] for row in made], [row["two"] for row in made]]
    assert rows.fingerprint == whole.fingerprint and (rows.lines == whole.lines).all()
    # what is wrong in any piece is found
    bad = read(task(format_, drop_labels=["yes"]), tmp_path)
    assert len(bad) == 33 and len(bad.dropped["label"]) == 17 and set(bad.labels.tolist()) == {0}


def test_a_parquet_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"], ["no"], ["c"]], names=["one", "two", "answer", "one"])
    pq.write_table(table, tmp_path / "train.parquet")
    (problem,) = refused(task("parquet"), tmp_path)
    assert "schema: this column may stand only once; found 'one'" in problem
