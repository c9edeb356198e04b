import pytest
import torch
from tiny_models import CONFIGS, KINDS, LAYERS, WIDTH, largest, make_batch, make_model, make_ticket, some_tickets
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from mtl_tickets.errors import InputError
from mtl_tickets.model import fork as fork_module
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.compact import compact
from mtl_tickets.model.fork import Fork
from mtl_tickets.model.pooling import APART

ROWS = 5


@pytest.fixture(autouse=True, params=[0, float("inf")], ids=["copies", "masks"])
def way(request, monkeypatch):
    """Units that a group drops are left out of copies of the weights, or masked."""
    monkeypatch.setattr(fork_module, "TOKENS_A_COPY", request.param)
    return request.param


def text_of(model, rows=ROWS):
    batch = make_batch(model, [(0, 0, rows)], padding=2)
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def one_by_one(model, text):
    rows = len(text["input_ids"])
    return {info.name: model(**text, segments=[(i, 0, rows)])[0] for i, info in enumerate(model.tasks)}


def same(one, other):
    assert list(one) == list(other)
    return largest(list(one.values()), list(other.values())) <= 1e-5


@pytest.mark.parametrize(("name", "attention"), KINDS)
@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("pooling", APART)
def test_all_tasks_at_once_answer_as_they_do_one_by_one(name, attention, rows, pooling):
    model = make_model(name, attention, pooling=pooling)
    text = text_of(model, rows)
    for tickets in ({}, some_tickets(model), some_tickets(model, neurons=True)):
        model.set_tickets(tickets)
        assert same(model.forward_all(**text), one_by_one(model, text))


@pytest.mark.parametrize("name", CONFIGS)
def test_with_the_pooler_and_after_removal(name):
    model = make_model(name)
    model.set_tickets(some_tickets(model, neurons=True))
    text = text_of(model)
    expected = one_by_one(model, text)
    assert same(model.forward_all(**text), expected)
    assert same(compact(model).forward_all(**text), expected)


def rows_computed(model, run):
    """Rows that each layer is given while ``run`` runs, in one call or several."""
    seen, handles = [0] * LAYERS, []
    for number, layer in enumerate(layers_of(model.encoder)):

        def count(module, args, output, number=number):
            seen[number] += len(_tensor(output))

        handles.append(layer.register_forward_hook(count))
    run()
    for handle in handles:
        handle.remove()
    return seen


def _tensor(output):
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_computed_once_for_tasks_that_agree_so_far(name):
    model = make_model(name)
    text = text_of(model)
    lower = [(0, 1), (1, 2)]  # common to all
    cases = [
        ({"mnli": [], "stsb": [], "rte": []}, [1, 1, 1]),
        ({"mnli": [(2, 0)], "stsb": [(2, 1)], "rte": [(2, 1)]}, [1, 1, 2]),
        ({"mnli": [(1, 0)], "stsb": [(2, 1)], "rte": [(2, 2)]}, [1, 2, 3]),
        ({"mnli": [(0, 0)], "stsb": [(0, 2)], "rte": [(0, 3)]}, [3, 3, 3]),
    ]
    for heads, sizes in cases:
        model.set_tickets({task: make_ticket(model, [*lower, *more]) for task, more in heads.items()})
        fork = Fork.of(model.gates, [0, 1, 2])
        assert list(fork.sizes) == sizes
        assert rows_computed(model, lambda: model.forward_all(**text)) == [size * ROWS for size in sizes]
        assert same(model.forward_all(**text), one_by_one(model, text))


def test_what_is_inside_a_dropped_block_parts_nobody():
    model = make_model()
    tickets = {
        task: make_ticket(model, ffn=[1], neurons=[(1, neuron)]) for neuron, task in enumerate(("mnli", "stsb", "rte"))
    }
    model.set_tickets(tickets)
    assert Fork.of(model.gates, [0, 1, 2]).sizes == (1, 1, 1)


