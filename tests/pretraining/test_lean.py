"""The lean way gives the hidden states and gradients of the transformers model, and says where it cannot."""

import pytest
import torch

from mtl_tickets.model.gates import Gates
from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.pretraining import lean
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, MaskedLoss
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.training.learned_masks import LearnedMasks

from .made import batches, paired_batches, tiny


def without_dropout(model_type="bert"):
    network = tiny(model_type).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def example(made):
    batch = next(b for b in made().one_pass() if b.attention_mask is None or (b.attention_mask == 0).any())
    return batch, {"attention_mask": batch.attention_mask, "token_type_ids": batch.token_type_ids}


@pytest.mark.parametrize("made", [batches, paired_batches])
def test_hidden_states_and_gradients_are_those_of_the_model(made):
    network = without_dropout()
    batch, extra = example(made)
    places = batch.positions
    whole = network.base_model(batch.input_ids, **extra)[0].flatten(0, 1)[places]
    fast = lean.hidden_states(network.base_model, batch.input_ids, places, **extra)
    torch.testing.assert_close(fast, whole, rtol=1e-5, atol=1e-5)
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0))
    names, parameters = zip(
        *((n, p) for n, p in network.base_model.named_parameters() if "pooler" not in n), strict=True
    )
    expected = torch.autograd.grad((whole * weights).sum(), parameters)
    found = torch.autograd.grad((fast * weights).sum(), parameters)
    for name, one, other in zip(names, found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_what_stands_on_padding_changes_nothing():
    network = without_dropout()
    batch, extra = example(paired_batches)
    ids = batch.input_ids.clone()
    ids[batch.attention_mask == 0] = 7
    same = [lean.hidden_states(network.base_model, i, batch.positions, **extra) for i in (batch.input_ids, ids)]
    torch.testing.assert_close(*same, rtol=0, atol=0)


def test_low_precision_comes_near():
    network = without_dropout()
    batch, extra = example(batches)
    exact = lean.hidden_states(network.base_model, batch.input_ids, batch.positions, **extra)
    low = lean.hidden_states(network.base_model, batch.input_ids, batch.positions, **extra, dtype=torch.bfloat16)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().max() < 0.2
    assert not torch.equal(low.float(), exact)


def test_it_is_used_under_autocast_in_its_precision(monkeypatch):
    used = []
    real = lean.hidden_states
    monkeypatch.setattr(lean, "hidden_states", lambda *given: used.append(given[-1]) or real(*given))
    model = MaskedLanguageModel(without_dropout())
    plain = MaskedLoss()(model, batches().batch(0))
    with torch.autocast("cpu", torch.bfloat16):
        low = MaskedLoss()(model, batches().batch(0))
    assert used == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(low, plain, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("model_type", ["roberta", "electra", "distilbert"])
def test_other_architectures_take_the_long_way(model_type):
    assert not lean.applies_to(without_dropout(model_type))
    assert lean.applies_to(without_dropout())


def test_dropout_takes_the_long_way():
    assert not lean.applies_to(tiny("bert"))


@pytest.mark.parametrize("made", [batches, paired_batches])
def test_every_layer_is_the_model_s(made):
    network = without_dropout()
    batch, extra = example(made)
    expected = network.base_model(batch.input_ids, **extra, output_hidden_states=True).hidden_states[1:]
    found = lean.every_layer(network.base_model, batch.input_ids, **extra)
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    # whoever asked for hidden states before keeps the lean way
    assert lean.applies_to(network)


@pytest.mark.parametrize("made", [batches, paired_batches])
def test_weights_are_seen_through_masks_and_scores_learn(made, monkeypatch):
    """The lean way and the model's own: equal logits, layers and gradients of scores, with every place asked for."""
    batch, _ = example(made)
    answers = []
    for way in (True, False):
        network = without_dropout()
        space = weight_space_of(network.config, embeddings=True)
        ticket = draw(Scores.random(space, 0), {"weights": space.total // 2}, 1, "per_matrix")
        model = MaskedLanguageModel(network)
        masks = LearnedMasks(model, network.base_model, ticket)
        monkeypatch.setattr(lean, "applies_to", lambda network, way=way: way)
        inputs = (batch.input_ids, batch.positions, batch.attention_mask, batch.token_type_ids)
        plain = model(*inputs)[0]
        logits, _, layers = model(*inputs, every_layer=True)
        torch.testing.assert_close(plain, logits, rtol=1e-5, atol=1e-5)
        generator = torch.Generator().manual_seed(0)
        total = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in (logits, *layers))
        trained = {name: scores for name, scores in masks.scores.items() if scores.requires_grad}
        gradients = torch.autograd.grad(total, list(trained.values()))
        answers.append((logits, layers, dict(zip(trained, gradients, strict=True))))
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)
    plain, weights = without_dropout().base_model.state_dict(), lean.effective_weights(network.base_model)
    assert weights.keys() == plain.keys()
    for name, weight in plain.items():
        kept = torch.tensor(ticket.units.get(name, True))
        assert torch.equal(weights[name], weight * kept), name


def test_gates_take_the_long_way_while_they_are_on():
    network = without_dropout()
    gates = Gates(network.base_model, 1)
    assert lean.applies_to(network)
    with gates.leaves(heads=torch.zeros(1, 2, 2)):
        assert not lean.applies_to(network)
        with gates.off():
            assert lean.applies_to(network)
    assert lean.applies_to(network)
