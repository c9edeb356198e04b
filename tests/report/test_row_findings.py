"""Tests over rows from kept predictions: the right ones, and where they are missing that is said."""

import json
import statistics

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mtl_tickets.evaluation.mcnemar import mcnemar
from mtl_tickets.report.content import document
from mtl_tickets.report.document import Bullets, Fold, Heading, Paragraph, plain
from mtl_tickets.report.gather import gather
from mtl_tickets.report.row_content import on_other_rows
from mtl_tickets.report.tables import AVERAGE
from tests.report.made import TASKS, World


def new(folder, seeds=(1, 2), **more):
    world = World(folder / "made", rows=80, numbers=("likeness",), extra=["hard"], seeds=list(seeds), **more)
    for seed in seeds:
        world.write(seed)
    return world.folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return new(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def data(folder):
    return gather(folder)


def kept(folder, seed, stage, task):
    return load_file(folder / f"seed-{seed}" / "stages" / stage / f"predictions-{task}-dev.safetensors")


def test_differences_are_those_of_the_table(data):
    assert [found.baseline for found in data.on_rows.judgements] == [found.baseline for found in data.judgements]
    names = [method.name for method in data.methods]
    for found in data.on_rows.judgements:
        assert list(found.tasks) == list(TASKS)
        for task, items in {**found.tasks, AVERAGE: found.average}.items():
            for item in items:
                mine, other = (data.scores.lines[task][names.index(name)] for name in (item.method, found.baseline))
                assert item.difference == pytest.approx(mine.mean - other.mean, abs=1e-4)
                assert item.low <= item.difference <= item.high and 0 < item.p <= 1
                assert item.method in item.sentence and "mean of 2 seeds" in item.sentence
        for i, item in enumerate(found.average):
            assert item.difference == pytest.approx(statistics.fmean(of[i].difference for of in found.tasks.values()))
    assert data.on_rows.rows == dict.fromkeys(TASKS, 80)
    assert data.on_rows.missing == () and data.on_rows.undefined == {}


def test_mcnemar_stands_where_accuracy_is_a_metric(data, folder):
    dense = data.on_rows.judgements[0]
    assert {(test.task, test.method) for test in dense.right} == {
        (t, m) for t in ("calm", "rte") for m in ("own", "union")
    }
    found = next(test for test in dense.right if (test.task, test.method) == ("rte", "union"))
    right = []
    for rule in ("union", "dense"):
        of_seeds = [kept(folder, seed, f"multi/{rule}", "rte") for seed in (1, 2)]
        right.append(np.array([of["logits"].argmax(-1) == of["labels"] for of in of_seeds]))
    expected = mcnemar(*right)
    assert (found.wins, found.losses, found.p, found.p_mid) == (
        expected.wins, expected.losses, expected.p, expected.p_mid,
    )  # fmt: skip
    assert all(test.p_mid <= test.corrected <= 1 for test in dense.right)


def test_a_training_that_was_taken_over_has_the_predictions_of_the_other(tmp_path):
    folder = new(tmp_path, rules=["union"])
    for seed in (1, 2):
        run = folder / f"seed-{seed}"
        rows = [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]
        dense = {(r["task"], r["split"], r["metric"]): r["value"] for r in rows if r["stage"] == "multi/dense"}
        for row in rows:
            if row["stage"] == "multi/union" and row["metric"] != "remaining":
                row["value"] = dense[row["task"], row["split"], row["metric"]]
        (run / "results.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        done = run / "stages/multi/union/done.json"
        content = json.loads(done.read_text(encoding="utf-8"))
        done.write_text(json.dumps({**content, "same_as": "multi/dense"}), encoding="utf-8")
        for file in done.parent.glob("predictions-*"):
            file.unlink()
    (union,) = gather(folder).on_rows.judgements[0].average
    assert (union.outcome, union.difference, union.p) == ("same scores", 0.0, 1.0)


def test_methods_whose_predictions_are_not_kept_are_left_out_and_named(tmp_path):
    folder = new(tmp_path)
    (folder / "seed-2/stages/multi/own/predictions-rte-dev.safetensors").unlink()
    found = gather(folder).on_rows
    assert found.missing == ("Predictions that are not kept: own.",)
    assert [[item.method for item in judgement.average] for judgement in found.judgements] == [
        ["union"],
        ["dense", "union"],
    ]
    (folder / "seed-1/stages/single/calm/predictions-calm-dev.safetensors").unlink()
    assert [judgement.baseline for judgement in gather(folder).on_rows.judgements] == ["dense"]


def test_predictions_that_give_other_scores_are_no_evidence(tmp_path):
    folder = new(tmp_path)
    file = folder / "seed-1/stages/multi/union/predictions-calm-dev.safetensors"
    content = load_file(file)
    save_file({**content, "logits": content["logits"][:, ::-1].copy()}, file)
    found = gather(folder).on_rows
    assert found.missing == ("Predictions from which other scores follow than those of the table: union.",)
    assert all(item.method != "union" for judgement in found.judgements for item in judgement.average)


def test_rows_that_are_not_the_same_are_named_and_not_compared(tmp_path):
    folder = new(tmp_path)
    for rule in ("own", "union"):
        file = folder / f"seed-2/stages/multi/{rule}/predictions-rte-dev.safetensors"
        content = load_file(file)
        save_file({"logits": content["logits"][1:].copy(), "labels": content["labels"][1:].copy()}, file)
    data = gather(folder)
    assert data.on_rows.judgements == ()
    (said,) = data.on_rows.missing
    assert "rte, dev: own, seed 2" in said and "rte, dev: union, seed 2" in said and "80 rows" in said
    assert "There are no tests over rows." in " ".join(
        plain(block.text) for block in on_other_rows(data) if isinstance(block, Paragraph)
    )


@pytest.mark.parametrize(
    "broken",
    [b"", b"no safetensors", {"logits": np.zeros((80, 2))}, {"logits": np.zeros(80), "labels": np.zeros(80)}],
    ids=["empty", "other bytes", "no labels", "one axis"],
)
def test_a_damaged_file_is_named_and_the_report_is_made(tmp_path, broken):
    folder = new(tmp_path)
    file = folder / "seed-1/stages/multi/union/predictions-calm-dev.safetensors"
    file.write_bytes(broken) if isinstance(broken, bytes) else save_file(broken, file)
    data = gather(folder)
    assert data.on_rows.judgements == () and str(file) in data.on_rows.missing[0]
    assert document(data)


def test_old_runs_without_predictions_are_reported_as_before(tmp_path):
    world = World(tmp_path / "made")
    world.write(1)
    data = gather(world.folder)
    assert data.on_rows.judgements == () and "own, union, dense, single-task" in data.on_rows.missing[0]
    assert document(data)


def test_where_there_is_nothing_to_compare_there_is_no_section(tmp_path):
    world = World(tmp_path / "made", rows=80)
    data = gather(world.write(1, "share"))
    assert data.on_rows is None and list(on_other_rows(data)) == []


def test_the_section_claims_what_is_shown_and_says_of_what(data, tmp_path):
    heading, about, *blocks = on_other_rows(data)
    assert isinstance(heading, Heading) and "nothing of another training" in plain(about.text)
    bullets = [item for block in blocks if isinstance(block, Bullets) for item in block.items]
    items = [item for judgement in data.on_rows.judgements for item in judgement.average]
    for bullet, item in zip(bullets, items, strict=True):
        assert f" {item.outcome}: " in plain(bullet) and item.sentence.removeprefix("not shown: ") in plain(bullet)
    folds = [block for block in blocks if isinstance(block, Fold)]
    assert len(folds) == 4 and len({fold.summary for fold in folds}) == 4
    assert "only tests there are" not in " ".join(plain(b.text) for b in blocks if isinstance(b, Paragraph))
    alone = gather(new(tmp_path, seeds=(3,)))
    texts = [plain(block.text) for block in on_other_rows(alone) if isinstance(block, Paragraph)]
    assert any("only tests there are" in text and "not of the methods" in text for text in texts)