def test_the_tasks_asked_for_in_their_order():
    model = make_model()
    model.set_tickets(some_tickets(model))
    text = text_of(model)
    expected = one_by_one(model, text)
    for tasks in (["rte"], ["stsb", "mnli"], ["rte", "stsb", "mnli"]):
        assert same(model.forward_all(**text, tasks=tasks), {task: expected[task] for task in tasks})
    with pytest.raises(InputError, match="did you mean 'rte'"):
        model.forward_all(**text, tasks=["rtee"])


def test_nothing_stays_behind():
    model = make_model()
    model.set_tickets(some_tickets(model))
    text = text_of(model)
    before = one_by_one(model, text)
    layers = layers_of(model.encoder)
    model.forward_all(**text)
    with pytest.raises(IndexError):  # an id that the vocabulary does not have
        model.forward_all(**{**text, "input_ids": text["input_ids"] + 1000})
    assert layers_of(model.encoder) == layers
    assert not model.gates.active
    assert largest(list(one_by_one(model, text).values()), list(before.values())) == 0


def test_gradients_are_those_of_the_tasks_added_up():
    model = make_model()
    model.set_tickets(some_tickets(model))
    text = text_of(model)

    def gradients(outputs):
        model.zero_grad(set_to_none=True)
        sum(logits.square().sum() for logits in outputs.values()).backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]

    assert largest(gradients(model.forward_all(**text)), gradients(one_by_one(model, text))) <= 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_dropped_units_are_not_computed(name, way):
    """Multiply-adds of a pass for one task with its ticket, against those of the same model after removal."""

    def work(of, tasks):
        with FlopCounterMode(display=False) as counter:
            of.forward_all(**text, tasks=tasks)
        return counter.get_total_flops()

    model = make_model(name)
    text = text_of(model)
    dense = work(model, ["mnli"])
    ticket = make_ticket(model, [(0, 1), (1, 0), (1, 2)], ffn=[2], neurons=[(0, neuron) for neuron in range(8)])
    model.set_tickets({"mnli": ticket})
    small = compact(model, tasks=["mnli"])
    removed = work(small, ["mnli"])
    assert removed < 0.95 * dense
    # a dropped block keeps its least width, of zero neurons
    least = 2 * 2 * text["input_ids"].numel() * WIDTH * 8
    assert work(model, ["mnli"]) == (removed + least if way == 0 else dense)


def test_gates_that_are_neither_0_nor_1_multiply():
    model = make_model()
    text = text_of(model)
    halves = {part: values * 0.5 for part, values in model.gates.table_of([None] * 3).items()}
    model.gates.set_table(halves)
    assert same(model.forward_all(**text), one_by_one(model, text))
    assert not same(model.forward_all(**text), one_by_one(make_model(), text))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_layer_that_loses_everything_adds_its_biases_alone(name):
    model = make_model(name)
    text = text_of(model)
    table = {"heads": torch.ones(3, *model.space.parts["heads"]), "ffn": torch.ones(3, *model.space.parts["ffn"])}
    table["heads"][0, 1] = 0
    table["ffn"][:, 1] = 0
    model.gates.set_table(table)
    assert same(model.forward_all(**text), one_by_one(model, text))


def test_weights_that_are_no_plain_parameters_are_masked():
    model = make_model()
    layer = layers_of(model.encoder)[1]
    prune.l1_unstructured(layer.attention.output.dense, "weight", amount=0.3)
    prune.l1_unstructured(layer.output.dense, "weight", amount=0.3)
    model.set_tickets(some_tickets(model, neurons=True))
    text = text_of(model)
    assert same(model.forward_all(**text), one_by_one(model, text))


def test_gates_put_on_outside_hold_for_every_task():
    model = make_model()
    model.set_tickets(some_tickets(model))
    text = text_of(model)
    with model.gates.off():
        dense = one_by_one(model, text)
        assert same(model.forward_all(**text), dense)
    assert not same(model.forward_all(**text), dense)


def test_nothing_to_answer_is_refused():
    model = make_model()
    text = text_of(model)
    with pytest.raises(InputError, match="0 tasks, 5 rows"):
        model.forward_all(**text, tasks=[])
    with pytest.raises(InputError, match="3 tasks, 0 rows"):
        model.forward_all(**{name: value[:0] for name, value in text.items()})
