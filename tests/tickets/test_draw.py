import itertools

import numpy as np
import pytest

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.draw import Budget, LadderSettings, best_heads, draw, ladder, reference_random_ticket
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, LARGE, NEURONS, SMALL, SPACES, WEIGHTS, base_of, distorted, scores_of

ALLOCATIONS = ("layer_normalised", "global", "per_matrix")
CONTROLS = {"winning": lambda s: s, "random": lambda s: Scores.random(s.space, 3), "losing": lambda s: s.reversed()}


def every_fraction(space):
    pools = {pool: sum(space.sizes[part] for part in parts) for pool, parts in space.pools.items()}
    rows = space.parts.get("heads", (0,))[0]
    for tenth in range(11):
        yield {pool: min(size * tenth // 10, size - (rows if pool == "heads" else 0)) for pool, size in pools.items()}


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_draw_drops_exactly_its_budget_and_draws_are_nested(space, control, allocation):
    scores = CONTROLS[control](scores_of(space, 1))
    before = Ticket.dense(space)
    for budget in every_fraction(space):
        ticket = draw(scores, budget, allocation=allocation)
        assert Budget.of(ticket) == budget
        assert ticket <= before
        assert ticket.about.kind == control
        assert ticket.about.budget == budget
        assert ticket.about.note is None
        before = ticket


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("least", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_heads_of_a_layer_are_protected(allocation, least, seed):
    scores = scores_of(BASE, seed)
    ticket = draw(scores, {"heads": 144 - 12 * least}, least, allocation)
    assert (ticket.units["heads"].sum(axis=1) == least).all()
    best = np.argsort(scores.values["heads"], axis=1)[:, 12 - least :]
    assert np.take_along_axis(ticket.units["heads"], best, axis=1).all()


@pytest.mark.parametrize("control", CONTROLS)
def test_a_budget_beyond_protection_is_capped_and_says_so(control):
    ticket = draw(CONTROLS[control](scores_of(SMALL, 1)), {"heads": 12, "ffn": 3})
    assert ticket.units["heads"].sum(axis=1).tolist() == [1, 1, 1]
    assert ticket.dropped("ffn") == 3
    assert ticket.about.note == "asked to drop 12 heads, dropped 9: 1 a layer protected"


def test_what_is_kept_scores_higher_than_what_is_dropped():
    scores = scores_of(BASE, 1)
    raw, normalised = scores.values["heads"], scores.normalised().values["heads"]
    for values, allocation in ((raw, "global"), (normalised, "layer_normalised")):
        kept = draw(scores, {"heads": 72}, 0, allocation).units["heads"]
        assert values[kept].min() > values[~kept].max()
    assert draw(scores, {"heads": 72}, 0, "global") != draw(scores, {"heads": 72}, 0)


def test_losing_tickets_keep_the_worst():
    scores = scores_of(BASE, 1)
    losing = draw(scores.reversed(), {"heads": 132, "ffn": 11})
    worst = np.argmin(scores.values["heads"], axis=1)
    assert losing.units["heads"][np.arange(12), worst].all()
    assert losing.units["ffn"][np.argmin(scores.values["ffn"])]


def test_equal_scores_fall_in_the_order_of_the_units():
    equal = Scores(SMALL, {"heads": np.ones((3, 4)), "ffn": np.ones(3)})
    ticket = draw(equal, {"heads": 5, "ffn": 2})
    assert ticket.picture() == {"heads": ["...#", "..##", "####"], "ffn": ["..#"]}
    assert best_heads(equal.values["heads"], 1)[:, 3].all()


def test_per_matrix_takes_the_same_fraction_everywhere():
    for tenth in range(11):
        ticket = draw(scores_of(WEIGHTS, 1), {"weights": 115 * tenth // 10}, allocation="per_matrix")
        for part, size in WEIGHTS.sizes.items():
            assert abs(ticket.dropped(part) - size * tenth / 10) <= 1
    heads = draw(scores_of(BASE, 1), {"heads": 60}, allocation="per_matrix").units["heads"]
    assert (heads.sum(axis=1) == 7).all()
    neurons = draw(scores_of(NEURONS, 1), {"neurons": 30}, allocation="per_matrix").units["neurons"]
    assert (neurons.sum(axis=1) == 14).all()


def test_global_takes_the_lowest_weights_wherever_they_are():
    scores = scores_of(WEIGHTS, 1)
    ticket = draw(scores, {"weights": 50}, allocation="global")
    kept = np.concatenate([scores.values[part][ticket.units[part]] for part in WEIGHTS.parts])
    gone = np.concatenate([scores.values[part][~ticket.units[part]] for part in WEIGHTS.parts])
    assert len(gone) == 50
    assert gone.max() < kept.min()


@pytest.mark.parametrize(
    ("space", "published"),
    [
        (BASE, [93.2, 86.4, 79.3, 72.5, 65.5, 58.7, 51.9, 44.9]),
        (LARGE, [96.0, 92.0, 88.0, 84.0, 80.0, 76.0, 72.0, 68.0]),
    ],
)
@pytest.mark.parametrize("control", CONTROLS)
def test_ladders_are_nested_with_the_published_sizes(space, published, control):
    winning = ladder(scores_of(space, 1), LadderSettings())
    rungs = ladder(CONTROLS[control](scores_of(space, 1)), LadderSettings())
    assert [round(rung.remaining_percent(), 1) for rung in rungs] == published
    assert [rung.counts() for rung in rungs] == [rung.counts() for rung in winning]
    assert all(smaller <= larger for larger, smaller in itertools.pairwise(rungs))
    assert all(rung.units["heads"].any(axis=1).all() for rung in rungs)


def test_random_controls_reach_every_layer_and_every_unit_alike():
    dropped, layers_hit = np.zeros(LARGE.parts["heads"]), []
    for seed in range(200):
        ticket = draw(Scores.random(LARGE, seed), {"heads": 153, "ffn": 8})
        layers_hit.append((~ticket.units["heads"]).any(axis=1).sum())
        dropped += ~ticket.units["heads"]
    # 24/24 layers: to miss a layer of 16 heads takes 0.6 ** 16, once in 150 draws; the published control hits 16
    assert min(layers_hit) >= 23
    assert np.mean(layers_hit) > 23.9
    # binomial: mean 153 / 384 of 200 draws, standard deviation below 7
    assert np.abs(dropped - 200 * 153 / 384).max() < 5 * 7
    assert np.abs(dropped.mean(axis=1) - 200 * 153 / 384).max() < 5 * 7 / 4


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [
        ({"heads": 145}, "only 144 units"),
        ({"ffn": 13}, "only 12 units"),
        ({"head": 1}, "did you mean 'heads'"),
        ({"weights": 1}, "no such pool"),
    ],
)
def test_impossible_budgets_are_refused(budget, complaint):
    with pytest.raises(TicketError, match=complaint):
        draw(scores_of(BASE, 1), budget)
    with pytest.raises(TicketError, match=complaint):
        reference_random_ticket(BASE, budget, 0)


def test_an_unknown_allocation_names_the_nearest():
    with pytest.raises(TicketError, match="did you mean 'per_matrix'"):
        draw(scores_of(BASE, 1), {}, allocation="per_layer_matrix")


# ------------------------------------------------------------------------------------------------- inside a base


def fractions_inside(base):
    for tenth in range(11):
        yield Budget.fractions(base.space, dict.fromkeys(base.space.pools, tenth / 10), base)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_draws_inside_a_base_are_exact_and_nested_from_the_base_on(space, control, allocation, seed):
    scores, base = CONTROLS[control](scores_of(space, seed)), base_of(space, 7 + seed)
    before = base
    for tenth, budget in enumerate(fractions_inside(base)):
        ticket = draw(scores, budget, allocation=allocation, within=base)
        assert ticket <= before
        assert tenth or ticket == base
        for pool, dropped in Budget.of(ticket).items():
            least = len(ticket.units["heads"]) if pool == "heads" else 0
            assert dropped == min(budget[pool], sum(space.sizes[part] for part in space.pools[pool]) - least)
        if "heads" in space.parts:
            assert ticket.units["heads"].any(axis=1).all()
        before = ticket


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_whole_encoder_is_a_base_that_changes_nothing(space, allocation):
    scores, whole = scores_of(space, 1), Ticket.dense(space)
    for budget in every_fraction(space):
        plain, inside = (draw(scores, budget, 2, allocation, within=base) for base in (None, whole))
        assert inside == plain and inside.about == plain.about
    if "heads" in space.parts:
        settings = LadderSettings(allocation=allocation)
        assert ladder(scores, settings, whole) == ladder(scores, settings)
        one, two = (reference_random_ticket(space, {"heads": 4, "ffn": 2}, 3, base) for base in (None, whole))
        assert one == two and one.about == two.about


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_scores_of_units_outside_a_base_decide_nothing(space, allocation):
    scores, base = scores_of(space, 1), base_of(space, 2)
    for budget in fractions_inside(base):
        told, wild = (draw(s, budget, 2, allocation, base) for s in (scores, distorted(scores, base)))
        assert told == wild


@pytest.mark.parametrize("least", [1, 2, 5])
def test_protected_are_the_best_heads_among_those_of_the_base(least):
    base, scores = base_of(BASE, 3, kept=0.3), scores_of(BASE, 1)
    ticket = draw(scores, {"heads": 144, "ffn": 12}, least, within=base)
    for layer, kept in enumerate(base.units["heads"]):
        ranked = [head for head in np.argsort(scores.values["heads"][layer]) if kept[head]]
        assert np.flatnonzero(ticket.units["heads"][layer]).tolist() == sorted(ranked[-least:])


def test_per_matrix_takes_the_same_fraction_of_what_the_base_keeps_everywhere():
    base = base_of(BASE, 5, kept=0.6)
    there = base.units["heads"].sum(axis=1)
    for tenth in range(9):
        budget = Budget.fractions(BASE, {"heads": tenth / 10}, base)
        ticket = draw(scores_of(BASE, 1), budget, 0, "per_matrix", base)
        lost = there - ticket.units["heads"].sum(axis=1)
        assert np.abs(lost - there * tenth / 10).max() <= 1


def test_a_layer_without_heads_in_the_base_has_none():
    units = {part: kept.copy() for part, kept in base_of(SMALL, 1).units.items()}
    units["heads"][1] = False
    base = Ticket(SMALL, units)
    ticket = draw(scores_of(SMALL, 1), {"heads": 12, "ffn": 3}, within=base)
    assert ticket.units["heads"].sum(axis=1).tolist() == [1, 0, 1]


def test_a_budget_smaller_than_what_the_base_drops_is_refused():
    base = base_of(SMALL, 1, kept=0.5)
    heads, ffn = base.dropped("heads"), base.dropped("ffn")
    assert heads and ffn
    for drawn in (
        lambda b: draw(scores_of(SMALL, 1), b, within=base),
        lambda b: reference_random_ticket(SMALL, b, 0, base),
    ):
        with pytest.raises(TicketError) as caught:
            drawn({"heads": heads - 1})
        assert [str(problem) for problem in caught.value.problems] == [
            f"budget.heads: must be at least {heads}, which the base drops; found {heads - 1}",
            f"budget.ffn: must be at least {ffn}, which the base drops; found 0",
        ]
        assert drawn({"heads": heads, "ffn": ffn}) == base


def test_a_base_of_another_encoder_is_refused():
    with pytest.raises(TicketError, match="layers = 12 instead of 3"):
        draw(scores_of(SMALL, 1), {}, within=Ticket.dense(BASE))


def test_the_published_control_stays_inside_a_base():
    base = base_of(BASE, 1)
    gone = Budget.of(base)
    for seed in range(50):
        ticket = reference_random_ticket(BASE, {"heads": gone["heads"] + 40, "ffn": gone["ffn"] + 4}, seed, base)
        assert ticket <= base
        assert 0 < ticket.dropped("heads") - gone["heads"] < 40


# ---------------------------------------------------------------------- the published random control (METHODS 1.8)


def reference_means(space, budget, draws=400):
    tickets = [reference_random_ticket(space, budget, seed) for seed in range(draws)]
    return tuple(np.mean([ticket.dropped(part) for ticket in tickets]) for part in ("heads", "ffn"))


@pytest.mark.parametrize(
    ("asked", "published"),
    zip([14, 28, 43, 57, 72, 86, 100, 115], [13.4, 25.5, 37.2, 47.3, 57.1, 65.2, 72.5, 79.7], strict=True),
)
def test_the_reference_drops_fewer_than_asked(asked, published):
    heads, ffn = reference_means(BASE, {"heads": asked, "ffn": 8})
    expected = 144 * (1 - (1 - 1 / 144) ** asked)
    assert heads == pytest.approx(expected, abs=0.7)
    assert heads == pytest.approx(published, abs=1.0)
    assert ffn == pytest.approx(6.07, abs=0.25)


def test_the_reference_decodes_heads_of_the_large_encoder_wrongly():
    heads, _ = reference_means(LARGE, {"heads": 153})
    assert heads == pytest.approx(112.8, abs=1.2)
    layers = [
        np.flatnonzero((~reference_random_ticket(LARGE, {"heads": 153}, s).units["heads"]).any(1)) for s in range(50)
    ]
    assert max(int(hit.max()) for hit in layers) == 15


def test_the_reference_protects_nothing_and_needs_heads():
    stripped = [reference_random_ticket(BASE, {"heads": 144}, seed) for seed in range(200)]
    assert any(not ticket.units["heads"].any(axis=1).all() for ticket in stripped)
    assert reference_random_ticket(NEURONS, {"heads": 3}, 0).dropped("neurons") == 0
    with pytest.raises(TicketError):
        reference_random_ticket(WEIGHTS, {}, 0)
