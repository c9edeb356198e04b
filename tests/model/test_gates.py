"""Masking is absence, touches nothing else, and costs nothing when off."""

import copy

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

from mtl_tickets.errors import MtlTicketsError, TicketError
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket

ONE_TASK = [(0, 0, 6)]
MIXED = [(0, 0, 3), (1, 3, 5), (2, 5, 8)]
D = WIDTH // HEADS


@torch.no_grad()
def zero_slices(model, heads=(), ffn=(), neurons=()):
    """Another way to switch units off: zeros in the weights that carry their output on."""
    for index, layer in enumerate(layers_of(model.encoder)):
        parts = model.anatomy.parts(layer)
        for at, head in heads:
            if at == index:
                parts["attention_output"].weight[:, head * D : (head + 1) * D] = 0
        for at, neuron in neurons:
            if at == index:
                parts["ffn_out"].weight[:, neuron] = 0
        if index in ffn:
            parts["ffn_out"].weight.zero_()
            parts["ffn_out"].bias.zero_()


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_masking_equals_zeroed_weight_slices(name, attention):
    heads, ffn, neurons = [(0, 1), (0, 2), (2, 3)], [1], [(0, 5), (2, 0), (2, 39)]
    masked, zeroed = make_model(name, attention), make_model(name, attention)
    batch = make_batch(masked, ONE_TASK)
    dense = masked(**batch)
    masked.set_tickets({"mnli": make_ticket(masked, heads, ffn, neurons)})
    zero_slices(zeroed, heads, ffn, neurons)
    assert largest(masked(**batch), zeroed(**batch)) <= 1e-5
    assert largest(masked(**batch), dense) > 1e-2


@pytest.mark.parametrize(("name", "attention"), KINDS)
@pytest.mark.parametrize("part", ["heads", "ffn", "neurons"])
def test_no_gate_is_silently_ignored(name, attention, part):
    """``head_mask=`` is, in transformers 5: dropping any one layer's units must change the output."""
    model = make_model(name, attention)
    batch = make_batch(model, ONE_TASK)
    dense = model(**batch)
    for layer in range(LAYERS):
        table = torch.ones(3, *model.gates.shapes[part])
        table[0, layer] = 0
        model.gates.set_table({part: table})
        assert largest(model(**batch), dense) > 1e-3


def test_dropping_all_units_leaves_biases_and_residuals_only():
    model = make_model("bert")
    everything = {part: torch.zeros(3, *shape) for part, shape in model.gates.shapes.items()}
    model.gates.set_table(everything)
    batch = make_batch(model, ONE_TASK)
    zeroed = make_model("bert")
    zero_slices(zeroed, [(i, h) for i in range(LAYERS) for h in range(HEADS)], range(LAYERS))
    assert largest(model(**batch), zeroed(**batch)) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_units_masked_for_all_tasks_get_exactly_no_gradient(name):
    model = make_model(name, dropout=0.1).train()
    tickets = {task: make_ticket(model, [(0, 1), (1, 3)], [2], [(0, 7), (1, 0)]) for task in ("mnli", "stsb", "rte")}
    model.set_tickets(tickets)
    sum(logits.square().sum() for logits in model(**make_batch(model, MIXED))).backward()
    parts = [model.anatomy.parts(layer) for layer in layers_of(model.encoder)]
    for layer, head in ((0, 1), (1, 3)):
        features = slice(head * D, (head + 1) * D)
        for part in ("query", "key", "value"):
            assert parts[layer][part].weight.grad[features].count_nonzero() == 0
            assert parts[layer][part].bias.grad[features].count_nonzero() == 0
        assert parts[layer]["attention_output"].weight.grad[:, features].count_nonzero() == 0
        assert parts[layer]["query"].weight.grad.count_nonzero() > 0
    for part in ("ffn_in", "ffn_out"):
        assert parts[2][part].weight.grad.count_nonzero() == 0
        assert parts[2][part].bias.grad.count_nonzero() == 0
        assert parts[0][part].weight.grad.count_nonzero() > 0
    for layer, neuron in ((0, 7), (1, 0)):
        assert parts[layer]["ffn_in"].weight.grad[neuron].count_nonzero() == 0
        assert parts[layer]["ffn_in"].bias.grad[neuron] == 0
        assert parts[layer]["ffn_out"].weight.grad[:, neuron].count_nonzero() == 0


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_tasks_do_not_see_each_other(name, attention):
    model = make_model(name, attention)
    model.set_tickets(some_tickets(model))
    batch = make_batch(model, MIXED)
    alone = {task: model(**rows_of(batch, task)) for task in (2, 0, 1)}
    mixed = model(**batch)
    for task, logits in enumerate(mixed):
        assert largest([logits], alone[task]) <= 1e-6
        assert largest([logits], model(**rows_of(batch, task))) <= 1e-6
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:3] = other["input_ids"][:3].flip(0)  # other rows of task 0
    assert largest(mixed[1:], model(**other)[1:]) <= 1e-6
    assert largest(mixed[:1], model(**other)[:1]) > 1e-3


