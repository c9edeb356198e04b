"""Sparse and robust sub-networks on a small world: sizes, what stays as it is, challenge sets, resuming."""

import itertools

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mtl_tickets import serving
from mtl_tickets.errors import ConfigError
from mtl_tickets.evaluation.evaluate import evaluate
from mtl_tickets.experiment import load_experiment
from mtl_tickets.model.encoders import load_encoder
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.base_ticket import read_base
from mtl_tickets.recipes.run_directory import RunDirectory
from mtl_tickets.recipes.task_masks import of_encoder
from mtl_tickets.report.content import document
from mtl_tickets.report.gather import gather
from mtl_tickets.report.html import page
from mtl_tickets.running import open_workbench, run_experiment
from mtl_tickets.tickets.ticket import Ticket
from tests.end_to_end.world import NOUNS, write_world

LOSSES = ["standard", "product_of_experts", "reweighting", "confidence"]
RECIPE = {
    "kind": "robust",
    "bias": {"same": {"kind": "word_overlap"}},
    "train": {"epochs": 2, "optimiser": {"lr": 1e-3}, "batches": {"size": 16}, "checkpoint_seconds": 0},
    "masks": {"epochs": 2, "optimiser": {"lr": 0.02, "weight_decay": 0.0}, "reset_every": 3},
    "sparsities": [0.3, 0.5],
    "full": LOSSES,
    "after": [
        *({"method": "masks", "loss": loss} for loss in LOSSES),
        {"method": "masks", "full": "product_of_experts", "loss": "product_of_experts"},
        {"method": "imp", "loss": "product_of_experts"},
    ],
    "isolated": [{"ticket": "masks", "loss": "standard"}, {"ticket": "imp", "loss": "product_of_experts"}],
    "untrained": ["product_of_experts"],
    "rising": [{"first": 0.3, "last": 0.6}, {"first": 0.6, "last": 0.6}],
    "starts": [0.5],
    "keep_models": True,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust")
    path = write_world(folder)
    lines = ["first\tsecond\tanswer\tkind\tdepth"]
    for number, (one, two) in enumerate(itertools.pairwise(NOUNS)):
        kind = "swapped" if number % 2 else "plain"
        lines += [f"the {one} is here\tthe {two} is here\tno\t{kind}\t{number % 3}", f"{one}\t{one}\tyes\t{kind}\t1"]
    (folder / "odd.tsv").write_text("\n".join(lines), encoding="utf-8")
    odd = {
        "name": "odd",
        "labels": ["no", "yes"],
        "metrics": ["accuracy"],
        "head": "same",
        "breakdown": [["label"], ["kind", "label"]],
        "splits": {"train": "labelled", "dev": "labelled"},
        "sources": {
            "files": {
                "kind": "files",
                "text": ["first", "second"],
                "label": "answer",
                "groups": ["kind"],
                "splits": {"train": "odd.tsv", "dev": "odd.tsv"},
            }
        },
    }
    (folder / "odd.yaml").write_text(yaml.safe_dump(odd), encoding="utf-8")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content |= {"recipe": RECIPE, "tasks": ["same", "odd"]}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(world):
    return run_experiment(load_experiment(world), seeds=[1])[0]


def kept(run, stage):
    return load_file(run.path / "stages" / stage / "weights.safetensors")


def ticket(run, stage):
    return Ticket.load(run.path / "stages" / stage / "ticket.safetensors")


def weight_of(weights, name):
    return weights[name if name.startswith("heads.") else f"encoder.{name}"]


def masked(run):
    """Stage -> sparsity of every mask training that there is."""
    found = {}
    for file in (run.path / "stages").rglob("ticket.safetensors"):
        stage = file.parent.relative_to(run.path / "stages").as_posix()
        found[stage] = int(stage.split("/")[1])
    return found


def test_all_that_was_asked_for_is_there(world, finished):
    columns = load_experiment(world).experiment.recipe.columns()
    scored = {(row["stage"], row["task"]) for row in finished.rows if row["metric"] == "score"}
    trained = [stage for stage in columns if not stage.startswith("yardstick/")]
    assert {(stage, "same") for stage in columns} | {(stage, "odd") for stage in trained} <= scored
    assert len(masked(finished)) == 2 * (4 + 1 + 1 + 1) + 2


def test_masks_have_their_size_to_the_weight_in_file_and_model(finished):
    for stage, size in masked(finished).items():
        found, weights = ticket(finished, stage), kept(finished, stage)
        assert any(name.startswith("heads.") for name in found.units)
        dropped = {name: int((~units).sum()) for name, units in found.units.items()}
        assert sum(dropped.values()) == found.space.total * size // 100, stage
        for name, units in found.units.items():
            assert abs(dropped[name] - units.size * size / 100) <= 1
            assert int((weight_of(weights, name) == 0).sum()) == dropped[name]


def test_mask_training_moves_no_weight(finished):
    for stage in masked(finished):
        name, task = stage.split("/")[0], stage.rpartition("/")[2]
        if name.startswith(("untrained", "start")):
            continue
        full = "full" if name.split("-")[1] == "std" else "full-poe"
        full, weights, found = kept(finished, f"{full}/{task}"), kept(finished, stage), ticket(finished, stage)
        for key, before in full.items():
            units = found.units.get(key.removeprefix("encoder."), found.units.get(key))
            after = weights[key]
            if units is not None:
                before = before * torch.tensor(units)
            assert torch.equal(after, before), (stage, key)


def test_losses_find_different_masks(finished):
    found = [ticket(finished, f"masks-std-{code}/50/same") for code in ("std", "poe", "reweight", "confreg")]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])


