"""What choosing on dev would have claimed: never less than what was chosen, nothing where both agree, exact by hand."""

import json

import pytest

from mtl_tickets.errors import CheckpointError
from mtl_tickets.files import write_jsonl
from mtl_tickets.report.choice_content import honest_choice
from mtl_tickets.report.content import document
from mtl_tickets.report.document import Bullets, Table, plain
from mtl_tickets.report.gather import gather
from tests.report.made import TASKS, World, lose_row


def with_values(run, values):
    """The run with these values: (stage, task, split) -> score."""
    file = run / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row["metric"] == "score":
            row["value"] = values.get((row["stage"], row["task"], row["split"]), row["value"])
    write_jsonl(file, rows)


def chosen(run, task, rung, **curve):
    file = run / "stages" / "choose" / task / "done.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    given = {"curve": {name.replace("_", "-"): score for name, score in curve.items()}} if curve else {}
    file.write_text(json.dumps({**content, "chosen": rung, **given}), encoding="utf-8")


def rung_scores(task, *scores):
    stages = ["single", *(f"ladder/winning-{number}" for number in range(1, len(scores)))]
    return {(stage, task, "dev"): score for stage, score in zip(stages, scores, strict=True)}


def rule_scores(split, **scores):
    return {(f"multi/{rule}", task, split): score for rule, score in scores.items() for task in TASKS}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "made", rules=["own", "union", "random"], seeds=[1, 2])


def test_a_run_by_hand(world):
    one, two = world.write(1), world.write(2)
    for run in (one, two):
        with_values(run, rule_scores("selection", dense=60, own=70, union=65, random=90))
        with_values(run, rule_scores("dev", dense=80, own=70, union=65, random=90))
        for task in TASKS:
            with_values(run, rung_scores(task, 60, 61, 62))
            chosen(run, task, "winning-2")
    with_values(two, rung_scores("rte", 63.5, 61, 62))
    chosen(two, "calm", "dense")
    found = gather(world.folder).optimism
    by_task = {item.of: item for item in found.rungs}
    assert list(by_task) == list(TASKS) and not found.on_dev
    assert by_task["likeness"].optimism == (0.0, 0.0) and by_task["likeness"].agreed == 2
    assert (by_task["rte"].optimism, by_task["rte"].best) == ((0.0, 1.5), ("winning-2", "dense"))
    assert (by_task["calm"].optimism, by_task["calm"].chose) == ((0.0, 2.0), ("winning-2", "dense"))
    # random is no candidate
    assert (found.rules.chose, found.rules.best) == (("own", "own"), ("dense", "dense"))
    assert found.rules.optimism == (10.0, 10.0) and found.rules.agreed == 0


def test_it_is_never_negative_and_0_where_both_choose_the_same(tmp_path):
    world = World(tmp_path / "made", rules=["own", "union", "adaptive"], rungs=5, seeds=[1, 2, 3])
    for seed in (1, 2, 3):
        world.write(seed)
    found = gather(world.folder).optimism
    for item in (*found.rungs, found.rules):
        assert len(item.optimism) == 3
        for points, chose, best in zip(item.optimism, item.chose, item.best, strict=True):
            assert points >= 0 and (points == 0 or chose != best)
    assert any(points > 0 for item in found.rungs for points in item.optimism)


def test_of_equals_the_smallest_is_chosen(world):
    run = world.write(1)
    with_values(run, rung_scores("rte", 62, 61, 62))
    chosen(run, "rte", "dense")
    rules = dict.fromkeys(("dense", "own", "union"), 60)
    with_values(run, rule_scores("selection", **rules) | rule_scores("dev", **rules))
    found = gather(run).optimism
    (rte,) = [item for item in found.rungs if item.of == "rte"]
    assert (rte.best, rte.optimism, rte.agreed) == (("winning-2",), (0.0,), 0)
    # made-up rules keep fewer parameters one after the other
    assert found.rules.best == found.rules.chose == ("union",)


def test_only_what_was_chosen_from_is_a_candidate(world):
    run = world.write(1)
    with_values(run, rung_scores("rte", 60, 61, 99))
    chosen(run, "rte", "winning-1", dense=50, winning_1=51)  # the other was stopped early
    (rte,) = [item for item in gather(run).optimism.rungs if item.of == "rte"]
    assert (rte.best, rte.optimism) == (("winning-1",), (0.0,))


def test_a_candidate_without_its_row_is_an_error(world):
    run = world.write(1)
    lose_row(run, stage="multi/own", task="rte", split="selection", metric="score")
    with pytest.raises(CheckpointError, match="selection"):
        gather(run)


@pytest.mark.parametrize("until", ["ladder", "choose", "share"])
def test_an_unfinished_run_has_chosen_as_far_as_it_got(world, until):
    data = gather(world.write(1, until))
    assert (data.optimism is not None) == (until != "ladder")
    assert data.optimism is None or data.optimism.rules is None
    assert list(honest_choice(data))


def test_a_run_that_did_not_keep_its_curves_says_so(world):
    run = world.write(1)
    (run / "stages/choose/rte/done.json").write_text('{"rows": []}', encoding="utf-8")
    data = gather(run)
    assert data.optimism is None and "was not kept" in plain(next(iter(honest_choice(data))).text)


def test_where_dev_chose_the_numbers_are_optimistic_and_nothing_is_measured(tmp_path):
    world = World(tmp_path / "made", recipe={"selection": {"dev": True}})
    (said,) = honest_choice(gather(world.write(1)))
    assert "are optimistic" in plain(said.text) and "cannot be measured" in plain(said.text)


def test_the_section_says_how_often_both_agree_and_has_a_line_a_task(world):
    for seed in (1, 2):
        run = world.write(seed)
        for task in TASKS:
            with_values(run, rung_scores(task, 60, 61, 62))
            chosen(run, task, "winning-2" if task == "rte" else "dense")
    section = next(section for section in document(gather(world.folder)).sections if section.name == "choice")
    rungs, rules = next(block for block in section.blocks if isinstance(block, Bullets)).items
    assert "1.3 ± 0.0 points more" in plain(rungs) and "in 2 of 6 cases" in plain(rungs)
    assert "2 seeds" in plain(rules)
    table = next(block for block in section.blocks if isinstance(block, Table))
    lines = {plain(row.head): [plain(cell.text) for cell in row.cells] for row in table.rows}
    assert lines["rte"] == ["0.0 ± 0.0", "2/2", "2/2", "2 of 2"]
    assert lines["calm"] == ["2.0 ± 0.0", "0/0", "2/2", "0 of 2"]
