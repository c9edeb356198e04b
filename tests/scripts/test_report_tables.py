"""Sections of a report without its figures: its words, and only the sections that are asked for."""

import pytest

from mtl_tickets.report.gather import gather
from mtl_tickets.report.tables import escaped
from tests.report.made import TASKS, World

from .loading import script


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("made") / "made", TASKS[:2])
    for seed in (1, 2):
        world.write(seed)
    return gather(world.folder)


def test_only_what_is_asked_for_is_printed_with_its_numbers_and_no_figure(data):
    text = script("report_tables").report_tables(data, "mtl-tickets run <b>made</b>", ["scores", "ladders"])
    assert "```text\nmtl-tickets run <b>made</b>\n```" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Scores", "## Phase transition"]
    assert all(str(cell) in text for cell in data.scores.lines["average"])
    assert "![" not in text and "**Numbers of the ladders**" in text
    assert escaped(data.runs[0].made_on) in text


def test_a_section_that_is_not_there_is_named_with_those_that_are(data):
    with pytest.raises(SystemExit, match="no section 'score'; it has verdict, scores"):
        script("report_tables").report_tables(data, "x", ["score"])
