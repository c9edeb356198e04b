"""The settings of the recipe that decide budgets."""

from types import SimpleNamespace

import pytest

from mtl_tickets.recipes.super_tickets import SuperTickets
from mtl_tickets.settings import InvalidSetting


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
