"""IMP on a small world: exact sizes, real rewinding, controls of equal size, a transfer matrix."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mtl_tickets.recipes.language as language_module
import mtl_tickets.recipes.workbench as workbench_module
from mtl_tickets.errors import CheckpointError, ConfigError
from mtl_tickets.experiment import load_experiment
from mtl_tickets.locate import find_models, find_tickets
from mtl_tickets.model import weight_masks
from mtl_tickets.model.encoders import load_encoder, read_config
from mtl_tickets.recipes.jobs import Origin
from mtl_tickets.running import run_experiment
from mtl_tickets.study.plan import load_study
from mtl_tickets.tickets.ticket import Ticket
from tests.end_to_end.world import write_text, write_world

RECIPE = {
    "kind": "imp",
    "train": {"epochs": 1, "optimiser": {"lr": 1e-3}, "batches": {"size": 32}},
    "language": {"length": 16, "batch_size": 4, "held_out": 0.1, "steps": 3},
    "rounds": 3,
    "fraction": 0.25,
    "at": [2],
    "prunable": {"embeddings": True},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imp")
    path = write_world(folder)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["recipe"] = RECIPE | {"language": RECIPE["language"] | {"text": [str(write_text(folder))]}}
    content["tasks"] = ["feelings", "same"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder, path


@pytest.fixture(scope="module")
def finished(world):
    _, path = world
    loaded = load_experiment(path)
    return run_experiment(loaded, seeds=[1])[0]


def space_of(world):
    return weight_masks.weight_space_of(read_config(str(world[0] / "encoder")), embeddings=True)


def rounds(run, source):
    return [Ticket.load(run.path / f"stages/round-{k}/{source}/pruned.safetensors") for k in range(3)]


@pytest.mark.parametrize("source", ["feelings", "same", "mlm"])
def test_every_round_drops_exactly_its_share_and_takes_nothing_back(world, finished, source):
    tickets = rounds(finished, source)
    total = space_of(world).total
    assert [sum(t.dropped(part) for part in t.units) for t in tickets] == [total * k // 4 for k in (1, 2, 3)]
    assert tickets[2] <= tickets[1] <= tickets[0]


def test_controls_have_the_size_of_the_tickets_they_stand_beside(finished):
    folder = finished.path / "tickets"
    sizes = {file.parent.name: Ticket.load(file).remaining_percent() for file in folder.glob("*/*.safetensors")}
    assert set(sizes) == {"imp-50", "magnitude-50", "random-50"} and len(set(sizes.values())) == 1


def test_every_task_is_tried_under_every_ticket(finished):
    tasks = ["feelings", "same", "mlm"]
    score = {(row["stage"], row["task"]) for row in finished.rows if row["metric"] == "score"}
    for stage in ("full", "imp/25", "imp/50", "imp/75", "magnitude/50", "random/50", "reinitialised/50", "shuffled/50"):
        assert {(stage, task) for task in tasks} <= score
    for source in tasks:
        assert {(f"transfer/50/{source}", task) for task in tasks if task != source} <= score


def seen_at_the_start(monkeypatch):
    """Stage by stage, the encoder's weights as its first step sees them."""
    seen = []

    def spy(module, encoder_of):
        train = module.train

        def watched(model, *args, **kwargs):
            state = {}
            for name, owner in encoder_of(model).named_modules():
                if isinstance(owner, torch.nn.Linear | torch.nn.Embedding):
                    state[f"{name}.weight"] = owner.weight.detach().clone()
            seen.append(state)
            return train(model, *args, **kwargs)

        monkeypatch.setattr(module, "train", watched)

    spy(workbench_module, lambda model: model.encoder)
    spy(language_module, language_module.encoder_of)
    return seen


@pytest.mark.parametrize("source", ["same", "mlm"])
@pytest.mark.parametrize("no_op", [False, True])
def test_what_survives_is_rewound_bit_for_bit_unless_the_published_no_op_is_asked_for(
    world, tmp_path, monkeypatch, source, no_op
):
    folder, path = world
    changes = [f"output={tmp_path}", f"recipe.sources=[{source}]", "recipe.controls=[]", "recipe.transfer=false"]
    changes += ["tasks=[same]", "recipe.compat.alias_rewind=true"] if no_op else ["tasks=[same]"]
    seen = seen_at_the_start(monkeypatch)
    run = run_experiment(load_experiment(path, changes), seeds=[1])[0]
    pretrained = load_encoder(str(folder / "encoder"), seed=1).state_dict()
    starts = seen[2:5]  # the rounds, behind the full training of the task and of the text
    for ticket, start in zip(rounds(run, source), starts, strict=True):
        rewound = []
        for name, kept in ticket.units.items():
            if name not in start:
                continue  # a masked-language model has no pooler
            mask = torch.tensor(kept)
            assert not start[name][~mask].any()
            rewound.append(torch.equal(start[name][mask], pretrained[name][mask]))
        assert all(rewound) is not no_op


def test_a_run_that_is_stopped_and_resumed_is_the_same_run(world, finished, tmp_path):
    _, path = world
    loaded = load_experiment(path, [f"output={tmp_path}"])
    for stage in ("full", "rounds", "controls"):
        run_experiment(loaded, seeds=[1], to=stage, resume=True)
    again = run_experiment(loaded, seeds=[1], resume=True)[0]
    assert [{**row, "run": ""} for row in again.rows] == [{**row, "run": ""} for row in finished.rows]


