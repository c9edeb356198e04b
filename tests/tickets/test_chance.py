import json

import numpy as np
import pytest
from scipy.stats import hypergeom

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.chance import _convolved, _hypergeometric, chance_matrix, chance_overlap
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, NEURONS, SMALL, SPACES, WEIGHTS, ticket_of

PROBABILITIES = ("p_more", "p_less", "p_two_sided")


def shuffled(ticket, generator, within):
    """A random ticket with the sizes of ``ticket`` in every pool, or in every layer of it."""
    space, units = ticket.space, {}
    for parts in space.pools.values():
        if within == "pool":
            mixed = generator.permutation(np.concatenate([ticket.units[part].ravel() for part in parts]))
            pieces = np.split(mixed, np.cumsum([space.sizes[part] for part in parts])[:-1])
            units |= {p: piece.reshape(space.parts[p]) for p, piece in zip(parts, pieces, strict=True)}
        else:
            rows = {p: ticket.units[p].reshape(space.rows(p), -1) for p in parts}
            units |= {p: generator.permuted(row, axis=1).reshape(space.parts[p]) for p, row in rows.items()}
    return Ticket(space, units)


@pytest.mark.parametrize("within", ["pool", "layer"])
@pytest.mark.parametrize("space", [SMALL, NEURONS, WEIGHTS], ids=["small", "neurons", "weights"])
def test_the_distribution_is_that_of_random_tickets(space, within):
    one, two = ticket_of(space, 1), ticket_of(space, 2, kept=0.4)
    generator, draws = np.random.default_rng(0), 800
    simulated = [shuffled(one, generator, within).jaccard(shuffled(two, generator, within)) for _ in range(draws)]
    exact = chance_overlap(one, two, within=within)
    assert abs(np.mean(simulated) - exact["expected"]) < 4 * exact["sd"] / np.sqrt(draws)
    assert np.std(simulated) == pytest.approx(exact["sd"], rel=0.12)
    for bound, beyond in (("p_more", np.greater_equal), ("p_less", np.less_equal)):
        assert np.mean(beyond(simulated, exact["jaccard"])) == pytest.approx(exact[bound], abs=4 * 0.5 / np.sqrt(draws))
    assert np.mean(np.array(simulated) > exact["high"]) < 0.025 + 4 * 0.16 / np.sqrt(draws)


@pytest.mark.parametrize("pool", ["heads", "ffn"])
def test_one_pool_is_hypergeometric(pool):
    one, two = ticket_of(BASE, 1), ticket_of(BASE, 2)
    found = chance_overlap(one, two, pool)
    mine, theirs = (ticket.units[pool] for ticket in (one, two))
    reference = hypergeom(mine.size, mine.sum(), theirs.sum())
    both = (mine & theirs).sum()
    assert found["jaccard"] == one.jaccard(two, pool)
    assert found["p_more"] == pytest.approx(reference.sf(both - 1), rel=1e-9)
    assert found["p_less"] == pytest.approx(reference.cdf(both), rel=1e-9)
    numbers = np.arange(mine.size + 1)
    similarity = numbers / (mine.sum() + theirs.sum() - numbers)
    assert found["expected"] == pytest.approx(np.sum(reference.pmf(numbers) * similarity), rel=1e-9)


