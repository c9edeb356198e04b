import itertools
import json
import pickle

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets import storage
from mtl_tickets.tickets.gradients import (
    FORMAT,
    GradientProducts,
    balance,
    gradient_agreement,
    half_agreement,
    opposed,
    opposed_units,
    unit_cosines,
)
from tests.tickets.worlds import BASE, NEURONS, SMALL, WEIGHTS, against, halves_of, products_of, scores_of

SPACES = {"small": SMALL, "neurons": NEURONS}


def world(space, noise=0.5):
    return {task: halves_of(space, seed, noise=noise) for seed, task in enumerate("abc")}


def mean_of(halves):
    return {part: (halves[0][part] + halves[1][part]) / 2 for part in halves[0]}


def cosine(one, two):
    x, y = one.ravel(), two.ravel()
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def laid(vectors):
    return np.concatenate([vectors[part].ravel() for part in ("heads", "ffn")])


# ------------------------------------------------------------------------------------------------------------ cosines


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_cosines_are_those_of_the_vectors(space):
    halves = world(space)
    products = products_of(space, halves)
    agreement, own = gradient_agreement(products), half_agreement(products)
    means = {task: mean_of(two) for task, two in halves.items()}
    for one, two in itertools.product("abc", repeat=2):
        found = agreement[one][two]
        assert found["cosine"] == pytest.approx(cosine(laid(means[one]), laid(means[two])))
        for part in space.parts:
            x, y = means[one][part], means[two][part]
            assert found["parts"][part]["cosine"] == pytest.approx(cosine(x, y))
            assert found["parts"][part]["layers"] == pytest.approx([cosine(*rows) for rows in zip(x, y, strict=True)])
            units = unit_cosines(products, one, two)[part]
            assert units.shape == space.parts[part]
            for index in np.ndindex(*units.shape):
                assert units[index] == pytest.approx(cosine(x[index], y[index]))
    for task, (even, odd) in halves.items():
        assert own[task]["cosine"] == pytest.approx(cosine(laid(even), laid(odd)))
        assert own[task]["parts"]["heads"]["layers"][1] == pytest.approx(cosine(even["heads"][1], odd["heads"][1]))
    assert json.loads(json.dumps([agreement, own])) == [agreement, own]


def test_neurons_are_their_block_s_weights_and_count_once():
    halves = world(NEURONS)
    louder = {t: [{**half, "neurons": 100 * half["neurons"]} for half in two] for t, two in halves.items()}
    one, other = (gradient_agreement(products_of(NEURONS, given))["a"]["b"]["cosine"] for given in (halves, louder))
    assert one == pytest.approx(other)


def test_only_the_direction_counts_and_zeros_have_none():
    mine = halves_of(SMALL, 1, noise=0)
    louder = [{part: 1e6 * values for part, values in half.items()} for half in mine]
    nothing = [{part: 0 * values for part, values in half.items()} for half in mine]
    products = products_of(SMALL, {"a": mine, "b": louder, "c": against(mine), "d": nothing})
    found = gradient_agreement(products)
    expected = {"a": 1, "b": 1, "c": -1, "d": 0}
    assert {task: found["a"][task]["cosine"] for task in expected} == pytest.approx(expected)
    assert found["d"]["d"]["cosine"] == half_agreement(products)["d"]["cosine"] == 0
    assert (unit_cosines(products, "a", "d")["heads"] == 0).all()
    assert not opposed(products, "a", "d")


# ------------------------------------------------------------------------------------------------------------- opposed


def test_what_opposes_in_every_half_opposes_and_what_agrees_does_not():
    mine = halves_of(SMALL, 1)
    products = products_of(SMALL, {"a": mine, "b": against(mine), "c": mine})
    assert opposed(products, "a", "b") and opposed(products, "b", "a")
    assert not opposed(products, "a", "c")
    assert all(values.all() for values in opposed_units(products, "a", "b").values())
    assert not any(values.any() for values in opposed_units(products, "a", "c").values())


