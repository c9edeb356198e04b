"""The tables of sub-networks have the numbers of the rows, and say what is no such run."""

import statistics

from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.report.tables import Cell
from tests.report.made import World
from tests.report.pruned import MLM, PrunedWorld

from .loading import script


def values(paths, stage, task, metric, split):
    rows = [row for path in paths for row in read_rows(path / "results.jsonl")]
    asked = (stage, task, metric, split)
    return tuple(row.value for row in rows if (row.stage, row.task, row.metric, row.split) == asked)


def test_every_number_is_that_of_the_rows(tmp_path, capsys):
    world = PrunedWorld(tmp_path / "made", tasks=["rte", "calm"])
    paths = [world.write(seed) for seed in (1, 2, 3)]
    table = script("sparsity_table")
    assert table.main([str(world.folder)]) == 0
    printed = capsys.readouterr().out
    for percent in (20, 40, 60, 80):
        losses = values(paths, f"imp/{percent}", MLM, "loss", "held_out")
        assert f"{statistics.fmean(losses):.2f} ± {statistics.stdev(losses):.2f}" in printed
        for task in ("rte", "calm"):
            assert str(Cell(values(paths, f"imp/{percent}", task, "score", "dev"))) in printed
    moved = values(paths, "transfer/40/rte", "calm", "score", "dev")
    full = values(paths, "full", "calm", "score", "dev")
    assert str(Cell(tuple(a - b for a, b in zip(moved, full, strict=True)))) in printed


def test_another_recipe_s_run_is_refused_by_name(tmp_path, capsys):
    world = World(tmp_path / "made")
    world.write(1)
    assert script("sparsity_table").main([str(world.folder)]) == 2
    assert "super_tickets" in capsys.readouterr().err
