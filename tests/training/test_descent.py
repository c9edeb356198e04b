"""A batch that memory is short of is computed in parts, to the same gradient; and every error but that is raised."""

import pytest
import torch
from accelerate import Accelerator

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.tasks.batches import TaskBatches
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from tests import tiny
from tests.short import ERRORS, Short

CLASSES = {"a": 2, "b": 3}


@pytest.fixture
def tasks():
    return {name: tiny.random_task(30, n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}


def trained(tasks, objective, **settings):
    how = TrainSettings(epochs=2, optimiser={"lr": 1e-3, "eps": 0.1}, batches={"size": 16}, **settings)
    model = tiny.model(CLASSES, dropout=0.0)
    history = train(model, TaskBatches(tasks, how.batches, 5, 0), objective, how, Accelerator(cpu=True), seed=0).history
    return {name: weight.clone() for name, weight in model.state_dict().items()}, history


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_weights_are_those_of_enough_memory(tasks, error, accumulate, caplog):
    short = Short(5, error)
    found, history = trained(tasks, short, accumulate=accumulate)
    expected, whole = trained(tasks, task_loss, accumulate=accumulate)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6)
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in whole], rel=1e-5)
    assert [row["step"] for row in history] == [row["step"] for row in whole]
    # what was too large once is cut before it is tried
    assert sum(rows > 5 for rows in short.seen) <= 6
    assert "out of memory with" in caplog.text


def test_who_is_short_of_memory_says_as_much_as_the_others(tasks, monkeypatch):
    """Of what is counted: who has said less is taken for stuck."""
    said = []
    monkeypatch.setattr("mtl_tickets.training.descent.at", lambda what, limited, counted=True: said.append(counted))
    counts = []
    for objective in (task_loss, Short(5, ERRORS[0])):
        trained(tasks, objective, accumulate=2)
        counts.append((sum(said), len(said)))
        said.clear()
    (enough, words), (short, more) = counts
    assert short == enough > 0 and more > words


def test_a_row_that_does_not_fit_alone_is_said(tasks):
    with pytest.raises(MtlTicketsError, match=r"out of memory with the least batch there can be \(1 x \d+ tokens\)"):
        trained(tasks, Short(0, ERRORS[0]))


def test_other_errors_are_raised(tasks):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trained(tasks, Short(5, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))


def test_the_parts_of_a_batch_are_its_rows(tasks):
    batch = next(TaskBatches(tasks, TrainSettings(batches={"size": 7}).batches, 5, 0).iterate(0))
    model = tiny.model(CLASSES).eval()
    parts = [batch]
    while any(part.halves() is not None for part in parts):
        parts = [half for part in parts for half in (part.halves() or (part,))]
    assert all(len(part.input_ids) == 1 for part in parts)
    assert [int(part.indices[0]) for part in parts] == batch.indices.tolist()
    assert sum(part.tokens for part in parts) == batch.tokens
    with torch.no_grad():
        total = sum(float(task_loss(model, part)) for part in parts)
        assert total == pytest.approx(float(task_loss(model, batch)), rel=1e-5)
    assert {part.count for part in parts} == {batch.count}
