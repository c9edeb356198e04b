"""Sub-networks from rows to the page: the numbers of their rows, what matches, errors that name what is missing."""

import dataclasses
import json
import re
import statistics

import pydantic
import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.evaluation.matching import matching
from mtl_tickets.evaluation.records import one, read_rows
from mtl_tickets.files import write_jsonl
from mtl_tickets.report.content import document
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.document import Figure, Fold, Gallery, Paragraph, Table, plain
from mtl_tickets.report.drawing import inline
from mtl_tickets.report.gather import gather
from mtl_tickets.report.tables import AVERAGE, REMAINING
from mtl_tickets.report.verdict_content import BASELINES
from mtl_tickets.report.write import write_report
from tests.report.made import TASKS, lose_row
from tests.report.pruned import MLM, PrunedWorld
from tests.report.test_content import inside

SEEDS = (1, 2, 3)
EVERYTHING = (*TASKS, MLM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    world = PrunedWorld(tmp_path_factory.mktemp("pruned") / "made")
    for seed in SEEDS:
        world.write(seed)
    return world.folder


@pytest.fixture(scope="module")
def rows(folder):
    return {seed: read_rows(folder / f"seed-{seed}" / "results.jsonl") for seed in SEEDS}


@pytest.fixture(scope="module")
def data(folder) -> ReportData:
    return gather(folder)


@pytest.fixture(scope="module")
def made(data):
    return document(data)


def values(rows, stage, task, metric="score"):
    split = "held_out" if task == MLM else "dev"
    if metric in ("remaining", "weights_kept"):
        split = "all"
    return [one(rows[seed], stage=stage, task=task, split=split, metric=metric).value for seed in SEEDS]


def section(made, name):
    return next(section for section in made.sections if section.name == name)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_value_survives_json(data):
    assert pydantic.TypeAdapter(ReportData).validate_python(json.loads(json.dumps(data.to_json()))) == data


def test_a_curve_has_the_rows_of_its_stages(data, rows):
    average, *curves = data.curves
    assert [curve.task for curve in curves] == list(EVERYTHING)
    for curve in curves:
        metric = "loss" if curve.task == MLM else "score"
        assert (curve.metric, list(curve.full)) == (metric, values(rows, "full", curve.task, metric))
        there = {(item.kind, item.percent) for item in curve.found}
        controls = {(kind, "40") for kind in ("magnitude", "random", "reinitialised", "shuffled")}
        assert there == controls | {("imp", percent) for percent in ("20", "40", "60", "80")}
        for item in curve.found:
            stage = f"{item.kind}/{item.percent}"
            assert list(item.values) == values(rows, stage, curve.task, metric)
            assert list(item.kept) == values(rows, stage, curve.task, "remaining")
            assert [100 - value for value in item.dropped] == values(rows, stage, curve.task, "weights_kept")
    for item in average.found:
        same = [one.values for curve in curves[:-1] for one in curve.of(item.kind) if one.percent == item.percent]
        assert item.values == pytest.approx([statistics.fmean(of_seed) for of_seed in zip(*same, strict=True)])
    assert average.highest == {}


def test_what_matches_is_what_the_definition_says(data):
    for curve in data.curves[1:]:
        for kind in curve.kinds:
            decided = {
                float(item.percent): matching(item.values, curve.full, curve.task == MLM) for item in curve.of(kind)
            }
            for item in curve.of(kind):
                found = decided[float(item.percent)]
                assert (item.matches, item.reaches) == (found.matches, found.reaches)
            good = [sparsity for sparsity, item in decided.items() if item.matches]
            assert curve.highest[kind].sparsity == max(good, default=None)
    verdicts = [item.matches for curve in data.curves[1:] for item in curve.found]
    assert True in verdicts and False in verdicts


def test_a_cell_of_the_transfer_matrix_is_the_difference_of_the_rows(data, rows):
    (transfer,) = data.transfers
    assert (transfer.percent, transfer.targets) == ("40", EVERYTHING)
    assert [(source.name, source.control) for source in transfer.sources] == [
        *((task, False) for task in EVERYTHING),
        ("one-shot magnitude", True),
        ("random", True),
    ]
    for source in transfer.sources:
        kind = {"one-shot magnitude": "magnitude/40", "random": "random/40"}.get(source.name)
        good = 0
        for cell in source.cells:
            stage = kind or f"transfer/40/{source.name}"
            mine, full, own = (values(rows, s, cell.target) for s in (stage, "full", "imp/40"))
            assert cell.differences == pytest.approx([a - b for a, b in zip(mine, full, strict=True)])
            assert cell.own == (cell.target == source.name)
            assert cell.as_good == (cell.own or statistics.fmean(mine) >= statistics.fmean(own))
            good += cell.as_good and not cell.own
        assert source.as_good == good
    assert len({source.as_good for source in transfer.sources}) > 1


def test_a_ticket_that_matches_everywhere_is_universal(data, rows):
    def matches(stage, task):
        metric = "loss" if task == MLM else "score"
        return matching(values(rows, stage, task, metric), values(rows, "full", task, metric), task == MLM).matches

    for source in data.transfers[0].sources[: len(EVERYTHING)]:
        assert source.universal == all(matches(f"transfer/40/{source.name}", task) for task in EVERYTHING)


def test_everything_stands_against_the_full_model(data):
    (judgement,) = data.judgements
    assert judgement.baseline in BASELINES
    assert [item.method for item in judgement.average] == [
        "IMP 40 %",
        "one-shot magnitude 40 %",
        "random 40 %",
        "IMP, weights drawn anew 40 %",
        "IMP, layers shuffled 40 %",
        "IMP on text 40 %",
    ]
    names = [method.name for method in data.methods]
    for item in judgement.average:
        mine, full = (data.scores.lines[AVERAGE][names.index(name)] for name in (item.method, judgement.baseline))
        assert item.difference == pytest.approx(mine.mean - full.mean)


def test_costs_are_those_of_the_stages(data):
    costs = {cost.what: cost for cost in data.costs}
    assert list(costs) == [
        "the full model",
        "rounds of pruning",
        "control: one-shot magnitude",
        "control: random",
        "control: IMP, weights drawn anew",
        "control: IMP, layers shuffled",
        "tickets on other tasks",
    ]
    trainings = {what: cost.trainings for what, cost in costs.items()}
    assert (trainings["the full model"], trainings["rounds of pruning"]) == (4, 16)
    assert (trainings["control: random"], trainings["tickets on other tasks"]) == (4, 12)  # its own are its rounds'
    assert costs["rounds of pruning"].steps == (160, 160, 160)
    assert costs["the full model"].seconds == (4 * 2.5, 4 * 3.5, 4 * 4.5)


def test_the_text_has_a_table_of_its_own(data, rows):
    assert MLM not in data.scores.lines
    loss, accuracy = data.language.lines.values()
    for method, cell, other in zip(
        [method for method in data.methods if not method.stage.startswith(("yardstick/", "transfer/"))],
        loss,
        accuracy,
        strict=True,
    ):
        assert list(cell.values) == values(rows, method.stage, MLM, "loss")
        assert list(other.values) == values(rows, method.stage, MLM, "score")
    marked = [cell.mean for cell, best in zip(loss, data.language.marked("loss"), strict=True) if best]
    assert marked == [min(cell.mean for cell in loss)]


def test_tests_over_rows_are_made_from_the_predictions_of_the_stages(tmp_path):
    world = PrunedWorld(tmp_path / "made", TASKS[:2], text=False, controls=["random"], rows=40)
    for seed in (1, 2):
        world.write(seed)
    (judgement,) = gather(world.folder).on_rows.judgements
    assert [item.method for item in judgement.average] == ["IMP 40 %", "random 40 %"]


# -- what is missing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    [
        {"stage": "full", "task": "rte", "metric": "score", "split": "dev"},
        {"stage": "full", "task": MLM, "metric": "loss"},
        {"stage": "imp/20", "task": "calm", "metric": "score", "split": "dev"},
        {"stage": "imp/60", "task": MLM, "metric": "loss"},
        {"stage": "imp/60", "task": "rte", "metric": "weights_kept"},
        {"stage": "magnitude/40", "task": "likeness", "metric": "remaining"},
        {"stage": "random/40", "task": MLM, "metric": "score"},
        {"stage": "transfer/40/rte", "task": "calm", "metric": "score", "split": "dev"},
        {"stage": "transfer/40/mlm", "task": "calm", "metric": "score", "split": "dev"},
    ],
)
def test_a_row_that_a_finished_run_lacks_is_an_error_that_names_it(tmp_path, lost):
    world = PrunedWorld(tmp_path / "made")
    world.write(1)
    lose_row(world.write(2), **lost)
    with pytest.raises(CheckpointError) as error:
        gather(world.folder)
    assert all(str(value) in str(error.value) for value in lost.values())


