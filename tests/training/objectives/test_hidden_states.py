"""The distance of hidden states is 0 from itself, blind to padding, and from a teacher that stands still."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.pretraining import lean
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, MaskedLoss, head_parameters
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.training.learned_masks import LearnedMasks
from mtl_tickets.training.objectives.hidden_states import (
    MaskObjective,
    cosine_distance,
    held_out_distance,
    unmasked,
)
from tests.pretraining.made import batches, paired_batches, tiny

ARCHITECTURES = ["bert", "roberta", "distilbert", "albert"]
GATES = StructuredSpace.of(layers=2, heads=2, hidden=16, intermediate=32, total=100_000, neurons=True)


def masks_on(model_type="bert", sparsity=0.5, dropout=0.0):
    network = tiny(model_type)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    model = MaskedLanguageModel(network)
    if model_type == "albert":  # shares one layer, and no table knows its matrices
        shapes = {n: tuple(p.shape) for n, p in network.base_model.named_parameters() if p.ndim == 2}
        space = type(weight_space_of(tiny("bert").config))(shapes)
    else:
        space = weight_space_of(network.config, embeddings=True)
    ticket = draw(Scores.random(space, 0), {"weights": int(space.total * sparsity)}, 1, "per_matrix")
    return LearnedMasks(model, network.base_model, ticket, beside=head_parameters(network))


def gates_on():
    model = MaskedLanguageModel(tiny("bert"))
    start = draw(Scores.random(GATES, 0), {"heads": 2, "ffn": 0, "neurons": 20}, 1, "global")
    return LearnedMasks(model, model.network.base_model, start)


def padded_batch():
    return next(b for b in paired_batches().one_pass() if (b.attention_mask == 0).any())


@torch.no_grad()
def states(network, ids, batch):
    network.eval()
    kinds = {"token_type_ids": batch.token_type_ids} if getattr(network.config, "type_vocab_size", 0) >= 2 else {}
    return network.base_model(ids, attention_mask=batch.attention_mask, output_hidden_states=True, **kinds)[
        "hidden_states"
    ][1:]


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_it_is_the_mean_of_one_minus_cosine_over_layers_and_real_tokens(model_type):
    masks, batch = masks_on(model_type).eval(), padded_batch()
    plain = tiny(model_type)
    found = MaskObjective("distillation")(masks, batch).detach()
    original = unmasked(batch)
    student, teacher = states(masks.model.network, original, batch), states(plain, original, batch)
    assert len(student) == 2
    expected = 0.0
    for one, other in zip(student, teacher, strict=True):
        cosines = F.cosine_similarity(one, other, dim=-1)[batch.attention_mask == 1]
        expected += float((1 - cosines).mean()) / len(student)
    assert float(found) == pytest.approx(expected * len(batch.labels), rel=1e-4)
    assert expected > 0.01


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_from_itself_the_distance_is_0(model_type):
    masks = masks_on(model_type, sparsity=0.0).eval()
    distance = MaskObjective("distillation")(masks, padded_batch())
    assert float(distance.detach()) == pytest.approx(0.0, abs=1e-4)
    whole = [torch.randn(2, 3, 8)]
    assert float(cosine_distance(whole, [-whole[0]])) == pytest.approx(2.0)


def test_before_they_were_masked_the_tokens_were_the_labels():
    batch = batches().batch(0)
    text = unmasked(batch).flatten()
    assert torch.equal(text[batch.positions], batch.labels)
    others = torch.ones(text.shape, dtype=torch.bool)
    others[batch.positions] = False
    assert torch.equal(text[others], batch.input_ids.flatten()[others])
    assert not torch.equal(text, batch.input_ids.flatten())


@pytest.mark.parametrize("kind", ["distillation", "both"])
def test_padding_does_not_matter_unless_counted(kind):
    masks, batch = masks_on().eval(), padded_batch()
    wider = F.pad(batch.input_ids, (0, 5), value=7), F.pad(batch.attention_mask, (0, 5))
    rows, columns = batch.positions // batch.input_ids.shape[1], batch.positions % batch.input_ids.shape[1]
    wide = replace(
        batch,
        input_ids=wider[0],
        attention_mask=wider[1],
        token_type_ids=F.pad(batch.token_type_ids, (0, 5)),
        positions=rows * wider[0].shape[1] + columns,
    )
    fixed, published = MaskObjective(kind), MaskObjective(kind, count_padding=True)
    torch.testing.assert_close(fixed(masks, wide), fixed(masks, batch), rtol=1e-4, atol=1e-4)
    assert abs(published(masks, wide) - published(masks, batch)) > 1e-2


@pytest.mark.parametrize("made", [masks_on, gates_on])
def test_the_teacher_is_the_dense_network_without_dropout_or_gradient(made):
    masks, batch = made(), batches().batch(0)
    for module in masks.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    seen = []
    plain = masks.model.forward

    def spy(*inputs, **named):
        answer = plain(*inputs, **named)
        seen.append((masks.model.training, answer[-1]))
        return answer

    masks.model.forward = spy
    masks.train()
    MaskObjective("distillation")(masks, batch).backward()
    (teaching, teacher), (learning, student) = seen
    assert (teaching, learning) == (False, True) and masks.training
    expected = states(tiny("bert"), unmasked(batch), batch)
    assert all(torch.equal(one, other) for one, other in zip(teacher, expected, strict=True))
    assert not any(layer.requires_grad for layer in teacher) and all(layer.requires_grad for layer in student)
    masks.train()
    MaskObjective("distillation", teacher_dropout=True)(masks, batch)
    assert seen[2][0] and not torch.equal(seen[2][1][0], expected[0])


def test_both_is_the_sum_of_two_means_on_the_masked_text():
    masks, batch = masks_on().eval(), padded_batch()
    spoiled = MaskObjective("distillation", spoiled=True)(masks, batch)
    masked = MaskObjective("mlm")(masks, batch)
    torch.testing.assert_close(masked, MaskedLoss()(masks, replace(batch, pairs=0)))
    torch.testing.assert_close(MaskObjective("both")(masks, batch), masked + spoiled)
    torch.testing.assert_close(MaskObjective("both", weight=0.5)(masks, batch), masked + 0.5 * spoiled)
    assert abs(MaskObjective("distillation")(masks, batch) - spoiled) > 1e-3


@pytest.mark.parametrize("lean_way", [True, False])
def test_the_vocabulary_is_asked_only_where_a_token_is_predicted(lean_way, monkeypatch):
    if not lean_way:
        monkeypatch.setattr(lean, "applies_to", lambda network: False)
    masks, batch = masks_on().eval(), batches().batch(0)
    rows = []
    head = masks.model.network.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    for kind in ("distillation", "both", "mlm"):
        MaskObjective(kind)(masks, batch)
    assert rows == [len(batch.positions)] * 2


@pytest.mark.parametrize("made", [masks_on, gates_on])
@pytest.mark.parametrize("kind", ["mlm", "distillation", "both"])
def test_gradients_flow_to_every_score(made, kind):
    masks = made()
    MaskObjective(kind)(masks, batches().batch(0)).backward()
    trained = [scores for scores in masks.scores.values() if scores.requires_grad]
    assert len(trained) >= 2 and all(scores.grad.abs().max() > 0 for scores in trained)


def test_the_held_out_distance_is_the_mean_over_tokens():
    masks, source = masks_on().train(), paired_batches()
    found = held_out_distance(masks, source, MaskObjective("both"), torch.device("cpu"))
    assert masks.training
    masks.eval()
    total, tokens = 0.0, 0
    for batch in source.one_pass():
        number = int(batch.attention_mask.sum())
        objective = MaskObjective("distillation", spoiled=True)
        total += float(objective(masks, batch).detach()) / len(batch.labels) * number
        tokens += number
    assert found == pytest.approx(total / tokens, rel=1e-5)
    assert held_out_distance(masks_on(sparsity=0.0), source, MaskObjective("both"), torch.device("cpu")) < 1e-6
