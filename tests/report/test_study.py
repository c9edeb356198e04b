"""The report of a study: of one point that point's, of several a verdict for each and links to their own reports."""

import json
import re

import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.report.document import plain
from mtl_tickets.report.html import page
from mtl_tickets.report.markdown import markdown
from mtl_tickets.report.study import gather_study
from mtl_tickets.report.study_content import study_document
from mtl_tickets.report.write import report_study, write_report
from tests.counting import Counting
from tests.report.made import TASKS, World

AWKWARD = "<script>alert(1)</script> & \u202eשלום 🧪 | `x`"


def write_study(folder, points, baselines=("dense",), **settings):
    settings = {"description": AWKWARD, "experiment": "made", "seeds": [1, 2], "baselines": list(baselines)} | settings
    index = {
        "settings": settings,
        "points": [
            {"name": f"tone={value}", "values": {"tone": value}, "folder": f"runs/made-{i}"}
            for i, value in enumerate(points)
        ],
    }
    (folder / "study.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study of three points, of which one has two seeds, one is half done and one has not begun."""
    folder = tmp_path_factory.mktemp("study") / "tones"
    folder.mkdir()
    for number, seeds in ((0, (1, 2)), (1, (1,))):
        world = World(folder / "runs" / f"made-{number}", TASKS[:2], seeds=[1, 2])
        for seed in seeds:
            world.write(seed)
    return write_study(folder, [AWKWARD, 2, 3])


def test_of_several_points_each_has_its_verdict_its_report_and_its_gaps(studied):
    told = Counting()
    found, report = report_study(studied, 3, told)
    assert told.done == told.work == 7  # each is read and written, and the study's own report is
    assert [point.report is not None for point in found.points] == [True, True, False]
    text = report.read_text(encoding="utf-8")
    assert found.points[0].name == f"tone={AWKWARD}"
    assert "<script>" not in text and "&lt;script&gt;" in text
    links = re.findall(r'<a href="(runs[^"]+)"', text)
    assert links == ["runs/made-0/report.html", "runs/made-1/report.html"]
    assert all((studied / link).is_file() for link in links)
    assert "unfinished" in text and "has not begun" in text
    written = (studied / "report.md").read_text(encoding="utf-8")
    assert "](runs/made-1/report.html)" in written
    for name in re.findall(r"\]\((figures/[^)]+)\)", written):
        assert (studied / name).is_file()


def test_rules_stand_side_by_side_with_the_numbers_of_the_points(studied):
    found = gather_study(studied)
    rules = next(section for section in study_document(found).sections if section.name == "rules")
    averages = rules.blocks[0]
    assert [plain(heading) for heading in averages.headings] == ["method", "point 1", "point 2"]
    for row in averages.rows:
        for cell, point in zip(row.cells, found.points, strict=False):
            scores = point.report.scores
            assert plain(cell.text) == str(scores.lines["average"][scores.headings.index(plain(row.head))])


def test_a_yardstick_and_a_rule_of_one_name_stay_apart(tmp_path):
    for number in (0, 1):
        World(tmp_path / "runs" / f"made-{number}", TASKS[:2], rules=("own", "majority")).write(1)
    found = gather_study(write_study(tmp_path, [1, 2], seeds=[1]))
    rules = next(section for section in study_document(found).sections if section.name == "rules")
    rows = {plain(row.head): row for row in rules.blocks[0].rows}
    scores = found.points[0].report.scores
    assert len(rows) == len(found.points[0].report.methods) == len(set(scores.headings))
    assert {"majority", "majority (yardstick)"} <= set(rows)
    for heading, cell in zip(scores.headings, scores.lines["average"], strict=True):
        assert plain(rows[heading].cells[0].text) == str(cell)


def test_points_are_compared_with_the_study_s_first_baseline_or_not_at_all(tmp_path):
    World(tmp_path / "runs" / "made-0", TASKS[:2]).write(1)
    World(tmp_path / "runs" / "made-1", TASKS[:2], rules=("union",)).write(1)  # has no own
    found = gather_study(write_study(tmp_path, [1, 2], baselines=["own"], seeds=[1]))
    rules = next(section for section in study_document(found).sections if section.name == "rules")
    averages, differences = rules.blocks[:2]
    assert [plain(heading) for heading in differences.headings] == ["method", "point 1"]
    assert "Differences to own" in plain(differences.caption) and len(averages.headings) == 2


def test_only_the_study_s_seeds_count(tmp_path):
    world = World(tmp_path / "runs" / "made-0", TASKS[:2])
    for seed in (1, 2, 3):
        world.write(seed)
    report = gather_study(write_study(tmp_path, [1], seeds=[1, 3, 4])).points[0].report
    assert report.seeds == (1, 3) and any("4" in text for text in report.missing)


def test_a_point_reported_by_its_own_folder_keeps_the_study_s_baselines(tmp_path):
    for number in (0, 1):
        World(tmp_path / "runs" / f"made-{number}", TASKS[:2]).write(1)
    write_study(tmp_path, [1, 2], baselines=["union"], seeds=[1])
    write_report(tmp_path)
    before = (tmp_path / "runs" / "made-0" / "report.html").read_bytes()
    write_report(tmp_path / "runs" / "made-0")
    assert (tmp_path / "runs" / "made-0" / "report.html").read_bytes() == before


def test_the_report_of_one_point_is_that_point_s(tmp_path):
    world = World(tmp_path / "runs" / "made-0", TASKS[:2])
    world.write(1)
    world.write(2)
    write_study(tmp_path, [1], baselines=["union"])
    found = gather_study(tmp_path)
    made = study_document(found)
    assert [judgement.baseline for judgement in found.points[0].report.judgements] == ["union", "single-task"]
    names = [section.name for section in made.sections]
    assert names[0] == "verdict" and "ladders" in names
    assert plain(made.title) == tmp_path.name
    assert "experiment: made" in markdown(made) and page(made).count("<h1") == 1


@pytest.mark.parametrize(
    "broken",
    [
        "{}",
        "[]",
        '{"settings": {}, "points": []}',
        '{"settings": {"description": "", "experiment": "", "seeds": [1], "baseline": "dense"}, "points": []}',
        '{"settings": {"description": "", "experiment": "", "seeds": [1], "baselines": "dense"}, '
        '"points": [{"name": "", "values": {}, "folder": "runs/a"}]}',
        '{"settings": {"description": "", "experiment": "", "seeds": [1], "baselines": ["dense"]}, '
        '"points": [{"name": "", "values": {}, "folder": "../elsewhere"}]}',
    ],
)
def test_a_broken_index_is_named(tmp_path, broken):
    (tmp_path / "study.json").write_text(broken)
    with pytest.raises(CheckpointError, match=r"study\.json"):
        write_report(tmp_path)
