"""The table of a study: the numbers and sentences of its report, and nothing that Markdown would take for its own."""

from mtl_tickets.report.study import gather_study
from tests.report.made import TASKS, World
from tests.report.test_study import AWKWARD, write_study

from .loading import script


def test_a_study_s_table_has_the_report_s_numbers_and_sentences(tmp_path):
    for number in (0, 1):
        world = World(tmp_path / "runs" / f"made-{number}", TASKS[:2])
        for seed in (1, 2):
            world.write(seed)
    study = gather_study(write_study(tmp_path, [AWKWARD, 2], baselines=["dense", "own"]))
    table = script("study_table").study_table(study, "mtl-tickets study made")
    assert "mtl-tickets study made" in table and "<script>" not in table
    for point in study.points:
        decides = point.report.judgements[0]
        assert all(item.sentence.partition(" (")[0] in table for item in decides.average)
        for cell in point.report.scores.lines["average"]:
            assert str(cell) in table
    assert table.count("**Against dense**") == 2 == table.count("**Against own**")
    assert table.count("What choosing on dev would have added") == 2


def test_a_point_that_has_not_begun_is_named(tmp_path):
    study = gather_study(write_study(tmp_path, [1]))
    assert "Has not begun." in script("study_table").study_table(study, "x")
