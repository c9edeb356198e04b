import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mtl_tickets.errors import CheckpointError
from mtl_tickets.tasks.batches import Batch, BatchSettings, TaskBatches
from mtl_tickets.training import loop
from mtl_tickets.training.health import TrainingDiverged
from mtl_tickets.training.loop import TrainSettings, total_steps, train
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings
from tests import tiny

CLASSES = {"a": 2, "b": 3, "c": 1}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def tasks():
    return {name: tiny.random_task(50 + 10 * i, n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}


def settings(kind="adamw", epochs=2, accumulate=1, **batches):
    return TrainSettings(
        epochs=epochs,
        optimiser=OptimiserSettings(kind=kind, lr=1e-3),
        batches=BatchSettings(size=16, **batches),
        accumulate=accumulate,
        checkpoint_seconds=0,
    )


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def run(tasks, accelerator, how, path=None, stop_at=None, seed=3):
    model = tiny.model(CLASSES)
    steps = 0

    def on_step(n):
        nonlocal steps
        steps += n
        if steps == stop_at:
            raise Stopped

    source = TaskBatches(tasks, how.batches, 5, 0)
    result = train(
        model, source, task_loss, how, accelerator, seed=seed, identity="x", checkpoint=path, on_step=on_step,
        on_epoch=lambda epoch: {"sum": float(sum(p.detach().sum() for p in model.parameters()))},
    )  # fmt: skip
    return model, result


@pytest.mark.parametrize("kind", ["adamw", "adamax", "muon"])
@pytest.mark.parametrize("regime", ["mixed", "one_task"])
def test_stopped_and_resumed_is_bit_equal(tasks, accelerator, tmp_path, kind, regime):
    how = settings(kind, regime=regime)
    model, result = run(tasks, accelerator, how)
    for stop_at in (1, result.steps // 2, result.steps // 2 + 1, result.steps - 1):
        path = tmp_path / f"{stop_at}.safetensors"
        with pytest.raises(Stopped):
            run(tasks, accelerator, how, path, stop_at)
        torch.manual_seed(99)  # whatever happened in between
        resumed, again = run(tasks, accelerator, how, path)
        assert equal(weights(model), weights(resumed))
        assert again.history == result.history
        assert (again.steps, again.examples) == (result.steps, result.examples)


def test_what_is_done_after_a_step_is_in_every_checkpoint(tasks, accelerator, tmp_path):
    """Weights halved after every third step: a training stopped right after one goes on from the halved ones."""
    how, source = settings(accumulate=2), TaskBatches(tasks, settings().batches, 5, 0)

    def training(until=None, path=None):
        model, steps, order = tiny.model(CLASSES), [], []

        def after_step(step):
            assert model.training
            order.append("after")
            steps.append(step)
            if step % 3 == 0:
                with torch.no_grad():
                    next(model.encoder.parameters()).mul_(0.5)

        result = train(
            model, source, task_loss, how, accelerator, seed=3, checkpoint=path, until=until, after_step=after_step,
            on_step=lambda n: order.append("on"),
            on_epoch=lambda epoch: {"sum": float(sum(p.detach().sum() for p in model.parameters()))},
        )  # fmt: skip
        return weights(model), steps, result, order

    whole, steps, result, order = training()
    assert steps == list(range(1, result.steps + 1)) and result.steps == total_steps(source, how)
    assert order == ["after", "on"] * result.steps
    for until in (1, 3, 4, result.steps - 1):
        path = tmp_path / str(until)
        training(until, path)
        resumed, left, again, _ = training(path=path)
        assert left == steps[until:]
        assert equal(resumed, whole) and again.history == result.history
    plain, _ = run(tasks, accelerator, how)
    assert not equal(plain.state_dict(), whole)


def test_what_is_set_before_a_step_follows_its_number_after_a_stop_too(tasks, accelerator, tmp_path):
    """A loss that is weighed by a schedule: stopped anywhere, the training goes on with the weight of the next step."""
    how, source = settings(accumulate=2), TaskBatches(tasks, settings().batches, 5, 0)

    def training(until=None, path=None):
        model, steps, weight = tiny.model(CLASSES), [], 0.0

        def before_step(step):
            nonlocal weight
            assert model.training
            steps.append(step)
            weight = 1 / (1 + step)

        def weighed(model, batch):
            return task_loss(model, batch) * weight

        result = train(
            model, source, weighed, how, accelerator, seed=3, checkpoint=path, until=until, before_step=before_step,
        )  # fmt: skip
        return weights(model), steps, result

    whole, steps, result = training()
    assert steps == list(range(result.steps))
    for until in (1, 3, result.steps - 1):
        path = tmp_path / str(until)
        training(until, path)
        resumed, left, again = training(path=path)
        assert left == steps[until:]
        assert equal(resumed, whole) and again.history == result.history


def test_accumulation_resumes_too(tasks, accelerator, tmp_path):
    how = settings(accumulate=3)
    model, _ = run(tasks, accelerator, how)
    with pytest.raises(Stopped):
        run(tasks, accelerator, how, tmp_path / "c", 3)
    assert equal(weights(model), weights(run(tasks, accelerator, how, tmp_path / "c")[0]))


def test_who_is_there_already_does_not_go_on(tasks, accelerator, tmp_path):
    how, path = settings(), tmp_path / "c"
    found = []
    for _ in range(2):
        model = tiny.model(CLASSES)
        source = TaskBatches(tasks, how.batches, 5, 0)
        result = train(model, source, task_loss, how, accelerator, seed=3, checkpoint=path, until=4)
        found.append((weights(model), result.steps, result.examples))
    assert equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:] and found[0][1] == 4


@pytest.mark.parametrize("stop", [None, 3])
def test_batches_made_ahead_change_nothing(tasks, accelerator, tmp_path, stop):
    plain, _ = run(tasks, accelerator, settings(accumulate=2))
    how = settings(accumulate=2).model_copy(update={"ahead": 3})
    if stop is not None:
        with pytest.raises(Stopped):
            run(tasks, accelerator, how, tmp_path / "c", stop)
    ahead, _ = run(tasks, accelerator, how, tmp_path / "c")
    assert equal(weights(plain), weights(ahead))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tasks, accelerator):
    one, again, other = (run(tasks, accelerator, settings(), seed=seed)[0] for seed in (3, 3, 4))
    assert equal(weights(one), weights(again))
    assert not equal(weights(one), weights(other))