def test_an_untrained_network_is_kept_whole_and_reloads(world, finished):
    loaded = load_experiment(world)
    pretrained = load_encoder(str(world.parent / "encoder")).state_dict()
    weights, found = kept(finished, "untrained-poe/50/same"), ticket(finished, "untrained-poe/50/same")
    for name, before in pretrained.items():
        units = found.units.get(name)
        assert torch.equal(weights[f"encoder.{name}"], before if units is None else before * torch.tensor(units))
    bench = open_workbench(loaded, RunDirectory(finished.path, {}, "", 1), Silent())
    model = bench.start(("same",)).rewound()
    head = model.heads["same"].linear.weight * torch.tensor(found.units["heads.same.linear.weight"])
    assert torch.equal(weights["heads.same.linear.weight"], head)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.load_state_dict(weights)
    data = bench.data["same"].dev["dev"]
    again = evaluate(model, bench.tasks["same"], data, bench.accelerator, bench.tokenizer.pad_token_id)
    logged = [
        row["value"] for row in finished.rows
        if (row["stage"], row["task"], row["split"], row["metric"]) == ("untrained-poe/50", "same", "dev", "score")
    ]  # fmt: skip
    assert [again.score] == logged


def test_pruned_weights_train_on_and_stay_pruned(finished):
    full = kept(finished, "full/same")
    last = kept(finished, "imp-std-poe/5/same")
    before = None
    for number in range(1, 6):
        weights = kept(finished, f"imp-std-poe/{number}/same")
        zero = {name: w == 0 for name, w in weights.items() if name.startswith("encoder.") and w.ndim == 2}
        if before is not None:
            assert all(bool((zero[name] | ~there).all()) for name, there in before.items() if name in matrices(zero))
        before = {name: there for name, there in zero.items() if name in matrices(zero)}
    total = sum(weights.numel() for name, weights in last.items() if name in before)
    assert sum(int(there.sum()) for there in before.values()) == total // 2
    assert any(not torch.equal(last[name][~there], full[name][~there]) for name, there in before.items())


def matrices(names):
    return [name for name in names if "embeddings" not in name]


def test_what_is_fine_tuned_alone_has_the_ticket_that_was_found(finished):
    weights, found = kept(finished, "isolated-masks-std/50/same"), ticket(finished, "masks-std-poe/50/same")
    for name, units in found.units.items():
        if name.startswith("heads."):
            assert not bool((weights[name] == 0).any())
        else:
            assert torch.equal(weights[f"encoder.{name}"] == 0, ~torch.tensor(units))


