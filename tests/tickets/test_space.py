import pickle

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.space import StructuredSpace, UnitSpace, WeightSpace
from tests.tickets.worlds import BASE, LARGE, NEURONS, SMALL, SPACES, WEIGHTS


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_space_survives_json_and_pickle(space):
    for copy in (UnitSpace.from_json(space.to_json()), pickle.loads(pickle.dumps(space))):
        assert copy == space
        assert hash(copy) == hash(space)
        assert copy.parts == space.parts


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_part_is_in_exactly_one_pool(space):
    assert sorted(part for parts in space.pools.values() for part in parts) == sorted(space.parts)
    assert space.sizes == {part: int(np.prod(shape)) for part, shape in space.parts.items()}


def test_published_costs():
    assert (BASE.head_cost, BASE.ffn_cost) == (196_608, 4_718_592)
    assert (LARGE.head_cost, LARGE.ffn_cost) == (262_144, 8_388_608)


@pytest.mark.parametrize(
    ("space", "heads", "ffn", "percent"), [(BASE, 14, 1, 93.2), (LARGE, 76, 4, 84.0), (BASE, 115, 8, 44.9)]
)
def test_published_remaining_percent(space, heads, ffn, percent):
    units = {"heads": np.ones(space.parts["heads"], bool), "ffn": np.ones(space.parts["ffn"], bool)}
    units["heads"].flat[:heads] = False
    units["ffn"].flat[:ffn] = False
    assert round(100 * space.kept_parameters(units) / space.total, 1) == percent


def test_neurons_of_a_dropped_block_are_counted_once():
    units = {part: np.ones(shape, bool) for part, shape in NEURONS.parts.items()}
    units["ffn"][1] = False
    without_block = NEURONS.kept_parameters(units)
    units["neurons"][1] = False
    assert NEURONS.kept_parameters(units) == without_block == NEURONS.total - NEURONS.ffn_cost
    units["neurons"][0, :5] = False
    assert NEURONS.kept_parameters(units) == without_block - 5 * 2 * 32


def test_dropping_all_neurons_costs_what_dropping_the_block_costs():
    units = {part: np.ones(shape, bool) for part, shape in NEURONS.parts.items()}
    units["neurons"][2] = False
    assert NEURONS.kept_parameters(units) == NEURONS.total - NEURONS.ffn_cost


def test_weights_count_themselves_and_their_order_does_not_matter():
    shuffled = WeightSpace(dict(reversed(WEIGHTS.matrices.items())))
    assert shuffled == WEIGHTS
    assert list(shuffled.parts) == list(WEIGHTS.parts) == ["layer.2.out", "layer.2.q", "layer.10.q"]
    assert WEIGHTS.total == 115
    units = {part: np.ones(shape, bool) for part, shape in WEIGHTS.parts.items()}
    units["layer.2.q"][0] = False
    assert WEIGHTS.kept_parameters(units) == 110


def test_differences_name_every_field():
    other = StructuredSpace.of(layers=3, heads=2, hidden=32, intermediate=64, total=60_001)
    assert SMALL.differences(other) == [
        "heads = 2 instead of 4",
        f"head_cost = {4 * 32 * 16} instead of {4 * 32 * 8}",
        "total = 60001 instead of 60000",
    ]
    assert SMALL.differences(SMALL) == []
    assert "kind" in SMALL.differences(WEIGHTS)[0]
    wider = WeightSpace({**WEIGHTS.matrices, "layer.2.q": (6, 6)})
    assert WEIGHTS.differences(wider) == ["matrices.layer.2.q = [6, 6] instead of [6, 5]"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"layers": 0}, "layers"), ({"heads": 2.0}, "heads"), ({"total": 10}, "total"), ({"neurons": 7}, "neurons")],
)
def test_impossible_spaces_are_refused(change, named):
    with pytest.raises(TicketError, match=named):
        UnitSpace.from_json({**SMALL.to_json(), **change})


@pytest.mark.parametrize("content", [None, 5, {}, {"kind": "structure"}, {"kind": ["structured"]}, {"kind": "weights"}])
def test_what_is_no_space_is_refused(content):
    with pytest.raises(TicketError):
        UnitSpace.from_json(content)


@pytest.mark.parametrize("matrices", [{}, {"q": ()}, {"q": (3, 0)}, {"q": "33"}, ["q"]])
def test_impossible_matrices_are_refused(matrices):
    with pytest.raises(TicketError):
        WeightSpace(matrices)