def test_the_loss_falls(tasks, accelerator):
    history = run(tasks, accelerator, settings(epochs=6))[1].history
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert [row["epoch"] for row in history] == list(range(1, 7))


def test_a_checkpoint_of_another_training_is_refused(tasks, accelerator, tmp_path):
    how, path = settings(), tmp_path / "c"
    with pytest.raises(Stopped):
        run(tasks, accelerator, how, path, 2)
    model = tiny.model(CLASSES)
    with pytest.raises(CheckpointError, match="must belong to the training"):
        train(model, TaskBatches(tasks, how.batches, 5, 0), task_loss, how, accelerator, seed=3, identity="y",
              checkpoint=path)  # fmt: skip


@pytest.mark.parametrize("harm", ["emptied", "other", "cut", "bit", "last bit"])
def test_a_damaged_checkpoint_is_told_of_and_not_believed(tasks, accelerator, tmp_path, caplog, harm):
    path = tmp_path / "c"
    with pytest.raises(Stopped):
        run(tasks, accelerator, settings(), path, 2)
    content = bytearray(path.read_bytes())
    if harm in ("bit", "last bit"):
        content[-1 if harm == "last bit" else len(content) // 2] ^= 4
    path.write_bytes({"emptied": b"", "other": b"not a checkpoint" * 99, "cut": content[:-9]}.get(harm, content))
    resumed = run(tasks, accelerator, settings(), path)[0]
    assert str(path) in caplog.text and "this training begins anew" in caplog.text
    assert equal(weights(resumed), weights(run(tasks, accelerator, settings())[0]))


def test_divergence_is_an_error_and_not_a_number(tasks, accelerator):
    model = tiny.model(CLASSES)
    with torch.no_grad():
        model.heads["a"].linear.bias.fill_(float("nan"))
    how = settings()
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train(model, TaskBatches(tasks, how.batches, 5, 0), task_loss, how, accelerator, seed=0)


def gradients(model, batches, counts):
    """Gradients of the loop's loss: the sum over rows divided by all rows."""
    model.zero_grad()
    for batch in batches:
        (task_loss(model, batch) / counts).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_mixed_batches_weigh_examples_as_one_task_batches_do(tasks, accelerator):
    """The same examples, once mixed and once in batches of one task: equal loss and gradients."""
    model = tiny.model(CLASSES, dropout=0.0).train()
    source = TaskBatches(tasks, BatchSettings(size=24), 1, 0)
    rows = next(rows for rows in source.plan(0) if len(rows) == 3)
    mixed = source.batch(rows)
    apart: list[Batch] = [source.batch([part]) for part in rows]
    one, other = gradients(model, [mixed], mixed.count), gradients(model, apart, mixed.count)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_accumulated_batches_equal_one_large_batch(tasks, accelerator):
    """Windows of 1 and of several batches of the same rows give one step with the same gradient."""
    one_task = {"a": tasks["a"].select(np.arange(32))}
    results = []
    for size, accumulate in ((32, 1), (8, 4)):
        torch.manual_seed(0)
        model = tiny.model(CLASSES, dropout=0.0)
        # a large eps makes AdamW's step proportional to the gradient; a small one blows up rounding where it is 0
        optimiser = OptimiserSettings(lr=0.1, eps=1.0, clip=0)
        how = TrainSettings(epochs=1, accumulate=accumulate, batches=BatchSettings(size=size), optimiser=optimiser)
        source = TaskBatches(one_task, how.batches, 0, 0)
        assert total_steps(source, how) == 1
        train(model, source, task_loss, how, accelerator, seed=0)
        results.append(weights(model))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-5, atol=1e-6)