def along(*numbers):
    """The same few numbers for every unit."""
    return {
        part: np.broadcast_to(np.array(numbers, float), (*shape, len(numbers))) for part, shape in BASE.parts.items()
    }


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        ([(1, 0), (1, 0)], [(-1, 0), (-1, 0.1)], None),
        ([(1, 0), (1, 0)], [(-3, 0.1), (1, 0)], "the other's halves disagree"),
        ([(1, 0, 0), (1, 0, 1)], [(-1, 1, 0), (0.1, 2, 0)], "one half does not oppose"),
        ([(1, 0), (1, 0)], [(1, 0), (1, 1)], "the cosine is positive"),
    ],
)
def test_a_negative_cosine_is_not_enough(one, two, why):
    products = products_of(BASE, {"a": [along(*half) for half in one], "b": [along(*half) for half in two]})
    cosine, own = gradient_agreement(products)["a"]["b"]["cosine"], half_agreement(products)
    assert (cosine < 0) == (why != "the cosine is positive")
    assert (own["b"]["cosine"] > 0) == (why != "the other's halves disagree") and own["a"]["cosine"] > 0
    assert opposed(products, "a", "b") == opposed(products, "b", "a") == (why is None)
    assert opposed_units(products, "a", "b")["heads"].all() == (why is None)
    assert not opposed(products, "a", "b", below=-1)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_gradients_that_add_up_to_zero_balance(tasks):
    names = "abcde"[:tasks]
    vectors = {task: along(*(np.eye(tasks)[i] - 1 / tasks)) for i, task in enumerate(names)}
    found = gradient_agreement(products_of(BASE, {task: [vector, vector] for task, vector in vectors.items()}))
    pairs = list(itertools.combinations(names, 2))
    assert np.mean([found[one][two]["cosine"] for one, two in pairs]) == pytest.approx(balance(tasks))
    assert balance(1) == 0


# ------------------------------------------------------------------------------------------------------------ the value


def test_it_is_a_value():
    values = {part: array.copy() for part, array in products_of(SMALL, world(SMALL)).values.items()}
    products = GradientProducts(SMALL, ("a", "b", "c"), values)
    before = products.values["heads"].copy()
    values["heads"][:] = 0
    assert np.array_equal(products.values["heads"], before)
    with pytest.raises(ValueError, match="read-only"):
        products.values["heads"][0] = 1
    again = pickle.loads(pickle.dumps(products))
    assert again.tasks == products.tasks and np.array_equal(again.values["ffn"], products.values["ffn"])


def test_a_task_that_is_not_there_is_named_with_the_nearest():
    products = products_of(SMALL, {"mrpc": halves_of(SMALL, 1), "rte": halves_of(SMALL, 2)})
    with pytest.raises(TicketError, match=r"mprc: needs the gradients of every task; did you mean 'mrpc'"):
        unit_cosines(products, "mprc", "rte")


def changed(values, part, change):
    copy = {name: array.copy() for name, array in values.items()}
    change(copy[part])
    return copy


def unsymmetric(array):
    array[0, ..., 0, 0, 1, 1] *= 2


def negative(array):
    array[1, ..., 2, 1, 2, 1] = -1e-9


def too_large(array):
    for one, two in (((0, 0), (1, 1)), ((1, 1), (0, 0))):
        array[(..., *one, *two)] = 1.01 * np.sqrt(array[(..., *one, *one)] * array[(..., *two, *two)])


def infinite(array):
    array[..., 0, 0, 0, 0] = np.inf


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("heads", unsymmetric, "heads: must be symmetric"),
        ("ffn", negative, "ffn: must have no negative squares"),
        ("heads", too_large, "heads: must have no product larger"),
        ("ffn", infinite, "ffn: must be finite"),
    ],
)
def test_numbers_that_are_no_products_are_refused(part, change, message):
    values = products_of(SMALL, world(SMALL)).values
    with pytest.raises(TicketError, match=message):
        GradientProducts(SMALL, ("a", "b", "c"), changed(values, part, change))


def test_all_problems_are_told_at_once():
    values = products_of(SMALL, world(SMALL)).values
    broken = changed(changed(values, "heads", unsymmetric), "ffn", negative)
    with pytest.raises(TicketError) as caught:
        GradientProducts(SMALL, ("a", "b", "c"), broken)
    assert {problem.place for problem in caught.value.problems} == {"heads", "ffn"}
    with pytest.raises(TicketError, match=r"space: [^\n]*\ntasks: "):
        GradientProducts(WEIGHTS, ("b", "a"), {})
    with pytest.raises(
        TicketError, match=r"part of the gradient products is missing[^\n]*\nhaeds[^\n]*\nffn: must have"
    ):
        GradientProducts(SMALL, ("a", "b"), {"haeds": values["heads"], "ffn": values["ffn"]})


