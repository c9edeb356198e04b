"""Progressive distillation on a small world: exact students that reload to the logged score, stopped at any step."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import mtl_tickets.recipes.students as students_module
from mtl_tickets.errors import ConfigError
from mtl_tickets.experiment import load_experiment
from mtl_tickets.files import read_json
from mtl_tickets.model import store
from mtl_tickets.model.weight_masks import weight_space_of, weights_in
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.run_directory import RunDirectory
from mtl_tickets.recipes.students import trained_student
from mtl_tickets.report.gather import gather
from mtl_tickets.report.tables import AVERAGE
from mtl_tickets.report.write import write_report
from mtl_tickets.running import open_workbench, run_experiment
from mtl_tickets.tickets.ticket import Ticket
from tests.end_to_end.world import write_world

TASKS = ("likeness", "same")
METHODS = ("progressive", "distillation", "grafting", "magnitude")
TRAIN = {"epochs": 2, "optimiser": {"lr": 1e-3}, "batches": {"size": 16}}
RECIPE = {
    "kind": "progressive",
    "train": TRAIN,
    "student": TRAIN | {"epochs": 4},
    "sparsities": [0.4, 0.7],
    "updates": 3,
    "replacing": {"start": 0.5},
    "phases": {"prune": 0.5, "replace": 0.25},
}

STRUCTURED = ["recipe.units=structured", "recipe.sparsities=[0.5]", "recipe.methods=[progressive,magnitude]"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = write_world(tmp_path_factory.mktemp("progressive"))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(content | {"recipe": RECIPE, "tasks": list(TASKS)}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(world):
    return run_experiment(load_experiment(world), seeds=[1])[0]


@pytest.fixture(scope="module")
def structured(world, tmp_path_factory):
    changes = [f"output={tmp_path_factory.mktemp('runs')}", *STRUCTURED]
    return run_experiment(load_experiment(world, changes), seeds=[1])[0]


def logged(run, stage, task, metric="score", split="dev"):
    rows = [
        r["value"] for r in run.rows if (r["stage"], r["task"], r["metric"], r["split"]) == (stage, task, metric, split)
    ]
    assert len(rows) == 1
    return rows[0]


def student(run, name, task):
    return store.load(run.path / "model" / f"{name.replace('/', '-')}-{task}")


def test_every_method_has_a_student_of_every_task_and_size(finished):
    for task in TASKS:
        full = logged(finished, "full", task)
        assert np.isfinite(full)
        for method in METHODS:
            for percent in (40, 70):
                name = f"{method}/{percent}"
                assert logged(finished, name, task, "weights_kept", "all") == pytest.approx(100 - percent, abs=0.01)
                assert np.isfinite(logged(finished, name, task, "train_score", "train"))


def test_students_are_exactly_as_sparse_as_asked_for_in_every_matrix(finished):
    for method in METHODS:
        for percent in (40, 70):
            model = student(finished, f"{method}/{percent}", "same")
            space = weight_space_of(model.config, pooler=False)
            weights = weights_in(model.encoder, space)
            assert sum(int((w == 0).sum()) for w in weights.values()) == space.total * percent // 100
            for name, matrix in weights.items():
                assert abs(int((matrix == 0).sum()) - matrix.size * percent / 100) <= 1, name
            kept = Ticket.load(finished.path / f"tickets/{method}-{percent}/same.safetensors")
            assert all(np.array_equal(kept.units[name], matrix != 0) for name, matrix in weights.items())


def test_what_is_the_teacher_s_stays_as_it_was_taught(finished):
    for task in TASKS:
        taught = load_file(finished.path / f"stages/full/{task}/weights.safetensors")
        for method in METHODS:
            for name, value in student(finished, f"{method}/70", task).state_dict().items():
                moves = name.startswith("encoder.encoder.layer.")
                if not name.endswith("key.bias"):  # which changes no attention
                    assert torch.equal(value, taught[name]) is not moves, (method, name)


def test_methods_differ_in_what_they_are_told_to(finished):
    found = {method: student(finished, f"{method}/70", "same").state_dict() for method in METHODS}
    name = "encoder.encoder.layer.0.output.dense.weight"
    assert len({float(state[name].abs().sum()) for state in found.values()}) == len(METHODS)
    steps = {row["step"] for row in finished.rows if "/" in row["stage"] and row["step"] and row["task"] == "same"}
    assert len(steps) == 1


def test_the_history_tells_how_a_student_came_about(finished):
    for method, rate in (("progressive", 0.5), ("magnitude", 1.0)):
        history = read_json(finished.path / f"stages/student/{method}/70/same/done.json")["history"]
        assert history[0]["rate"] == rate
        assert history[-1]["rate"] == 1.0
        assert [row["sparsity"] for row in history][1:] == pytest.approx([0.7] * 3, abs=1e-4)
        assert 0 < history[0]["sparsity"] < 0.7
        assert all(set(row["train"]) == set(row["selection"]) == {"same"} for row in history)
        assert history[-1]["train"]["same"] == logged(finished, f"{method}/70", "same", "train_score", "train")


SCORED = """
import json, sys
from mtl_tickets.serving import evaluate
print(json.dumps([[s.score for s in evaluate(folder, task)] for folder, task in zip(sys.argv[1::2], sys.argv[2::2])]))
"""


def test_a_student_that_is_read_alone_in_a_new_process_has_the_logged_score_to_the_digit(
    world, finished, structured, tmp_path
):
    arguments, expected = [], []
    for run, name in ((finished, "progressive/70"), (finished, "magnitude/40"), (structured, "progressive/50")):
        for task in TASKS:
            folder = tmp_path / name.replace("/", "-") / task
            shutil.copytree(run.path / "model" / f"{name.replace('/', '-')}-{task}", folder)
            arguments += [str(folder), str(world.parent / f"{task}.yaml")]
            expected.append([logged(run, name, task)])
    done = subprocess.run(
        [sys.executable, "-c", SCORED, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_structured_students_are_smaller(structured):
    for method in ("progressive", "magnitude"):
        for task in TASKS:
            model = student(structured, f"{method}/50", task)
            ticket = Ticket.load(structured.path / f"tickets/{method}-50/{task}.safetensors")
            assert {part: ticket.dropped(part) for part in ticket.units} == {"heads": 4, "ffn": 1}
            taught = load_file(structured.path / f"stages/full/{task}/weights.safetensors")
            whole, left = sum(w.numel() for w in taught.values()), sum(p.numel() for p in model.parameters())
            # heads and a block with the biases inside them
            assert whole - left == 4 * (4 * 32 * 8 + 3 * 8) + 2 * 32 * 48 + 48 + 32
            assert logged(structured, f"{method}/50", task, "remaining", "all") == ticket.remaining_percent()


@pytest.mark.parametrize("units", ["weights", "structured"])
@pytest.mark.parametrize("method", ["progressive", "magnitude"])
def test_a_training_stopped_at_any_step_ends_as_if_it_had_not(world, finished, tmp_path, units, method):
    loaded = load_experiment(world, [f"output={tmp_path}", f"recipe.units={units}", "recipe.sparsities=[0.5]"])
    run = RunDirectory(finished.path, {}, "", 1)
    bench = open_workbench(loaded, run, Silent())
    recipe = loaded.experiment.recipe
    training = recipe._student(bench, method, recipe.space(bench), 0.5, "same")

    def trained(folder, *stops):
        for stop in stops:
            trained_student(bench, training, folder, until=stop)
            torch.manual_seed(99)  # whatever happened in between
        model, pruned, result = trained_student(bench, training, folder)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return model.state_dict(), pruned.ticket(), result

    folder = tmp_path / "stage"
    folder.mkdir()
    whole = trained(folder)
    steps = whole[2].steps
    assert steps == 12
    every = [(stop,) for stop in range(1, steps)]
    thorough = (units, method) == ("weights", "progressive")
    for stops in [*(every if thorough else every[3::5]), (2, 6, 9)]:
        again = trained(folder, *stops)
        assert all(torch.equal(value, again[0][name]) for name, value in whole[0].items()), stops
        assert again[1] == whole[1] and again[1].about == whole[1].about
        assert again[2].history == whole[2].history


def test_masks_hold_after_every_step(world, finished, tmp_path, monkeypatch):
    seen, hold = [], students_module.PrunedWeights.hold

    def watched(pruned):
        hold(pruned)
        zeros = {name: weight == 0 for name, weight in pruned._weights}
        assert all(bool(zeros[name][pruned.dropped(name)].all()) for name in zeros)
        seen.append(sum(int(gone.sum()) for gone in zeros.values()) / pruned.space.total)

    monkeypatch.setattr(students_module.PrunedWeights, "hold", watched)
    loaded = load_experiment(world, [f"output={tmp_path}", "tasks=[same]", "recipe.methods=[progressive]"])
    run_experiment(loaded, seeds=[1])
    # 12 steps for each of two sizes, three updates in the first six of each, each of which holds once more
    assert len(seen) == 2 * (12 + 3) and seen[:15] == sorted(seen[:15])
    assert seen[14] == pytest.approx(0.4, abs=1e-4) and seen[-1] == pytest.approx(0.7, abs=1e-4)


def test_a_run_that_is_stopped_and_resumed_is_the_same_run(world, structured, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}", *STRUCTURED])
    run_experiment(loaded, seeds=[1], to="full")
    again = run_experiment(loaded, seeds=[1], resume=True)[0]
    assert [{**row, "run": ""} for row in again.rows] == [{**row, "run": ""} for row in structured.rows]


def test_the_report_tells_of_it_and_of_overfitting(finished):
    text = write_report(finished.path).read_text(encoding="utf-8")
    assert "progressive distillation" in text and "gradual magnitude" in text and "Overfitting" in text
    average, *curves = gather(finished.path).overfitting
    assert [curve.task for curve in curves] == list(TASKS) and average.task == AVERAGE
    for curve in curves:

        def gap(stage, task=curve.task):
            return logged(finished, stage, task, "train_score", "train") - logged(finished, stage, task)

        assert curve.full == (gap("full"),)
        found = {f"{item.kind}/{item.percent}": item.values for item in curve.found}
        assert found == {f"{method}/{size}": (gap(f"{method}/{size}"),) for method in METHODS for size in (40, 70)}
    assert average.full == pytest.approx([sum(curve.full[0] for curve in curves) / 2])


# -- published defects -------------------------------------------------------------------------------------------------


def of_defects(world, finished, tmp_path, *changes, method="progressive", task="same"):
    loaded = load_experiment(world, [f"output={tmp_path}", "recipe.sparsities=[0.5]", *changes])
    bench = open_workbench(loaded, RunDirectory(finished.path, {}, "", 1), Silent())
    recipe = loaded.experiment.recipe
    folder = tmp_path / "stage"
    folder.mkdir(exist_ok=True)
    training = recipe._student(bench, method, recipe.space(bench), 0.5, task)
    model, pruned, result = trained_student(bench, training, folder)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return training, model.state_dict(), pruned, result


DEFECTS = ["constant_rate", "attention_dropout", "class_mean", "clip_frozen", "miss_target", "let_moments_run"]


# gradients of these small networks are clipped by a small norm only
CLIPPED = "recipe.student.optimiser.clip=0.05"


@pytest.fixture(scope="module")
def without_defects(world, finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixed")
    return {task: of_defects(world, finished, folder, CLIPPED, task=task)[1] for task in ("same", "likeness")}


@pytest.mark.parametrize("defect", [*DEFECTS, "gold_regression", "count_padding"])
def test_each_published_defect_changes_what_is_learned(world, finished, without_defects, tmp_path, defect):
    task = "likeness" if defect == "gold_regression" else "same"
    fixed = without_defects[task]
    training, published, pruned, result = of_defects(
        world, finished, tmp_path, CLIPPED, f"recipe.compat.{defect}=true", task=task
    )
    name = "encoder.encoder.layer.0.output.dense.weight"
    assert not torch.equal(fixed[name], published[name])
    for part in ("encoder.embeddings.word_embeddings.weight", f"heads.{task}.linear.weight"):
        assert torch.equal(fixed[part], published[part])
    if defect == "constant_rate":
        assert {row["rate"] for row in result.history} == {0.5}
    if defect == "miss_target":  # six steps, three updates: the last is not done
        assert pruned.sparsity() == pytest.approx(0.5 * (1 - 1 / 27), abs=1e-3)
        assert training.sparsity(result.steps, result.steps) < 0.5


def test_the_published_clipping_shortens_every_step(world, finished, tmp_path, monkeypatch):
    from accelerate import Accelerator

    norms, clip = {}, Accelerator.clip_grad_norm_

    def told(accelerator, parameters, *rest):
        parameters = list(parameters)
        norm = clip(accelerator, parameters, *rest)
        norms.setdefault(len(parameters), []).append(float(norm))
        return norm

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", told)
    for published in ("false", "true"):
        of_defects(world, finished, tmp_path, f"recipe.compat.clip_frozen={published}", "recipe.replacing.start=0.0")
    (few, small), (many, large) = sorted(norms.items())
    assert few < many and large[0] > small[0]
    # no layer is the student's in the first step: nothing is to be learned, and yet gradients are there
    assert small[0] == 0.0 or len(small) == len(large)


def test_all_published_defects_are_asked_for_at_once(world, tmp_path):
    changes = [
        f"output={tmp_path}",
        "recipe.compat=reference",
        "recipe.sparsities=[0.5]",
        "recipe.methods=[progressive]",
    ]
    loaded = load_experiment(world, changes)
    compat = loaded.experiment.recipe.compat
    assert all(dict(compat).values()) and len(dict(compat)) == len(DEFECTS) + 2
    assert run_experiment(loaded, seeds=[1])[0].finished


# -- settings ----------------------------------------------------------------------------------------------------------


def test_a_head_is_trained_where_it_is_asked_for_and_no_model_kept_where_not(world, tmp_path):
    changes = [f"output={tmp_path}", "tasks=[same]", "recipe.methods=[progressive]", "recipe.sparsities=[0.5]"]
    changes += ["recipe.train_head=true", "recipe.keep_models=false", "encoder.attention=packed"]
    run = run_experiment(load_experiment(world, changes), seeds=[1])[0]
    assert run.finished and not (run.path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (["recipe.sparsities=[0.5,0.3]"], "sparsities"),
        (["recipe.sparsities=[1.0]"], "sparsities.0"),
        (["recipe.sparsities=[0.5001,0.5002]"], "sparsities"),
        (["recipe.methods=[magnitude,magnitude]"], "methods"),
        (["recipe.structures=[ffn,neurons]"], "structures"),
        (["recipe.phases.prune=0.9", "recipe.phases.replace=0.2"], "phases.replace"),
        (["recipe.student.compile=true"], "student.compile"),
        (["recipe.per_student.sam.epochs=3"], "per_student.sam"),
        (["recipe.loss.hidden=-1"], "loss.hidden"),
    ],
)
def test_settings_that_contradict_each_other_are_named(world, changes, place):
    with pytest.raises(ConfigError) as caught:
        load_experiment(world, changes)
    assert f"recipe.{place} " in str(caught.value).replace(":", " ")


def test_so_many_heads_that_a_layer_would_have_none_are_refused(world, tmp_path):
    changes = [f"output={tmp_path}", "recipe.units=structured", "recipe.sparsities=[0.9]"]
    with pytest.raises(ConfigError, match="a head must stay"):
        run_experiment(load_experiment(world, changes), seeds=[1])
