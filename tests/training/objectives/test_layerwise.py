"""Layer-wise distillation: 0 from itself, blind to padding, the same whatever batch a row stands in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_tickets.errors import ConfigError
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.grafting import Grafted
from mtl_tickets.model.inside import PROBABILITIES
from mtl_tickets.settings import Document, check
from mtl_tickets.tasks.batches import BatchSettings, Rows, collate, passes_over
from mtl_tickets.training.objectives.layerwise import (
    LayerwiseObjective,
    LayerwiseSettings,
    attention_distance,
    hidden_distance,
    soft_cross_entropy,
)
from mtl_tickets.training.objectives.task_loss import task_loss
from tests import tiny

ROWS = 12
OFF = {"hidden": 0.0, "attention": 0.0, "prediction": 0.0}
PARTS = ["hidden", "attention", "prediction", "task"]


def task(classes=3):
    return tiny.random_task(ROWS, classes, seed=1)


def batch_of(rows, classes=3, edges=(64,)):
    return collate([Rows(0, np.asarray(rows))], [task(classes)], [0], 0, edges, len(rows))


def pair(classes=3, dropout=0.0, apart=0.05):
    """A student that is not its teacher, in training mode, always itself."""
    model = Grafted(tiny.model({"a": classes}, dropout)).train()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * apart)
    return model


def only(part, **more):
    return LayerwiseObjective(LayerwiseSettings(**(OFF | {part: 1.0} | more)))


def loss(objective, model, batch):
    return float(objective(model, batch).detach())


def test_it_is_the_sum_of_its_parts_as_weighed():
    model, batch = pair(), batch_of(range(4))
    parts = [loss(only(part), model, batch) for part in PARTS]
    assert min(parts) > 1e-4 and parts[3] == pytest.approx(float(task_loss(model, batch).detach()))
    weights = dict(zip(PARTS, (0.5, 2.0, 3.0, 0.25), strict=True))
    expected = sum(part * weight for part, weight in zip(parts, weights.values(), strict=True))
    assert loss(LayerwiseObjective(LayerwiseSettings(**weights)), model, batch) == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="must weigh something"):
        check(LayerwiseSettings, Document("x.yaml", OFF, {}))


def test_by_hand_on_rows_without_padding():
    model, batch = pair(), batch_of([0], edges=(len(task().gather(np.array([0]))[0][0]),))
    assert bool(batch.attention_mask.all())
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "segments": batch.segments}
    inputs |= {"token_type_ids": batch.token_type_ids, "inside": True, "attention": PROBABILITIES}
    with torch.no_grad():
        (student,), *own = model(**inputs)
        (teacher,), *theirs = model(**inputs, teacher=True)
    for part, mine, others in (("hidden", own[0], theirs[0]), ("attention", own[1], theirs[1])):
        expected = sum(float(F.mse_loss(a, b)) for a, b in zip(mine, others, strict=True))
        assert loss(only(part), model, batch) == pytest.approx(expected, rel=1e-5)
    assert len(own[0]) == 3 and len(own[1]) == 2
    crossed = F.cross_entropy(student, teacher.softmax(-1))  # torch's own, of probabilities
    assert loss(only("prediction"), model, batch) == pytest.approx(float(crossed), rel=1e-5)


def test_from_itself_nothing_is_to_be_learned():
    model, batch = Grafted(tiny.model({"a": 3}, 0.0)).train(), batch_of(range(6))
    for part in ("hidden", "attention"):
        assert loss(only(part), model, batch) == 0.0
    only("prediction")(model, batch).backward()
    gradients = [p.grad.abs().max() for p in layers_of(model.student.encoder)[-1].parameters() if p.grad is not None]
    assert gradients and float(max(gradients)) < 1e-6


@pytest.mark.parametrize("part", PARTS)
def test_padding_counts_nothing(part):
    model = pair()
    narrow, wide = (loss(only(part), model, batch_of(range(6), edges=(width,))) for width in (16, 48))
    assert narrow == pytest.approx(wide, rel=1e-5)


@pytest.mark.parametrize("part", ["hidden", "attention"])
def test_padding_counts_where_the_published_loss_is_asked_for(part):
    model, objective = pair(), replace(only(part), count_padding=True)
    narrow, wide = (loss(objective, model, batch_of(range(6), edges=(width,))) for width in (16, 48))
    assert abs(narrow - wide) > 0.05 * narrow


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("classes", [1, 3])
def test_a_row_weighs_the_same_whatever_batch_it_stands_in(part, classes):
    model = pair(classes)
    together = loss(only(part), model, batch_of(range(6), classes))
    apart = [loss(only(part), model, batch_of([row], classes)) for row in range(6)]
    assert together == pytest.approx(sum(apart), rel=1e-5)
    assert len({round(value, 6) for value in apart}) > 3


def test_the_published_means_are_those_over_the_whole_batch():
    student, teacher = (torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    all_of_them = torch.ones(4, 6, dtype=torch.long)
    found = hidden_distance([student, teacher], [teacher, teacher], all_of_them)
    assert float(found.mean()) == pytest.approx(float(F.mse_loss(student, teacher)), rel=1e-5)
    seen, told = (values.view(4, 2, 4, 6)[..., :4] for values in (student, teacher))
    found = attention_distance([seen], [told], all_of_them[:, :4])
    assert float(found.mean()) == pytest.approx(float(F.mse_loss(seen, told)), rel=1e-5)


def test_a_temperature_leaves_the_gradient_as_large_as_it_is():
    """Hinton et al.: with tau² it does not vanish as tau grows; published: it does."""
    teacher = torch.tensor([[2.0, 0.0, -1.0]])

    def gradient(temperature, **published):
        student = torch.zeros(1, 3, requires_grad=True)
        soft_cross_entropy(student, teacher, temperature, **published).sum().backward()
        return float(student.grad.norm())

    assert gradient(50.0) == pytest.approx(float((teacher - teacher.mean()).norm()) / 3, rel=0.05)
    assert gradient(50.0, class_mean=True) < 0.01 * gradient(1.0, class_mean=True) * 3


def test_the_published_cross_entropy_weighs_less_the_more_classes_there_are():
    teacher, student = torch.randn(5, 3), torch.randn(5, 3)
    whole, mean = (soft_cross_entropy(student, teacher, class_mean=published) for published in (False, True))
    torch.testing.assert_close(mean * 3, whole)
    model, batch = pair(), batch_of(range(4))
    published = replace(only("prediction"), class_mean=True)
    assert loss(published, model, batch) == pytest.approx(loss(only("prediction"), model, batch) / 3, rel=1e-5)


def test_regression_looks_at_the_teacher_and_where_published_at_the_label():
    model, batch = pair(classes=1), batch_of(range(4), classes=1)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "segments": batch.segments}
    with torch.no_grad():
        (student,), (teacher,) = (model(**inputs, teacher=teaches) for teaches in (False, True))
    assert loss(only("prediction"), model, batch) == pytest.approx(float((student - teacher).square().sum()), rel=1e-4)
    published = replace(only("prediction"), gold=True)
    assert loss(published, model, batch) == pytest.approx(float(task_loss(model, batch).detach()), rel=1e-5)


def test_the_published_attention_is_compared_after_dropout():
    """A student that is its teacher, but for dropout inside attention: nothing to learn in the layer that sees the same
    states, and much where zeros are compared."""
    model = Grafted(tiny.model({"a": 3}, 0.0, layers=1)).train()
    layers_of(model.student.encoder)[0].attention.self.dropout.p = 0.5
    batch = batch_of(range(6))
    torch.manual_seed(0)
    assert loss(only("attention"), model, batch) == 0.0
    assert loss(replace(only("attention"), attention_dropout=True), model, batch) > 0.01


def test_the_teacher_has_no_dropout_and_learns_nothing():
    model, batch = pair(dropout=0.4), batch_of(range(4))
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "segments": batch.segments}
    with torch.no_grad():
        one, other = (model(**inputs, teacher=True)[0] for _ in range(2))
    assert torch.equal(one, other)
    LayerwiseObjective()(model, batch).backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_rows_of_all_lengths_are_finite():
    model = pair()
    for batch in passes_over({"a": task()}, BatchSettings(size=5), 0):
        assert np.isfinite(loss(LayerwiseObjective(), model, batch))
