"""From files to numbers: the right ones, errors where one is missing, and unfinished runs said to be so."""

import dataclasses
import functools
import json
import operator
import statistics
from pathlib import Path

import pydantic
import pytest
import yaml

from mtl_tickets.errors import CheckpointError, InputError
from mtl_tickets.evaluation.records import one, read_rows
from mtl_tickets.experiment import Experiment
from mtl_tickets.locate import find_tickets
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.gather import gather
from mtl_tickets.report.tables import AVERAGE, REMAINING
from tests.report.made import TASKS, World, lose_row


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two finished seeds of three tasks, and a task that another's head answers."""
    world = World(tmp_path_factory.mktemp("gather") / "made it", extra=["hard"])
    world.write(1)
    world.write(2)
    return world.folder


@pytest.fixture(scope="module")
def data(folder) -> ReportData:
    return gather(folder)


def test_the_value_survives_json_and_cannot_be_changed(data):
    again = pydantic.TypeAdapter(ReportData).validate_python(json.loads(json.dumps(data.to_json())))
    assert again == data
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "another"


def test_every_number_of_the_table_is_that_of_its_row(data, folder):
    rows = {seed: read_rows(folder / f"seed-{seed}" / "results.jsonl") for seed in (1, 2)}
    assert data.seeds == (1, 2)
    for task in TASKS:
        for method, cell in zip(data.methods, data.scores.lines[task], strict=True):
            wanted = [
                one(rows[seed], stage=method.stage, task=task, split="dev", metric="score").value for seed in (1, 2)
            ]
            assert list(cell.values) == wanted
    assert list(data.extra.lines) == ["hard"]


def test_a_ladder_has_the_rows_of_its_rungs_beside_the_whole_encoder(data, folder):
    rows = {seed: read_rows(folder / f"seed-{seed}" / "results.jsonl") for seed in (1, 2)}
    average, *ladders = data.ladders
    assert [ladder.task for ladder in ladders] == list(TASKS)
    for ladder in ladders:
        assert ladder.dense.kept == (100.0, 100.0)
        assert ladder.kinds == ("winning", "random")
        for rung in ladder.rungs:
            stage = f"ladder/{rung.kind}-{rung.number}" if rung.number else "single"
            for seed, score, kept in zip(rung.seeds, rung.scores, rung.kept, strict=True):
                which = {"stage": stage, "task": ladder.task}
                assert score == one(rows[seed], **which, split="dev", metric="score").value
                assert kept == one(rows[seed], **which, metric="remaining").value
        assert [rung.number for rung in ladder.rungs if rung.chosen_by] == [1]
    for i, rung in enumerate(average.rungs):
        same = [ladder.rungs[i].scores for ladder in ladders]
        assert rung.scores == pytest.approx([statistics.fmean(values) for values in zip(*same, strict=True)])


def test_rules_stand_against_the_dense_model_and_all_against_single_tasks(data):
    against = {judgement.baseline: [item.method for item in judgement.average] for judgement in data.judgements}
    assert against == {"dense": ["own", "union"], "single-task": ["dense", "own", "union"]}
    for judgement in data.judgements:
        names = [method.name for method in data.methods]
        for item in judgement.average:
            mine, other = (data.scores.lines[AVERAGE][names.index(name)] for name in (item.method, judgement.baseline))
            assert item.difference == pytest.approx(mine.mean - other.mean)
            assert item.method in item.sentence and judgement.baseline in item.sentence


def test_shares_of_kept_units_add_up_to_the_counts(data):
    tickets = data.tickets
    for ticket in tickets.tasks:
        heads = sum(map(sum, ticket.heads))
        assert heads == pytest.approx(statistics.fmean(ticket.kept["heads"]))
        assert sum(ticket.ffn) == pytest.approx(statistics.fmean(ticket.kept["ffn"]))
    assert [mask.rule for mask in tickets.rules] == ["own", "union"]
    assert sum(entry.units.get("heads", 0) for entry in tickets.sets) == pytest.approx(tickets.units["heads"])
    assert len(tickets.pairs) == len(TASKS) * (len(TASKS) - 1) / 2
    assert len(tickets.joins) == len(TASKS) - 1


def test_costs_are_those_of_the_stages(data, folder):
    costs = {cost.what: cost for cost in data.costs}
    assert list(costs) == ["single-task", "scores", "ladders", "dense multi-task", "own tickets", "union"]
    single, ladders, dense = (costs[name] for name in ("single-task", "ladders", "dense multi-task"))
    assert (single.trainings, single.steps, single.stored) == (3, (30, 30), (3000, 3000))
    assert single.seconds == (3 * 2.5, 3 * 3.5)
    assert (ladders.trainings, ladders.steps) == (12, (120, 120))
    assert (dense.trainings, dense.seconds, dense.parameters) == (1, (2.5, 3.5), (200_000.0, 200_000.0))
    assert dense.needed == costs["union"].needed == (200_000.0, 200_000.0)
    for seed, needed in zip((1, 2), costs["own tickets"].needed, strict=True):
        kept = find_tickets([folder / f"seed-{seed}"])
        assert needed == functools.reduce(operator.or_, kept.values()).density() * 200_000


def test_the_command_names_a_whole_configuration_and_all_seeds(data):
    assert data.command.startswith("mtl-tickets run ")
    assert data.command.endswith("seed-1/config.yaml' --seeds 1,2 --set output=repeated")
    # the configuration in the run is a whole one
    assert Experiment.model_validate(yaml.safe_load(data.config)).name == "made"


