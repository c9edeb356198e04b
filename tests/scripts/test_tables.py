"""The tables that scripts make: every number is the mean of its rows, and what does not fit together is refused."""

import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.evaluation.records import Row

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
