"""Processes that were started together find what one finds: answers, scores, gradients, trained weights, each row
counted once; and what they were stopped in goes on as if they had not been."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.evaluate import predict_logits
from mtl_tickets.processes import DIVIDED, _pieces, accelerator_for, share_of
from mtl_tickets.scoring import ScoreSettings, score_tasks
from mtl_tickets.scoring.gradients import gradient_products
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches, passes_over
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from tests import tiny
from tests.pairs import pair
from tests.short import ERRORS, Short

CLASSES = {"a": 2, "b": 3, "c": 1}
# of the last one only one process has a batch
ROWS = {"a": 41, "b": 35, "c": 3}
# so that steps follow gradients, and not the signs of what is but rounding
RATE = {"kind": "adamw", "lr": 2e-3, "eps": 0.1}


def trained(accelerator, folder, regime="mixed", dropout=0.0, accumulate=1, stops=(), objective=task_loss):
    """The weights and the history of a training, and its loss after every step."""
    model = tiny.model(CLASSES, dropout)
    for tensor in (*model.parameters(), *model.buffers()):  # the first process's count
        tensor.data += accelerator.process_index
    tasks = {name: tiny.random_task(ROWS[name], n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}
    settings = TrainSettings(epochs=2, optimiser=RATE, accumulate=accumulate, batches={"size": 7, "regime": regime})
    source = TaskBatches(tasks, settings.batches, 3, 0, share=share_of(accelerator))
    seeds = []
    for until in (*stops, None):
        result = train(
            model, source, objective, settings, accelerator, seed=3, checkpoint=folder / "at.safetensors", until=until,
            before_step=lambda step: seeds.append(torch.initial_seed()),
        )  # fmt: skip
    accelerator.wait_for_everyone()
    (folder / "at.safetensors").unlink(missing_ok=True)
    # the bias of keys changes no attention: its gradient is rounding, which Adam makes steps of
    weights = {name: w.tolist() for name, w in model.state_dict().items() if not name.endswith("key.bias")}
    loss = [row["loss"] for row in result.history]
    return {"weights": weights, "loss": loss, "examples": [result.examples], "seeds": seeds}


def trainings(accelerator, folder):
    kinds = {"mixed": {}, "one task": {"regime": "one_task"}, "accumulated": {"accumulate": 3}}
    # the second process has less memory than its share of a batch takes
    short = Short(2, ERRORS[0]) if accelerator.process_index == 1 else task_loss
    kinds["short of memory"] = {"accumulate": 2, "objective": short}
    found = {name: {**trained(accelerator, folder, **changes), "seeds": []} for name, changes in kinds.items()}
    assert short is task_loss or 0 < sum(rows > 2 for rows in short.seen) < 5 < len(short.seen), short.seen
    return found


def found(accelerator):
    model = tiny.model(CLASSES)
    tasks = {name: tiny.random_task(ROWS[name], n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}
    scores = {
        kind: score_tasks(model, model.space, tasks, ScoreSettings(kind=kind), accelerator, pad_id=0, forward_rows=8)
        for kind in ("first_order", "fisher")
    }
    products = gradient_products(model, model.space, tasks, accelerator, pad_id=0, rows=None, forward_rows=8)
    return {
        "processes": accelerator.num_processes,
        "logits": {
            f"{name}/{head}": logits.tolist()
            for name, task in tasks.items()
            for head, logits in predict_logits(model, sorted({"a", name}), task, accelerator, 0, 8).items()
        },
        "scores": {
            f"{kind}/{task}": {part: values.tolist() for part, values in of_task.values.items()}
            for kind, of_kind in scores.items()
            for task, of_task in of_kind.items()
        },
        "agreement": {task: of_task.about.agreement for task, of_task in scores["first_order"].items()},
        "products": {part: values.tolist() for part, values in products.values.items()},
    }


def flat(content, place=""):
    if isinstance(content, dict):
        return {key: value for name, inner in content.items() for key, value in flat(inner, f"{place}/{name}").items()}
    return {place: content}


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_every_row_is_in_one_batch_of_one_process(world):
    task = tiny.random_task(41, 2, seed=0)
    shares = [[*passes_over({"": task}, BatchSettings(size=8), 0, share=(rank, world))] for rank in range(world)]
    rows = [batch.indices.tolist() for share in shares for batch in share]
    assert sorted(row for batch in rows for row in batch) == [*range(41)]
    alone = [batch.indices.tolist() for batch in passes_over({"": task}, BatchSettings(size=8), 0)]
    assert sorted(rows) == sorted(alone)


@pytest.mark.parametrize("bytes_at_once", [1, 40, 100, 10**6])
def test_what_travels_together_is_of_one_kind_and_not_too_much(monkeypatch, bytes_at_once):
    monkeypatch.setattr("mtl_tickets.processes.PIECE", bytes_at_once)
    tensors = [torch.zeros(rows, 2, dtype=kind) for kind in (torch.float32, torch.float64) for rows in (1, 3, 8, 0, 2)]
    pieces = [*_pieces(tensors)]
    assert [id(tensor) for piece in pieces for tensor in piece] == [id(tensor) for tensor in tensors]
    for piece in pieces:
        assert len({tensor.dtype for tensor in piece}) == 1
        assert len(piece) == 1 or sum(tensor.nbytes for tensor in piece) <= bytes_at_once
    assert len(pieces) < len(tensors) or bytes_at_once == 1


@pytest.mark.parametrize("name", DIVIDED)
def test_a_launcher_that_would_divide_the_weights_is_refused(monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(InputError, match=rf"weights are not divided .*'{name}'.*--multi_gpu"):
        accelerator_for("no")


PROCESS = """
import json, sys
from pathlib import Path
from accelerate import Accelerator
from mtl_tickets import processes
from mtl_tickets.cli.console import print_errors
from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.processes import by_main
from tests.test_processes import found, trained, trainings
accelerator, folder = Accelerator(cpu=True), Path(sys.argv[1])
processes.PIECE = 4096  # some parameters are larger, some travel together

