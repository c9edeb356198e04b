"""The final table: right numbers from rows, errors for missing rows, whole numbers on any terminal."""

import dataclasses
import io
import statistics

import pytest
from rich.console import Console

from mtl_tickets.errors import CheckpointError
from mtl_tickets.evaluation.records import Row
from mtl_tickets.report.tables import (
    AVERAGE,
    REMAINING,
    comparison,
    escaped,
    evaluation_only,
    language_modelling,
    markdown,
    terminal_tables,
)

COLUMNS = {
    "yardstick/majority": "majority",
    "single": "single-task",
    "multi/dense": "dense multi-task",
    "multi/own": "own tickets",
}
SPLITS = {"rte": ["dev"], "mnli": ["dev_matched", "dev_mismatched"]}
SEEDS = (1, 2, 3)


def row(stage: str, task: str, split: str, metric: str, value: float, seed: int) -> Row:
    return Row("run", stage, task, split, metric, value, 10, seed, 0, "digest")


def rows(seeds=SEEDS, splits=SPLITS) -> list[Row]:
    """Scores that differ in every cell: 10 x column + task + split/10 + seed/100."""
    found = []
    for column, stage in enumerate(COLUMNS):
        for seed in seeds:
            shift = 0 if stage.startswith("yardstick") else seed / 100
            for t, (task, names) in enumerate(splits.items()):
                for s, split in enumerate(names):
                    found.append(row(stage, task, split, "score", 10 * column + t + s / 10 + shift, seed))
                    found.append(row(stage, task, split, "accuracy", 0.5, seed))
                if not stage.startswith("yardstick"):
                    found.append(row(stage, task, "all", "remaining", 100.0 if column < 3 else 60.0 + seed, seed))
            if stage.startswith("multi/"):
                found.append(row(stage, "average", "all", "remaining", 100.0 if column < 3 else 60.0 + seed, seed))
    return found


def test_a_cell_is_the_mean_over_splits_and_seeds():
    table = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    cell = table.lines["mnli"][1]
    assert cell.values == pytest.approx([11.05 + seed / 100 for seed in SEEDS])
    assert cell.mean == pytest.approx(11.07)
    assert cell.spread == pytest.approx(statistics.stdev([0.01, 0.02, 0.03]))


def test_the_average_is_unweighted_and_taken_within_each_seed():
    table = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    for column in range(len(COLUMNS)):
        by_task = [table.lines[task][column].values for task in SPLITS]
        expected = [statistics.fmean(values) for values in zip(*by_task, strict=True)]
        assert table.lines[AVERAGE][column].values == pytest.approx(expected)


def test_remaining_parameters_name_the_copies_of_single_task_models_and_leave_yardsticks_out():
    yardstick, single, dense, own = comparison(rows(), COLUMNS, SPLITS, SEEDS).lines[REMAINING]
    assert str(yardstick) == "–"
    assert str(single) == "100.0 x 2"
    assert str(dense) == "100.0"
    assert str(own) == "62.0 ± 1.0"


def test_one_seed_has_no_spread():
    table = comparison(rows(seeds=[1]), COLUMNS, SPLITS, [1])
    assert all("±" not in str(cell) for cells in table.lines.values() for cell in cells)


def test_a_yardstick_that_no_seed_changes_has_no_spread_and_a_model_has_one():
    table = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    assert str(table.lines["rte"][0]) == "0.0"
    assert str(table.lines["rte"][2]) == "20.0 ± 0.0"


@pytest.mark.parametrize(
    "lost",
    [
        {"stage": "single", "task": "rte", "metric": "score"},
        {"stage": "multi/own", "task": "mnli", "split": "dev_mismatched", "metric": "score"},
        {"stage": "multi/own", "task": "average", "metric": "remaining"},
        {"stage": "yardstick/majority", "task": "rte", "metric": "score"},
    ],
)
def test_a_missing_row_is_an_error_that_names_it(lost):
    kept = [r for r in rows() if not (r.seed == 2 and all(getattr(r, k) == v for k, v in lost.items()))]
    assert len(kept) == len(rows()) - 1
    with pytest.raises(CheckpointError) as error:
        comparison(kept, COLUMNS, SPLITS, SEEDS)
    assert all(str(value) in str(error.value) for value in lost.values())