def test_the_published_save_of_a_rising_mask_has_the_wrong_size(world, finished, tmp_path):
    assert masked(finished)["from30-std-poe/60/same"] == 60
    changes = [f"output={tmp_path}", "recipe.compat={stays_first: true}", "recipe.after=[]", "recipe.isolated=[]"]
    changes += ["recipe.untrained=[]", "recipe.starts=[]", "tasks=[same]"]
    run = run_experiment(load_experiment(world, changes), seeds=[1])[0]
    found = ticket(run, "from30-std-poe/60/same")
    assert sum(int((~units).sum()) for units in found.units.values()) == found.space.total * 30 // 100


def test_every_part_of_a_challenge_set_is_counted(finished):
    rows = [row for row in finished.rows if (row["stage"], row["task"]) == ("masks-std-poe/50", "odd")]
    score = {row["metric"]: row for row in rows if row["metric"] in ("accuracy", "score")}
    for parts in (("label",), ("kind", "label")):
        found = [row for row in rows if row["metric"].count("=") == len(parts) and "[" in row["metric"]]
        assert len(found) == 2 ** len(parts) and sum(row["n"] for row in found) == 14
        right = sum(row["n"] * row["value"] for row in found) / 14
        assert right == pytest.approx(score["accuracy"]["value"])


def test_the_report_shows_every_method_on_every_part(world, finished):
    columns = load_experiment(world).experiment.recipe.columns()
    data = gather(finished.path.parent)
    assert [(item.task, item.names, sum(item.rows)) for item in data.breakdowns] == [
        ("odd", ("label",), 14),
        ("odd", ("kind", "label"), 14),
    ]
    trained = [heading for stage, heading in columns.items() if not stage.startswith("yardstick/")]
    values = {(row["stage"], row["metric"]): row["value"] for row in finished.rows if row["task"] == "odd"}
    for item in data.breakdowns:
        assert list(item.lines) == trained
    first = data.breakdowns[0]
    assert [cell.mean for cell in first.lines["full model"]] == [
        100 * values["full", f"accuracy[label={label}]"] for (label,) in first.parts
    ]
    assert ">Kinds of rows<" in page(document(data))


def test_the_report_says_what_the_trainings_cost_and_what_the_tasks_are(world, finished):
    columns = load_experiment(world).experiment.recipe.columns()
    data = gather(finished.path)
    trained = {item.what: item for item in data.costs}
    assert {"the full model", "full, PoE", "masks, PoE", "masks of PoE, PoE", "IMP, PoE", "untrained, PoE"} <= set(
        trained
    )
    assert trained["full, PoE"].trainings == 1 and trained["masks, PoE"].trainings == 2
    assert all(" " in what or what in columns.values() for what in trained)
    assert {item.task: (item.kind, item.labels) for item in data.tasks} == {
        "same": ("classification", ("no", "yes")),
        "odd": ("classification", ("no", "yes")),
    }


def test_what_is_kept_for_use_answers_both_tasks_with_the_logged_score(world, finished):
    models = finished.path / "model"
    for name in ("full", "full-poe", "masks-std-poe/50", "isolated-imp-poe/30", "from30-std-poe/60", "start50-poe/50"):
        (same,) = serving.evaluate(models / f"{name.replace('/', '-')}-same", world.parent / "same.yaml")
        logged = [
            row["value"] for row in finished.rows
            if (row["stage"], row["task"], row["split"], row["metric"]) == (name, "same", "dev", "score")
        ]  # fmt: skip
        assert [same.score] == logged, name


