import math

import pytest
import torch
from tiny_models import CONFIGS, largest, make_batch, make_model, some_tickets

from mtl_tickets.model.pooling import POOLINGS, SHARPNESS, aligned, compared, embedded, read, views

WIDTH = 6


def tokens_of_two_texts(rows=4, tokens=9):
    """Hidden states, and where the texts are: the first of 2 to 5 tokens, the second of 1 to 4, then padding."""
    hidden = torch.randn(rows, tokens, WIDTH, generator=torch.Generator().manual_seed(0))
    mask, types = torch.zeros(rows, tokens).long(), torch.zeros(rows, tokens).long()
    for row in range(rows):
        mask[row, : 3 + 2 * row] = 1
        types[row, 2 + row : 3 + 2 * row] = 1
    return hidden, mask, types


def test_each_token_is_set_beside_the_tokens_of_the_other_text_it_is_like():
    hidden, mask, types = tokens_of_two_texts()
    found = aligned(hidden, mask * (1 - types), mask * types)
    for row in range(len(hidden)):
        texts = [
            [h for h, m, t in zip(hidden[row], mask[row], types[row], strict=True) if m and t == s] for s in (0, 1)
        ]
        differences, products = [], []
        for text, others in (texts, texts[::-1]):
            pairs = []
            for h in text:
                shares = [math.exp(SHARPNESS * float(torch.cosine_similarity(h, o, dim=0))) for o in others]
                pairs.append((h, sum(share * o for share, o in zip(shares, others, strict=True)) / sum(shares)))
            differences.append(torch.stack([(h - m).abs() for h, m in pairs]).mean(0))
            products.append(torch.stack([h * m for h, m in pairs]).mean(0))
        assert largest(found[row], torch.cat(differences + products)) <= 1e-5


def test_equal_texts_differ_nowhere_and_a_missing_text_is_like_nothing():
    hidden = torch.eye(3, WIDTH)[None]
    first = torch.tensor([[1, 1, 1, 0, 0, 0]])
    twice = torch.cat([hidden, hidden], dim=1)
    differences = aligned(twice, first, 1 - first)[:, : 2 * WIDTH]
    assert largest(differences, torch.zeros_like(differences)) <= 1e-6
    alone = aligned(twice, first, 0 * first)
    expected = torch.cat([hidden.abs().mean(1), torch.zeros(1, 3 * WIDTH)], dim=1)
    assert largest(alone, expected) <= 1e-6


def test_swapped_texts_swap_what_belongs_to_each():
    hidden, mask, types = tokens_of_two_texts()
    one, other = mask * (1 - types), mask * types
    for way in (compared, aligned):
        straight, swapped = (t.chunk(4, dim=1) for t in (way(hidden, one, other), way(hidden, other, one)))
        order = (1, 0, 2, 3) if way is compared else (1, 0, 3, 2)
        assert largest([straight[i] for i in order], list(swapped)) <= 1e-6


@pytest.mark.parametrize("pooling", ["mean", "texts", "aligned"])
def test_what_is_read_is_as_wide_as_said(pooling):
    hidden, mask, types = tokens_of_two_texts()
    below = hidden.flip(0) if pooling == "aligned" else None
    for texts, kinds in ((1, None), (2, types)):
        assert read(pooling, below, hidden, mask, kinds).shape == (4, views(pooling, texts) * WIDTH)
    assert [views(name, 2) for name in POOLINGS] == [1, 1, 1, 4, 16]


@pytest.mark.parametrize("name", CONFIGS)
def test_what_goes_into_the_first_layer_is_seen_and_nothing_is_left_behind(name):
    model = make_model(name)
    batch = make_batch(model, [(0, 0, 5)])
    del batch["segments"], batch["token_type_ids"]
    hooks = len(model.encoder.get_submodule(model.anatomy.layers)[0]._forward_pre_hooks)
    with embedded(model.encoder, True) as seen:
        expected = model.encoder(**batch, output_hidden_states=True).hidden_states[0]
    assert len(seen) == 1
    assert largest(seen[0], expected) <= 1e-6
    assert len(model.encoder.get_submodule(model.anatomy.layers)[0]._forward_pre_hooks) == hooks
    with embedded(model.encoder, False) as seen:
        model.encoder(**batch)
    assert seen == []


@pytest.mark.parametrize("name", CONFIGS)
def test_the_aligned_head_reads_the_embeddings_and_the_last_layer_of_its_own_rows(name):
    """In a mixed batch, under tickets, beside tasks of one text."""
    model = make_model(name, pooling="aligned")
    model.set_tickets(some_tickets(model))
    segments = [(0, 0, 3), (2, 3, 5)]
    batch = make_batch(model, segments)
    last = []
    model.encoder.register_forward_hook(lambda module, args, output: last.append(output.last_hidden_state))
    with embedded(model.encoder, True) as below:
        found = model(**batch)
    mask, types = batch["attention_mask"], batch["token_type_ids"]
    for logits, (task, start, stop) in zip(found, segments, strict=True):
        rows, info = slice(start, stop), model.tasks[task]
        parts = []
        for hidden in (below[0][rows], last[0][rows]):
            if info.texts == 1:
                parts.append((hidden * mask[rows, :, None]).sum(1) / mask[rows].sum(1, keepdim=True))
                continue
            one, other = mask[rows] * (1 - types[rows]), mask[rows] * types[rows]
            parts += [compared(hidden, one, other), aligned(hidden, one, other)]
        assert largest(logits, model.heads[info.name].linear(torch.cat(parts, dim=1))) <= 1e-5