def lose(run, **which):
    """Every row that fits."""
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    write_jsonl(run / "results.jsonl", [row for row in lines if any(row[key] != value for key, value in which.items())])


@pytest.mark.parametrize("which", [{"stage": "imp/60", "task": "rte"}, {"stage": "transfer/40/rte", "task": "calm"}])
def test_so_is_a_stage_that_other_seeds_have(tmp_path, which):
    world = PrunedWorld(tmp_path / "made")
    world.write(1)
    lose(world.write(2), **which)
    with pytest.raises(CheckpointError, match=which["stage"]):
        gather(world.folder)


@pytest.mark.parametrize("until", ["yardsticks", "full", "rounds", "controls"])
def test_an_unfinished_run_is_reported_as_far_as_it_got(tmp_path, until):
    world = PrunedWorld(tmp_path / "made")
    for seed in (1, 2):
        world.write(seed, until)
    data = gather(world.folder)
    assert bool(data.curves) == (until in ("rounds", "controls"))
    assert data.transfers == () and "Seed 1 is not finished" in data.missing[0]
    made = document(data)
    (said,) = section(made, "transfer").blocks
    assert "yet" in plain(said.text)
    if until in ("yardsticks", "full"):
        (said,) = section(made, "sparsity").blocks
        assert "yet" in plain(said.text)
        assert "nothing to compare yet" in plain(section(made, "verdict").blocks[0].text)


