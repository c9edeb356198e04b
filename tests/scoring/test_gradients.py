import dataclasses
import itertools

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mtl_tickets.errors import InputError
from mtl_tickets.model.anatomy import anatomy_of, layers_of, space_of
from mtl_tickets.model.compact import compact
from mtl_tickets.scoring.engine import sample_rows
from mtl_tickets.scoring.gradients import gradient_products
from mtl_tickets.tickets.gradients import gradient_agreement, half_agreement, opposed, unit_cosines
from mtl_tickets.tickets.ticket import Ticket
from tests import tiny
from tests.scoring.silenced import silence, two_heads_and_a_block_less

CLASSES = {"a": 2, "b": 3, "c": 1}


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def tasks():
    return {name: tiny.random_task(21 + i, n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}


@pytest.fixture(scope="module")
def model():
    return tiny.model(CLASSES)


@pytest.fixture(scope="module")
def space(model):
    return space_of(model.config, neurons=True)


def products_of(model, space, tasks, accelerator, **settings):
    return gradient_products(model, space, tasks, accelerator, **{"pad_id": 0, "rows": None, "seed": 3} | settings)


def answer(model, task, encoded, row):
    """The logits [1, outputs] of one row alone."""
    ids = torch.from_numpy(encoded.input_ids(row).astype(np.int64))[None]
    return model(ids, torch.ones_like(ids), torch.zeros_like(ids), segments=[(model.task_index(task), 0, 1)])[0]


def explicit(model, space, task, encoded):
    """part -> index -> the gradient of the unit's weights, of the mean loss over rows that are read one by one."""
    model.eval()
    model.zero_grad()
    for row in range(len(encoded)):
        logits = answer(model, task, encoded, row)
        label = torch.tensor([encoded.labels[row]])
        if CLASSES.get(task) == 1:
            loss = (logits[0, 0] - label[0]) ** 2
        else:
            loss = torch.nn.functional.cross_entropy(logits, label)
        (loss / len(encoded)).backward()
    width, found = model.config.hidden_size // space.heads, {part: {} for part in space.parts}
    anatomy = anatomy_of(model.encoder)
    for number, layer in enumerate(layers_of(model.encoder)):
        gradient = {name: part.weight.grad.double() for name, part in anatomy.parts(layer).items()}
        for head in range(space.heads):
            own = slice(head * width, (head + 1) * width)
            pieces = [gradient[name][own] for name in ("query", "key", "value")]
            pieces.append(gradient["attention_output"][:, own])
            found["heads"][number, head] = torch.cat([piece.flatten() for piece in pieces]).numpy()
        for neuron in range(space.neurons):
            pieces = [gradient["ffn_in"][neuron], gradient["ffn_out"][:, neuron]]
            found["neurons"][number, neuron] = torch.cat(pieces).numpy()
        pieces = [gradient["ffn_in"].flatten(), gradient["ffn_out"].flatten()]
        found["ffn"][(number,)] = torch.cat(pieces).numpy()
    model.zero_grad()
    return found


def cosine(one, two):
    return one @ two / np.linalg.norm(one) / np.linalg.norm(two)


@pytest.fixture(scope="module")
def halves(model, space, tasks):
    """task -> its two halves, explicitly."""
    return {
        task: [explicit(model, space, task, encoded.select(np.arange(half, len(encoded), 2))) for half in (0, 1)]
        for task, encoded in tasks.items()
    }


def test_products_are_those_of_the_gradients_of_each_unit_s_weights(model, space, tasks, halves, accelerator):
    products = products_of(model, space, tasks, accelerator)
    assert products.about.rows == {"a": 21, "b": 22, "c": 23}
    for part, shape in space.parts.items():
        for index in np.ndindex(*shape):
            vectors = np.array([[halves[task][half][part][index] for half in (0, 1)] for task in products.tasks])
            expected = np.einsum("tin,ujn->tiuj", vectors, vectors)
            np.testing.assert_allclose(products.values[part][index], expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_cosines_are_those_of_the_gradients_laid_end_to_end(model, space, tasks, halves, accelerator):
    products = products_of(model, space, tasks, accelerator)
    whole = {
        task: {part: {i: (two[0][part][i] + two[1][part][i]) / 2 for i in two[0][part]} for part in space.parts}
        for task, two in halves.items()
    }

    def laid(of_task, *parts, layer=None):
        return np.concatenate([v for part in parts for i, v in of_task[part].items() if layer in (None, i[0])])

    agreement, own = gradient_agreement(products), half_agreement(products)
    for one, two in itertools.product(CLASSES, repeat=2):
        found = agreement[one][two]
        assert found["cosine"] == pytest.approx(
            cosine(laid(whole[one], "heads", "ffn"), laid(whole[two], "heads", "ffn")), abs=1e-5
        )
        for part in space.parts:
            of_part = cosine(laid(whole[one], part), laid(whole[two], part))
            assert found["parts"][part]["cosine"] == pytest.approx(of_part, abs=1e-5)
            for layer, value in enumerate(found["parts"][part]["layers"]):
                of_layer = cosine(laid(whole[one], part, layer=layer), laid(whole[two], part, layer=layer))
                assert value == pytest.approx(of_layer, abs=1e-5)
            units = unit_cosines(products, one, two)[part]
            for index in whole[one][part]:
                assert units[index] == pytest.approx(cosine(whole[one][part][index], whole[two][part][index]), abs=1e-4)
    for task, (even, odd) in halves.items():
        expected = cosine(laid(even, "heads", "ffn"), laid(odd, "heads", "ffn"))
        assert own[task]["cosine"] == pytest.approx(expected, abs=1e-5)


def same(one, other):
    assert one.tasks == other.tasks
    for part, values in one.values.items():
        np.testing.assert_allclose(other.values[part], values, rtol=1e-4, atol=1e-6 * np.abs(values).max())


def test_the_order_of_tasks_changes_nothing(model, space, tasks, accelerator):
    turned = dict(reversed(tasks.items()))
    one, other = (products_of(model, space, given, accelerator) for given in (tasks, turned))
    assert one.tasks == other.tasks == ("a", "b", "c")
    assert all(np.array_equal(one.values[part], other.values[part]) for part in space.parts)


def test_memory_and_batches_change_nothing(model, space, tasks, accelerator):
    whole = products_of(model, space, tasks, accelerator)
    same(whole, products_of(model, space, tasks, accelerator, memory=1))
    same(whole, products_of(model, space, tasks, accelerator, forward_rows=3))


def test_tickets_are_left_out_of_it_and_left_on(tasks, space, accelerator):
    model = tiny.model(CLASSES)
    bare = products_of(model, space, tasks, accelerator)
    kept = {"heads": np.eye(2, 4, dtype=bool), "ffn": np.array([True, False])}
    tickets = {"a": Ticket(model.space, kept), "c": Ticket(model.space, kept)}
    model.set_tickets(tickets)
    same(bare, products_of(model, space, tasks, accelerator))
    assert model.tickets == tickets and model.gates.masks([0, 1, 2])


def test_through_tickets_dropped_units_have_no_gradient_and_others_that_of_the_smaller_encoder(
    tasks, space, accelerator
):
    masked, silenced = tiny.model(CLASSES), tiny.model(CLASSES)
    ticket = two_heads_and_a_block_less(masked.space)
    masked.set_tickets(dict.fromkeys(CLASSES, ticket))
    silence(silenced, ticket)
    found = products_of(masked, space, tasks, accelerator, through_tickets=True)
    expected = products_of(silenced, space, tasks, accelerator)
    for part, kept in {"heads": ticket.units["heads"], "ffn": ticket.units["ffn"]}.items():
        assert (found.values[part][~kept] == 0).all()
        np.testing.assert_allclose(found.values[part][kept], expected.values[part][kept], rtol=1e-4, atol=1e-9)
    assert not np.allclose(products_of(masked, space, tasks, accelerator).values["ffn"], found.values["ffn"])


def test_the_model_is_left_as_it_was(model, space, tasks, accelerator):
    model.train()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    asked = [parameter.requires_grad for parameter in model.parameters()]
    products_of(model, space, tasks, accelerator, memory=1)
    assert model.training and [parameter.requires_grad for parameter in model.parameters()] == asked
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    frozen.requires_grad_(True)


def test_at_most_so_many_rows_are_drawn_by_the_seed(model, space, tasks, accelerator):
    few = products_of(model, space, tasks, accelerator, rows=6, seed=5)
    assert few.about.rows == {"a": 6, "b": 6, "c": 6} and few.about.seed == 5
    drawn = {task: sample_rows(encoded, 6, 5) for task, encoded in tasks.items()}
    same(few, products_of(model, space, drawn, accelerator))
    other = products_of(model, space, tasks, accelerator, rows=6, seed=6)
    assert not np.allclose(few.values["ffn"], other.values["ffn"])


# ---------------------------------------------------------------------------------------------------------- two tasks


def twins(classes, scale=1.0):
    """A model of two tasks whose heads have the same weights."""
    model = tiny.model({"a": classes, "b": classes}, dropout=0.0)
    with torch.no_grad():
        for name in ("weight", "bias"):
            of_a, of_b = (getattr(model.heads[task].linear, name) for task in "ab")
            of_a.mul_(scale)
            of_b.copy_(of_a)
    return model


def relabelled(task, labels):
    return dataclasses.replace(task, labels=labels)


def test_a_task_and_its_copy_point_the_same_way(accelerator):
    model, task = twins(2), tiny.random_task(40)
    products = products_of(model, model.space, {"a": task, "b": task}, accelerator, rows=10)
    assert gradient_agreement(products)["a"]["b"]["cosine"] == pytest.approx(1)
    assert not opposed(products, "a", "b")


def test_labels_mirrored_at_what_the_model_says_pull_exactly_the_other_way(accelerator):
    model, task = twins(1), tiny.random_task(20, classes=1)
    with torch.no_grad():
        said = np.array([float(answer(model, "a", task, row)) for row in range(len(task))], np.float32)
    # all labels of a task on one side of the answers, so that its rows agree among themselves
    given = {"a": relabelled(task, said + 1), "b": relabelled(task, said - 1)}
    products = products_of(model, model.space, given, accelerator)
    agreement = gradient_agreement(products)["a"]["b"]
    assert agreement["cosine"] == pytest.approx(-1, abs=1e-5)
    assert all(np.allclose(layers["layers"], -1, atol=1e-4) for layers in agreement["parts"].values())
    assert opposed(products, "a", "b")


def test_flipped_labels_pull_apart_where_nothing_is_known_yet(accelerator):
    # with a head of next to no weight both classes have probability 1/2
    model, task = twins(2, scale=1e-3), tiny.random_task(20)
    given = {"a": task, "b": relabelled(task, 1 - task.labels)}
    products = products_of(model, model.space, given, accelerator)
    assert gradient_agreement(products)["a"]["b"]["cosine"] < -0.99


# ------------------------------------------------------------------------------------------------------------ refusals


def test_tasks_without_two_rows_are_named(model, space, tasks, accelerator):
    given = {**tasks, "a": tasks["a"].select(np.arange(1)), "b": relabelled(tasks["b"], None)}
    with pytest.raises(InputError) as caught:
        products_of(model, space, given, accelerator)
    assert [problem.place for problem in caught.value.problems] == ["a", "b"]
    with pytest.raises(InputError, match="2 labelled rows"):
        products_of(model, space, tasks, accelerator, rows=1)


def test_a_model_without_some_of_its_units_is_refused(model, space, tasks, accelerator):
    ticket = Ticket(model.space, {"heads": np.eye(2, 4, dtype=bool), "ffn": np.ones(2, bool)})
    smaller = compact(model, ticket)
    with pytest.raises(InputError, match="has them all"):
        products_of(smaller, space, tasks, accelerator)


def test_tasks_of_the_model_alone(model, space, tasks, accelerator):
    with pytest.raises(InputError, match="no such task"):
        products_of(model, space, {"d": tasks["a"]}, accelerator)