@pytest.mark.parametrize(
    ("size", "mine", "theirs"), [(10**8, 10**7, 10**8 // 3), (10**8, 5, 7), (10**6, 10**6 - 1, 10)]
)
def test_numbers_of_many_units_neither_overflow_nor_lose_the_tail(size, mine, theirs):
    first, probability = _hypergeometric(size, mine, theirs)
    numbers = first + np.arange(len(probability))
    assert probability.sum() == pytest.approx(1, abs=1e-12)
    assert np.sum(probability * numbers) == pytest.approx(mine * theirs / size, rel=1e-9)
    reference = hypergeom(size, mine, theirs)
    assert np.sum(probability * (numbers - reference.mean()) ** 2) == pytest.approx(
        reference.var(), rel=1e-6, abs=1e-12
    )


def test_the_fast_convolution_is_the_convolution():
    generator = np.random.default_rng(1)
    one, two = (values / values.sum() for values in (generator.random(4097), generator.random(5000)))
    np.testing.assert_allclose(_convolved(one, two), np.convolve(one, two), atol=1e-16)


def test_matrices_of_many_weights_add_up():
    space = WeightSpace({"a": (300, 200), "b": (300, 250)})  # distributions long enough for the fast convolution
    one, two = ticket_of(space, 1), ticket_of(space, 2, kept=0.5)
    kept = [[int(ticket.units[part].sum()) for part in space.parts] for ticket in (one, two)]
    both = sum(a * b / size for a, b, size in zip(*kept, space.sizes.values(), strict=True))
    found = chance_overlap(one, two, within="layer")
    assert found["expected"] == pytest.approx(both / (sum(map(sum, kept)) - both), rel=1e-4)
    assert abs(found["z"]) < 4
    assert found["p_more"] + found["p_less"] == pytest.approx(1, abs=0.01)


def test_fixed_layers_explain_what_layers_explain():
    """Both tasks keep everything below and little above: more in common than by chance, but not within layers."""
    found: dict[str, list[float]] = {"pool": [], "layer": []}
    for seed in range(40):
        heads = np.repeat([True, False], 6)[:, None] | (np.random.default_rng(seed).random((2, 12, 12)) < 0.2)
        one, two = (Ticket(BASE, {"heads": kept, "ffn": np.ones(12, dtype=bool)}) for kept in heads)
        for within, z in found.items():
            z.append(chance_overlap(one, two, "heads", within=within)["z"])
    assert min(found["pool"]) > 5
    assert abs(np.mean(found["layer"])) < 4 / np.sqrt(40)
    assert np.std(found["layer"]) == pytest.approx(1, abs=0.4)


def test_equal_and_opposite_tickets_are_at_the_ends():
    one = ticket_of(BASE, 1, kept=0.5)
    same, apart = chance_overlap(one, one), chance_overlap(one, ~one)
    assert same["jaccard"] == 1 and same["z"] > 5 and same["p_more"] < 1e-20 and same["p_less"] == pytest.approx(1)
    assert apart["jaccard"] == 0 and apart["z"] < -5 and apart["p_less"] < 1e-20 and apart["p_more"] == pytest.approx(1)


@pytest.mark.parametrize("ticket", [Ticket.dense(SMALL), ~Ticket.dense(SMALL)])
def test_where_chance_has_no_choice_nothing_is_surprising(ticket):
    found = chance_overlap(ticket, ticket)
    assert found["sd"] == found["z"] == 0
    assert [found[name] for name in ("jaccard", "expected", "low", "high", *PROBABILITIES)] == [1] * 7


@pytest.mark.parametrize("level", [0.01, 0.025, 0.2])
def test_to_be_beyond_a_bound_is_to_have_a_small_probability(level):
    for seed in range(30):
        found = chance_overlap(ticket_of(SMALL, seed), ticket_of(SMALL, seed + 100), level=level)
        assert (found["jaccard"] > found["high"]) == (found["p_more"] <= level)
        assert (found["jaccard"] < found["low"]) == (found["p_less"] <= level)
        assert found["p_two_sided"] == min(1, 2 * min(found["p_more"], found["p_less"]))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_matrix_holds_every_pair_and_pool(space):
    tickets = {name: ticket_of(space, seed) for seed, name in enumerate("bca")}
    matrix = chance_matrix(tickets)
    assert [(one, list(row)) for one, row in matrix.items()] == [
        ("b", ["c", "a"]),
        ("c", ["b", "a"]),
        ("a", ["b", "c"]),
    ]
    assert list(matrix["a"]["b"]) == ["all", *space.pools]
    assert matrix["a"]["b"] == matrix["b"]["a"]
    assert (
        matrix["a"]["b"]["all"]
        == chance_overlap(tickets["a"], tickets["b"])
        == chance_overlap(tickets["b"], tickets["a"])
    )
    assert json.loads(json.dumps(matrix)) == matrix


def test_weights_are_compared_as_they_are_ranked():
    """One pool of several matrices is one set; within layers every matrix is."""
    space = WeightSpace({"a": (4,), "b": (4,)})
    one = Ticket(space, {"a": np.ones(4, dtype=bool), "b": np.zeros(4, dtype=bool)})
    assert chance_overlap(one, one)["p_more"] == pytest.approx(1 / 70)
    assert chance_overlap(one, one, within="layer")["p_more"] == 1


def test_what_cannot_be_compared_is_refused():
    one = ticket_of(SMALL, 1)
    with pytest.raises(TicketError, match="did you mean 'heads'"):
        chance_overlap(one, one, "head")
    with pytest.raises(TicketError, match="same unit space"):
        chance_overlap(one, ticket_of(BASE, 1))
    with pytest.raises(TicketError, match="level: must be a probability"):
        chance_overlap(one, one, level=0)