def without(stage: str, task: str):
    return [r for r in rows() if (r.stage, r.task) != (stage, task)], lambda s, t: (s, t) != (stage, task)


def test_what_a_recipe_does_not_make_is_blank_and_has_no_average():
    kept, reported = without("single", "rte")
    table = comparison(kept, COLUMNS, SPLITS, SEEDS, reported)
    assert str(table.lines["rte"][1]) == str(table.lines[AVERAGE][1]) == "–"
    assert str(table.lines[REMAINING][1]) == "100.0"  # of the one task it has
    whole = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    for line, cells in whole.lines.items():
        assert all(
            mine == theirs for i, (mine, theirs) in enumerate(zip(table.lines[line], cells, strict=True)) if i != 1
        )
    for width in (100, 30):
        console = Console(width=width, file=io.StringIO())
        for part in terminal_tables(table, width):
            console.print(part)
        assert "–" in console.file.getvalue()
    assert " – " in markdown(table)


def test_what_a_recipe_makes_and_is_not_there_is_an_error_all_the_same():
    kept, _ = without("single", "rte")
    _, reported = without("multi/own", "rte")
    with pytest.raises(CheckpointError, match="single"):
        comparison(kept, COLUMNS, SPLITS, SEEDS, reported)


def test_a_loss_is_best_where_it_is_lowest_and_stands_with_more_decimals():
    stages = {"full": "full model", "imp/50": "IMP 50 %", "shuffled/50": "shuffled"}
    found = []
    for seed in SEEDS:
        for place, stage in enumerate(list(stages)[:2]):
            found.append(row(stage, "mlm", "held_out", "loss", 2.5 - place / 100 + seed / 1000, seed))
            found.append(row(stage, "mlm", "held_out", "score", 40 - place + seed, seed))
    table = language_modelling(found, stages, SEEDS, lambda stage, task: stage != "shuffled/50")
    assert table.headings == ("full model", "IMP 50 %")
    assert [str(cell) for cell in table.lines["loss"]] == ["2.502 ± 0.001", "2.492 ± 0.001"]
    assert (table.marked("loss"), table.marked("accuracy %")) == ((False, True), (True, False))
    assert markdown(table).startswith("| mlm | ")
    with pytest.raises(CheckpointError, match="shuffled/50"):
        language_modelling(found, stages, SEEDS)
    assert language_modelling(found, stages, SEEDS, lambda stage, task: False) is None


def test_a_row_that_stands_twice_is_an_error():
    twice = rows()
    twice.append(dataclasses.replace(next(r for r in twice if r.metric == "score"), value=99.0))
    with pytest.raises(CheckpointError):
        comparison(twice, COLUMNS, SPLITS, SEEDS)


def test_the_best_of_a_line_is_marked_and_ties_are_all_marked():
    table = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    assert table.best("rte") == pytest.approx(30.0)
    assert table.best(REMAINING) is None
    marked = next(line for line in markdown(table).splitlines() if line.startswith("| rte"))
    assert marked.endswith("| **30.0 ± 0.0** |")


def test_evaluation_only_tasks_have_no_yardsticks_no_average_and_no_parameters():
    splits = {"hans": ["dev"]}
    without = [r for r in rows(splits=splits) if not r.stage.startswith("yardstick")]
    table = evaluation_only(without, COLUMNS, splits, SEEDS)
    assert table.headings == ("single-task", "dense multi-task", "own tickets")
    assert list(table.lines) == ["hans"]


@pytest.mark.parametrize("width", [100, 80, 60, 45, 30])
def test_every_number_is_shown_whole_on_a_terminal_of_any_width(width):
    table = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    console = Console(width=width, file=io.StringIO())
    for part in terminal_tables(table, width):
        console.print(part)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for cells in table.lines.values():
        assert all(str(cell) in shown for cell in cells)
    if width == 100:
        assert len(terminal_tables(table, width)) == 1


def test_a_column_is_never_cut_in_two_even_where_nothing_fits():
    table = comparison(rows(), COLUMNS, SPLITS, SEEDS)
    assert len(terminal_tables(table, 10)) == len(COLUMNS)


def test_markdown_is_escaped():
    assert escaped("a|b *c* [d](e) <f>\nx") == "a\\|b \\*c\\* \\[d\\](e) \\<f\\> x"
