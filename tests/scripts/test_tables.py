"""The tables that scripts make: every number is the mean of its rows, and what does not fit together is refused."""

import numpy as np
import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.evaluation.records import Row
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket

from .loading import script


def row(stage, task, value, seed=1, split="dev", metric="score", n=50):
    return Row("run", stage, task, split, metric, float(value), n, seed, 10, "abc")


def ladder_rows(seed, shift=0.0):
    rows = [row("single", "a", 1, seed, split="selection"), row("single", "m", 2, seed, split="selection")]
    rows += [row("single", "a", 80 + shift, seed), row("single", "m", 60 + shift, seed, split="dev_matched")]
    rows += [row("single", "m", 0, seed, split="dev_mismatched")]
    for kind, loss in (("winning", 0), ("losing", 30)):
        for rung in (1, 2):
            stage = f"ladder/{kind}-{rung}"
            for task, split, top in (("a", "dev", 80), ("m", "dev_matched", 60)):
                rows.append(row(stage, task, top - loss - rung + shift, seed, split))
                rows.append(row(stage, task, 100 - 10 * rung, seed, "all", "remaining"))
                rows.append(row(stage, task, 7, seed, "selection"))
    return rows


def cells(table, name):
    line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_ladder_s_rungs_are_means_over_tasks_and_seeds():
    table = script("ladder_table").ladder_tables([ladder_rows(1), ladder_rows(2, shift=2.0)])
    assert cells(table, "0") == ["100.0", "71.0 ± 1.4", "71.0 ± 1.4"]
    assert cells(table, "1") == ["90.0", "70.0 ± 1.4", "40.0 ± 1.4"]
    assert cells(table, "2") == ["80.0", "69.0 ± 1.4", "39.0 ± 1.4"]
    # of a task with several dev splits the first; never what the rung was chosen on
    assert cells(table, "m") == ["61.0 ± 1.4", "60.0 ± 1.4", "59.0 ± 1.4"]


def test_one_seed_has_no_spread():
    table = script("ladder_table").ladder_tables([ladder_rows(1)])
    assert "±" not in table


@pytest.mark.parametrize("rows", [[], [row("single", "a", 80)]])
def test_a_run_without_a_ladder_is_refused(rows):
    with pytest.raises(CheckpointError, match="ladders"):
        script("ladder_table").ladder_tables([rows], "runs/x")


def encoder_rows(seed, value, n=50):
    yardsticks = [row(f"yardstick/{kind}", "a", 30, seed) for kind in ("majority", "bag_of_words")]
    return [*yardsticks, row("single", "a", 0, seed, split="selection"), row("single", "a", value, seed, n=n)]


def test_encoders_stand_side_by_side():
    runs = {"ours": [encoder_rows(1, 70), encoder_rows(2, 72)], "random": [encoder_rows(1, 50), encoder_rows(2, 50)]}
    table = script("encoder_table").encoder_table(runs)
    assert cells(table, "a") == ["30.0", "30.0", "71.0 ± 1.4", "50.0 ± 0.0"]
    assert cells(table, "average") == cells(table, "a")


@pytest.mark.parametrize("other", [[encoder_rows(3, 50)], [encoder_rows(1, 50, n=49)], []])
def test_runs_that_do_not_fit_together_are_refused(other):
    with pytest.raises(CheckpointError, match="must have the seeds, tasks and rows of ours"):
        script("encoder_table").encoder_table({"ours": [encoder_rows(1, 70)], "random": other})


def result(**changes):
    found = {"what": "speed | fp32", "unit": "ms", "of": "ours", "over": "theirs", "ratio": 0.0251}
    found |= {"medians": {"ours": 2.0, "theirs": 12340.0}, "figures": {"ours": [2.0], "theirs": [12340.0]}}
    setting = {"shape": "base", "batch": "8 rows", "precision": "fp32", "threads": 2}
    return setting | {"device": {"kind": "cpu", "name": "x86_64"}, "comparisons": [found | changes]}


