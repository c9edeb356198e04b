import math

import pytest
import torch
from torch import nn

from mtl_tickets.training.optim import (
    OptimiserSettings,
    PaperAdamax,
    learning_rate,
    make_optimiser,
    set_learning_rate,
    stretch,
)


def test_paper_adamax_follows_its_formula():
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(5, 3))
    lr, b1, b2, eps, decay = 0.1, 0.9, 0.999, 1e-6, 0.01
    optimiser = PaperAdamax([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    w, m, u = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
    for _ in range(4):
        g = torch.randn_like(p)
        p.grad = g.clone()
        optimiser.step()
        m = b1 * m + (1 - b1) * g
        u = torch.maximum(b2 * u, g.abs() + eps)
        w = w * (1 - lr * decay) - lr * m / (u + eps)
    torch.testing.assert_close(p.detach(), w, rtol=1e-5, atol=1e-6)


def test_paper_adamax_has_no_bias_correction():
    # the first step of torch's Adamax has size lr; without the correction it is lr * (1 - beta1)
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    PaperAdamax([p], lr=1.0).step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -0.1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["adamw", "adamax"])
def test_biases_and_norms_are_not_decayed(kind):
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimiser = make_optimiser(model, OptimiserSettings(kind=kind, weight_decay=0.5))
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decay[id(model[0].weight)] == 0.5
    assert {decay[id(p)] for p in (model[0].bias, model[1].weight, model[1].bias)} == {0.0}


def test_frozen_parameters_are_left_out():
    model = nn.Linear(3, 3)
    model.weight.requires_grad_(False)
    optimiser = make_optimiser(model, OptimiserSettings())
    assert [p.shape for group in optimiser.param_groups for p in group["params"]] == [model.bias.shape]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_schedule_rises_then_never_rises_again(schedule, steps):
    settings = OptimiserSettings(warm_up=0.1, schedule=schedule)
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    warm = math.ceil(0.1 * steps)
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm - 1 :] == sorted(rates[warm - 1 :], reverse=True)
    assert max(rates) == 1.0


def test_linear_decay_ends_at_zero():
    settings = OptimiserSettings(warm_up=0.1)
    assert learning_rate(100, 100, settings) == 0.0
    assert learning_rate(55, 100, settings) == pytest.approx(0.5)


class Tied(nn.Module):
    """An embedding that is also the output, as in masked-language models, with two layers between."""

    def __init__(self):
        super().__init__()
        self.words, self.inner, self.norm = nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.out = nn.Linear(4, 9)
        self.out.weight = self.words.weight

    def forward(self, ids):
        return self.out(self.norm(self.inner(self.words(ids))))


def test_muon_has_the_matrices_between_vectors_and_adamw_the_rest():
    model = Tied()
    optimiser = make_optimiser(model, OptimiserSettings(kind="muon", lr=1e-3, muon_lr=0.02))
    set_learning_rate(optimiser, 5e-4)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rates[id(model.inner.weight)] == pytest.approx(0.01)
    rest = [p for p in model.parameters() if p is not model.inner.weight]
    assert {rates[id(p)] for p in rest} == {5e-4}
    assert len(rates) == len(rest) + 1


@pytest.mark.parametrize("kind", ["adamw", "adamax", "muon"])
def test_heads_have_a_rate_of_their_own(kind):
    model = Tied()
    model.heads = nn.ModuleDict({"task": nn.Linear(4, 2)})
    heads = {id(p) for p in model.heads.parameters()}
    for head_lr, expected in ((0.05, 0.025), (None, 0.005)):
        optimiser = make_optimiser(model, OptimiserSettings(kind=kind, lr=0.01, head_lr=head_lr, muon_lr=0.1))
        set_learning_rate(optimiser, 0.005)
        rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
        assert [rates[p] for p in heads] == pytest.approx([expected] * 2)
        assert len(rates) == len(list(model.parameters()))
        rest = sorted({rate for p, rate in rates.items() if p not in heads})
        assert rest == pytest.approx([0.005, 0.05] if kind == "muon" else [0.005])


def test_muon_and_adamw_step_as_they_do_alone():
    torch.manual_seed(0)
    together, apart = Tied(), Tied()
    apart.load_state_dict(together.state_dict())
    settings = OptimiserSettings(kind="muon", lr=1e-2, muon_lr=0.05, weight_decay=0.1)
    optimiser = make_optimiser(together, settings)
    rest = [p for p in apart.parameters() if p is not apart.inner.weight]
    alone = [
        torch.optim.Muon([apart.inner.weight], lr=0.05, weight_decay=0.1),
        torch.optim.AdamW([p for p in rest if p.ndim > 1], lr=1e-2, weight_decay=0.1, fused=True),
        torch.optim.AdamW([p for p in rest if p.ndim == 1], lr=1e-2, weight_decay=0.0, fused=True),
    ]
    ids = torch.arange(9)
    for step in range(4):
        if step == 2:  # through a checkpoint
            saved = optimiser.state_dict()
            optimiser = make_optimiser(together, settings)
            optimiser.load_state_dict(saved)
        for model, steppers in ((together, [optimiser]), (apart, alone)):
            model.zero_grad()
            nn.functional.cross_entropy(model(ids), ids).backward()
            for stepper in steppers:
                stepper.step()
    torch.testing.assert_close(together.state_dict(), apart.state_dict(), rtol=0, atol=0)


def test_a_schedule_that_begins_anew_is_that_of_each_part_alone():
    settings = OptimiserSettings(warm_up=0.2)
    course = [learning_rate(*stretch(step, 30, (20,)), settings) for step in range(30)]
    expected = [learning_rate(step, 20, settings) for step in range(20)]
    assert course == expected + [learning_rate(step, 10, settings) for step in range(10)]
    assert [stretch(step, 30) for step in (0, 29)] == [(0, 30), (29, 30)]
