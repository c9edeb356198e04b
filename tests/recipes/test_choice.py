"""The choice of rungs: as published without borrowing, the common choice with all of it, and never by the order."""

import itertools

import numpy as np
import pytest

from mtl_tickets.recipes.choice import WHOLE, best_rungs

RUNGS = (WHOLE, "winning-1", "winning-2", "winning-3")


def made(seed, tasks=4):
    random = np.random.default_rng(seed)
    curves = {f"t{i}": dict(zip(RUNGS, map(float, random.normal(60, 5, 4)), strict=True)) for i in range(tasks)}
    return curves, {task: int(random.integers(5, 200)) for task in curves}


@pytest.mark.parametrize("seed", range(20))
def test_without_borrowing_every_task_takes_its_own_best(seed):
    curves, rows = made(seed)
    assert best_rungs(curves, rows) == {task: max(curve, key=curve.__getitem__) for task, curve in curves.items()}


def test_of_equals_the_smallest_ticket_is_chosen():
    curve = dict.fromkeys(RUNGS, 50.0)
    for borrow in (0.0, 10.0):
        assert best_rungs({"a": curve, "b": curve}, {"a": 5, "b": 7}, borrow) == {"a": RUNGS[-1], "b": RUNGS[-1]}


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_tasks_does_not_matter(seed):
    curves, rows = made(seed)
    expected = best_rungs(curves, rows, 100)
    for order in itertools.permutations(curves):
        assert best_rungs({task: curves[task] for task in order}, rows, 100) == expected


@pytest.mark.parametrize("seed", range(20))
def test_all_of_the_borrowing_leaves_a_task_what_the_others_found(seed):
    curves, rows = made(seed)
    chosen = best_rungs(curves, rows, 1e12)
    for task in curves:
        others = [other for other in curves if other != task]
        found = {
            rung: np.average([curves[o][rung] - curves[o][WHOLE] for o in others], weights=[rows[o] for o in others])
            for rung in RUNGS
        }
        assert chosen[task] == max(found, key=found.__getitem__)


def test_a_small_task_borrows_and_a_large_one_keeps_its_own():
    steady = {WHOLE: 60.0, "winning-1": 63.0, "winning-2": 50.0}
    wild = {WHOLE: 60.0, "winning-1": 58.0, "winning-2": 66.0}
    curves = {"steady": steady, "too": steady, "wild": wild}
    assert best_rungs(curves, {"steady": 500, "too": 500, "wild": 10}, 100)["wild"] == "winning-1"
    assert best_rungs(curves, {"steady": 500, "too": 500, "wild": 5000}, 100)["wild"] == "winning-2"


def test_a_score_moved_as_a_whole_changes_no_choice():
    curves, rows = made(3)
    moved = {task: {rung: score + 10 * i for rung, score in curves[task].items()} for i, task in enumerate(curves)}
    assert best_rungs(moved, rows, 50) == best_rungs(curves, rows, 50)


def test_rungs_that_were_stopped_early_are_no_candidates_and_no_evidence():
    curves = {"a": {WHOLE: 60.0, "winning-2": 61.0}, "b": {WHOLE: 60.0, "winning-1": 70.0}}
    rows = {"a": 50, "b": 50}
    assert best_rungs(curves, rows, 50) == {"a": "winning-2", "b": "winning-1"}
    assert best_rungs({"a": curves["a"]}, rows, 50) == {"a": "winning-2"}  # alone there is nobody to borrow from


def test_less_noise_on_average_where_tasks_agree():
    """What it is for: true gains are alike, few rows are held out."""
    random = np.random.default_rng(0)
    gains = np.array([0.0, 1.0, -2.0, -6.0])
    regret = {0.0: 0.0, 500.0: 0.0}
    for _ in range(200):
        scores = 60 + gains + random.normal(0, 5, (6, 4))
        curves = {f"t{i}": dict(zip(RUNGS, map(float, of_task), strict=True)) for i, of_task in enumerate(scores)}
        for borrow in regret:
            chosen = best_rungs(curves, dict.fromkeys(curves, 100), borrow)
            regret[borrow] += sum(1.0 - gains[RUNGS.index(rung)] for rung in chosen.values()) / 1200
    assert regret[500.0] < 0.7 * regret[0.0]
