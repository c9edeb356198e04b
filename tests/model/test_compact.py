"""Removal equals masking, and makes the model smaller by what the units cost."""

import numpy as np
import pytest
import torch
from tiny_models import (
    CONFIGS,
    HEADS,
    KINDS,
    LAYERS,
    NEURONS,
    WIDTH,
    largest,
    make_batch,
    make_model,
    make_ticket,
    rows_of,
    some_tickets,
)

from mtl_tickets.errors import CheckpointError, InputError, TicketError
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.compact import Kept, build_compact, compact, everything, needed

MIXED = [(0, 0, 3), (1, 3, 5), (2, 5, 9)]


def parameters(model) -> int:
    return sum(p.numel() for p in model.encoder.parameters())


@pytest.mark.parametrize(("name", "attention"), KINDS)
@pytest.mark.parametrize("neurons", [False, True])
def test_a_compacted_model_equals_the_masked_one(name, attention, neurons):
    """With a layer without heads, a removed block, removed neurons, and units that only some tasks keep."""
    model = make_model(name, attention)
    model.set_tickets(some_tickets(model, neurons))
    batch = make_batch(model, MIXED)
    small = compact(model)
    assert largest(model(**batch), small(**batch)) <= 1e-5
    assert parameters(small) < parameters(model)
    with small.gates.off():
        assert largest(model(**batch), small(**batch)) > 1e-3  # gates are still needed where tasks disagree


@pytest.mark.parametrize(("name", "attention"), KINDS)
@pytest.mark.parametrize("task", ["mnli", "stsb", "rte"])
def test_one_task_alone_needs_no_gates(name, attention, task):
    model = make_model(name, attention)
    model.set_tickets(some_tickets(model, neurons=True))
    index = model.task_index(task)
    batch = rows_of(make_batch(model, MIXED), index)
    small = compact(model, tasks=[task])
    alone = {**batch, "segments": [(0, 0, len(batch["input_ids"]))]}
    assert largest(model(**batch), small(**alone)) <= 1e-5
    assert list(small.heads) == [task]
    assert not small.gates.masks([0])
    with small.gates.off():
        assert largest(model(**batch), small(**alone)) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_a_layer_without_heads_by_raw_gates(name):
    model = make_model(name)
    batch = make_batch(model, MIXED)
    table = torch.ones(3, LAYERS, HEADS)
    table[:, 0] = 0
    small = compact(model, make_ticket(model, [(0, head) for head in range(HEADS)]))
    model.gates.set_table({"heads": table})
    assert largest(model(**batch), small(**batch)) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_everything_removed(name):
    model = make_model(name)
    ticket = make_ticket(model, [(i, h) for i in range(LAYERS) for h in range(HEADS)], range(LAYERS))
    model.set_tickets(dict.fromkeys(("mnli", "stsb", "rte"), ticket))
    small, batch = compact(model), make_batch(model, MIXED)
    assert largest(model(**batch), small(**batch)) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_removed_is_what_the_units_cost(name):
    model = make_model(name)
    ticket = make_ticket(model, [(0, 1), (0, 2), (2, 3)], [1])
    small = compact(model, ticket)
    biases = 3 * 3 * WIDTH // HEADS + NEURONS + WIDTH  # q, k, v of three heads; both of a block
    dropped = ticket.space.total - ticket.space.kept_parameters(ticket.units)
    assert parameters(model) - parameters(small) == dropped + biases


