import pydantic
import pytest

from mtl_tickets.errors import ConfigError, TicketError
from mtl_tickets.settings import Document, Settings, check
from mtl_tickets.tickets.budget import Budget, LadderSettings, ladder_budgets
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, LARGE, NEURONS, SMALL, WEIGHTS, base_of, ticket_of


def rungs(space, **settings):
    return [(b["heads"], b["ffn"]) for b in ladder_budgets(space, LadderSettings(**settings))]


def test_the_published_ladders():
    assert rungs(BASE) == [(14, 1), (28, 2), (43, 3), (57, 4), (72, 5), (86, 6), (100, 7), (115, 8)]
    assert rungs(LARGE) == [(19, 1), (38, 2), (57, 3), (76, 4), (96, 5), (115, 6), (134, 7), (153, 8)]


def test_fractions_mean_what_was_written():
    # 0.1 * 3 is 0.30000000000000004 and 0.7 * 30 is 20.999999999999996 for a computer
    assert Budget.fractions(LARGE, {"heads": 0.05 * 3}) == {"heads": 57}
    thirty = type(SMALL).of(layers=10, heads=3, hidden=30, intermediate=60, total=10**6)
    assert Budget.fractions(thirty, {"heads": 0.7, "ffn": 0.1 * 3}) == {"heads": 21, "ffn": 3}
    assert rungs(thirty, step=0.1, rungs=10)[6] == (21, 5)


def test_free_ladders_take_each_pool_by_itself():
    assert ladder_budgets(SMALL, LadderSettings(kind="free", heads=[0.25, 0.5], ffn=[0, 0.34])) == [
        {"heads": 3, "ffn": 0},
        {"heads": 6, "ffn": 1},
    ]
    assert ladder_budgets(WEIGHTS, LadderSettings(kind="free", weights=[0.1, 0.9])) == [
        {"weights": 11},
        {"weights": 103},
    ]
    assert ladder_budgets(NEURONS, LadderSettings(kind="free", neurons=[0.5])) == [{"neurons": 36}]


@pytest.mark.parametrize("space", [BASE, LARGE, NEURONS])
@pytest.mark.parametrize("settings", [{}, {"kind": "free", "heads": [0.1, 0.5], "ffn": [0, 0.5]}, {"step": 0.125}])
def test_rungs_in_a_base_drop_fractions_of_what_it_keeps(space, settings):
    settings = LadderSettings(**settings)
    assert ladder_budgets(space, settings, Ticket.dense(space)) == ladder_budgets(space, settings)
    base = base_of(space, 1)
    gone = Budget.of(base)
    there = {pool: sum(space.sizes[part] for part in parts) - gone[pool] for pool, parts in space.pools.items()}
    for k, budget in enumerate(ladder_budgets(space, settings, base)):
        if settings.kind == "free":
            shares = {"heads": settings.heads[k], "ffn": settings.ffn[k]}
        else:
            step = settings.step or (0.1 if space.layers < 24 else 0.05)
            shares = {"heads": step * (k + 1), "ffn": step * (k + 1) / 1.2}
        for pool in space.pools:
            more = there[pool] * shares.get(pool, 0)
            assert gone[pool] <= budget[pool] <= gone[pool] + more + 1e-9 < budget[pool] + 1 + 1e-6


def test_a_ladder_needs_a_base_of_its_own_space():
    with pytest.raises(TicketError, match="layers = 12 instead of 3"):
        ladder_budgets(SMALL, LadderSettings(), Ticket.dense(BASE))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"heads": [0.1]}, "ladder.heads.*only with kind: free"),
        ({"rungs": 6, "step": 0.2}, "ladder.step.*at most all heads"),
        ({"kind": "free"}, "at least one list"),
        ({"kind": "free", "heads": [0.1, 0.2], "ffn": [0.1]}, "one entry per rung"),
        ({"kind": "free", "heads": [0.2, 0.1]}, "ladder.heads.*ascending"),
        ({"kind": "free", "heads": [0.2, 1.1]}, "ladder.heads.*between 0 and 1"),
        ({"kind": "free", "heads": [0.2], "step": 0.1}, "ladder.step.*only with kind: coupled"),
        ({"kind": "free", "heads": [0.2], "rungs": 3}, "ladder.rungs"),
        ({"kind": "fre"}, "ladder.kind.*did you mean 'free'"),
        ({"rungs": 0}, "ladder.rungs.*greater than or equal to 1"),
        ({"rung": 4}, "ladder.rung: unknown key.*did you mean 'rungs'"),
        ({"allocation": "layer_normalized"}, "ladder.allocation.*did you mean 'layer_normalised'"),
    ],
)
def test_settings_that_make_no_ladder_are_refused(settings, complaint):
    class Outer(Settings):
        ladder: LadderSettings

    with pytest.raises(ConfigError, match=complaint):
        check(Outer, Document("x.yaml", {"ladder": settings}, {}))


@pytest.mark.parametrize("settings", [LadderSettings(), LadderSettings(kind="free", heads=[0.1, 0.2, 0.3])])
def test_settings_survive_being_written_out_in_full(settings):
    assert LadderSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_ladders_that_do_not_fit_the_space_are_refused():
    with pytest.raises(TicketError, match="found 'neurons'"):
        ladder_budgets(SMALL, LadderSettings(kind="free", neurons=[0.1]))
    with pytest.raises(TicketError, match="kind: free"):
        ladder_budgets(WEIGHTS, LadderSettings())
    with pytest.raises(TicketError, match="only 12 units"):
        ladder_budgets(SMALL, LadderSettings(rungs=11))


def test_a_budget_is_a_value():
    budget = Budget({"heads": 3, "ffn": 0})
    assert budget == {"heads": 3, "ffn": 0}
    assert hash(budget) == hash(Budget({"ffn": 0, "heads": 3}))
    with pytest.raises(TypeError):
        budget["heads"] = 4


@pytest.mark.parametrize("number", [-1, 1.5, True, "3"])
def test_numbers_of_units_are_counts(number):
    with pytest.raises(TicketError, match=r"budget\.heads"):
        Budget({"heads": number})


@pytest.mark.parametrize("space", [BASE, NEURONS, WEIGHTS])
def test_the_budget_of_a_ticket_counts_what_it_dropped(space):
    ticket = ticket_of(space, 1)
    budget = Budget.of(ticket)
    assert set(budget) == set(space.pools)
    assert sum(budget.values()) == sum(ticket.dropped(part) for part in space.parts)
    budget.check(space)


def test_ladder_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        LadderSettings().rungs = 3
