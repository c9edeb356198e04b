"""Log-probabilities from a file: by line, whatever the order, and every kind of bad file with its exact error."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bias_rows import LABELS, rows, task

from mtl_tickets.errors import ConfigError, DataError
from mtl_tickets.tasks.bias import bias_log_probs
from mtl_tickets.tasks.bias.from_file import FLOOR, FromFile

Write = Callable[[str, str | bytes], Path]

ROWS = rows(["one", "two", "three"], labels=[0, 1, 2])  # lines 2, 3, 4
SAID = {2: [0.2, 0.5, 0.3], 3: [0.1, 0.1, 0.8], 4: [0.0, 0.25, 0.75], 9: [1.0, 0.0, 0.0]}
HEAD = "line\t" + "\t".join(LABELS)


def jsonl(said: list[tuple[Any, list[Any]]], key: str = "line") -> str:
    return "".join(json.dumps({key: line, **dict(zip(LABELS, p, strict=True))}) + "\n" for line, p in said)


def tsv(*lines: str) -> str:
    return "\n".join([HEAD, *(line.replace(" ", "\t") for line in lines)]) + "\n"


def refused(path: Path, **settings: Any) -> list[str]:
    with pytest.raises(DataError) as error:
        FromFile(file=path, **settings).log_probs(task(), ROWS)
    return [str(problem).removeprefix(str(path)).removeprefix(": ") for problem in error.value.problems]


def test_every_format_in_any_order_gives_the_same(write: Write) -> None:
    expected = np.log([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [FLOOR, 0.25, 0.75]])
    turned = [(line, p) for line, p in reversed(SAID.items())]
    written = write("a.tsv", tsv(*(" ".join(map(str, [line, *p])) for line, p in turned)))
    shuffled = [dict(reversed(json.loads(line).items())) for line in jsonl(turned).splitlines()]
    objects = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in shuffled))
    logs = [(line, [math.log(max(p, FLOOR)) for p in row]) for line, row in SAID.items()]
    logarithms = write("l.jsonl", jsonl(logs))
    for model in (FromFile(file=written), FromFile(file=objects), FromFile(file=logarithms, log=True)):
        assert np.allclose(model.log_probs(task(), ROWS), expected, atol=1e-9), model
    answers = FromFile(file=objects).log_probs(task(), ROWS.select(np.array([2, 0])))
    assert np.allclose(answers, expected[[2, 0]], atol=1e-9)


def test_what_was_rounded_adds_up_afterwards(write: Write) -> None:
    path = write("a.tsv", tsv("2 0.333 0.333 0.333", "3 .5 .25 .2505", "4 1 0 0"))
    answers = FromFile(file=path).log_probs(task(), ROWS)
    assert np.allclose(np.exp(answers).sum(1), 1, atol=1e-12)
    assert np.allclose(answers[0], -math.log(3))
    assert np.isfinite(answers).all()


def test_the_key_may_have_another_name(write: Write) -> None:
    path = write("a.jsonl", jsonl(list(SAID.items()), key="id"))
    assert FromFile(file=path, key="id").log_probs(task(), ROWS).shape == (3, 3)
    with pytest.raises(ConfigError, match=r"^t: key: key must not be a label of the task; found 'neutral'"):
        FromFile(file=path, key="neutral").log_probs(task(), ROWS)


GOOD = ["2 0.2 0.5 0.3", "3 0.1 0.1 0.8", "4 0 0.25 0.75"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (GOOD[:2], ["every row of t.tsv must be here; found 'none for line 4'"]),
        (
            [*GOOD, GOOD[1]],
            ["line 5, line: an example must stand here once; found 3; line 3 has it, too"],
        ),
        (
            ["2 nan 0.5 0.5", "3 0.1 inf 0.8", "4 x 0.25 0.75"],
            [
                "line 2, contradiction: must be a finite number; found 'nan'",
                "line 4, contradiction: must be a finite number; found 'x'",
                "line 3, entailment: must be a finite number; found 'inf'",
            ],
        ),
        (
            [*GOOD[:2], "4 -0.2 0.6 0.6"],
            ["line 4, contradiction: a probability must be 0 or more; found '-0.2'; log: true reads log-probabilities"],
        ),
        ([*GOOD[:2], "4 0.5 0.25 0.5"], ["line 4: the probabilities must add up to 1 (within 0.001); found 1.25"]),
        (
            [*GOOD, "0 0.5 0.25 0.25", "2.0 0.5 0.25 0.25"],
            [
                "line 5, line: must be a line number, 1 or more; found '0'",
                "line 6, line: must be a line number, 1 or more; found '2.0'",
            ],
        ),
        (
            [*GOOD, "5 0.5 0.5"],
            ["line 5: must have 4 columns like the header; found '3: 5\\t0.5\\t0.5'"],
        ),
        ([], ["must have rows"]),
    ],
)
def test_bad_rows_of_a_tsv_file(write: Write, lines: list[str], expected: list[str]) -> None:
    assert refused(write("a.tsv", tsv(*lines))) == expected


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (
            '{"line": 4, "contradiction": NaN, "entailment": 0.5, "neutral": 0.5}',
            "contradiction: must be a finite numb",
        ),
        (
            '{"line": 4, "contradiction": null, "entailment": 0.5, "neutral": 0.5}',
            "must be a finite number; found 'null",
        ),
        ('{"line": 4, "contradiction": true, "entailment": 0, "neutral": 0}', "must be a finite number; found True"),
        (
            '{"line": true, "contradiction": 1, "entailment": 0, "neutral": 0}',
            "line: must be a line number, 1 or more; f",
        ),
        (
            '{"line": 4.0, "contradiction": 1, "entailment": 0, "neutral": 0}',
            "line: must be a line number, 1 or more; f",
        ),
        ('{"line": 4, "contradiction": 1' + "0" * 400 + ', "entailment": 0, "neutral": 0}', "must be a finite number"),
        ('{"line": 4, "entailment": 0.5, "neutral": 0.5}', "this column is missing; found 'contradiction'"),
        ("[4, 1, 0, 0]", "must be a JSON object; found [4, 1, 0, 0]"),
        ('{"line": 4, ', "must be JSON (Expecting property name"),
    ],
)
def test_bad_rows_of_a_jsonl_file(write: Write, bad: str, expected: str) -> None:
    path = write("a.jsonl", jsonl([(line, SAID[line]) for line in (2, 3)]) + bad + "\n")
    problems = refused(path)
    assert problems[0].startswith("line 3")
    assert expected in problems[0]
    # a row that cannot be read is also one that is not there
    assert problems[1:] in ([], ["every row of t.tsv must be here; found 'none for line 4'"])


def test_log_probabilities_must_be_finite_and_add_up_too(write: Write) -> None:
    thirds = -math.log(3)
    path = write("a.jsonl", jsonl([(2, [thirds] * 3), (3, [0, -math.inf, -50]), (4, [thirds, thirds, 800])]))
    assert refused(path, log=True) == [
        "line 2, entailment: must be a finite number; found -inf",
        "line 3: the probabilities must add up to 1 (within 0.001); found inf",
    ]


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_columns_that_nobody_knows_and_that_are_not_there(write: Write, suffix: str) -> None:
    text = tsv(*GOOD) if suffix == "tsv" else jsonl([(line, SAID[line]) for line in (2, 3, 4)])
    assert refused(write(f"a.{suffix}", text.replace("entailment", "entailmnet"))) == [
        "line 1: unknown column; found 'entailmnet'; did you mean 'entailment'?",
        "line 1: this column is missing; found 'entailment'; did you mean 'entailmnet'? (columns: "
        "line, contradiction, entailmnet, neutral)",
    ]


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    assert refused(write("a.csv", tsv(*GOOD))) == ["the suffix must be one of .jsonl, .tsv; found '.csv'"]
    assert refused(write("empty.tsv", "")) == refused(write("empty.jsonl", "")) == ["must have rows"]
    assert refused(write("odd.tsv", tsv(*GOOD).encode() + b"\xff\n"))[0].startswith("line 5: must be UTF-8 text")
    twins = refused(write("twins.tsv", HEAD + "\tneutral\n2\t1\t0\t0\t0\n"))
    assert twins == ["line 1: this column may stand only once; found 'neutral'"]
    (missing,) = refused(tmp_path / "none.tsv")
    assert missing.startswith("this file must exist; did you mean 'twins.tsv'") or "holds a.csv" in missing


def test_all_problems_at_once_and_twenty_in_full(write: Write) -> None:
    many = rows([str(i) for i in range(50)], labels=[0] * 50)
    path = write("a.tsv", tsv("2 1 1 1"))
    with pytest.raises(DataError) as error:
        bias_log_probs(FromFile(file=path), task(), many, None)
    problems = [str(problem) for problem in error.value.problems]
    assert len(problems) == 21
    assert problems[0] == f"{path}: line 2: the probabilities must add up to 1 (within 0.001); found 3.0"
    assert problems[-1] == "and 30 more problems like these"
