import pytest
import torch
from tiny_models import CONFIGS, LAYERS, largest, make_batch, make_model, some_tickets

from mtl_tickets.model.packed import PACKED, Packing
from mtl_tickets.model.pooling import POOLINGS

SEGMENTS = [(0, 0, 3), (2, 3, 4), (1, 4, 7)]


def pair(architecture="bert", **more):
    """The same model with padded rows and with packed ones."""
    return make_model(architecture, "sdpa", **more), make_model(architecture, PACKED, **more)


def random_rows(rows=5, width=11, seed=0):
    """A mask and token types, of rows of which some have one text; the second text's tokens need not be neighbours."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows, 1), generator=draw)
    mask = (torch.arange(width) < lengths).long()
    types = torch.randint(0, 2, (rows, width), generator=draw) * mask * (torch.arange(rows) % 3 > 0).long()[:, None]
    types[:, 0] = 0
    return mask, types


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_token_stands_once_and_texts_stand_together(apart, seed):
    mask, types = random_rows(seed=seed)
    packing = Packing.of(mask, types if apart else None)
    assert torch.equal(packing.places.sort().values, mask.flatten().nonzero().flatten())
    assert packing.ends[-1] == mask.sum() and packing.longest == packing.ends.diff().max()
    names = torch.stack([packing.rows, types.flatten()[packing.places] * apart], dim=1)
    for text in range(len(packing.ends) - 1):
        start, stop = packing.ends[text], packing.ends[text + 1]
        assert len(names[start:stop].unique(dim=0)) <= 1
        assert (packing.places[start:stop].diff() > 0).all()
    values = torch.randn(*mask.shape, 3)
    back = packing.unpack(packing.pack(values))
    assert torch.equal(back, values * mask.unsqueeze(-1))


def test_the_sum_of_the_mask_may_be_given():
    mask, types = random_rows()
    asked, given = Packing.of(mask, types), Packing.of(mask, types, int(mask.sum()))
    assert torch.equal(asked.places, given.places) and torch.equal(asked.ends, given.ends)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_packed_rows_have_the_answers_and_gradients_of_padded_ones(architecture, pooling):
    answers, gradients = [], []
    for model in pair(architecture, pooling=pooling):
        model.set_tickets(some_tickets(model))
        batch = make_batch(model, SEGMENTS, padding=3)
        logits = model(**batch)
        answers.append(logits)
        model.zero_grad()
        torch.cat([one.flatten() for one in logits]).square().sum().backward()
        # rows of padding have no gradient; where others have none they have none in both
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert largest(*answers) <= 1e-5
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert largest(gradient, gradients[1][name]) <= 1e-4 * max(1.0, float(gradient.abs().max())), name


def test_tickets_work_on_packed_rows():
    _, model = pair()
    batch = make_batch(model, SEGMENTS)
    dense = model(**batch)
    model.set_tickets(some_tickets(model))
    assert largest(dense, model(**batch)) > 1e-2
    one = make_batch(model, [(1, 0, 4)])
    padded, _ = pair()
    padded.set_tickets(some_tickets(padded))
    assert largest(padded(**one), model(**one)) <= 1e-5


def test_what_is_no_word_is_not_computed():
    _, model = pair()
    seen = []
    model.anatomy.find(model.encoder.encoder.layer[0], "ffn_in").register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[:-1])
    )
    batch = make_batch(model, SEGMENTS, padding=4)
    model(**batch)
    assert seen == [(1, int(batch["attention_mask"].sum()))]


def test_all_tasks_at_once_and_gates_from_outside_are_those_of_padded_rows():
    answers = []
    for model in pair():
        model.set_tickets(some_tickets(model))
        batch = make_batch(model, SEGMENTS)
        rows = batch["input_ids"].shape[0]
        segments = batch.pop("segments")
        heads = torch.rand(rows, LAYERS, 4, generator=torch.Generator().manual_seed(0))
        with model.gates.leaves(heads=heads):
            leaves = model(**batch, segments=segments)
        answers.append([*model.forward_all(**batch).values(), *leaves])
    assert largest(*answers) <= 1e-5


def test_dropout_is_drawn_for_words():
    _, model = pair(dropout=0.5)
    model.train()
    batch = make_batch(model, SEGMENTS)
    torch.manual_seed(0)
    first = model(**batch)
    torch.manual_seed(0)
    assert largest(first, model(**batch)) == 0
    assert largest(first, model(**batch)) > 0
