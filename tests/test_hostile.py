"""The worst files of each kind, and what a user is told of them: one line that names file, place, rule and value."""

import json
import re
import struct
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from mtl_tickets.errors import InputError
from mtl_tickets.experiment import load_experiment
from mtl_tickets.files import file_digest
from mtl_tickets.model import store
from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket

HEAD = "name: x\ntasks: [rte]\nrecipe: {kind: super_tickets}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


def told(read, folder):
    """What a user is told, with the folder's name left out; within seconds."""
    started = time.monotonic()
    with pytest.raises(InputError) as refused:
        read()
    assert time.monotonic() - started < 60  # it hangs, or it does not
    return [str(problem).replace(f"{folder}/", "") for problem in refused.value.problems]


CONFIGURATIONS = {
    "a bomb of aliases": (
        BOMB,
        "x.yaml: must be YAML (line 1, column 10: there must not be more than 50,000 values, those of aliases counted)",
    ),
    "an object to be made": (
        HEAD + "encoder: !!python/object/apply:os.system [touch owned]\n",
        "x.yaml: encoder (line 4): must be a mapping of keys to values; found ['touch owned']",
    ),
    "a number of 100,000 digits": (
        HEAD + "seeds: [" + "9" * 100_000 + "]\n",
        "x.yaml: must be YAML (line 4, column 9: a whole number must not have more than 300 digits)",
    ),
    "100,000 brackets": (HEAD + "encoder: " + "[" * 100_000, "x.yaml: must not be nested deeper than 64 levels"),
    "a name that leads out": (
        HEAD.replace("name: x", "name: ../../x"),
        "x.yaml: name (line 1): string should match pattern '^[A-Za-z0-9][A-Za-z0-9_.-]*$'; found '../../x'",
    ),
    "more than a configuration": (
        HEAD + "#" * 3_000_000,
        "x.yaml: a configuration must not have more than 1,048,576 bytes; found 3000051",
    ),
    "a rate that is no number": (
        HEAD.replace("super_tickets", "super_tickets, train: {optimiser: {lr: 1e999}}"),
        "x.yaml: recipe.train.optimiser.lr (line 3): must be a finite number; found inf",
    ),
    "a key that stands twice": (
        HEAD + "name: y\n",
        "x.yaml: name (line 4): a key may stand only once; found 'name'",
    ),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(name, tmp_path, monkeypatch):
    text, message = CONFIGURATIONS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert told(lambda: load_experiment(tmp_path / "x.yaml"), tmp_path) == [message]
    assert not (tmp_path / "owned").exists()


def test_a_small_number_is_a_number(tmp_path):
    (tmp_path / "x.yaml").write_text(HEAD.replace("super_tickets", "super_tickets, train: {optimiser: {lr: 1e-5}}"))
    assert load_experiment(tmp_path / "x.yaml").experiment.recipe.train.optimiser.lr == 1e-5


def jsonl(**row):
    return json.dumps({"one": "a", "two": "b", "label": "yes", **row}).encode() + b"\n"


DATA = {
    "NUL characters": (
        "tsv",
        b"one\ttwo\tlabel\na\0b\tc\tyes\n",
        "must be text without NUL characters (is the file UTF-16?); found 'a\\x00b'",
    ),
    "a line of 100 MB": (
        "tsv",
        b"one\ttwo\tlabel\n" + b"a" * 10**8 + b"\tb\tyes\n",
        "must be a text of at most 1,000,000 characters (this has 100,000,000); found 'aaa",
    ),
    "values of other kinds": ("jsonl", jsonl() + jsonl(one=["a"]), "must be text (text 1); found ['a']"),
    "a label that is no number": (
        "jsonl",
        jsonl(label=float("nan")),
        "this label is not listed; found nan; choose from no, yes",
    ),
    "half a character": (
        "jsonl",
        jsonl(one="\ud800"),
        "must be text of whole characters (this has a lone surrogate); found '\\ud800'",
    ),
    "100,000 brackets": ("jsonl", b"[" * 100_000, "must be JSON (maximum recursion depth exceeded"),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    sources = {
        kind: {
            "kind": "files",
            "text": ["one", "two"],
            "label": "label",
            "splits": dict.fromkeys(["train", "dev"], f"x.{kind}"),
        }
        for kind in ("tsv", "jsonl", "parquet")
    }
    spec = {"name": "x", "labels": ["no", "yes"], "metrics": ["accuracy"], "sources": sources}
    (folder / "x.yaml").write_text(yaml.safe_dump(spec | {"splits": dict.fromkeys(["train", "dev"], "labelled")}))
    return load_task(str(folder / "x.yaml")), folder


@pytest.mark.parametrize("name", DATA)
def test_data(name, task):
    kind, content, message = DATA[name]
    spec, folder = task
    (folder / f"x.{kind}").write_bytes(content)
    (said,) = told(lambda: read_rows(spec, "train", DataSettings(source=kind)), folder)
    line = content.count(b"\n", 0, -1) + 1
    assert said.startswith(f"x.{kind}: line {line}: {message}") and len(said) < 700


def test_a_parquet_file_that_is_cut_off(task):
    spec, folder = task
    pq.write_table(pa.table({"one": ["a"], "two": ["b"], "label": ["yes"]}), folder / "x.parquet")
    (folder / "x.parquet").write_bytes((folder / "x.parquet").read_bytes()[:-30])
    (said,) = told(lambda: read_rows(spec, "train", DataSettings(source="parquet")), folder)
    assert said.startswith("x.parquet: must be a parquet file (Parquet magic bytes not found in footer.")


SPACE = StructuredSpace(layers=2, heads=4, head_cost=1024, ffn_cost=4096, total=20_000)


def with_head(content, change):
    """A safetensors file whose head says something else."""
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    change(head)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def lying_space(head):
    space = json.loads(head["__metadata__"]["space"])
    head["__metadata__"]["space"] = json.dumps({**space, "heads": 8})


TICKETS = {
    "a head longer than the file": (
        lambda good: struct.pack("<Q", 2**60) + good[8:],
        "x.safetensors: must be a whole safetensors file (Error while deserializing header: header too large)",
    ),
    "a shape that lies": (
        lambda good: with_head(good, lambda head: head["heads"].update(shape=[10**9])),
        "x.safetensors: must be a whole safetensors file (Error while deserializing header: invalid ",
    ),
    "a space that lies": (lambda good: with_head(good, lying_space), "x.safetensors: "),
    "a bit the other way": (
        lambda good: good[:-1] + bytes([good[-1] ^ 128]),
        "x.safetensors: the content must have the digest ",
    ),
    "a pickle": (
        lambda good: b"\x80\x04cposix\nsystem\n(S'touch owned'\ntR.",
        "x.safetensors: must be a whole safetensors file (",
    ),
}


@pytest.mark.parametrize("name", TICKETS)
def test_tickets(name, tmp_path, monkeypatch):
    change, message = TICKETS[name]
    monkeypatch.chdir(tmp_path)
    Ticket(SPACE, {part: np.ones(shape, dtype=bool) for part, shape in SPACE.parts.items()}).save(tmp_path / "x")
    file = tmp_path / "x.safetensors"
    file.write_bytes(change(file.read_bytes()))
    said = told(lambda: Ticket.load(file), tmp_path)
    assert said[0].startswith(message), said
    assert not (tmp_path / "owned").exists()


def test_a_ticket_of_another_encoder(tmp_path):
    Ticket(SPACE, {part: np.ones(shape, dtype=bool) for part, shape in SPACE.parts.items()}).save(tmp_path / "x")
    other = StructuredSpace(layers=3, heads=4, head_cost=1024, ffn_cost=4096, total=40_000)
    said = told(lambda: Ticket.load(tmp_path / "x", space=other), tmp_path)
    rule = "x.safetensors: what is loaded and what it is loaded for must have the same unit space: "
    assert said == [rule + "layers = 2 instead of 3", rule + "total = 20000 instead of 40000"]


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def other_weights(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "word_embeddings" in name)
    weights[name] = torch.zeros(10, 10)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "tasks.json", weights_sha256=file_digest(folder / "model.safetensors"))


def code_of_its_own(folder):
    (folder / "evil.py").write_text("open('owned', 'w')\nclass C: ...\n")
    edit(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.C"})


MODELS = {
    "a path that leads out": (
        lambda folder: edit(folder / "tasks.json", tickets=["../../../etc/passwd"]),
        "tasks.json: tickets: must be tickets of the tasks ['a']; found ['../../../etc/passwd']",
    ),
    "2^60 layers": (
        lambda folder: edit(folder / "config.json", num_hidden_layers=2**60),
        "config.json: num_hidden_layers: must be a whole number between 1 and 25, as the weights are; found 115292",
    ),
    "weights of other shapes": (
        other_weights,
        "model.safetensors: encoder.embeddings.word_embeddings.weight: must have the shape [20, 8]; found [10, 10]",
    ),
    "code of its own": (code_of_its_own, "config.json: must be the configuration of an encoder ("),
    "a pickle for weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n(S'touch owned'\ntR."),
        "model.safetensors: must be a whole safetensors file (",
    ),
}


@pytest.fixture(scope="module")
def model():
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    return MultiTaskModel(random_encoder(config, seed=0), [TaskInfo("a", "classification", ("no", "yes"), 2, 0.0, 1)])


@pytest.mark.parametrize("name", MODELS)
def test_model_folders(name, model, tmp_path, monkeypatch):
    change, message = MODELS[name]
    monkeypatch.chdir(tmp_path)
    store.save(model, tmp_path / "m")
    change(tmp_path / "m")
    said = told(lambda: store.load(tmp_path / "m"), tmp_path / "m")
    assert said[0].startswith(message), said
    assert not [*tmp_path.rglob("owned")]


def test_a_symbolic_link_is_followed_to_what_is_checked(model, tmp_path):
    """A link is as good as what it leads to: a file that is no model is refused by its content, wherever it lies."""
    store.save(model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "model.safetensors").symlink_to("/etc/hostname")
    (said,) = told(lambda: store.load(tmp_path / "m"), tmp_path / "m")
    assert re.match(r"model\.safetensors: must be a whole safetensors file \(", said)
