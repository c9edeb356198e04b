"""A training stops at the step where it no longer computes numbers, and says which rows that comes from."""

import pytest
import torch
from accelerate import Accelerator

from mtl_tickets.tasks.batches import TaskBatches
from mtl_tickets.training.checkpoint import Place, load_checkpoint
from mtl_tickets.training.health import TrainingDiverged
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import make_optimiser
from tests import tiny

CLASSES = {"a": 2, "b": 3}
POISON = 7  # a row of task b


@pytest.fixture
def tasks():
    return {name: tiny.random_task(30, n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}


def poisoned(model, batch):
    """The tasks' losses, but that of one row is no number."""
    loss = task_loss(model, batch)
    for task, start, stop in batch.segments:
        if task == 1 and POISON in batch.indices[start:stop]:
            loss = loss * float("nan")
    return loss


def steep(model, batch):
    """A loss that is 0 with a gradient that is none."""
    loss = task_loss(model, batch)
    return loss + torch.sqrt(loss - loss) if POISON in batch.indices else loss


def run(tasks, objective, path=None, **settings):
    how = TrainSettings(epochs=2, batches={"size": 8}, checkpoint_seconds=0, **settings)
    model = tiny.model(CLASSES)
    steps = []
    source = TaskBatches(tasks, how.batches, 5, 0)
    try:
        train(model, source, objective, how, Accelerator(cpu=True), seed=0, identity="x", checkpoint=path,
              on_step=steps.append)  # fmt: skip
    finally:
        run.steps, run.model, run.source = len(steps), model, source
    return model


def first_with(source, row):
    """The step of the first batch with this row of task b."""
    for number, batch in enumerate(source.iterate(0), 1):
        if any(task == 1 and row in batch.indices[start:stop] for task, start, stop in batch.segments):
            return number
    raise AssertionError


def test_a_loss_that_is_no_number_is_said_with_its_step_and_its_row(tasks, tmp_path):
    with pytest.raises(TrainingDiverged) as stopped:
        run(tasks, poisoned, tmp_path / "c")
    step = first_with(run.source, POISON)
    assert str(stopped.value).startswith(f"step {step}, b training row {POISON}: the loss is nan; ")
    assert "lower the learning rate (now 5e-05)" in str(stopped.value)
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())


def test_the_last_checkpoint_is_of_the_step_before_and_whole(tasks, tmp_path):
    with pytest.raises(TrainingDiverged) as stopped:
        run(tasks, poisoned, tmp_path / "c")
    step = first_with(run.source, POISON)
    kept = f"the last good checkpoint, of step {step - 1}, is kept: {tmp_path / 'c'}"
    assert step > 1 and str(stopped.value).endswith(kept)
    model = tiny.model(CLASSES)
    place = load_checkpoint(tmp_path / "c", model, make_optimiser(model, TrainSettings().optimiser), None, "x")
    assert isinstance(place, Place) and place.step == step - 1 == run.steps
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_no_number_is_found_though_the_loss_is_one(tasks, clip):
    with pytest.raises(
        TrainingDiverged, match=r"^step \d+, .* training row.*: the norm of the gradient is (nan|inf); "
    ):
        run(tasks, steep, optimiser={"lr": 1e-3, "clip": clip})
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())


def test_weights_that_are_no_numbers_are_said_to_be(tasks):
    model = tiny.model(CLASSES)
    with torch.no_grad():
        model.heads["a"].linear.bias.fill_(float("inf"))
    how = TrainSettings(batches={"size": 8})
    with pytest.raises(TrainingDiverged, match=r"step 1, .*the weights are no numbers any more"):
        train(model, TaskBatches(tasks, how.batches, 5, 0), task_loss, how, Accelerator(cpu=True), seed=0)


def test_an_overflow_of_the_precision_is_told_from_a_bad_row(tasks):
    """A loss that float32 can hold and what autocast makes of it cannot."""

    def narrow(model, batch):
        loss = task_loss(model, batch)
        low = torch.nn.functional.linear(torch.full((1, 8), 3e2), torch.full((1, 8), 3e2))
        return loss + 0 * low.to(torch.float16 if low.dtype == torch.bfloat16 else torch.float32).sum()

    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    model = tiny.model(CLASSES)

    class Inside(torch.nn.Module):
        """Puts the objective where accelerate's autocast is."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return narrow(self.model, batch)

    how = TrainSettings(epochs=1, batches={"size": 8})
    bf16 = Accelerator(cpu=True, mixed_precision="bf16")
    try:
        with pytest.raises(
            TrainingDiverged, match="an overflow of bf16: computed in float32 the loss of these rows is a number"
        ):
            train(Inside(), TaskBatches(tasks, how.batches, 5, 0), lambda m, b: m(b), how, bf16, seed=0)
    finally:
        AcceleratorState._reset_state()
