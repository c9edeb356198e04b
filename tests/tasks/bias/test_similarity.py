"""Word vectors from files as they are found, and every bad file refused with its line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_tickets.errors import DataError
from mtl_tickets.tasks.bias.similarity import read_vectors, spelled

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_both_formats_are_read_and_unit_length(write: Write, header: str) -> None:
    path = write("v.txt", header + "the 3 4 \ncafé 0 -2\r\n. 0 0\nthe 1 0\nat name@x.com 1 1\n")
    vectors = read_vectors(path, ["the", "Café", ".", "at", "fox"])
    assert np.allclose(vectors.units, [[0.6, 0.8], [0, -1], [0, 0], [0, 0], [0, 0]])
    assert vectors.known.tolist() == [True, True, False, False, False], "zeros have no direction, `at` no line"
    assert np.allclose(vectors.cosines(np.array([0, 1]), np.array([1, 0, 2])), [[-0.8, 1, 0], [1, -0.8, 0]])


def test_large_numbers_have_a_length(write: Write) -> None:
    assert np.allclose(read_vectors(write("v.txt", "a 3e30 4e30\n"), ["a"]).units, [[0.6, 0.8]])


def test_the_first_vector_of_a_word_counts(write: Write) -> None:
    assert np.allclose(read_vectors(write("v.txt", "a 1 0\na 0 1\n"), ["a"]).units, [[1, 0]])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a 1 2\nb 1\n", "line 2: must have 2 numbers like the first line; found 1"),
        ("a 1 2\nb 1 x\n", "line 2: must be finite numbers; found '1 x'"),
        ("a 1 2\nb 1 nan\n", "line 2: must be finite numbers; found '1 nan'"),
        ("a 1 2\nb 1 1e99\n", "line 2: must be finite numbers; found '1 1e99'"),
        ("c 1 2\n", ": must hold vectors of the task's words; found 'none of them'"),
        ("", ": must hold vectors of the task's words; found 'none of them'"),
        ("hello\n", "line 1: must begin with two counts, or with a word and its numbers; found 'hello\\n'"),
        ("7 0\n", "line 1: must begin with two counts, or with a word and its numbers; found '7 0\\n'"),
    ],
)
def test_bad_files_are_refused(write: Write, content: str, expected: str) -> None:
    path = write("v.txt", content)
    with pytest.raises(DataError) as error:
        read_vectors(path, ["a", "b"])
    place = expected if expected.startswith(":") else f": {expected}"
    assert [str(problem) for problem in error.value.problems] == [f"{path}{place}"]


def test_lines_of_other_words_are_not_looked_at(write: Write) -> None:
    assert read_vectors(write("v.txt", b"a 1 2\nodd\n\xff\xfe x\n"), ["a"]).known.all()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this file must exist"):
        read_vectors(tmp_path / "none.vec", ["a"])


def test_spelling_is_a_cosine() -> None:
    words = ["cat", "cats", "dog", ".", "Cat"]
    cosines = spelled(words).cosines(np.arange(5), np.arange(5))
    assert np.allclose(cosines, cosines.T)
    assert np.allclose(np.diag(cosines), 1)
    assert cosines.min() >= 0
    assert cosines[0, 4] == pytest.approx(1)
    assert cosines[0, 1] > 0.4 and cosines[0, 2] == 0
