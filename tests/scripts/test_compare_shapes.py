"""Equal compute: what a shape may see, and that the table tells what was done."""

import pytest

from .loading import script

compare_shapes = script("compare_shapes")
Shape = compare_shapes.Shape


def test_equal_shapes_see_the_same_and_larger_ones_less_for_the_same_multiply_adds():
    first = Shape.of("4x256@8192")
    assert first.tokens(first, 1_000_000) == 1_000_000
    for name in ("6x256@8192", "4x256@12288", "4x384@8192"):
        other = Shape.of(name)
        tokens = other.tokens(first, 1_000_000)
        assert tokens < 1_000_000
        assert tokens * other.multiply_adds == pytest.approx(1_000_000 * first.multiply_adds, rel=1e-5)


def test_multiply_adds_are_those_of_the_weights_and_of_attention():
    shape = Shape.of("1x8@100")
    projections, feed_forward, attention, output = 4 * 8 * 8, 2 * 8 * 32, 2 * 64 * 8, 0.2 * (8 * 8 + 8 * 100)
    assert shape.multiply_adds == pytest.approx(projections + feed_forward + attention + output)


def test_a_table_of_two_small_shapes(tmp_path, monkeypatch, capfd):
    sample = tmp_path / "sample.txt"
    sample.write_text("the cat is good\nthe dog is bad\n")
    words = ["compare_shapes.py", "1x16@300", "2x16@300", "--tokens", "20000", "--output", str(tmp_path / "runs")]
    words += ["--sample", str(sample), "--", "--text", "playground", "--set", "playground_tokens=20000", "--set"]
    monkeypatch.setattr("sys.argv", [*words, "reports=2"])
    compare_shapes.main()
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    one, two = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    assert (one[0], one[1], two[0]) == ("1 x 16", "300", "2 x 16")
    assert one[7] == two[7]
    assert float(one[8]) == pytest.approx(float(one[6]) / float(one[7]), abs=2e-3)
