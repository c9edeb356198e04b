"""The loss is exact, computed only where it is asked for, and the sum of its two means."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mtl_tickets.pretraining.mlm import HEADS, MaskedLanguageModel, MaskedLoss, held_out_losses, losses_of

from .made import V, batches, neighbouring_batches, paired_batches, tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("model_type", [*HEADS, "albert"])
def test_loss_on_predicted_tokens_equals_the_loss_of_all_logits(model_type):
    network = tiny(model_type)
    batch = batches().batch(0)
    labels = torch.full_like(batch.input_ids, -100).flatten()
    labels[batch.positions] = batch.labels
    logits = network(batch.input_ids).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=-100, reduction="sum")
    torch.testing.assert_close(MaskedLoss()(MaskedLanguageModel(network), batch), expected)


@pytest.mark.parametrize("model_type", list(HEADS))
def test_a_known_head_computes_no_logits_elsewhere(model_type):
    network = tiny(model_type)
    batch = batches().batch(0)
    rows = []
    network.get_output_embeddings().register_forward_hook(lambda module, inputs, output: rows.append(output.shape))
    MaskedLanguageModel(network)(batch.input_ids, batch.positions)
    assert rows == [(len(batch.positions), V)]


@pytest.mark.parametrize("model_type", [*HEADS, "albert"])
def test_every_layer_stands_beside_the_logits(model_type):
    network = tiny(model_type)
    batch = batches().batch(0)
    model = MaskedLanguageModel(network)
    logits, beside, layers = model(batch.input_ids, batch.positions, every_layer=True)
    torch.testing.assert_close(logits, model(batch.input_ids, batch.positions)[0])
    expected = network.base_model(batch.input_ids, output_hidden_states=True).hidden_states[1:]
    torch.testing.assert_close(list(layers), list(expected))
    assert beside is None and len(layers) == 2
    nothing, _, same = model(batch.input_ids, None, every_layer=True)
    assert nothing is None
    torch.testing.assert_close(same, layers)


@pytest.mark.parametrize("model_type", [*HEADS, "albert"])
def test_padding_changes_no_loss(model_type):
    model = MaskedLanguageModel(tiny(model_type), next_sentence=True).eval()
    batch = next(b for b in paired_batches().one_pass() if (b.attention_mask == 0).any() and b.pairs)
    whole = losses_of(model, batch)
    alone = [torch.zeros(()), torch.zeros(())]
    width = batch.input_ids.shape[1]
    for row in range(len(batch.input_ids)):
        length = int(batch.attention_mask[row].sum())
        here = batch.positions // width == row
        one = type(batch)(
            batch.input_ids[row : row + 1, :length],
            batch.positions[here] % width,
            batch.labels[here],
            int(here.sum()),
            token_type_ids=batch.token_type_ids[row : row + 1, :length],
            follows=batch.follows[row : row + 1],
            pairs=1,
        )
        tokens, sentence = losses_of(model, one)
        alone = [alone[0] + tokens, alone[1] + sentence]
    torch.testing.assert_close(list(whole), alone, rtol=1e-4, atol=1e-4)


def test_the_objective_is_the_sum_of_two_means():
    model = MaskedLanguageModel(tiny("bert"), next_sentence=True).eval()
    batch = paired_batches().batch(0)
    tokens, sentence = losses_of(model, batch)
    assert batch.pairs > 0
    expected = tokens / batch.count + sentence / batch.pairs
    torch.testing.assert_close(MaskedLoss()(model, batch) / batch.count, expected)
    plain = MaskedLanguageModel(model.network).eval()
    torch.testing.assert_close(MaskedLoss()(plain, batch), tokens)


def test_the_contrast_tells_a_rows_neighbour_from_the_others():
    model = MaskedLanguageModel(tiny("bert"), contrast=True).eval()
    batch = neighbouring_batches().batch(0)
    assert batch.pairs == len(batch.input_ids)
    vectors = model.network.base_model(batch.input_ids)[0].mean(1)
    expected = 0.0
    for row in range(batch.pairs):
        others = [other for other in range(batch.pairs) if other != row]
        scores = F.cosine_similarity(vectors[[row]], vectors[others]) / 0.05
        expected += F.cross_entropy(scores, torch.tensor(others.index(row + 1 - 2 * (row % 2))))
    tokens, contrast = losses_of(model, batch)
    torch.testing.assert_close(contrast, expected)
    weighed = tokens / batch.count + 0.3 * contrast / batch.pairs
    torch.testing.assert_close(MaskedLoss(0.3)(model, batch) / batch.count, weighed)


@pytest.mark.parametrize("model_type", [*HEADS, "albert"])
def test_the_contrast_leaves_the_predicted_tokens_as_they_are(model_type):
    network = tiny(model_type).eval()
    batch = neighbouring_batches().batch(0)
    beside, plain = losses_of(MaskedLanguageModel(network, contrast=True), batch), MaskedLanguageModel(network)
    torch.testing.assert_close(beside[0], MaskedLoss()(plain, replace(batch, pairs=0)))
    assert beside[1] > 0


def test_what_predicts_the_next_sentence_is_no_part_of_the_network():
    network = tiny("bert")
    before = {name: value.shape for name, value in network.state_dict().items()}
    MaskedLanguageModel(network, next_sentence=True)
    assert {name: value.shape for name, value in network.state_dict().items()} == before


@pytest.mark.parametrize(
    ("made", "beside"),
    [(batches, None), (paired_batches, "next_sentence"), (neighbouring_batches, "contrast")],
)
def test_held_out_losses_are_means_over_all_and_repeatable(made, beside):
    model = MaskedLanguageModel(tiny("bert"), **({beside: True} if beside else {})).train()
    source = made()
    first = held_out_losses(model, source, CPU)
    assert model.training
    assert held_out_losses(model, source, CPU) == first
    model.eval()
    with torch.no_grad():
        losses = [losses_of(model, batch) for batch in source.one_pass()]
    tokens = sum(float(loss[0]) for loss in losses) / sum(b.count for b in source.one_pass())
    assert first["held_out_loss"] == pytest.approx(tokens, rel=1e-6)
    if beside:
        pairs = sum(float(loss[1]) for loss in losses) / sum(b.pairs for b in source.one_pass())
        assert first[f"held_out_{beside}"] == pytest.approx(pairs, rel=1e-6)
    else:
        assert list(first) == ["held_out_loss"]
