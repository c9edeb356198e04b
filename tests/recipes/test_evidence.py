"""The stage that compares gradients: what it leaves, that it is done once, and that nothing else depends on it."""

import json
import os

import numpy as np
import pytest
from accelerate import Accelerator

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.experiment import load_experiment
from mtl_tickets.model.store import load
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.run_directory import RunDirectory
from mtl_tickets.recipes.workbench import derived_seed
from mtl_tickets.running import open_workbench, run_experiment
from mtl_tickets.scoring.gradients import gradient_products
from mtl_tickets.tickets.gradients import GradientProducts, half_agreement
from tests.end_to_end.world import write_world

TASKS = ("feelings", "likeness", "same")
SHORT = (
    "recipe.train.epochs=1",
    "recipe.ladder={kind: free, heads: [0.5], ffn: [0.0]}",
    "recipe.controls=[]",
    "recipe.sharing=[]",
    "recipe.yardsticks=[]",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def experiment(world, output, *more):
    return load_experiment(world, [f"output={output}", *SHORT, *more])


class Told(Silent):
    """Stops in a stage, as a user does with Ctrl-C."""

    def __init__(self, stop_in=None):
        self.stop_in, self.stages, self.work, self.done = stop_in, [], 0, 0

    def begin(self, run, work):
        self.work = work

    def stage(self, name):
        self.stages.append(name)
        if name == self.stop_in:
            raise KeyboardInterrupt

    def advance(self, work):
        self.done += work


@pytest.fixture(scope="module")
def told():
    return Told()


@pytest.fixture(scope="module")
def finished(world, told, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    (summary,) = run_experiment(experiment(world, output, "recipe.gradients=40"), progress=told)
    return summary.path


def products(folder):
    return folder / "stages" / "gradients" / "products.safetensors"


def values(folder):
    return [
        (row.stage, row.task, row.split, row.metric, row.value, row.n)
        for row in read_rows(folder / "results.jsonl")
        if row.stage != "gradients"
    ]


def test_the_products_are_those_of_the_dense_model_s_weights(world, finished):
    loaded = experiment(world, finished.parents[1], "recipe.gradients=40")
    found = GradientProducts.load(products(finished))
    assert found.tasks == TASKS
    assert found.about.rows == {"feelings": 40, "likeness": 40, "same": 36}  # a tenth is held out
    run = RunDirectory(finished, {}, loaded.digest, 1)
    bench = open_workbench(loaded, run, Silent())
    expected = gradient_products(
        load(finished / "model" / "dense"),
        bench.space,
        {task: bench.data[task].train for task in reversed(TASKS)},
        Accelerator(cpu=True),
        pad_id=bench.tokenizer.pad_token_id,
        rows=40,
        seed=derived_seed(1, "gradients"),
    )
    for part in expected.space.parts:
        np.testing.assert_allclose(found.values[part], expected.values[part], rtol=1e-6)


def test_its_rows_say_how_far_halves_agree(finished):
    agreement = half_agreement(GradientProducts.load(products(finished)))
    rows = {row.task: row for row in read_rows(finished / "results.jsonl") if row.stage == "gradients"}
    assert {task: row.value for task, row in rows.items()} == {task: agreement[task]["cosine"] for task in TASKS}
    assert {(row.split, row.metric) for row in rows.values()} == {("train", "half_agreement")}
    assert rows["same"].n == 36


def test_it_is_the_last_stage_and_no_training(told, finished):
    assert told.stages[-1] == "gradients" and told.stages.count("gradients") == 1
    assert told.done == told.work > 0


@pytest.mark.parametrize("place", ["before", "within"])
def test_a_stopped_run_gets_it_when_it_goes_on(world, finished, tmp_path, place):
    loaded = experiment(world, tmp_path, "recipe.gradients=40")
    if place == "before":
        (stopped,) = run_experiment(loaded, to="multi")
        assert not stopped.finished
    else:
        with pytest.raises(KeyboardInterrupt):
            run_experiment(loaded, progress=Told("gradients"))
    assert not list(tmp_path.rglob("products*"))
    again = Told()
    (summary,) = run_experiment(loaded, resume=True, progress=again)
    assert summary.finished and [name for name in again.stages if not name.startswith("data/")] == ["gradients"]
    assert products(summary.path).read_bytes() == products(finished).read_bytes()
    assert (summary.path / "results.jsonl").read_bytes() == (finished / "results.jsonl").read_bytes()


def test_it_is_done_once(world, finished, tmp_path):
    loaded = experiment(world, finished.parents[1], "recipe.gradients=40")
    record, before = finished / "record.json", os.stat(products(finished)).st_mtime_ns
    content = record.read_text()
    record.write_text(json.dumps(json.loads(content) | {"finished": None}))
    again = Told()
    run_experiment(loaded, resume=True, progress=again)
    assert "gradients" not in again.stages
    assert os.stat(products(finished)).st_mtime_ns == before


def test_without_it_all_other_numbers_are_the_same(world, finished, tmp_path):
    told, loaded = Told(), experiment(world, tmp_path, "recipe.gradients=null")
    assert "gradients" not in loaded.experiment.recipe.stages
    with pytest.raises(InputError, match="no such stage"):
        run_experiment(loaded, to="gradients")
    (summary,) = run_experiment(loaded, progress=told)
    assert summary.finished and "gradients" not in told.stages
    assert not (summary.path / "stages" / "gradients").exists()
    assert values(summary.path) == values(finished)


def test_one_task_has_nothing_to_be_compared_with(world, tmp_path):
    (summary,) = run_experiment(experiment(world, tmp_path, "tasks=[same]"))
    assert summary.finished and not (summary.path / "stages" / "gradients").exists()


def test_the_default_renames_no_run(world):
    asked = [load_experiment(world, more).digest for more in ([], ["recipe.gradients=256"], ["recipe.gradients=40"])]
    assert asked[0] == asked[1] != asked[2]
    with pytest.raises(InputError, match=r"recipe\.gradients"):
        load_experiment(world, ["recipe.gradients=1"])