def test_training_rows_of_a_challenge_set_can_be_added(world, finished, tmp_path):
    changes = [
        f"output={tmp_path}",
        "recipe.added={same: [{task: odd}, {task: odd, times: 3}]}",
        "recipe.full=[standard]",
        "recipe.bias={}",
    ]
    changes += [f"recipe.{key}=[]" for key in ("after", "isolated", "untrained", "rising", "starts")]
    loaded = load_experiment(world, changes)
    run = run_experiment(loaded, seeds=[1])[0]

    def examples(of):
        return RunDirectory(of.path, {}, "", 1).result("full/same")["examples"]

    assert examples(run) == examples(finished) + 2 * 4 * 14
    bench = open_workbench(loaded, RunDirectory(run.path, {}, "", 1), Silent())
    inputs = {item.name: item.file for item in bench.inputs()}
    assert inputs["rows of odd added to task same"] == str(world.parent / "odd.tsv")
    assert len(set(inputs.values())) == len(inputs) - 2  # odd.tsv is added and answered, the encoder has a tokenizer
    data, raw = bench.data["same"].train, bench.data["same"].raw("train")
    assert list(data.labels) == raw.labels.tolist() and len(raw) == len(data) == 36 + 4 * 14
    texts = [bench.tokenizer.decode(data.input_ids(i), skip_special_tokens=True) for i in (0, 38, 49, 91)]
    assert texts == [" ".join(column[i] for column in raw.texts) for i in (0, 38, 49, 91)]


def test_a_bias_model_that_is_not_for_its_task_is_refused_before_any_training(world, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}", "recipe.bias={same: {kind: word_overlap, against: maybe}}"])
    with pytest.raises(ConfigError, match="maybe"):
        run_experiment(loaded, seeds=[1])
    assert not [*(loaded.folder / "seed-1" / "stages").rglob("done.json")]


@pytest.mark.parametrize(
    ("labels", "message"), [("{yess: no}", "must be a label of this task"), ("{yes: no}", "that leads to this one")]
)
def test_added_rows_keep_a_label_that_leads_to_theirs(world, tmp_path, labels, message):
    loaded = load_experiment(world, [f"output={tmp_path}", f"recipe.added={{same: [{{task: odd, labels: {labels}}}]}}"])
    with pytest.raises(ConfigError, match=message):
        run_experiment(loaded, seeds=[1])


def test_masks_are_tickets_that_can_be_a_base(finished):
    for size in (30, 50):
        found = read_base(finished.path / "tickets" / f"masks-std-poe-{size}" / "same")
        assert found == of_encoder(ticket(finished, f"masks-std-poe/{size}/same"))


def test_a_run_that_is_stopped_and_resumed_is_the_same_run(world, finished, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}"])
    for stage in ("full", "after", "untrained"):
        run_experiment(loaded, seeds=[1], to=stage, resume=True)
    again = run_experiment(loaded, seeds=[1], resume=True)[0]
    assert [{**row, "run": ""} for row in again.rows] == [{**row, "run": ""} for row in finished.rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["tasks=[same, feelings]"], "task feelings needs a model of its bias"),
        (["recipe.bias={same: {kind: word_overlap}, sme: {kind: word_overlap}}"], "did you mean 'same'"),
        (["recipe.bias={same: {kind: word_overlp}}"], "word_overlap"),
        (["tasks=[likeness]", "recipe.bias={likeness: {kind: word_overlap}}"], "regression has no model of its bias"),
        (["recipe.added={same: [{task: od}]}"], "did you mean 'odd'"),
        (["recipe.added={sam: [{task: odd}]}"], "did you mean 'same'"),
        (["recipe.added={same: [{task: odd, split: tran}]}"], "did you mean 'train'"),
        (["recipe.added={same: [{task: odd, split: dev}]}"], "what is reported is not trained on"),
        (
            ["recipe.added={same: [{task: odd}]}", "recipe.bias={same: {kind: file, file: some.tsv}}"],
            "the bias of the task's own rows",
        ),
        (["recipe.sparsities=[0.35]"], "must be a multiple of 0.1"),
        (["recipe.sparsities=[0.5, 0.3]"], "must rise"),
        (["recipe.starts=[1.5]"], "must be above 0 and below 1"),
        (["recipe.rising=[{first: 0.9, last: 0.7}]"], "first must not be above last"),
        (["recipe.rising=[{first: 0.9, last: 0.9999}]"], r"rising.0.last.*none of 0 and 100 %"),
        (["recipe.untrained=[product_of_experts, product_of_experts]"], "each sub-network may stand only once"),
    ],
)
def test_settings_that_contradict_each_other_are_named(world, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(world, changes)
