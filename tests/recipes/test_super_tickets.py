"""The settings of the recipe that decide budgets, and the ladders drawn by them."""

import itertools
from types import SimpleNamespace

import pytest

from mtl_tickets.recipes.super_tickets import SuperTickets
from mtl_tickets.settings import InvalidSetting
from mtl_tickets.tickets.ticket import Ticket
from tests.tickets.worlds import BASE, NEURONS, base_of, scores_of


def recipe(**changes):
    return SuperTickets.model_validate({"multi": {"as_single": True}, **changes})


def bench(rows):
    return SimpleNamespace(learned=list(rows), rows=lambda: dict(rows))


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [
        ({"a": 3000, "b": 3000}, {"a": 1, "b": 2}),
        ({"a": 9000, "b": 500}, {"a": 1, "b": 8}),
        ({"a": 700, "b": 180, "c": 65, "d": 1000}, {"a": 6, "b": 16, "c": 30, "d": 5}),
    ],
)
def test_multi_task_training_sees_each_task_as_often_as_its_own_training(rows, epochs):
    settings = recipe(per_task={task: {"epochs": number} for task, number in epochs.items()})._multi(bench(rows))
    quotas = settings.batches.sampler.quotas(rows)
    for task, number in epochs.items():
        assert quotas[task] * settings.epochs == pytest.approx(rows[task] * number, abs=settings.epochs / 2)


@pytest.mark.parametrize("clash", [{"multi": {"as_single": True, "epochs": 3}}, {"compat": "reference"}])
def test_what_contradicts_an_equal_budget_is_refused(clash):
    with pytest.raises((ValueError, InvalidSetting), match="as_single"):
        recipe(**clash)


@pytest.mark.parametrize("space", [BASE, NEURONS])
@pytest.mark.parametrize("compat", [{}, {"random_with_replacement": True}])
@pytest.mark.parametrize("allocation", ["layer_normalised", "per_matrix"])
def test_ladders_and_their_controls_stay_inside_a_base(space, compat, allocation):
    settings = recipe(controls=["random", "losing"], ladder={"allocation": allocation}, compat=compat)
    bench = SimpleNamespace(seed=3, settings=SimpleNamespace(name="x"), weight_hash="abc", space=space)
    for base in (base_of(space, 1), Ticket.dense(space)):
        bench.within = base
        rungs = settings._rungs(bench, "rte", scores_of(space, 1))
        assert len(rungs) == 24 and all(ticket <= base for ticket in rungs.values())
        for kind in ("winning", "losing"):
            ladder = [rungs[f"{kind}-{k}"] for k in range(1, 9)]
            assert all(smaller <= larger for larger, smaller in itertools.pairwise(ladder))
            assert [rung.counts() for rung in ladder] == [rungs[f"winning-{k}"].counts() for k in range(1, 9)]
    bench.within = None
    plain = settings._rungs(bench, "rte", scores_of(space, 1))
    assert rungs == plain and all(rungs[name].about == plain[name].about for name in plain)