@pytest.mark.parametrize("tasks", [(), ("b", "a"), ("a", "a"), ("a", 1), "ab", ("", "a")], ids=str)
def test_tasks_are_names_in_their_order(tasks):
    with pytest.raises(TicketError, match="tasks: must be names in their order"):
        GradientProducts(SMALL, tasks, {})


# ------------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_products_survive_their_file(space, tmp_path):
    products = products_of(space, world(space), rows={"a": 7}, seed=3)
    file = products.save(tmp_path / "products")
    loaded = GradientProducts.load(file, space=space)
    assert (loaded.space, loaded.tasks, loaded.about) == (space, products.tasks, products.about)
    assert all(np.array_equal(loaded.values[part], products.values[part]) for part in space.parts)
    twin = json.loads(file.with_suffix(".json").read_text())
    assert twin["cosine"]["a"]["b"] == gradient_agreement(products)["a"]["b"]["cosine"]
    assert twin["halves"]["c"] == half_agreement(products)["c"]["cosine"]


def test_equal_products_are_equal_files(tmp_path):
    turned = dict(reversed(world(SMALL).items()))
    files = [products_of(SMALL, given).save(tmp_path / str(i)) for i, given in enumerate([world(SMALL), turned] * 4)]
    assert len({file.read_bytes() for file in files}) == 1


def rewritten(**changes):
    """A whole file of what was never a value."""

    def write(file):
        stored = storage.read(file, FORMAT, also=["tasks"])
        arrays = {part: array.copy() for part, array in stored.arrays.items()}
        for part, change in changes.get("arrays", {}).items():
            arrays[part] = change(arrays[part])
        tasks, space = changes.get("tasks", stored.also["tasks"]), changes.get("space", stored.space)
        storage.write(file, FORMAT, space, changes.get("origin", stored.origin), arrays, {}, {"tasks": tasks})

    return write


def renamed(file):
    content = file.read_bytes()
    assert content.count(b'[\\"a\\", \\"b\\"') == 1
    file.write_bytes(content.replace(b'[\\"a\\", \\"b\\"', b'[\\"a\\", \\"q\\"'))


def made_scores(file):
    scores_of(SMALL, 1).save(file)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "must be a whole safetensors file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\x01"), "the file is damaged"),
        (renamed, "the file is damaged"),
        (made_scores, r"must have the format 'mtl_tickets.gradients'"),
        (rewritten(tasks=["b", "a", "c"]), "tasks: must be names in their order"),
        (rewritten(tasks={"a": 1}), "tasks: must be names in their order"),
        (rewritten(tasks=["a", "b"]), r"heads: must have the shape \[3, 4, 2, 2, 2, 2\]"),
        (rewritten(arrays={"ffn": lambda array: array.astype(np.float32)}), "ffn: must be float64"),
        (rewritten(arrays={"ffn": lambda array: -array}), "ffn: must have no negative squares"),
        (rewritten(origin={"rows": {"a": "many"}}), "origin.rows.a: "),
        (rewritten(origin={"row": 3}), "origin.row: "),
        (lambda file: file.unlink(), "this file must exist"),
    ],
)
def test_every_broken_file_is_refused_and_named(breaks, message, tmp_path):
    file = products_of(SMALL, world(SMALL)).save(tmp_path / "products")
    breaks(file)
    with pytest.raises(TicketError, match=message) as caught:
        GradientProducts.load(file)
    assert all(problem.file == str(file) for problem in caught.value.problems)


def test_products_of_another_space_or_encoder_are_refused(tmp_path):
    file = products_of(SMALL, world(SMALL), weight_hash="abc").save(tmp_path / "products")
    with pytest.raises(TicketError, match="must have the same unit space"):
        GradientProducts.load(file, space=NEURONS)
    with pytest.raises(TicketError, match="encoder weights with hash"):
        GradientProducts.load(file, weight_hash="def")
    assert GradientProducts.load(file, space=SMALL, weight_hash="abc").tasks == ("a", "b", "c")