@pytest.mark.parametrize(
    "lost",
    [
        {"stage": "single", "task": "rte", "metric": "score", "split": "dev"},
        {"stage": "multi/union", "task": "average", "metric": "remaining"},
        {"stage": "ladder/random-2", "task": "calm", "metric": "remaining"},
        {"stage": "choose", "task": "calm", "metric": "rung"},
    ],
)
def test_a_row_that_a_finished_run_lacks_is_an_error_that_names_it(tmp_path, lost):
    world = World(tmp_path / "made")
    lose_row(world.write(1), **lost)
    with pytest.raises(CheckpointError) as error:
        gather(world.folder)
    assert all(str(value) in str(error.value) for value in lost.values())


@pytest.mark.parametrize("lost", ["tickets/own/calm.safetensors", "stages/multi/own/done.json", "results.jsonl"])
def test_a_file_that_a_finished_run_lacks_is_an_error_that_names_it(tmp_path, lost):
    world = World(tmp_path / "made")
    (world.write(1) / lost).unlink()
    with pytest.raises(InputError, match=lost.rpartition("/")[2]):
        gather(world.folder)


def test_weights_that_were_deleted_are_no_error(tmp_path):
    world = World(tmp_path / "made")
    run = world.write(1)
    (run / "stages/single/calm/weights.safetensors").unlink()
    assert gather(world.folder).costs[0].stored == ()


def test_trainings_in_which_nothing_was_learned_are_named(tmp_path, data):
    world = World(tmp_path / "made")
    first, *_ = TASKS
    for seed in (1, 2):
        stage = world.write(seed, until="scores") / "stages" / f"single/{first}" / "done.json"
        stage.write_text(json.dumps(json.loads(stage.read_text()) | {"unmoved": [first]}))
    said = f"the loss on held-out rows stood still: {first} in single/{first} (seed 1, 2)"
    assert gather(world.folder).notes["not learned"] == said
    assert "not learned" not in data.notes


@pytest.mark.parametrize("until", ["yardsticks", "single", "scores", "ladder", "choose", "share"])
def test_an_unfinished_run_is_reported_as_far_as_it_got(tmp_path, until):
    world = World(tmp_path / "made", extra=["hard"])
    world.write(1, until)
    data = gather(world.folder)
    said = " ".join(data.missing)
    assert "Seed 1 is not finished" in said and "union" in said
    assert (data.scores is not None, data.extra is not None) == (True, until != "yardsticks")
    assert REMAINING in data.scores.lines
    assert bool(data.ladders) == (until in ("ladder", "choose", "share"))
    assert (data.tickets is not None) == (until in ("choose", "share"))
    assert data.judgements == () and data.courses == ()


def test_finished_seeds_are_reported_and_the_others_named(tmp_path):
    world = World(tmp_path / "made", seeds=[1, 2, 3, 4])
    world.write(1)
    world.write(3, "single")
    (tmp_path / "made/seed-2").mkdir()
    data = gather(world.folder)
    assert data.seeds == (1,)
    said = " ".join(data.missing)
    assert "Seed 3 is not finished: it has majority, bag of words, single-task;" in said
    assert "no run yet: 2, 4." in said
    assert [run.ended is None for run in data.runs] == [False, True]


def test_a_stage_under_way_counts_for_what_is_whole(tmp_path):
    world = World(tmp_path / "made")
    run = world.write(1, "single")
    lose_row(run, stage="single", task="rte", metric="remaining")
    data = gather(world.folder)
    assert [method.name for method in data.methods] == ["majority", "bag of words"]
    assert data.ladders == () and data.costs == ()


def test_one_run_of_several_can_be_reported_alone(tmp_path):
    world = World(tmp_path / "made")
    world.write(1)
    data = gather(world.write(2))
    assert (data.seeds, data.name, data.missing) == ((2,), "made/seed-2", ())
    assert all(item.outcome == "one seed" for judgement in data.judgements for item in judgement.average)


def test_rungs_that_were_stopped_early_are_no_error(tmp_path):
    world = World(tmp_path / "made", recipe={"search": {"kind": "halving"}})
    world.write(1)
    run = world.write(2)
    for metric, split in (("score", "dev"), ("remaining", "all")):
        lose_row(run, stage="ladder/winning-2", task="calm", metric=metric, split=split)
    done = run / "stages/choose/calm/done.json"
    content = json.loads(done.read_text(encoding="utf-8"))
    del content["curve"]["winning-2"]
    done.write_text(json.dumps(content), encoding="utf-8")
    data = gather(world.folder)
    assert not data.all_rungs
    assert [ladder.task for ladder in data.ladders] == list(TASKS)
    seeds = {rung.number: rung.seeds for rung in data.ladders[0].of("winning")}
    assert seeds == {1: (1, 2), 2: (1,)}


def test_a_training_that_was_taken_over_costs_nothing_and_is_named(tmp_path):
    world = World(tmp_path / "made", rules=["union"])
    for seed in (1, 2):
        file = world.write(seed) / "stages/multi/union/done.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "same_as": "multi/dense"}), encoding="utf-8")
    data = gather(world.folder)
    assert [course.same_as for course in data.courses] == [None, "dense"]
    assert (data.costs[-1].same_as, data.costs[-1].seconds) == ("dense", ())


def test_where_no_run_has_begun_there_is_nothing_to_report(tmp_path):
    world = World(tmp_path / "made")
    (world.write(1, "yardsticks") / "inputs.json").unlink()
    with pytest.raises(CheckpointError, match="nothing to report"):
        gather(world.folder)


def test_runs_of_different_configurations_are_refused(tmp_path):
    world = World(tmp_path / "made")
    world.write(1)
    record = world.write(2) / "record.json"
    record.write_text(record.read_text().replace("0123456789", "9876543210"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="one configuration"):
        gather(world.folder)
