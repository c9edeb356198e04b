"""Losses with a model of the bias: what they must equal, and how rows find their bias."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.training.objectives.confidence_regularisation import confidence_regularisation
from mtl_tickets.training.objectives.debiasing import Debiased, annealed
from mtl_tickets.training.objectives.example_reweighting import example_reweighting
from mtl_tickets.training.objectives.product_of_experts import product_of_experts
from mtl_tickets.training.objectives.task_loss import task_loss
from tests import tiny

ROWS, CLASSES = 40, 3


@pytest.fixture
def rows():
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(ROWS, CLASSES, generator=draw, requires_grad=True)
    labels = torch.randint(CLASSES, (ROWS,), generator=draw)
    bias = F.log_softmax(2 * torch.randn(ROWS, CLASSES, generator=draw), -1)
    return logits, labels, bias


def gradient(losses, logits):
    return torch.autograd.grad(losses.mean(), logits, retain_graph=True)[0]


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


def sure_of(labels, beta):
    """A bias with probability ``beta`` on every row's label."""
    other = torch.full((len(labels), CLASSES), (1 - beta) / (CLASSES - 1))
    return other.scatter(1, labels.unsqueeze(1), beta).log()


def test_product_of_experts_with_a_uniform_bias_is_cross_entropy(rows):
    logits, labels, _ = rows
    uniform = torch.full((ROWS, CLASSES), -np.log(CLASSES))
    losses = product_of_experts(logits, labels, uniform)
    torch.testing.assert_close(losses, cross_entropy(logits, labels))
    torch.testing.assert_close(gradient(losses, logits), gradient(cross_entropy(logits, labels), logits))


def test_product_of_experts_is_the_cross_entropy_of_the_product(rows):
    logits, labels, bias = rows
    product = F.softmax(logits, -1) * bias.exp()
    expected = -(product / product.sum(-1, keepdim=True)).gather(1, labels.unsqueeze(1)).squeeze(1).log()
    torch.testing.assert_close(product_of_experts(logits, labels, bias), expected)


