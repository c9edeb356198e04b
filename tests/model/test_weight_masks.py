"""Tickets of single weights: what is masked is 0 and learns nothing, what is kept is itself bit for bit."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, LAYERS
from transformers import AutoModelForMaskedLM

from mtl_tickets.errors import TicketError
from mtl_tickets.model import weight_masks
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket

NAMES = sorted(CONFIGS)


def batch_for(config):
    generator = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(5, config.vocab_size, (3, 9), generator=generator)}


def half(space, seed=0):
    return draw(Scores.random(space, seed), {"weights": space.total // 2}, allocation="per_matrix")


@pytest.mark.parametrize("name", NAMES)
def test_the_space_holds_the_matrices_of_the_encoder(name):
    config = CONFIGS[name]
    encoder = random_encoder(config)
    space = weight_masks.weight_space_of(config, embeddings=True)
    parameters = dict(encoder.named_parameters())
    assert all(tuple(parameters[matrix].shape) == shape for matrix, shape in space.matrices.items())
    without = weight_masks.weight_space_of(config, pooler=False)
    assert len(without.matrices) == 6 * LAYERS
    assert set(without.matrices) < set(space.matrices)
    dropped = set(space.matrices) - set(without.matrices)
    assert dropped <= {"embeddings.word_embeddings.weight", "pooler.dense.weight"}


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_equals_zeros_in_the_weights(name):
    config = CONFIGS[name]
    encoder = random_encoder(config).eval()
    ticket = half(weight_masks.weight_space_of(config, embeddings=True))
    zeroed = copy.deepcopy(encoder)
    with torch.no_grad():
        for matrix, kept in ticket.units.items():
            zeroed.get_parameter(matrix).mul_(torch.tensor(kept))
    weight_masks.put_on(encoder, ticket)
    inputs = batch_for(config)
    assert torch.equal(encoder(**inputs)[0], zeroed(**inputs)[0])


@pytest.mark.parametrize("name", NAMES)
def test_masks_come_off_without_a_trace(name):
    config = CONFIGS[name]
    encoder = random_encoder(config)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    order = [key for key, _ in encoder.named_parameters()]
    weight_masks.put_on(encoder, half(weight_masks.weight_space_of(config, embeddings=True)))
    assert [key for key, _ in encoder.named_parameters()] != order
    weight_masks.take_off(encoder)
    assert [key for key, _ in encoder.named_parameters()] == order
    after = encoder.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)


def test_zeros_can_stay_when_masks_come_off():
    config = CONFIGS["bert"]
    encoder = random_encoder(config)
    space = weight_masks.weight_space_of(config)
    ticket, before = half(space), weight_masks.weights_in(encoder, space)
    weight_masks.put_on(encoder, ticket)
    weight_masks.take_off(encoder, keep_zeros=True)
    after = weight_masks.weights_in(encoder, space)
    for matrix, kept in ticket.units.items():
        assert np.array_equal(after[matrix], before[matrix] * kept)
    assert sum(int((value == 0).sum()) for value in after.values()) == ticket.space.total // 2


def test_what_is_masked_learns_nothing():
    config = CONFIGS["bert"]
    encoder = random_encoder(config)
    ticket = half(weight_masks.weight_space_of(config))
    weight_masks.put_on(encoder, ticket)
    encoder(**batch_for(config))[0].pow(2).sum().backward()
    for matrix, kept in ticket.units.items():
        module = encoder.get_submodule(matrix.removesuffix(".weight"))
        gradient = weight_masks.raw_weight(module).grad
        if gradient is not None:
            assert not gradient[~torch.tensor(kept)].any()
            assert gradient[torch.tensor(kept)].any()


def test_the_tied_decoder_of_a_masked_language_model_stays_whole():
    config = CONFIGS["bert"]
    network = AutoModelForMaskedLM.from_config(config)
    decoder = network.get_output_embeddings().weight
    ticket = half(weight_masks.weight_space_of(config, embeddings=True))
    before = decoder.detach().clone()
    weight_masks.put_on(network.base_model, ticket)  # which has no pooler
    assert network.get_output_embeddings().weight is decoder and torch.equal(decoder, before)
    embeddings = network.base_model.embeddings.word_embeddings
    assert int((embeddings.weight == 0).sum()) >= ticket.dropped("embeddings.word_embeddings.weight")
    weight_masks.take_off(network.base_model)
    assert network.base_model.embeddings.word_embeddings.weight is network.get_output_embeddings().weight


def test_a_second_mask_takes_the_place_of_the_first():
    config = CONFIGS["bert"]
    encoder, space = random_encoder(config), weight_masks.weight_space_of(CONFIGS["bert"])
    weight_masks.put_on(encoder, half(space, 1))
    second = half(space, 2)
    weight_masks.put_on(encoder, second)
    matrix = next(iter(space.matrices))
    shown = encoder.get_submodule(matrix.removesuffix(".weight")).weight
    assert torch.equal(shown != 0, torch.tensor(second.units[matrix]))


def test_what_does_not_fit_is_refused():
    config = CONFIGS["bert"]
    encoder = random_encoder(config)
    space = weight_masks.weight_space_of(config)
    name = next(iter(space.matrices))
    with pytest.raises(TicketError, match="shape it has in the encoder"):
        weight_masks.put_on(encoder, Ticket.dense(WeightSpace({name: (3, 3)})))
    with pytest.raises(TicketError, match="none of the ticket's matrices"):
        weight_masks.put_on(encoder, Ticket.dense(WeightSpace({"elsewhere.weight": (3, 3)})))
    with pytest.raises(TicketError, match="single weights"):
        weight_masks.put_on(
            encoder, Ticket.dense(StructuredSpace.of(layers=2, heads=2, hidden=8, intermediate=16, total=99999))
        )
    assert not any("parametrizations" in key for key in encoder.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_each_weight_counts_once_in_what_remains(name):
    config = CONFIGS[name]
    structured, weights = space_of(config), weight_masks.weight_space_of(config)
    base = half(weights)
    assert weight_masks.remaining(structured, None, None) == 100.0
    dropped = sum(base.dropped(part) for part in weights.matrices)
    assert weight_masks.remaining(structured, None, base) == pytest.approx(100 * (1 - dropped / structured.total))
    # nothing of the layers is left where all heads and blocks are gone: the base takes away the pooler's share alone
    none = Ticket(structured, {part: np.zeros(shape, bool) for part, shape in structured.parts.items()})
    pooler = base.dropped("pooler.dense.weight") if "pooler.dense.weight" in weights.matrices else 0
    expected = none.remaining_percent() - 100 * pooler / structured.total
    assert weight_masks.remaining(structured, none, base) == pytest.approx(expected)
