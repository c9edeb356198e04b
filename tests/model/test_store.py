"""What is saved is loaded bit for bit, here and in a new process; what is damaged is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, KINDS, largest, make_batch, make_model, make_ticket, some_tickets
from transformers import AutoModel

from mtl_tickets import files
from mtl_tickets.errors import CheckpointError, MtlTicketsError, TicketError
from mtl_tickets.model.compact import compact
from mtl_tickets.model.store import load, read_extra, save

MIXED = [(0, 0, 3), (1, 3, 5), (2, 5, 9)]


def variants(name: str = "bert", attention: str = "sdpa", pooling: str = "pooler"):
    """A dense, a ticketed and a compacted model (the last with a layer without heads, and padded neurons)."""
    ticketed = make_model(name, attention, pooling=pooling)
    ticketed.set_tickets(some_tickets(ticketed, neurons=True))
    return {"dense": make_model(name, attention, pooling=pooling), "ticketed": ticketed, "compact": compact(ticketed)}


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_round_trip_is_bit_equal(name, attention, tmp_path):
    pooling = {"sdpa": "pooler", "eager": "aligned"}[attention]
    for variant, model in variants(name, attention, pooling).items():
        batch = make_batch(model, MIXED)
        save(model, tmp_path / variant)
        again = load(tmp_path / variant, attention)
        assert largest(model(**batch), again(**batch)) == 0
        states = model.state_dict(), again.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert again.tickets == model.tickets
        assert again.tasks == model.tasks
        assert again.config._attn_implementation == attention
        assert not again.training
        assert all(parameter.requires_grad for parameter in again.parameters())


def test_a_new_process_loads_the_same(tmp_path):
    expected = {}
    for variant, model in variants("distilbert").items():
        save(model, tmp_path / variant)
        expected[variant] = [logits.tolist() for logits in model(**make_batch(model, MIXED))]
    script = f"""
import json, sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]
from tiny_models import make_batch
from mtl_tickets.model.store import load
found = {{}}
for variant in ("dense", "ticketed", "compact"):
    model = load({str(tmp_path)!r} + "/" + variant)
    found[variant] = [logits.tolist() for logits in model(**make_batch(model, {MIXED!r}))]
print(json.dumps(found))
"""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_opens_the_encoder_of_a_whole_model(name, tmp_path):
    model = make_model(name)
    save(model, tmp_path / "model")
    encoder, info = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    for key, tensor in model.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[key], tensor)


def test_extra_content_and_a_second_save(tmp_path):
    model = make_model("bert")
    save(model, tmp_path / "model", extra={"run": "a", "scores": [1.5, None]})
    assert read_extra(tmp_path / "model") == {"run": "a", "scores": [1.5, None]}
    model.set_tickets({"rte": make_ticket(model, [(0, 0)])})
    save(model, tmp_path / "model")
    model.set_tickets({})
    save(model, tmp_path / "model", extra={"run": "b"})
    assert read_extra(tmp_path / "model") == {"run": "b"}
    assert load(tmp_path / "model").tickets == {}
    assert not (tmp_path / "model" / "tickets").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_model(tmp_path):
    model = make_model("bert")
    save(model, tmp_path / "model", extra={"run": "a"})
    with pytest.raises(TypeError):
        save(model, tmp_path / "model", extra={"run": object()})
    assert read_extra(tmp_path / "model") == {"run": "a"}
    load(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_low_precision_models_stay_what_they_are(tmp_path):
    model = make_model("bert").to(torch.bfloat16)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    batch = make_batch(model, MIXED)
    assert largest(model(**batch), again(**batch)) == 0


@pytest.fixture
def stored(tmp_path):
    folder = tmp_path / "model"
    save(variants()["compact"], folder)
    return folder


def change_json(file: Path, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def rewrite_weights(folder: Path, change):
    """Another weights file, with the hash to it: what a careless tool would leave."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    change_json(folder / "tasks.json", weights_sha256=files.file_digest(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tasks.json", "compact.json"])
