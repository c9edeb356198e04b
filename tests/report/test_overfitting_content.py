"""Overfitting on the page: what is said, drawn and put into tables is that of the curves."""

import dataclasses

import pytest

from mtl_tickets.report.document import Figure, Fold, Gallery, Paragraph, plain
from mtl_tickets.report.gather import gather
from mtl_tickets.report.overfitting_content import finding_of_gaps, overfitting
from mtl_tickets.report.subnetwork_data import GAP, Curve, Subnetwork
from mtl_tickets.report.subnetwork_figures import curve
from tests.report.pruned import PrunedWorld


def network(kind, percent, *gaps):
    size = float(percent)
    return Subnetwork(kind, percent, (size,) * len(gaps), (100 - size / 2,) * len(gaps), gaps, None, None)


FOUND = (network("kd", "50", 4.0, 6.0), network("kd", "90", 1.0, -1.0), network("plain", "50", 10.0, 12.0))
RTE = Curve("rte", GAP, (20.0, 22.0), FOUND, {"kd": "distillation", "plain": "gradual magnitude"}, {}, {})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    world = PrunedWorld(tmp_path_factory.mktemp("pruned") / "made")
    world.write(1)
    world.write(2)
    return gather(world.folder)


def test_a_recipe_without_it_has_none(data):
    assert data.overfitting == ()
    assert all("Overfitting" not in section for section in data.sections)


def test_every_gap_is_said_shown_and_drawn(data):
    blocks = list(overfitting(dataclasses.replace(data, overfitting=(RTE,))))
    (gallery,) = [block for block in blocks if isinstance(block, Gallery)]
    (figure,) = gallery.figures
    assert isinstance(figure, Figure) and plain(figure.caption) == "rte"
    (fold,) = [block for block in blocks if isinstance(block, Fold)]
    (table,) = fold.blocks
    cells = [[plain(row.head), *(plain(cell.text) for cell in row.cells)] for row in table.rows]
    assert cells == [
        ["the full model", "100.0", "21.0 ± 1.4", "21.0 ± 1.4"],
        ["50 %", "75.0", "5.0 ± 1.4", "11.0 ± 1.4"],
        ["90 %", "55.0", "0.0 ± 1.4", "–"],
    ]


def test_the_sentence_has_the_ends_of_every_kind():
    assert finding_of_gaps(RTE) == (
        "rte, training less dev score in points: the full model +21.0; distillation +5.0 at 50 % and 0.0 at 90 %; "
        "gradual magnitude +11.0 at 50 %."
    )


def test_its_figure_is_not_that_of_the_scores():
    drawing = curve(RTE)
    assert drawing.name == "overfitting-rte"
    assert "training less dev score" in drawing.svg


def test_before_anything_is_trained_it_says_so(data):
    (only,) = overfitting(data)
    assert isinstance(only, Paragraph) and "yet" in plain(only.text)
