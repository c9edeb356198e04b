import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.training.learned_gates import LearnedGates, first_numbers
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings
from tests import tiny

CLASSES = {"a": 2, "b": 3, "c": 1}
BUDGETS = {"a": {"heads": 2, "ffn": 1}, "b": {"heads": 3, "ffn": 0}, "c": {"heads": 1, "ffn": 1}}


@pytest.fixture
def model():
    return tiny.model(CLASSES)


@pytest.fixture(scope="module")
def tasks():
    return {name: tiny.random_task(40, n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}


def drawn(space, name, values):
    return draw(Scores(space, values), Budget(BUDGETS[name]), 1, "global").units


def learned_of(model, speed=1.0, overlap=0.0):
    space = model.space
    scores = {name: Scores.random(space, i).values for i, name in enumerate(CLASSES)}
    tickets = {name: draw(Scores(space, scores[name]), Budget(BUDGETS[name]), 1, "global") for name in CLASSES}
    start = {name: first_numbers(tickets[name].units, scores[name]) for name in CLASSES}
    return LearnedGates(model, start, lambda name, values: drawn(space, name, values), speed, overlap), tickets


def a_batch(tasks):
    return next(TaskBatches(tasks, BatchSettings(size=24), 0, 0).iterate(0))


def test_the_first_numbers_draw_the_ticket_and_rank_by_score():
    rng = np.random.default_rng(0)
    kept, scores = {"heads": rng.random((3, 4)) < 0.5}, {"heads": rng.random((3, 4))}
    numbers = first_numbers(kept, scores)["heads"]
    assert np.array_equal(numbers > 0, kept["heads"])
    for side in (kept["heads"], ~kept["heads"]):
        assert np.array_equal(np.argsort(numbers[side]), np.argsort(scores["heads"][side]))


def test_a_pass_sees_the_tickets_that_the_numbers_draw(model, tasks):
    learned, tickets = learned_of(model.eval())
    batch = a_batch(tasks)
    found = task_loss(learned, batch)
    model.set_tickets(tickets)
    assert torch.allclose(found, task_loss(model, batch), atol=1e-5)
    model.set_tickets({})
    assert not torch.allclose(found, task_loss(model, batch), atol=1e-3)


def test_a_number_s_gradient_is_its_gate_s_dropped_or_not(model, tasks):
    learned, tickets = learned_of(model.eval(), speed=10.0)
    batch = a_batch(tasks)
    task_loss(learned, batch).backward()
    leaves = {
        part: torch.stack([torch.tensor(tickets[name].units[part]).float() for name in CLASSES]).requires_grad_()
        for part in model.space.parts
    }
    rows = {
        part: torch.cat([of[task].expand(stop - start, *of.shape[1:]) for task, start, stop in batch.segments])
        for part, of in leaves.items()
    }
    with model.gates.leaves(**rows):
        loss = task_loss(model, batch)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    for part, gradient in zip(leaves, expected, strict=True):
        # the optimiser's number is the unit's number / speed
        assert torch.allclose(learned.numbers[part].grad.view_as(gradient), 10 * gradient, atol=1e-4)
        dropped = leaves[part].detach() == 0
        assert gradient[dropped].abs().max() > 0


def test_budgets_hold_at_every_step_and_numbers_learn(model, tasks):
    learned, tickets = learned_of(model, speed=500.0, overlap=0.1)
    before = {name: learned.of_task(name) for name in CLASSES}
    sizes = []

    def counted(name, values):
        units = drawn(model.space, name, values)
        sizes.append((name, {part: int((~kept).sum()) for part, kept in units.items()}))
        return units

    learned.draw = counted
    settings = TrainSettings(epochs=2, optimiser=OptimiserSettings(lr=1e-3), batches=BatchSettings(size=16))
    AcceleratorState._reset_state()
    source = TaskBatches(tasks, settings.batches, 0, 0)
    train(learned, source, learned.loss, settings, Accelerator(cpu=True), seed=0)
    assert len(sizes) == 3 * 2 * source.batches_in(0)
    assert all(size == BUDGETS[name] for name, size in sizes)
    changed = [
        np.abs(learned.of_task(name)[part] - before[name][part]).max()
        for name in CLASSES
        for part in tickets["a"].units
    ]
    assert min(changed) > 0.05
    assert any(
        not np.array_equal(drawn(model.space, name, learned.of_task(name))[part], tickets[name].units[part])
        for name in CLASSES
        for part in tickets[name].units
    )


def test_the_term_for_sharing_is_0_for_equal_tasks_and_pulls_others_together(model):
    learned, _ = learned_of(model)
    apart = learned.apartness()
    assert apart > 0
    apart.backward()
    numbers = learned.values()["heads"].detach()
    gradient = learned.numbers["heads"].grad.view_as(numbers)
    shares = torch.sigmoid(numbers)
    # against the gradient means towards the mean over tasks
    assert (gradient * (shares - shares.mean(0)) >= 0).all()
    with torch.no_grad():
        for name, flat in learned.numbers.items():
            of_tasks = flat.view(len(CLASSES), -1)
            of_tasks.copy_(of_tasks[0].expand_as(of_tasks).clone())
            assert name in learned.shapes
    assert learned.apartness().item() == pytest.approx(0.0, abs=1e-12)
