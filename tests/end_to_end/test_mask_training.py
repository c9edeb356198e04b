"""Mask training on a small world: exact sizes, tickets that reload to the logged score, downstream trainings."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mtl_tickets.errors import ConfigError
from mtl_tickets.experiment import load_experiment
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.language import Language, encoder_of, held_out_scores, seen_through
from mtl_tickets.recipes.language_masks import put_head
from mtl_tickets.recipes.run_directory import RunDirectory
from mtl_tickets.running import open_workbench, run_experiment
from mtl_tickets.tickets.ticket import Ticket
from tests.end_to_end.world import write_text, write_world

TASKS = ["feelings", "same"]
METHODS = ["mlm", "distillation", "both", "imp", "magnitude", "random"]
RECIPE = {
    "kind": "mask_training",
    "train": {"epochs": 1, "optimiser": {"lr": 1e-3}, "batches": {"size": 32}},
    "language": {"length": 16, "batch_size": 4, "held_out": 0.1, "steps": 2, "optimiser": {"lr": 1e-3}},
    "sparsities": [0.3, 0.5],
    "fine_tune": [0.5],
    "methods": METHODS,
    "optimiser": {"lr": 0.02},
    "reset_every": 3,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    path = write_world(folder)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    language = RECIPE["language"] | {"text": [str(write_text(folder))]}
    content |= {"recipe": RECIPE | {"language": language}, "tasks": TASKS}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(world):
    return run_experiment(load_experiment(world), seeds=[1])[0]


@pytest.fixture(scope="module")
def structured(world, tmp_path_factory):
    changes = [f"output={tmp_path_factory.mktemp('runs')}", "recipe.units=structured", "recipe.sparsities=[0.5]"]
    changes += ["recipe.methods=[mlm,magnitude,random]", "recipe.mask_steps=6"]
    loaded = load_experiment(world, changes)
    return loaded, run_experiment(loaded, seeds=[1])[0]


def tickets(run):
    return {file.parent.name: Ticket.load(file) for file in (run.path / "tickets").glob("*/all.safetensors")}


def test_every_ticket_drops_exactly_what_was_asked_for(finished):
    found = tickets(finished)
    assert set(found) == {f"{method}-{percent}" for method in METHODS for percent in (30, 50)}
    for name, ticket in found.items():
        share = int(name.rpartition("-")[2])
        assert sum(ticket.dropped(part) for part in ticket.units) == ticket.space.total * share // 100
        for units in ticket.units.values():  # each matrix by itself
            assert abs(int((~units).sum()) - units.size * share / 100) <= 1


def test_masks_learn_and_the_others_stay_what_they_were(finished):
    found = tickets(finished)
    for percent in (30, 50):
        assert found[f"mlm-{percent}"] != found[f"magnitude-{percent}"]
        assert found[f"distillation-{percent}"] != found[f"mlm-{percent}"]
    assert found["imp-50"].jaccard(found["random-50"]) < 1.0
    assert found["imp-50"] <= found["imp-30"]


def measured(loaded, run, name):
    """The held-out metrics of a kept ticket and head, read again from their files."""
    bench = open_workbench(loaded, RunDirectory(run.path, {}, "", 1), Silent())
    loaded.experiment.recipe.inputs(bench)
    language = Language(bench, loaded.experiment.recipe.language, bench.cache)
    model, stage = language.rewound(), run.path / "stages" / "find" / name
    put_head(model, load_file(stage / "head.safetensors"))
    with seen_through(encoder_of(model), Ticket.load(stage / "ticket.safetensors")):
        return held_out_scores(model, language.held, torch.device("cpu"))


def logged(run, name):
    rows = [row for row in run.rows if row["stage"] == name and row["split"] == "held_out"]
    return {row["metric"]: row["value"] for row in rows}


@pytest.mark.parametrize("name", ["mlm/50", "imp/50", "random/30"])
def test_a_ticket_read_again_gives_the_logged_score_to_the_digit(world, finished, name):
    again = measured(load_experiment(world), finished, name)
    before = logged(finished, name)
    assert again == {metric: before[metric] for metric in again}


def test_heads_and_neurons_are_masked_by_the_same_estimator(structured):
    loaded, run = structured
    for name, ticket in tickets(run).items():
        assert {part: ticket.dropped(part) for part in ticket.units} == {"heads": 4, "ffn": 0, "neurons": 48}, name
        assert ticket.units["heads"].any(axis=1).all()
    again, before = measured(loaded, run, "mlm/50"), logged(run, "mlm/50")
    assert again == pytest.approx({metric: before[metric] for metric in again}, rel=1e-6)


def test_every_ticket_is_fine_tuned_on_every_task(finished):
    scores = {(row["stage"], row["task"]) for row in finished.rows if row["metric"] == "score"}
    for stage in ("full", *(f"{method}/50" for method in METHODS)):
        assert {(stage, task) for task in [*TASKS, "mlm"]} <= scores
    assert not any(stage == "mlm/30" and task in TASKS for stage, task in scores)


def test_tickets_that_are_not_trained_are_measured_with_both_heads(finished):
    for name in ("imp/50", "magnitude/50", "random/50", "full"):
        found = logged(finished, name)
        assert found["loss"] != found["loss_before"]
    assert "loss_before" not in logged(finished, "mlm/50")


def test_every_method_s_head_is_trained(finished):
    stages = finished.path / "stages"
    heads = [load_file(stages / f"find/{method}/50/head.safetensors") for method in METHODS if method != "distillation"]
    heads += [load_file(stages / f"head/{name}/head.safetensors") for name in ("distillation/50", "full")]
    untrained = load_file(stages / "find/distillation/50/head.safetensors")
    for head in heads:
        assert any(not torch.equal(head[name], untrained[name]) for name in untrained)


def test_so_many_heads_that_a_layer_would_have_none_are_refused(world, tmp_path):
    changes = [f"output={tmp_path}", "recipe.units=structured", "recipe.sparsities=[0.9]", "recipe.fine_tune=[0.9]"]
    changes += ["recipe.methods=[mlm]", "recipe.mask_steps=2"]
    with pytest.raises(ConfigError, match="a head must stay"):
        run_experiment(load_experiment(world, changes), seeds=[1])


def test_a_run_that_is_stopped_and_resumed_is_the_same_run(world, finished, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}"])
    for stage in ("full", "find"):
        run_experiment(loaded, seeds=[1], to=stage, resume=True)
    again = run_experiment(loaded, seeds=[1], resume=True)[0]
    assert [{**row, "run": ""} for row in again.rows] == [{**row, "run": ""} for row in finished.rows]


def test_published_defects_can_be_asked_for(world, tmp_path):
    changes = [f"output={tmp_path}", "recipe.compat=reference", "recipe.methods=[distillation,imp]", "tasks=[same]"]
    run = run_experiment(load_experiment(world, changes), seeds=[1])[0]
    assert {"imp-50", "distillation-50"} <= set(tickets(run))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (["recipe.sparsities=[0.55]", "recipe.fine_tune=null"], "sparsities.0"),
        (["recipe.sparsities=[0.5,0.3]"], "sparsities"),
        (["recipe.fine_tune=[0.8]"], "fine_tune.0"),
        (["recipe.units=structured"], "methods.3"),
        (["recipe.methods=[mlm,mlm]"], "methods"),
        (["recipe.methods=[mlm]", "recipe.mask_steps=3", "recipe.sparsities=[0.5001,0.5002]"], "sparsities"),
        (["recipe.language.text=[]"], "language.text"),
    ],
)
def test_settings_that_contradict_each_other_are_named(world, changes, place):
    with pytest.raises(ConfigError) as caught:
        load_experiment(world, changes)
    assert f"recipe.{place} " in str(caught.value).replace(":", " ")
