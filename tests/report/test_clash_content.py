"""Gradients and units in conflict: from the files of runs to what a report says, and reports of runs without them."""

import shutil
import statistics
from pathlib import Path

import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.document import Fold, Heading, Paragraph, Table, plain
from mtl_tickets.report.gather import gather
from mtl_tickets.report.runs import Run
from mtl_tickets.report.ticket_content import tickets
from mtl_tickets.report.write import write_report
from mtl_tickets.tickets.affinity import conflict_units
from mtl_tickets.tickets.forecast import forecast
from mtl_tickets.tickets.gradients import gradient_agreement, half_agreement
from tests.report.made import World
from tests.tickets.worlds import against, halves_of, products_of

TASKS = ("calm", "likeness", "mood", "rte")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    world = World(tmp_path_factory.mktemp("clash") / "made", TASKS, layers=4, heads=8, gradients=True)
    world.write(1)
    world.write(2)
    return world.folder


@pytest.fixture(scope="module")
def data(folder) -> ReportData:
    return gather(folder)


@pytest.fixture(scope="module")
def blocks(data) -> list:
    """Of the section on tickets. It is drawn, which takes its time."""
    return list(tickets(data))


def tables(blocks: list) -> dict[str, Table]:
    """By the first words of their captions."""
    folded = [block for fold in blocks if isinstance(fold, Fold) for block in fold.blocks]
    found = [block for block in [*blocks, *folded] if isinstance(block, Table)]
    return {" ".join(plain(table.caption).split()[:2]): table for table in found}


def test_cosines_and_halves_are_those_of_the_runs_files(data, folder):
    runs = [Run(folder / f"seed-{seed}") for seed in (1, 2)]
    agreements = [gradient_agreement(run.gradients()) for run in runs]
    for pair in data.tickets.pairs:
        one, two = pair.tasks
        assert pair.cosine == tuple(agreement[one][two]["cosine"] for agreement in agreements)
    halves = [half_agreement(run.gradients()) for run in runs]
    for item in data.tickets.gradients:
        assert item.halves == tuple(of_run[item.task]["cosine"] for of_run in halves)
        assert item.rows == (16, 16)
    assert [item.task for item in data.tickets.gradients] == list(TASKS)


def test_forecasts_are_made_of_gradients_too(data, folder):
    pairs = {pair.tasks: pair for pair in data.tickets.pairs}
    assert pairs["calm", "likeness"].verdicts == ("do not share", "do not share")
    assert all("gradients oppose" in reason for reason in pairs["calm", "likeness"].reasons)
    run = Run(folder / "seed-1")
    # four tasks that balance have cosines of -1/3
    expected = forecast(run.tickets("own"), run.scores(), run.gradients(), cosine=-1 / 3)
    assert [pair["verdict"] for pair in expected] == [pair.verdicts[0] for pair in pairs.values()]


def test_conflicts_are_counted_over_all_units(data, folder):
    for number, seed in enumerate((1, 2)):
        run = Run(folder / f"seed-{seed}")
        conflicts = conflict_units(run.scores(), products=run.gradients(), below=-1 / 3)
        for pair, expected in zip(data.tickets.pairs, conflicts, strict=True):
            assert list(pair.tasks) == expected["tasks"]
            assert pair.conflict.units[number] == sum(expected["conflicting"].values())
            assert pair.conflict.expected[number] == pytest.approx(sum(expected["expected"].values()))
            assert pair.conflict.opposed[number] == sum(expected["opposed"].values())
            if expected["units"]:
                unit = expected["units"][0]
                numbers = [str(i + 1) for i in reversed(unit["index"])]
                words = [word for word in pair.conflict.farthest[number].split() if word.isdigit()]
                assert words == numbers
    assert sum(map(sum, (pair.conflict.opposed for pair in data.tickets.pairs))) > 0


def test_the_table_of_pairs_has_the_cosine(data, blocks):
    table = tables(blocks)["Every pair"]
    column = table.headings.index("gradient cosine")
    means = {" + ".join(pair.tasks): statistics.fmean(pair.cosine) for pair in data.tickets.pairs}
    for row in table.rows:
        shown = plain(row.cells[column - 1].text).split(" ± ")[0]
        assert float(shown) == pytest.approx(means[plain(row.head)], abs=0.006)
    assert table.headings[max(table.words)] == "forecast"


def test_the_report_says_whose_halves_do_not_agree(blocks):
    said = [plain(block.text) for block in blocks if isinstance(block, Paragraph)]
    (trust,) = (text for text in said if "even and odd rows" in text)
    assert "do not agree at all for 1 task (rte)" in trust
    (cosines,) = (text for text in said if text.startswith("Cosines of the gradients"))
    assert "calm + likeness (-" in cosines and "-0.33 on average" in cosines
    table = tables(blocks)["The gradient"]
    assert [plain(row.head) for row in table.rows] == list(TASKS)


def test_units_in_conflict_are_named(data, blocks):
    table = tables(blocks)["Units that"]
    assert "gradients oppose" in table.headings
    assert len(table.rows) == len(data.tickets.pairs)
    assert any("of layer" in plain(row.cells[-1].text) for row in table.rows)


@pytest.mark.parametrize("without", [[1, 2], [2]])
def test_runs_without_gradients_are_reported_as_before(folder, tmp_path, without):
    shutil.copytree(folder, tmp_path / "made")
    for seed in without:
        shutil.rmtree(tmp_path / "made" / f"seed-{seed}" / "stages" / "gradients")
    data = gather(tmp_path / "made")
    assert data.tickets.gradients == () and {pair.cosine for pair in data.tickets.pairs} == {()}
    blocks = list(tickets(data))
    assert "gradient cosine" not in tables(blocks)["Every pair"].headings
    assert "gradients oppose" not in tables(blocks)["Units that"].headings
    assert "Gradients" not in [block.text for block in blocks if isinstance(block, Heading)]
    assert all("gradient" not in reason for pair in data.tickets.pairs for reason in pair.reasons)


def test_the_report_is_written_with_gradients(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "made")
    html = write_report(tmp_path / "made").read_text(encoding="utf-8")
    assert "gradient cosine" in html and "Units in conflict" in html


def test_a_damaged_file_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "made")
    file = tmp_path / "made" / "seed-1" / "stages" / "gradients" / "products.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(TicketError, match=r"gradients/products\.safetensors: must be a whole"):
        gather(tmp_path / "made")


def test_two_tasks_balance_and_are_not_blamed_for_it(tmp_path):
    world = World(tmp_path / "made", TASKS[:2], gradients=True)
    run, halves = world.write(1), halves_of(world.space, 1)
    products = products_of(world.space, {TASKS[0]: halves, TASKS[1]: against(halves)})
    products.save(run / "stages" / "gradients" / "products")
    data = gather(world.folder)
    (pair,) = data.tickets.pairs
    assert pair.cosine == (pytest.approx(-1),) and pair.conflict.opposed == (0,)
    assert "gradients oppose" not in pair.reasons[0]
    said = " ".join(plain(block.text) for block in tickets(data) if isinstance(block, Paragraph))
    assert "2 equally long ones that do have cosines of -1.00" in said
