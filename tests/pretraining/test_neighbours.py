"""Before any training, every head of the first layer attends to the token that is its own number of places away."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from mtl_tickets.pretraining.neighbours import NEAREST_FIRST, attend_to_neighbours


def started(width=256, heads=8, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=500,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=64,
        max_position_embeddings=48,
        attn_implementation="eager",
    )
    network = BertForMaskedLM(config).eval()
    torch.nn.init.normal_(network.bert.embeddings.word_embeddings.weight, std=0.05)
    attend_to_neighbours(network, seed)
    return network


def test_offsets_are_the_nearest_first():
    assert NEAREST_FIRST[:6] == (-1, 1, -2, 2, -3, 3)


@pytest.mark.parametrize(("width", "heads"), [(256, 8), (192, 4), (330, 10)])
def test_heads_attend_to_their_neighbour(width, heads):
    network = started(width, heads)
    ids = torch.randint(0, 500, (4, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        attention = network.bert(ids, output_attentions=True).attentions[0]
    for head in range(heads):
        offset = NEAREST_FIRST[head]
        places = torch.arange(8, 32)
        strongest = attention[:, head, places].argmax(dim=-1)
        assert (strongest == places + offset).float().mean() > 0.9
        assert attention[:, head, places, places + offset].mean() > 3 / 40


def test_the_start_follows_from_the_seed_and_leaves_the_words():
    one, same, other = started(), started(), started(seed=1)
    weights = one.state_dict()
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in weights.items())
    assert not torch.equal(weights["bert.embeddings.position_embeddings.weight"],
                           other.state_dict()["bert.embeddings.position_embeddings.weight"])  # fmt: skip
    torch.manual_seed(3)
    network = started()
    words = network.bert.embeddings.word_embeddings.weight.clone()
    attend_to_neighbours(network, 5)
    assert torch.equal(words, network.bert.embeddings.word_embeddings.weight)


def test_every_weight_is_still_trained():
    network = started()
    ids = torch.randint(0, 500, (2, 20))
    network(ids, labels=ids).loss.backward()
    frozen = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # a bias of all keys moves no attention
    assert {name for name in frozen if "key.bias" not in name} == set()