def refuse():
    (folder / f"asked-{accelerator.process_index}").touch()
    raise CheckpointError(Problem("must be whole", file="a file"))

try:
    by_main(refuse)
except CheckpointError as error:
    print_errors(error)
print(json.dumps([
    {**found(accelerator), "trainings": trainings(accelerator, folder)},
    trained(accelerator, folder, dropout=0.3),
    trained(accelerator, folder, dropout=0.3, stops=(1, 5, 12)),
]))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What each of two processes found; which was asked; what each said."""
    tmp_path = tmp_path_factory.mktemp("together")
    processes = pair(PROCESS, str(tmp_path))
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    asked = [file.name for file in tmp_path.glob("asked-*")]
    said = [err.splitlines() for _, err in outputs]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs], asked, said


@pytest.fixture
def together(ended):
    return ended[0]


def test_two_processes_find_what_one_finds(together, tmp_path):
    first, second = (dict(one[0]) for one in together)
    assert first == second and first.pop("processes") == 2
    accelerator = Accelerator(cpu=True)
    alone = {**found(accelerator), "trainings": trainings(accelerator, tmp_path)}
    assert alone.pop("processes") == 1
    expected, seen = flat(alone), flat(first)
    assert expected.keys() == seen.keys()
    for place, values in expected.items():
        near = 1e-5 if "weights" in place else 1e-9
        np.testing.assert_allclose(seen[place], values, rtol=1e-5, atol=near, err_msg=place)


def test_trainings_of_two_processes_that_are_stopped_end_as_if_they_had_not_been(together):
    for _, straight, stopped in together:
        assert stopped == straight
    assert {**together[0][1], "seeds": []} == {**together[1][1], "seeds": []}


def test_processes_draw_other_numbers_in_every_step(together):
    drawn = [seeds for _, straight, _ in together for seeds in straight["seeds"]]
    steps = len(together[0][1]["seeds"])
    assert steps > 20 and len(set(drawn)) == len(drawn) == 2 * steps


def test_an_error_of_the_first_is_that_of_all_and_each_says_which_it_is(ended):
    _, asked, said = ended
    assert asked == ["asked-0"]
    assert ["error: a file: must be whole" in lines for lines in said] == [True, False]
    assert "error in process 1: a file: must be whole" in said[1]