def test_product_of_experts_learns_less_where_the_bias_is_right(rows):
    logits, labels, _ = rows
    sizes = [
        float(gradient(product_of_experts(logits, labels, sure_of(labels, beta)), logits).norm())
        for beta in (0.05, 1 / 3, 0.9, 0.999)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.05 * sizes[1]


def test_reweighting_with_a_constant_weight_is_cross_entropy(rows):
    logits, labels, _ = rows
    for beta in (0.0, 0.2, 0.9):
        losses = example_reweighting(logits, labels, sure_of(labels, beta))
        torch.testing.assert_close(losses, cross_entropy(logits, labels))
        torch.testing.assert_close(gradient(losses, logits), gradient(cross_entropy(logits, labels), logits))


def test_reweighting_is_the_weighted_mean(rows):
    logits, labels, bias = rows
    weights = 1 - bias.exp()[torch.arange(ROWS), labels]
    expected = (weights * cross_entropy(logits, labels)).sum() / weights.sum()
    torch.testing.assert_close(example_reweighting(logits, labels, bias).mean(), expected)


def test_a_row_that_the_bias_is_sure_of_weighs_nothing(rows):
    logits, labels, bias = rows
    bias = bias.clone()
    bias[:5] = sure_of(labels, 1.0)[:5]
    assert torch.equal(example_reweighting(logits, labels, bias)[:5], torch.zeros(5))
    everywhere = example_reweighting(logits, labels, sure_of(labels, 1.0))
    assert torch.equal(everywhere, torch.zeros(ROWS)) and torch.isfinite(gradient(everywhere, logits)).all()


def test_confidence_regularisation_with_beta_0_is_distillation(rows):
    logits, labels, bias = rows
    teacher = F.log_softmax(bias + 1.0, -1)
    losses = confidence_regularisation(logits, labels, sure_of(labels, 0.0), teacher)
    torch.testing.assert_close(losses, F.cross_entropy(logits, teacher.exp(), reduction="none"))


def test_confidence_regularisation_tends_to_a_uniform_target(rows):
    logits, labels, teacher = rows
    uniform = F.cross_entropy(logits, torch.full((ROWS, CLASSES), 1 / CLASSES), reduction="none")
    apart = [
        float(
            (confidence_regularisation(logits, labels, sure_of(labels, beta), teacher) - uniform).abs().max().detach()
        )
        for beta in (0.5, 0.9, 0.99, 1.0)
    ]
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-6


def test_annealing(rows):
    _, _, bias = rows
    assert torch.equal(annealed(bias, 1.0), bias)
    torch.testing.assert_close(annealed(bias, 0.0), torch.full_like(bias, -np.log(CLASSES)))
    torch.testing.assert_close(annealed(bias, 2.0).exp(), bias.exp() ** 2 / (bias.exp() ** 2).sum(-1, keepdim=True))


# ---------------------------------------------------------------------------------------------------- in the loop


TASKS = {"a": 3, "b": 2}


@pytest.fixture
def batches():
    data = {name: tiny.random_task(24, classes, seed=number) for number, (name, classes) in enumerate(TASKS.items())}
    return TaskBatches(data, BatchSettings(size=8, regime="mixed"), 5, 0)


def tables(seed, *tasks):
    draw = np.random.default_rng(seed)
    names = list(TASKS)
    return {
        names.index(task): F.log_softmax(torch.tensor(draw.normal(size=(24, TASKS[task]))), -1).numpy()
        for task in tasks
    }


def uniform(*tasks):
    names = list(TASKS)
    return {names.index(task): np.full((24, TASKS[task]), -np.log(TASKS[task])) for task in tasks}


def model():
    return tiny.model(TASKS).eval()


def test_every_row_finds_its_bias(batches):
    network, bias, teacher = model(), tables(1, "a", "b"), tables(2, "a", "b")
    for kind, alone in (
        ("product_of_experts", lambda *given: product_of_experts(*given[:3])),
        ("confidence", confidence_regularisation),
    ):
        objective = Debiased(kind, bias, teacher if kind == "confidence" else None)
        for batch in batches.iterate(0):
            logits = network(batch.input_ids, batch.attention_mask, batch.token_type_ids, segments=batch.segments)
            expected = 0.0
            for (task, start, _), answers, labels in zip(batch.segments, logits, batch.labels, strict=True):
                for place in range(len(labels)):
                    row = int(batch.indices[start + place])
                    own = [torch.tensor(table[task][row : row + 1]).float() for table in (bias, teacher)]
                    expected += float(alone(answers[place : place + 1], labels[place : place + 1], *own).detach())
            assert float(objective(network, batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_tasks_without_a_bias_keep_their_loss(batches):
    network = model()
    for batch in batches.iterate(0):
        assert torch.equal(Debiased("product_of_experts", {})(network, batch), task_loss(network, batch))
        of_one = Debiased("product_of_experts", uniform("a"))(network, batch)
        torch.testing.assert_close(of_one, task_loss(network, batch))


def test_the_power_goes_from_the_first_to_the_last_step():
    objective = Debiased("product_of_experts", tables(1, "a"), powers=(1.0, 0.2), steps=5)
    found = []
    for step in range(5):
        objective.before_step(step)
        found.append(objective.power)
    assert found == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    objective.before_step(9)
    assert objective.power == pytest.approx(0.2)
    plain = Debiased("product_of_experts", tables(1, "a"), steps=5)
    plain.before_step(4)
    assert plain.power == 1.0


def test_what_decides_a_loss_is_in_the_digest():
    bias, teacher = tables(1, "a"), tables(2, "a")
    different = [
        Debiased("product_of_experts", bias),
        Debiased("reweighting", bias),
        Debiased("confidence", bias, teacher),
        Debiased("confidence", bias, tables(3, "a")),
        Debiased("product_of_experts", tables(3, "a")),
        Debiased("product_of_experts", {1: bias[0]}),
        Debiased("product_of_experts", bias, powers=(1.0, 0.5), steps=4),
        Debiased("product_of_experts", bias, powers=(1.0, 0.5), steps=5),
    ]
    assert len({objective.digest for objective in different}) == len(different)
    assert Debiased("reweighting", bias, steps=3).digest == Debiased("reweighting", tables(1, "a"), steps=4).digest


def test_a_teacher_is_needed_for_confidence():
    with pytest.raises(ValueError, match="teacher"):
        Debiased("confidence", tables(1, "a", "b"), tables(2, "a"))