def test_time_is_counted_over_all_starts(tasks, accelerator, tmp_path, monkeypatch):
    how = settings("adamw")
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    _, whole = run(tasks, accelerator, how, tmp_path / "whole.safetensors")
    with pytest.raises(Stopped):
        run(tasks, accelerator, how, tmp_path / "c.safetensors", whole.steps // 2)
    _, resumed = run(tasks, accelerator, how, tmp_path / "c.safetensors")
    # every look at the clock is a second; a start and a stop make a look or two more or less
    assert resumed.seconds == pytest.approx(whole.seconds, abs=3)


def test_mixed_precision_trains_and_leaves_the_model_plain(tasks, tmp_path):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        bf16 = Accelerator(cpu=True, mixed_precision="bf16")
        model, result = run(tasks, bf16, settings(epochs=3))
        assert result.history[-1]["loss"] < result.history[0]["loss"]
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert "forward" not in vars(model)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(params=["no", "bf16"])
def precise(request):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision=request.param)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_module_is_trained_a_second_time_as_a_new_one_is(tasks, precise):
    computed = []

    def note(layer, inputs, output):
        computed.append(output.dtype)

    def trained(model):
        how = settings(epochs=1)
        train(model, TaskBatches(tasks, how.batches, 5, 0), task_loss, how, precise, seed=3)
        return {name: weight.clone() for name, weight in model.state_dict().items()}

    model, new = tiny.model(CLASSES), tiny.model(CLASSES)
    new.load_state_dict(trained(model))
    for each in (model, new):
        each.encoder.encoder.layer[0].output.dense.register_forward_hook(note)
    second, first = trained(model), trained(new)
    assert equal(first, second)
    assert {*computed} == {torch.float32 if precise.mixed_precision == "no" else torch.bfloat16}


def test_the_learning_rate_begins_anew_where_it_is_told_to(tasks, monkeypatch):
    how, seen = settings(), []
    set_rate = loop.set_learning_rate
    monkeypatch.setattr(
        loop, "set_learning_rate", lambda optimiser, rate: (seen.append(rate), set_rate(optimiser, rate))
    )
    source = TaskBatches(tasks, how.batches, 5, 0)
    steps = total_steps(source, how)
    train(tiny.model(CLASSES), source, task_loss, how, Accelerator(cpu=True), seed=3, restarts=(steps // 2,))
    first, second = seen[: steps // 2], seen[steps // 2 :]
    assert max(first) == max(second) == pytest.approx(1e-3) and first[-1] < 0.5e-3