def test_every_comparison_is_a_line_with_both_figures_and_its_setting():
    table = script("performance_table").performance_table
    lines = table({"a.json": result(), "b.json": result()}).splitlines()
    assert len(lines) == 4
    last = r"| speed \| fp32 | ours / theirs | 0.0251 | 2 ms | 12,340 ms | base, 8 rows, fp32, 2 threads of x86_64 |"
    assert lines[-1] == last.replace("x86_64", r"x86\_64")
    gpu = {"kind": "cuda", "name": "H200"}
    assert "base, 8 rows, bf16, H200 |" in table({"a.json": result(precision="bf16", device=gpu)})


def test_what_no_benchmark_wrote_is_refused():
    broken = result()
    del broken["comparisons"][0]["ratio"]
    for content in (broken, result(ratio="1"), result(medians={}), [1], {"what": "no comparisons"}):
        with pytest.raises(CheckpointError, match=r"a.json: must be what a benchmark"):
            script("performance_table").performance_table({"a.json": content})


def search_rows(seed, scores, chosen, steps):
    """A task of accuracy whose rung k has ``scores[k]``, looked at before the end; rung 0 is the single-task model."""
    rows = [row("single", "a", scores[0], seed, "selection", n=100), row("single", "a", 0.5, seed, metric="accuracy")]
    for rung, (score, taken) in enumerate(zip(scores[1:], steps, strict=True), 1):
        early = Row("run", f"look-1/ladder/winning-{rung}", "a", "selection", "score", score, 100, seed, 25, "abc")
        last = Row("run", f"ladder/winning-{rung}", "a", "selection", "score", score, 100, seed, taken, "abc")
        rows += [early, *([last] if taken > 25 else [])]
    rows += [row(f"ladder/winning-{rung}", "a", 10 * rung, seed) for rung in range(1, len(scores))]
    return [*rows, row("choose", "a", chosen, seed, "selection", "rung")]


def test_searches_are_told_apart_by_steps_and_by_how_much_the_choice_costs():
    benchmark = script("benchmark_search")
    full = search_rows(1, [70, 75, 80, 60], chosen=2, steps=[100, 100, 100])
    for scores_of, within in ((1, False), (2, True)):
        quick = search_rows(1, [70, 75, 80, 60], chosen=scores_of, steps=[100, 25, 25])
        cell = benchmark.cell(full, quick, "a")
        assert cell["steps"] == {"all": 300, "halving": 150}
        assert cell["rungs"] == {"all": 2, "halving": scores_of}
        assert cell["standard_error"] == 4.0  # sqrt(0.8 * 0.2 / 100)
        assert cell["within"] is within
        assert cell["dev_scores"] == {"all": 20.0, "halving": 10.0 * scores_of}


def layered(kept_heads, blocks):
    """A ticket of 3 layers of 2 heads: in each layer the heads named, and whether the block is kept."""
    space = StructuredSpace.of(layers=3, heads=2, hidden=4, intermediate=8, total=1000)
    heads = np.array([[head in kept for head in range(2)] for kept in kept_heads])
    return Ticket(space, {"heads": heads, "ffn": np.array(blocks)})


def test_a_layer_is_computed_once_for_tasks_that_agree_up_to_it():
    groups = script("prefix_table").groups
    one = layered([{0, 1}, {0}, {0, 1}], [True, True, True])
    above = layered([{0, 1}, {0}, {0, 1}], [True, True, False])
    below = layered([{0}, {0}, {0, 1}], [True, True, False])
    assert groups({"a": one, "b": one}) == [1, 1, 1]
    assert groups({"a": one, "b": above}) == [1, 1, 2]
    # who parts below has parted for good, though the layers above are alike
    assert groups({"a": one, "b": above, "c": below}) == [2, 2, 3]


def test_rules_stand_side_by_side_with_what_their_tasks_have_in_common():
    one, above = layered([{0, 1}] * 3, [True] * 3), layered([{0, 1}] * 3, [True, True, False])
    rows = [row("multi/own", task, value, split=split) for task, split, value in (
        ("a", "dev", 60), ("a", "selection", 0), ("m", "dev_matched", 80), ("m", "dev_mismatched", 70))]  # fmt: skip
    line = script("prefix_table").line("own", [(rows, {"a": one, "m": above})])
    kept = (one.remaining_percent() + above.remaining_percent()) / 2
    assert line == f"| own | 67.5 | {kept:.1f} | 2.0 | 66.7 |"