def test_weights_are_rewound_to_the_step_that_was_asked_for(world, tmp_path, monkeypatch):
    _, path = world
    changes = [f"output={tmp_path}", "recipe.rewind=0.5", "recipe.sources=[same]", "tasks=[same]"]
    changes += ["recipe.controls=[]", "recipe.transfer=false"]
    seen = seen_at_the_start(monkeypatch)
    run = run_experiment(load_experiment(path, changes), seeds=[1])[0]
    kept = load_file(run.path / "stages/rewind/same/weights.safetensors")
    (ticket, *_), start = rounds(run, "same"), seen[-3]
    for name, units in ticket.units.items():
        mask = torch.tensor(units)
        assert torch.equal(start[name][mask], kept[f"encoder.{name}"][mask])


def test_weights_drawn_anew_and_layers_shuffled_are_other_weights_of_the_same_sizes(world):
    folder, _ = world
    source = str(folder / "encoder")
    plain = load_encoder(source, seed=1)
    drawn, shuffled = load_encoder(source, seed=1), load_encoder(source, seed=1)
    Origin("reinitialised", seed=5).put_into(drawn, folder)
    Origin("shuffled", seed=5).put_into(shuffled, folder)
    name = "encoder.layer.{}.output.dense.weight"
    weights = [[encoder.get_parameter(name.format(layer)) for layer in (0, 1)] for encoder in (plain, drawn, shuffled)]
    assert not any(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert torch.equal(weights[2][0], weights[0][1]) and torch.equal(weights[2][1], weights[0][0])
    matrices = space_of(world).matrices
    for name, parameter in shuffled.named_parameters():  # biases, norms, embeddings and pooler stay
        if name not in matrices or ".layer." not in name:
            assert torch.equal(parameter, plain.get_parameter(name))


def test_settings_that_contradict_each_other_are_named(world):
    _, path = world
    for change, place in [
        ("recipe.rounds=4", "rounds"),
        ("recipe.at=[5]", "at.0"),
        ("recipe.at=[2,2]", "at"),
        ("recipe.sources=[same,same]", "sources"),
        ("recipe.sources=[sme]", "recipe.sources[0]"),
        ("recipe.fraction=0.0001", "fraction"),
        ("recipe.allocation=layer_normalised", "allocation"),
        ("encoder.weights=random", "encoder.weights"),
        ("recipe.language=null", ""),
        ("recipe.rewind=1.0", "rewind"),
    ]:
        changes = [change, "recipe.sources=[mlm]"] if "language" in change else [change]
        with pytest.raises(ConfigError) as caught:
            load_experiment(path, changes)
        assert place in str(caught.value)


def test_what_is_trained_with_its_decoder_whole_is_measured_so(world, tmp_path):
    """Masked embeddings are tied to the vocabulary of the head, which is not masked."""
    _, path = world
    changes = [f"output={tmp_path}", "recipe.sources=[mlm]", "recipe.controls=[magnitude]", "recipe.transfer=false"]
    changes += ["recipe.language.steps=20", "tasks=[same]"]
    loaded = load_experiment(path, changes)
    seen = {}
    measure = language_module.held_out_scores

    def watched(model, *rest):
        encoder = language_module.encoder_of(model)
        masked = encoder.embeddings.word_embeddings.weight
        seen.setdefault("masked", []).append(int((masked == 0).sum()))
        seen.setdefault("whole", []).append(int((model.network.get_output_embeddings().weight == 0).sum()))
        return measure(model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_module, "held_out_scores", watched)
        run_experiment(loaded, seeds=[1])
    assert max(seen["masked"]) > 500 and max(seen["whole"]) < 100


def test_every_ticket_of_a_matrix_starts_a_target_from_the_same_weights(world, tmp_path, monkeypatch):
    _, path = world
    changes = [f"output={tmp_path}", "recipe.rewind=0.5", "recipe.language=null", "recipe.controls=[random]"]
    seen = seen_at_the_start(monkeypatch)
    run = run_experiment(load_experiment(path, changes), seeds=[1])[0]
    kept = {task: load_file(run.path / f"stages/rewind/{task}/weights.safetensors") for task in ("feelings", "same")}
    # behind the rounds: a random ticket on both tasks, then either task's ticket on the other
    for task, start in zip(("feelings", "same", "same", "feelings"), seen[-4:], strict=True):
        name = "encoder.layer.0.output.dense.weight"
        there = start[name] != 0
        assert torch.equal(start[name][there], kept[task][f"encoder.{name}"][there])


def test_a_task_called_as_the_text_is_refused(world, tmp_path):
    folder, path = world
    task = yaml.safe_load((folder / "same.yaml").read_text(encoding="utf-8"))
    (folder / "mlm.yaml").write_text(yaml.safe_dump(task | {"name": "mlm"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="no task may be called so"):
        load_experiment(path, ["tasks=[feelings,mlm]"])


def test_tickets_of_a_run_without_rules_are_found(finished):
    found = find_tickets([finished.path])
    assert len(found) == 5
    with pytest.raises(CheckpointError, match="keeps tickets and no model"):
        find_models(finished.path)


def test_a_study_of_it_is_refused_by_name(world, tmp_path):
    _, path = world
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"name": "s", "experiment": str(path), "seeds": [1]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="super_tickets"):
        load_study(study)