def test_every_way_to_say_which_rows_are_whose_is_the_same():
    model = make_model("bert")
    model.set_tickets(some_tickets(model, neurons=True))
    batch = make_batch(model, MIXED)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    task_of_row = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    with model.gates.on(MIXED):
        by_segments = model.encoder(**inputs).last_hidden_state
    with model.gates.on(task_of_row):
        by_tensor = model.encoder(**inputs).last_hidden_state
    assert torch.equal(by_segments, by_tensor)
    for task, start, stop in MIXED:
        with model.gates.on(task):
            alone = model.encoder(**{name: value[start:stop] for name, value in inputs.items()}).last_hidden_state
        assert largest(alone, by_tensor[start:stop]) <= 1e-6


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_leaves_of_ones_are_dense_and_leaves_of_a_ticket_are_the_ticket(name, attention):
    model = make_model(name, attention)
    batch = make_batch(model, ONE_TASK)
    dense = model(**batch)
    rows, tokens = batch["input_ids"].shape
    ticket = some_tickets(model, neurons=True)["rte"]
    model.set_tickets({"mnli": ticket})
    masked = model(**batch)
    for lead in ((rows,), (rows, tokens), (1,)):
        ones = {part: torch.ones(*lead, *shape) for part, shape in model.gates.shapes.items()}
        with model.gates.leaves(**ones):
            assert torch.equal(model(**batch)[0], dense[0])
        values = {
            part: torch.tensor(ticket.units[part]).float().expand(*lead, *s) for part, s in model.gates.shapes.items()
        }
        with model.gates.leaves(**values):
            assert largest(model(**batch), masked) <= 1e-6


@pytest.mark.parametrize("name", CONFIGS)
def test_gate_gradients_are_those_of_finite_differences(name):
    model = make_model(name).double()
    batch = make_batch(model, ONE_TASK)
    shapes = {part: (6, *model.gates.shapes[part]) for part in ("heads", "ffn")}
    leaves = {part: torch.ones(shape, dtype=torch.float64, requires_grad=True) for part, shape in shapes.items()}

    def loss(values):
        with model.gates.leaves(**values):
            hidden = model.encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return hidden.square().sum(dim=(1, 2))

    gradients = dict(zip(leaves, torch.autograd.grad(loss(leaves).sum(), list(leaves.values())), strict=True))
    for part, place in (("heads", (0, 1)), ("heads", (2, 3)), ("ffn", (1,)), ("ffn", (2,))):
        changed = {name: value.detach().clone() for name, value in leaves.items()}
        changed[part][(slice(None), *place)] += 1e-6
        slope = (loss(changed) - loss(leaves)).detach() / 1e-6
        assert torch.allclose(gradients[part][(slice(None), *place)], slope, rtol=1e-3, atol=1e-4)