def test_a_training_under_way_leaves_out_what_is_not_whole(tmp_path):
    world = PrunedWorld(tmp_path / "made")
    run = world.write(1, "rounds")
    lose(run, stage="imp/80", task="rte")
    curves = {curve.task: curve for curve in gather(world.folder).curves}
    assert [item.percent for item in curves["rte"].of("imp")] == ["20", "40", "60"]
    assert [item.percent for item in curves["calm"].of("imp")] == ["20", "40", "60", "80"]
    assert [item.percent for item in curves[AVERAGE].of("imp")] == ["20", "40", "60"]


# -- what an experiment does not do ------------------------------------------------------------------------------------


def test_a_column_that_is_for_some_tasks_alone_is_blank_for_the_others_and_no_error(tmp_path):
    world = PrunedWorld(tmp_path / "made", sources=["rte", MLM])
    world.write(1)
    run = world.write(2)
    data = gather(world.folder)
    by_stage = {method.stage: i for i, method in enumerate(data.methods)}
    for stage in ("imp/40", "reinitialised/40", "shuffled/40"):
        cells = {line: data.scores.lines[line][by_stage[stage]] for line in data.scores.lines}
        assert [line for line, cell in cells.items() if cell.values] == ["rte", REMAINING]
        assert str(cells["calm"]) == str(cells[AVERAGE]) == "–"
    compared = [item.method for item in data.judgements[0].average]
    assert compared == ["one-shot magnitude 40 %", "random 40 %", "IMP on text 40 %"]
    assert len(data.language.headings) == 6
    (transfer,) = data.transfers
    assert [source.name for source in transfer.sources] == ["rte", MLM, "one-shot magnitude", "random"]
    by_target = {cell.target: cell for cell in transfer.sources[0].cells}
    assert by_target["calm"].as_good is None and by_target["rte"].as_good is True
    document(data)
    lose_row(run, stage="imp/40", task="rte", metric="score", split="dev")
    with pytest.raises(CheckpointError, match="imp/40"):
        gather(world.folder)


def test_without_a_text_without_transfer_and_without_controls(tmp_path):
    world = PrunedWorld(tmp_path / "made", text=False, transfer=False, controls=[], at=[])
    world.write(1)
    world.write(2)
    data = gather(world.folder)
    assert (data.language, data.transfers, data.judgements) == (None, (), ())
    assert [curve.kinds for curve in data.curves] == [("imp",)] * 4
    made = document(data)
    assert [section.name for section in made.sections] == ["verdict", "scores", "sparsity", "cost", "run"]
    assert MLM not in plain(section(made, "sparsity").blocks[0].text)


def test_sizes_that_are_measured_on_the_text_alone_are_lines_of_the_text_alone(tmp_path):
    world = PrunedWorld(tmp_path / "made", transfer=False, controls=["random"])
    for seed in (1, 2):
        run = world.write(seed)
        for task in TASKS:  # as where few of the tickets are fine-tuned
            for percent in (20, 60, 80):
                lose(run, stage=f"imp/{percent}", task=task)
    data = gather(world.folder)
    sizes = {curve.task: [item.percent for item in curve.of("imp")] for curve in data.curves}
    assert sizes == {AVERAGE: ["40"], **{task: ["40"] for task in TASKS}, MLM: ["20", "40", "60", "80"]}
    document(data)


def test_one_seed_decides_nothing_and_says_so(tmp_path):
    world = PrunedWorld(tmp_path / "made")
    data = gather(world.write(4))
    assert all(item.matches is None for curve in data.curves for item in curve.found)
    assert all(curve.highest == {} for curve in data.curves)
    made = document(data)
    said = " ".join(plain(b.text) for b in section(made, "sparsity").blocks if isinstance(b, Paragraph))
    assert "One seed" in said and "not decided" in said
    shown = " ".join(plain(c.text) for b in every(made) if isinstance(b, Table) for r in b.rows for c in r.cells)
    assert "±" not in shown and "✓" not in shown


