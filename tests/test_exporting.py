"""What is exported answers as the model it came from, in another program too."""

import json

import numpy as np
import onnxruntime
import pytest
from safetensors import safe_open

from mtl_tickets.errors import InputError
from mtl_tickets.exporting import export
from mtl_tickets.model import store
from mtl_tickets.model.encoders import load_tokenizer
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.serving import serve
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.tickets.ticket import Ticket
from tests.end_to_end.world import write_world

PAIRS = [("the cat is good", "the dog is bad"), ("the tree is fine", "the tree is fine"), ("a ship", "the house")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model folder with a ticket for each of two tasks of pairs, which drop other heads and one common block."""
    world = tmp_path_factory.mktemp("world")
    write_world(world)
    specs = {name: load_task(world / f"{name}.yaml") for name in ("likeness", "same")}
    infos = [TaskInfo(s.name, s.kind, tuple(s.labels), s.outputs, s.head_dropout, texts=2) for s in specs.values()]
    model = MultiTaskModel.from_encoder(world / "encoder", infos, seed=1, pooling="aligned")
    tickets = {}
    for number, name in enumerate(specs):
        units = {part: np.ones(shape, dtype=bool) for part, shape in model.space.parts.items()}
        units["heads"][0, number] = False
        units["ffn"][1] = False
        tickets[name] = Ticket(model.space, units)
    model.set_tickets(tickets)
    extra = {"max_length": 24, "tasks": {name: spec.model_dump(mode="json") for name, spec in specs.items()}}
    store.save(model, world / "model", tokenizer=load_tokenizer(world / "encoder"), extra=extra)
    return world / "model"


def probabilities(folder, task="same"):
    return [list(answer.probabilities.values()) for answer in serve(folder).predict(task, PAIRS)]


def test_a_folder_for_one_task_and_for_all(place, tmp_path):
    expected = probabilities(place)
    sizes = {}
    for tasks in (["same"], []):
        (written,) = export(place, tmp_path / f"out{len(tasks)}", tasks)
        assert probabilities(written.file) == [pytest.approx(shares, abs=1e-5) for shares in expected]
        with safe_open(written.file / "model.safetensors", framework="pt") as file:
            held = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
        assert held == written.parameters < written.before
        sizes[len(tasks)] = written.parameters
    # together they need the union: no head goes, but the block that neither keeps
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("task", ["same", "likeness"])
def test_onnx_runtime_answers_as_the_model(place, tmp_path, task):
    (written,) = export(place, tmp_path / "graphs", [task], "onnx")
    assert written.difference <= 1e-4
    about = json.loads((tmp_path / "graphs/export.json").read_text())
    assert list(about["tasks"]) == [task] and about["max_length"] == 24
    tokenizer = load_tokenizer(tmp_path / "graphs")
    session = onnxruntime.InferenceSession(str(written.file), providers=["CPUExecutionProvider"])
    served = serve(place)
    for pairs in (PAIRS, PAIRS[:1]):
        encoded = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="np")
        given = {entry.name: encoded[entry.name].astype(np.int64) for entry in session.get_inputs()}
        (logits,) = session.run(["logits"], given)
        answers = served.predict(task, pairs)
        if task == "likeness":
            assert logits[:, 0].tolist() == pytest.approx([answer.value for answer in answers], abs=1e-4)
        else:
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            expected = [list(answer.probabilities.values()) for answer in answers]
            np.testing.assert_allclose(shares, expected, atol=1e-4)


def test_what_cannot_be_exported_leaves_nothing(place, tmp_path):
    with pytest.raises(InputError, match="did you mean 'same'"):
        export(place, tmp_path / "out", ["samee"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="must not exist yet"):
        export(place, tmp_path / "full")


def test_absent_packages_are_named(place, tmp_path, monkeypatch):
    from mtl_tickets.model import onnx

    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(InputError, match=r"onnxscript.*pip install mtl-tickets\[onnx\]"):
        export(place, tmp_path / "out", ["same"], "onnx")
    assert not (tmp_path / "out").exists()