def test_per_token_gradients_sum_to_per_example_ones_and_padding_has_none():
    model = make_model("bert")
    batch = make_batch(model, ONE_TASK)
    gradients = {}
    for lead in ((6,), (6, 12)):
        heads = torch.ones(*lead, LAYERS, HEADS, requires_grad=True)
        with model.gates.leaves(heads=heads):
            loss = model(**batch)[0].square().sum()
        [gradients[lead]] = torch.autograd.grad(loss, [heads])
    assert torch.allclose(gradients[6, 12].sum(1), gradients[6,], atol=1e-5)
    padded = gradients[6, 12][batch["attention_mask"] == 0]
    assert padded.count_nonzero() == 0
    assert gradients[6, 12].count_nonzero() > 0


def test_gates_are_no_part_of_the_state_and_survive_train_and_eval():
    model = make_model("bert")
    plain = set(make_model("bert").encoder.state_dict())
    model.set_tickets(some_tickets(model))
    batch = make_batch(model, MIXED)
    before = model(**batch)
    model.train()
    model.eval()
    assert largest(before, model(**batch)) == 0
    assert set(model.encoder.state_dict()) == plain
    assert not any("gate" in name or "table" in name for name in model.state_dict())
    assert dict(model.encoder.named_buffers()).keys() == dict(make_model("bert").encoder.named_buffers()).keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_off_and_removal_restore_dense_exactly(name):
    model = make_model(name)
    batch = make_batch(model, MIXED)
    dense = model(**batch)
    model.set_tickets(some_tickets(model))
    assert largest(model(**batch), dense) > 1e-3
    with model.gates.off():
        assert largest(model(**batch), dense) == 0
    model.gates.remove()
    assert largest(model(**batch), dense) == 0
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []


def test_a_deep_copy_gates_itself_alone():
    model = make_model("bert")
    batch = make_batch(model, MIXED)
    dense = model(**batch)
    model.set_tickets(some_tickets(model))
    masked = model(**batch)
    twin = copy.deepcopy(model)
    assert largest(twin(**batch), masked) == 0
    twin.set_tickets({})
    assert largest(twin(**batch), dense) == 0
    assert largest(model(**batch), masked) == 0
    with model.gates.on(1):
        assert largest(twin(**batch), dense) == 0
    twin.gates.remove()
    assert largest(model(**batch), masked) == 0


def test_an_error_inside_leaves_no_gate_behind_and_contexts_nest():
    model = make_model("bert")
    batch = make_batch(model, ONE_TASK)
    dense = model(**batch)
    with pytest.raises(KeyError), model.gates.leaves(heads=torch.zeros(1, LAYERS, HEADS)):  # noqa: PT012
        zero = model(**batch)
        with model.gates.off():
            assert largest(model(**batch), dense) == 0
        assert largest(model(**batch), zero) == 0
        raise KeyError
    assert not model.gates.active
    assert largest(model(**batch), dense) == 0


def multiplications(model, batch) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(**batch)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::mul")


def test_only_layers_that_drop_something_are_multiplied():
    model = make_model("bert", attention="sdpa")
    batch = make_batch(model, [(0, 0, 3), (1, 3, 6)])
    dense = multiplications(model, batch)
    model.set_tickets({task: make_ticket(model) for task in ("mnli", "stsb", "rte")})
    assert multiplications(model, batch) == dense
    model.set_tickets({"rte": make_ticket(model, [(0, 0)], [1])})
    assert multiplications(model, batch) == dense  # rte has no row in this batch
    model.set_tickets({"stsb": make_ticket(model, [(0, 0), (0, 1), (2, 2)], [1])})
    assert multiplications(model, batch) == dense + 3  # heads of layers 0 and 2, block of layer 1