# -- the page ----------------------------------------------------------------------------------------------------------


def every(made):
    return [block for section in made.sections for block in inside(section.blocks)]


def test_sections_are_those_that_make_sense(made):
    names = ["verdict", "scores", "sparsity", "transfer", "cost", "run"]
    assert [section.name for section in made.sections] == names
    notes = section(made, "run").blocks[0]
    said = " ".join(plain(item) for item in notes.items)
    assert "mlm: " in said and "rungs" not in said and "selection" not in said


def test_rows_have_a_cell_for_every_heading_and_no_blank_one(made):
    for table in (block for block in every(made) if isinstance(block, Table)):
        for row in table.rows:
            assert len(row.cells) == len(table.headings) - 1, plain(table.caption)
            assert all(plain(cell.text).strip() for cell in row.cells), plain(table.caption)


def test_every_figure_says_what_it_shows_and_follows_the_page(made):
    figures = [block for block in every(made) if isinstance(block, Figure)]
    assert len(figures) == 1 + 5 + 1
    assert len({figure.drawing.name for figure in figures}) == len(figures)
    for figure in figures:
        assert len(figure.finding.split()) > 8
        page = inline(figure.drawing.svg, "x")
        assert not re.search(r"(?:fill|stroke): #", page)


def test_the_table_of_sparsities_says_what_the_curves_say(made, data):
    table = next(b for b in every(made) if isinstance(b, Table) and "Highest sparsity" in plain(b.caption))
    *rows, everywhere = table.rows
    for kind, cell in zip(data.curves[1].names, everywhere.cells, strict=True):
        common = [
            float(item.percent)
            for item in data.curves[1].of(kind)
            if all(one.matches for other in data.curves[1:] for one in other.of(kind) if one.percent == item.percent)
        ]
        assert plain(cell.text).split(" / ")[0].rstrip("†") == (f"{max(common):g}" if common else "none")
    for row, curve in zip(rows, data.curves[1:], strict=True):
        assert plain(row.head) == curve.task
        for kind, cell in zip(curve.names, row.cells, strict=True):
            for best, text in zip(
                (curve.highest[kind], curve.strictest[kind]), plain(cell.text).split(" / "), strict=True
            ):
                assert text.rstrip("†") == ("none" if best.sparsity is None else f"{best.sparsity:g}")
                assert text.endswith("†") == (best.sparsity is not None and not best.every_lower)


def test_numbers_and_signs_of_the_matrix_stand_in_figure_and_table(made, data):
    (transfer,) = data.transfers
    table = next(b for b in section(made, "transfer").blocks if isinstance(b, Table))
    (figure,) = (b for b in section(made, "transfer").blocks if isinstance(b, Figure))
    for row, source in zip(table.rows, transfer.sources, strict=True):
        *cells, counted = row.cells
        assert plain(counted.text) == str(source.as_good)
        for cell, moved in zip(cells, source.cells, strict=True):
            text = plain(cell.text)
            assert float(text.split(" ± ")[0]) == pytest.approx(moved.mean, abs=0.05001)
            assert text.endswith("◆") == moved.as_good
            number = text.split(" ± ")[0] + ("◆" if moved.as_good else "")
            assert f">{number}<" in figure.drawing.svg


def test_figures_of_numbers_in_folds_have_the_means(made, data):
    fold = next(b for b in section(made, "sparsity").blocks if isinstance(b, Fold))
    assert len(fold.blocks) == len(data.curves)
    gallery = next(b for b in section(made, "sparsity").blocks if isinstance(b, Gallery))
    for figure, curve in zip(gallery.figures, data.curves, strict=True):
        assert figure.finding.startswith(f"{curve.task}: ")


def test_names_that_are_awkward_stay_text(tmp_path):
    name = "<b>a*b"
    data = gather_of_one(tmp_path)
    curves = tuple(dataclasses.replace(curve, task=f"{name}{i}") for i, curve in enumerate(data.curves))
    made = document(dataclasses.replace(data, curves=curves))
    from mtl_tickets.report.html import page
    from mtl_tickets.report.markdown import markdown

    assert "<b>" not in page(made) and "<b>" not in markdown(made)


def gather_of_one(tmp_path):
    world = PrunedWorld(tmp_path / "made", TASKS[:1], text=False)
    world.write(1)
    return gather(world.folder)


def test_the_report_is_written_whole(folder):
    page = write_report(folder).read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert {file.name for file in (folder / "figures").glob("*.svg")} > {"transfer-40.svg", "sparsity-mlm.svg"}