def test_gradients_of_a_compacted_model_are_those_of_the_masked_one():
    model = make_model("bert")
    model.set_tickets(some_tickets(model, neurons=True))
    small, batch = compact(model), make_batch(model, MIXED)
    for one in (model, small):
        sum(logits.square().sum() for logits in one(**batch)).backward()
    embeddings = [one.encoder.embeddings.word_embeddings.weight.grad for one in (model, small)]
    assert largest(*embeddings) <= 1e-5 * float(embeddings[0].abs().max())
    parts = [one.anatomy.parts(layers_of(one.encoder)[0]) for one in (model, small)]
    kept = [feature for feature in range(WIDTH) if feature // 8 != 1]  # head 1 of layer 0 is gone
    queries = parts[0]["query"].weight.grad[kept], parts[1]["query"].weight.grad
    assert largest(*queries) <= 1e-5 * max(1.0, float(queries[0].abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_neurons_stay_without_effect_in_training(name):
    model = make_model(name)
    dropped = [(0, neuron) for neuron in range(11)]
    small = compact(model, make_ticket(model, neurons=dropped))
    parts = small.anatomy.parts(layers_of(small.encoder)[0])
    assert parts["ffn_in"].out_features == 32  # 29 kept, rounded up to a multiple of 8
    small.train()
    sum(logits.square().sum() for logits in small(**make_batch(small, MIXED))).backward()
    incoming, bias, outgoing = parts["ffn_in"].weight, parts["ffn_in"].bias, parts["ffn_out"].weight
    for value, gradient in ((incoming, incoming.grad), (bias, bias.grad), (outgoing.T, outgoing.grad.T)):
        assert value[29:].count_nonzero() == 0
        assert gradient[29:].count_nonzero() == 0
        assert gradient[:29].count_nonzero() > 0


def test_a_block_without_neurons_keeps_its_bias():
    model = make_model("bert")
    ticket = make_ticket(model, neurons=[(1, neuron) for neuron in range(NEURONS)])
    model.set_tickets(dict.fromkeys(("mnli", "stsb", "rte"), ticket))
    small, batch = compact(model), make_batch(model, MIXED)
    assert largest(model(**batch), small(**batch)) <= 1e-5
    assert small.anatomy.parts(layers_of(small.encoder)[1])["ffn_out"].bias is not None


def test_a_dense_task_keeps_everything():
    model = make_model("bert")
    model.set_tickets({"mnli": make_ticket(model, [(0, 0)], [1])})
    assert parameters(compact(model)) == parameters(model)


def test_compaction_shares_no_memory_and_leaves_the_original_alone():
    model = make_model("bert")
    model.set_tickets(some_tickets(model))
    batch = make_batch(model, MIXED)
    before = model(**batch)
    small = compact(model)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1)
    assert largest(model(**batch), before) == 0
    assert small.training == model.training


@pytest.mark.parametrize("name", CONFIGS)
def test_compacting_twice_equals_compacting_once(name):
    model = make_model(name)
    model.set_tickets(some_tickets(model, neurons=True))
    once, twice = compact(model, tasks=["stsb"]), compact(compact(model), tasks=["stsb"])
    assert Kept.of(once.present) == Kept.of(twice.present)
    states = once.state_dict(), twice.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_compacted_model_takes_smaller_tickets_and_refuses_larger_ones():
    model = make_model("bert")
    tickets = some_tickets(model)
    model.set_tickets(tickets)
    small, batch = compact(model, tasks=["mnli"]), rows_of(make_batch(model, MIXED), 0)
    with pytest.raises(
        TicketError, match=r"heads: a ticket may keep only units that were not removed; found '\[\[0, 1\]"
    ):
        small.set_tickets({"mnli": make_ticket(small)})
    smaller = make_ticket(model, [(0, 1), (0, 2), (1, 0), (1, 1), *((2, head) for head in range(HEADS))], [1, 2])
    small.set_tickets({"mnli": smaller})
    model.set_tickets({"mnli": smaller})
    assert largest(model(**batch), small(**batch)) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_leaves_have_the_shape_of_the_whole_space_on_a_compacted_model(name):
    model = make_model(name)
    model.set_tickets(some_tickets(model, neurons=True))
    batch, small = make_batch(model, MIXED), compact(model)
    values = {part: torch.rand(9, *shape) for part, shape in model.gates.shapes.items()}
    there = {part: torch.as_tensor(kept).float() for part, kept in small.present.items()}
    with model.gates.leaves(**{part: value * there[part] for part, value in values.items()}):
        expected = model(**batch)
    with small.gates.leaves(**values):
        assert largest(small(**batch), expected) <= 1e-5


def test_unknown_tasks_and_strange_tickets_are_refused():
    model = make_model("bert")
    with pytest.raises(InputError, match="no such task"):
        compact(model, tasks=["cola"])
    other = make_ticket(make_model("electra"))
    assert parameters(compact(model, other)) == parameters(model)  # same shapes and costs: fits
    with pytest.raises(TicketError, match="must have the shape"):
        compact(model, make_ticket_of(layers=5))


def make_ticket_of(layers):
    from mtl_tickets.tickets.space import StructuredSpace
    from mtl_tickets.tickets.ticket import Ticket

    space = StructuredSpace.of(layers=layers, heads=HEADS, hidden=WIDTH, intermediate=NEURONS, total=10**6)
    return Ticket.dense(space)


@pytest.mark.parametrize("name", CONFIGS)
def test_records_round_trip_and_rebuild_the_shape(name):
    model = make_model(name)
    small = compact(model, some_tickets(model, neurons=True))
    kept = Kept.of(small.present)
    again = Kept.from_json(kept.to_json(), model.config)
    assert again == kept
    assert all(np.array_equal(small.present[p], there) for p, there in again.present(model.config).items())
    shapes = {n: p.shape for n, p in build_compact(model.config, again).named_parameters()}
    assert shapes == {n: p.shape for n, p in small.encoder.named_parameters()}
    whole = {n: p.shape for n, p in build_compact(model.config, everything(model.config)).named_parameters()}
    assert whole == {n: p.shape for n, p in model.encoder.named_parameters()}


def test_the_union_is_what_some_task_keeps():
    model = make_model("bert")
    tickets = some_tickets(model)
    kept = needed(tickets.values(), everything(model.config).present(model.config))
    assert kept.heads == ((0, 2, 3), (0, 1, 2, 3), ())
    assert kept.ffn == (True, False, True)
    assert kept.neurons is None
    # who drops the block needs none of its neurons, whatever the entries of the neurons say
    two = [make_ticket(model, [], [1], []), make_ticket(model, [], [], [(1, 3)])]
    kept = needed(two, everything(model.config).present(model.config))
    assert kept.neurons[1] == tuple(neuron for neuron in range(NEURONS) if neuron != 3)
    assert needed([*tickets.values(), None], everything(model.config).present(model.config)) == everything(model.config)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"heads": [[0], [1]]}, "heads"),
        ({"heads": [[0], [1], [4]]}, r"heads\[2\]"),
        ({"heads": [[0], [1, 0], [2]]}, r"heads\[1\]"),
        ({"ffn": [True, False, 1]}, "ffn"),
        ({"neurons": [[0], [0], [-1]]}, r"neurons\[2\]"),
        ({"neurons": "all"}, "neurons"),
    ],
)
def test_records_that_do_not_fit_are_refused(change, place):
    config = CONFIGS["bert"]
    with pytest.raises(CheckpointError, match=rf"compact\.json: {place}: must be"):
        Kept.from_json(everything(config).to_json() | change, config, "compact.json")
    with pytest.raises(CheckpointError, match="must be a mapping with heads, ffn and neurons"):
        Kept.from_json({"heads": []}, config)