def test_a_missing_file_is_named(stored, name):
    (stored / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(stored)


def test_a_missing_directory_and_a_foreign_one(tmp_path):
    with pytest.raises(CheckpointError, match="this model directory must exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"must have tasks\.json; found \['notes\.txt'\]"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, r"format: must be 'mtl_tickets\.model'; found 'other'"),
        ({"version": "2"}, "version: must be '1'; found '2'; it was written by another version"),
        ({"pooling": "max"}, "pooling: must be one of pooler, first, mean, texts, aligned; found 'max'"),
        ({"tasks": "mnli", "tickets": 3}, r"(?s)tasks: must be a list.*tickets: must be a list"),
        ({"tasks": [{"name": "mnli", "classes": 3}]}, "tasks: must describe tasks"),
        ({"tickets": ["../mnli"]}, "tickets: must be tickets of the tasks"),
    ],
)
def test_a_strange_tasks_file_is_refused(stored, changes, message):
    change_json(stored / "tasks.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load(stored)


def test_json_that_is_none_is_refused_with_its_line(stored):
    for name in ("tasks.json", "compact.json", "config.json"):
        text = (stored / name).read_text()
        (stored / name).write_text(text[: len(text) // 2])
        with pytest.raises(CheckpointError, match=rf"{name}: line \d+: must be JSON"):
            load(stored)
        (stored / name).write_text(text)


def test_damaged_weights_are_refused(stored):
    file = stored / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        load(stored)
    flipped = bytearray(content)
    flipped[-50] ^= 1
    file.write_bytes(bytes(flipped))
    with pytest.raises(CheckpointError, match="the file was damaged or exchanged"):
        load(stored)
    file.write_bytes(content)
    load(stored)


def test_weights_that_do_not_fit_are_all_named(stored):
    def change(weights):
        del weights["heads.rte.linear.bias"]
        weights["heads.cola.linear.bias"] = torch.zeros(2)
        weights["heads.mnli.linear.weight"] = torch.zeros(3, 5)

    rewrite_weights(stored, change)
    with pytest.raises(CheckpointError) as caught:
        load(stored)
    assert [(p.place, p.rule) for p in caught.value.problems] == [
        ("heads.rte.linear.bias", "this weight is missing"),
        ("heads.cola.linear.bias", "the model has no such weight"),
        ("heads.mnli.linear.weight", "must have the shape [3, 32]"),
    ]


def test_a_record_of_other_units_does_not_fit_the_weights(stored):
    record = json.loads((stored / "compact.json").read_text())
    record["heads"][0] = [0]
    (stored / "compact.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"query\.weight: must have the shape \[8, 32\]; found \[24, 32\]"):
        load(stored)


def test_damaged_and_foreign_tickets_are_refused(stored):
    file = stored / "tickets" / "mnli.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(TicketError, match=r"mnli\.safetensors"):
        load(stored)
    file.write_bytes(content)
    make_ticket(make_model("bert")).save(file)
    with pytest.raises(TicketError, match="may keep only units that were not removed"):
        load(stored)
    file.unlink()
    with pytest.raises(MtlTicketsError, match="this file must exist"):
        load(stored)


def test_another_configuration_does_not_fit(stored):
    change_json(stored / "config.json", num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"compact\.json: ffn: must be 2 booleans"):
        load(stored)
    change_json(stored / "config.json", num_hidden_layers=3, model_type="no-such-model")
    with pytest.raises(CheckpointError, match="must be the configuration of an encoder"):
        load(stored)
    change_json(stored / "config.json", model_type="bert", hidden_size="wide")
    with pytest.raises(CheckpointError, match="Field 'hidden_size' expected int"):
        load(stored)


def test_a_swap_that_was_killed_half_way_is_put_right(stored):
    os.replace(stored, stored.with_name(".model.old"))
    load(stored)
    assert stored.is_dir()


@pytest.mark.real
def test_the_tokenizer_travels_along(shared, tmp_path):
    from mtl_tickets.model.encoders import load_tokenizer

    tokenizer = load_tokenizer(shared / "weights" / "mini-bert")
    save(make_model("bert"), tmp_path / "model", tokenizer=tokenizer)
    again = load_tokenizer(tmp_path / "model")
    text = "The tickets were drawn, again and again."
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