def test_gating_keeps_the_type_of_low_precision_activations():
    model = make_model("bert").to(torch.bfloat16)
    model.set_tickets(some_tickets(model, neurons=True))
    seen = []
    for module in (model.anatomy.find(layer, "attention_output") for layer in layers_of(model.encoder)):
        module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    model(**make_batch(model, MIXED))
    single = make_model("bert")
    single.set_tickets(some_tickets(single))
    with torch.autocast("cpu", torch.bfloat16):
        for module in (single.anatomy.find(layer, "attention_output") for layer in layers_of(single.encoder)):
            module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
        logits = single(**make_batch(single, MIXED))
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    assert {value.dtype for value in logits} == {torch.float32}


def test_tickets_used_first_in_inference_mode_still_train():
    model = make_model("bert").to(torch.bfloat16)
    model.set_tickets(some_tickets(model))
    batch = make_batch(model, ONE_TASK)
    with torch.inference_mode():
        model(**batch)
    sum(logits.sum() for logits in model(**batch)).backward()
    assert model.encoder.embeddings.word_embeddings.weight.grad.count_nonzero() > 0


def test_gradient_checkpointing_is_refused_rather_than_wrong():
    model = make_model("bert").train()
    enable = getattr(model.encoder, "activation_checkpointing_enable", None)
    (enable or model.encoder.gradient_checkpointing_enable)()
    batch = make_batch(model, MIXED)
    model(**batch)  # dense: fine
    model.set_tickets(some_tickets(model))
    with pytest.raises(MtlTicketsError, match="do not go together"):
        model(**batch)
    model.eval()
    model(**batch)


def test_a_compiled_encoder_is_gated_too():
    model = make_model("bert")
    model.set_tickets(some_tickets(model))
    batch = make_batch(model, MIXED)
    expected = model(**batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with model.gates.on(MIXED):
        hidden = model.encoder(**inputs).last_hidden_state
    compiled = torch.compile(model.encoder, backend="eager")
    for gated, reference in ((True, hidden), (False, model.encoder(**inputs).last_hidden_state), (True, hidden)):
        with model.gates.on(MIXED) if gated else model.gates.off():
            assert largest(compiled(**inputs).last_hidden_state, reference) <= 1e-6
    assert largest(model(**batch), expected) == 0


def test_tickets_of_another_encoder_are_refused_with_every_difference():
    model = make_model("bert")
    wider = StructuredSpace.of(layers=LAYERS, heads=HEADS, hidden=64, intermediate=NEURONS, total=10**6)
    with pytest.raises(TicketError, match="must have heads and blocks of"):
        model.set_tickets({"mnli": Ticket.dense(wider)})
    deeper = StructuredSpace.of(layers=4, heads=HEADS, hidden=WIDTH, intermediate=NEURONS, total=10**6)
    with pytest.raises(TicketError) as caught:
        model.set_tickets({"mnli": Ticket.dense(deeper)})
    assert [problem.place for problem in caught.value.problems] == ["heads", "ffn"]
    weights = WeightSpace({"encoder.layer.0.output.dense.weight": (32, 40)})
    with pytest.raises(TicketError, match="parametrisation"):
        model.set_tickets({"mnli": Ticket.dense(weights)})


def test_wrong_shapes_of_tables_and_leaves_are_refused():
    model = make_model("bert")
    with pytest.raises(MtlTicketsError, match=r"must have the shape \(3, 3, 4\); found \(2, 3, 4\)"):
        model.gates.set_table({"heads": torch.ones(2, 3, 4)})
    for wrong in (torch.ones(3, 4), torch.ones(2, 4, 3), torch.ones(1, 1, 1, 3, 4)):
        with pytest.raises(MtlTicketsError, match="'heads' must be"), model.gates.leaves(heads=wrong):
            pass
    with pytest.raises(MtlTicketsError, match="'blocks' must be"), model.gates.leaves(blocks=torch.ones(1, 3)):
        pass
