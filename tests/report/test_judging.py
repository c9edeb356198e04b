"""Methods against a baseline: who is judged, on what, and that kinds of rows are judged as tasks are."""

import json

import pytest

from mtl_tickets.evaluation.verdicts import compare_all
from mtl_tickets.report.content import document
from mtl_tickets.report.data import Method
from mtl_tickets.report.document import Table, plain
from mtl_tickets.report.gather import gather
from mtl_tickets.report.judging import judged
from mtl_tickets.report.tables import Cell
from tests.report.made import World

METHODS = (
    Method("yardstick/majority", "majority", "majority"),
    Method("full", "full model", "the full model"),
    Method("masks/50", "masks 50 %", "masks 50 %"),
    Method("masks/70", "masks 70 %", "masks 70 %"),
)
STAGES = tuple(method.stage for method in METHODS)
SEEDS = (1, 2, 3)


def cells(*values):
    return tuple(Cell(tuple(map(float, of_method))) for of_method in values)


LINES = {
    "right": cells((50, 50, 50), (60, 61, 62), (70, 71.5, 72), (55, 50, 66)),
    "left": cells((50, 50, 50), (10, 12, 11), (20, 21, 23), ()),
}


def test_only_what_has_every_number_stands_against_the_baseline():
    found = judged(LINES, SEEDS, METHODS, "full", STAGES)
    assert found.baseline == "the full model"
    assert [item.method for item in found.average] == ["masks 50 %"]
    values = {
        line: {
            name: dict(zip(SEEDS, of_line[place].values, strict=True))
            for place, name in ((1, "the full model"), (2, "masks 50 %"))
        }
        for line, of_line in LINES.items()
    }
    contrasts = compare_all(values, "the full model").tasks
    for line, (item,) in found.tasks.items():
        assert (item.difference, item.p) == (contrasts[line]["masks 50 %"].difference, contrasts[line]["masks 50 %"].p)


@pytest.mark.parametrize(
    ("baseline", "compared"), [("masks/90", STAGES), ("full", ("full",)), ("masks/70", STAGES), ("full", ())]
)
def test_without_a_baseline_or_a_method_there_is_no_judgement(baseline, compared):
    assert judged(LINES, SEEDS, METHODS, baseline, compared) is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("made") / "made", ("calm", "likeness"), extra=["hard"])
    for seed in SEEDS:
        path = made.write(seed) / "results.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in [row for row in rows if row["task"] == "hard" and row["metric"] == "accuracy"]:
            for i, label in enumerate(("yes", "no")):
                value = row["value"] / 2 + i / 3
                rows.append({**row, "metric": f"accuracy[label={label}]", "value": value, "n": 10 + i})
            for subcase in range(9):
                rows.append({**row, "metric": f"accuracy[subcase={subcase}]", "n": 2})
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return made


def test_tasks_that_another_head_answers_are_judged_by_themselves(world):
    data = gather(world.folder)
    (judgement,) = data.extra_judgements
    assert judgement.baseline == data.judgements[0].baseline
    assert set(judgement.tasks) == {"hard"} and "hard" not in data.judgements[0].tasks
    means = dict(zip(data.extra.headings, data.extra.lines["hard"], strict=True))
    headings = {method.name: method.heading for method in data.methods}
    for item in judgement.tasks["hard"]:
        difference = means[headings[item.method]].mean - means[headings[judgement.baseline]].mean
        assert item.difference == pytest.approx(difference)


def test_kinds_of_rows_are_judged_where_they_are_few(world):
    data = gather(world.folder)
    by_label, by_subcase = data.breakdowns
    assert by_subcase.judgement is None and len(by_subcase.parts) == 9
    assert list(by_label.judgement.tasks) == ["yes", "no"]
    headings = {method.name: method.heading for method in data.methods}
    for place, items in enumerate(by_label.judgement.tasks.values()):
        for item in items:
            mine, other = (by_label.lines[headings[name]][place] for name in (item.method, by_label.judgement.baseline))
            assert item.difference == pytest.approx(mine.mean - other.mean)
    section = next(section for section in document(data).sections if section.name == "parts")
    captions = [plain(block.caption) for block in section.blocks if isinstance(block, Table)]
    assert [caption.startswith("Differences to dense on hard") for caption in captions] == [False, True]
