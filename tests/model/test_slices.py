"""Which weights are a unit's: each a unit's own, and those that go with it."""

import pytest
import torch

from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.slices import keep_heads, keep_neurons, own_weights, unit_matrices
from tests.model.tiny_models import CONFIGS, HEADS, NEURONS, WIDTH, make_model


@pytest.fixture(params=CONFIGS)
def layer(request):
    """The anatomy of an architecture and its layer's weights, each a number of its own."""
    model = make_model(request.param)
    first, weights = 0, {}
    for name, tensor in layers_of(model.encoder)[1].state_dict().items():
        weights[name] = torch.arange(first, first + tensor.numel(), dtype=torch.float64).view(tensor.shape)
        first += tensor.numel()
    return model.anatomy, weights


def numbers(tensors):
    return sorted(torch.cat([tensor.flatten() for tensor in tensors]).tolist())


def test_every_weight_is_one_unit_s(layer):
    anatomy, weights = layer
    own = own_weights(weights, anatomy, HEADS)
    assert own["heads"].shape == (HEADS, 4 * WIDTH * WIDTH // HEADS)
    assert own["neurons"].shape == (NEURONS, 2 * WIDTH)
    assert numbers(own.values()) == numbers(weights[name] for name in unit_matrices(anatomy))


def test_a_unit_s_weights_are_those_that_go_with_it(layer):
    anatomy, weights = layer
    matrices, own = unit_matrices(anatomy), own_weights(weights, anatomy, HEADS)
    without = dict(weights)
    keep_heads(without, anatomy, [0, 1, 3], WIDTH // HEADS)
    keep_neurons(without, anatomy, [i for i in range(NEURONS) if i != 7], NEURONS - 1)
    left = numbers(without[name] for name in matrices)
    assert numbers([own["heads"][2], own["neurons"][7]]) == sorted(
        {*numbers(weights[name] for name in matrices)} - {*left}
    )


def test_further_axes_stay_in_front(layer):
    anatomy, weights = layer
    stacked = {name: torch.stack([weights[name], -weights[name]]) for name in unit_matrices(anatomy)}
    own, both = own_weights(weights, anatomy, HEADS), own_weights(stacked, anatomy, HEADS)
    for part, values in own.items():
        assert torch.equal(both[part], torch.stack([values, -values]))
