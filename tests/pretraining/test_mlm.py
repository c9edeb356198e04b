"""Each chunk once a pass; batches are pure functions of their number; masks at the right rates; the loss is exact."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mtl_tickets.pretraining.mlm import (
    HEADS,
    MaskedLanguageModel,
    PackedBatches,
    SpecialIds,
    held_out_loss,
    hold_out,
    mask_tokens,
    masked_loss,
)

V = 60
SPECIAL = SpecialIds(cls=2, sep=3, mask=4, special=np.arange(5), ordinary=np.arange(5, V))
CPU = torch.device("cpu")


def text(tokens, seed=0):
    """Running text in which every token says where it stands (mod V), with separators strewn in."""
    ids = 5 + np.arange(tokens) % (V - 5)
    ids[np.random.default_rng(seed).random(tokens) < 0.05] = SPECIAL.sep
    return ids.astype(np.uint16)


def batches(chunks=50, length=12, size=8, seed=3, **options):
    return PackedBatches(text(chunks * (length - 2)), np.arange(chunks), SPECIAL, length, size, seed, **options)


def tiny(model_type):
    distil = {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32}
    usual = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    config = CONFIG_MAPPING[model_type](
        vocab_size=V,
        max_position_embeddings=40,
        initializer_range=0.3,
        pad_token_id=0,
        **(distil if model_type == "distilbert" else usual),
        **({"embedding_size": 8} if model_type in ("electra", "albert") else {}),
    )
    torch.manual_seed(0)
    return AutoModelForMaskedLM.from_config(config).eval()


@pytest.mark.parametrize("model_type", [*HEADS, "albert"])
def test_loss_on_predicted_tokens_equals_the_loss_of_all_logits(model_type):
    network = tiny(model_type)
    batch = batches().batch(0)
    labels = torch.full_like(batch.input_ids, -100).flatten()
    labels[batch.positions] = batch.labels
    logits = network(batch.input_ids).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=-100, reduction="sum")
    torch.testing.assert_close(masked_loss(MaskedLanguageModel(network), batch), expected)


@pytest.mark.parametrize("model_type", list(HEADS))
def test_a_known_head_computes_no_logits_elsewhere(model_type):
    network = tiny(model_type)
    batch = batches().batch(0)
    rows = []
    network.get_output_embeddings().register_forward_hook(lambda module, inputs, output: rows.append(output.shape))
    MaskedLanguageModel(network)(batch.input_ids, batch.positions)
    assert rows == [(len(batch.positions), V)]


def test_every_chunk_once_a_pass():
    source = batches(chunks=53, size=8, batches=14, legs=3)
    sizes = [len(b.input_ids) for leg in range(source.legs) for b in source.iterate(leg)]
    assert sizes == [8, 8, 8, 8, 8, 8, 5] * 2
    for number in range(2):
        np.testing.assert_array_equal(np.sort(source.order(number)), np.arange(53))
    assert not np.array_equal(source.order(0), source.order(1))
    seen = [source.batch(n) for n in range(7)]
    restored = []
    for batch in seen:
        rows = batch.input_ids.clone().flatten()
        rows[batch.positions] = batch.labels
        restored += rows.view(len(batch.input_ids), -1)[:, 1:-1].tolist()
    assert sorted(restored) == sorted(text(530).reshape(53, 10).tolist())


def test_legs_follow_each_other_without_gap_or_twin():
    whole, cut = batches(batches=20, legs=1), batches(batches=20, legs=6)
    one = [b.input_ids for b in whole.iterate(0)]
    many = [b.input_ids for leg in range(6) for b in cut.iterate(leg)]
    assert sum(cut.batches_in(leg) for leg in range(6)) == 20
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert cut.tokens_after(5) == whole.tokens_after(0) == sum(len(b) for b in one) * 10


def test_batches_are_a_pure_function_of_seed_and_number():
    fresh, used = batches(batches=30), batches(batches=30)
    for number in (25, 3, 11):
        used.batch(number)
    for number in (0, 3, 9, 29):
        a, b = fresh.batch(number), used.batch(number)
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.positions, b.positions)
    later = list(fresh.iterate(0, start=28))
    assert len(later) == 2
    assert torch.equal(later[1].input_ids, used.batch(29).input_ids)
    assert not torch.equal(batches(seed=4).batch(0).input_ids, fresh.batch(0).input_ids)


def test_masks_change_from_pass_to_pass():
    source = batches(chunks=8, size=8, batches=2)
    order = [np.argsort(source.order(n)) for n in range(2)]
    places = []
    for number in range(2):
        mask = np.zeros(8 * 12, dtype=bool)
        mask[source.batch(number).positions] = True
        places.append(mask.reshape(8, 12)[order[number]])
    assert (places[0] != places[1]).any()


@pytest.mark.parametrize("share", [0.15, 0.2])
def test_rates_and_special_tokens(share):
    tokens = batches(chunks=400, length=102).sequences(np.arange(400))
    inputs, predicted = mask_tokens(tokens, SPECIAL, share, np.random.default_rng(0))
    assert not predicted[np.isin(tokens, SPECIAL.special)].any()
    np.testing.assert_array_equal(predicted.sum(axis=1), round(share * 100))
    np.testing.assert_array_equal(inputs[~predicted], tokens[~predicted])
    masked = (inputs == SPECIAL.mask)[predicted].mean()
    kept = (inputs == tokens)[predicted].mean()
    assert masked == pytest.approx(0.8, abs=0.02)
    # a random token is the same one by chance once in V - 5 draws
    assert kept == pytest.approx(0.1 + 0.1 / (V - 5), abs=0.015)
    assert np.isin(inputs[predicted], np.append(SPECIAL.ordinary, SPECIAL.mask)).all()


def test_rows_of_special_tokens_predict_what_is_left():
    tokens = np.full((2, 22), SPECIAL.sep)
    tokens[1, 7] = 9
    _, predicted = mask_tokens(tokens, SPECIAL, 0.2, np.random.default_rng(0))
    assert predicted.sum() == 1
    assert predicted[1, 7]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(world):
    whole = batches(chunks=9, size=8)
    shares = [batches(chunks=9, size=8, rank=rank, world=world) for rank in range(world)]
    for number in range(2):
        batch = whole.batch(number)
        parts = [share.batch(number) for share in shares]
        assert {part.count for part in parts} == {batch.count}
        rows = [row for part in parts if part.weight for row in part.input_ids.tolist()]
        assert sorted(rows) == sorted(batch.input_ids.tolist())
        assert sum(len(part.labels) for part in parts if part.weight) == batch.count


def test_held_out_loss_is_the_mean_over_all_and_repeatable():
    model = MaskedLanguageModel(tiny("bert")).train()
    source = batches(chunks=21, size=8)
    first = held_out_loss(model, source, CPU)
    assert model.training
    assert held_out_loss(model, source, CPU) == first
    model.eval()
    with torch.no_grad():
        losses = [float(masked_loss(model, b)) for b in source.iterate(0)]
    assert first == pytest.approx(sum(losses) / sum(b.count for b in source.iterate(0)), rel=1e-6)


@pytest.mark.parametrize(("chunks", "share"), [(2, 0.01), (40, 0.1), (999, 0.01), (12345, 0.03), (1000, 0.5)])
def test_held_out_chunks_are_a_share_in_stretches(chunks, share):
    held = hold_out(chunks, share)
    wanted = max(1, round(chunks * share))
    assert held.sum() == wanted
    stretches = int((np.diff(held.astype(int), prepend=0) == 1).sum())
    assert stretches <= max(1, min(100, wanted // 8))
    assert not hold_out(chunks, 0.0).any()
