import pytest
import torch
from tiny_models import CONFIGS, KINDS, LAYERS, largest, make_batch, make_model, make_ticket, some_tickets

from mtl_tickets.errors import InputError
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.compact import compact
from mtl_tickets.model.fork import Fork
from mtl_tickets.model.pooling import APART

ROWS = 5


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
    """Rows that each layer is given while ``run`` runs."""
    seen, handles = [], []
    for layer in layers_of(model.encoder):
        # behind the fork's own hooks, which are put on inside the pass
        handles.append(layer.register_forward_hook(lambda module, args, output: seen.append(len(_tensor(output)))))
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
        assert fork.work == pytest.approx(sum(sizes) / (3 * LAYERS))
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
    hooks = [len(layer._forward_pre_hooks) for layer in layers_of(model.encoder)]
    model.forward_all(**text)
    with pytest.raises(IndexError):  # an id that the vocabulary does not have
        model.forward_all(**{**text, "input_ids": text["input_ids"] + 1000})
    assert [len(layer._forward_pre_hooks) for layer in layers_of(model.encoder)] == hooks
    assert not model.gates.active
    assert largest(list(one_by_one(model, text).values()), list(before.values())) == 0


def test_gradients_are_those_of_the_tasks_added_up():
    model = make_model()
    model.set_tickets(some_tickets(model))
    text = text_of(model)

    def gradients(outputs):
        model.zero_grad(set_to_none=True)
        sum(logits.square().sum() for logits in outputs.values()).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    assert largest(gradients(model.forward_all(**text)), gradients(one_by_one(model, text))) <= 1e-3
