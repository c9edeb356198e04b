"""Sparsity rises in cubes to exactly its target; the student ends up alone."""

import itertools

import pytest

from mtl_tickets.errors import ConfigError
from mtl_tickets.settings import Document, check
from mtl_tickets.training.schedules import (
    Phases,
    PhaseSettings,
    ReplacingSettings,
    cubic,
    replacing_rate,
    sparsity_by,
    updates_by,
)

# as published, in epochs: 30 prune, 10 raise the rate, 20 are the student's alone
SIXTY = PhaseSettings().of(60)
SIZES = [(120, 12), (121, 12), (100, 12), (5, 12), (1, 12), (12, 12), (7, 3), (30, 1)]


def test_the_published_parts_are_the_defaults():
    assert Phases(30, 40, 60, (30,)) == SIXTY


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 3440])
@pytest.mark.parametrize("shares", [(0.5, 1 / 6), (1.0, 0.0), (0.7, 0.3), (0.01, 0.0)])
def test_parts_are_in_their_order_and_the_first_is_there(steps, shares):
    phases = PhaseSettings(prune=shares[0], replace=shares[1]).of(steps)
    assert 1 <= phases.pruned <= phases.alone <= phases.steps == steps
    assert phases.restarts in ((), (phases.pruned,)) and (phases.pruned < steps) == bool(phases.restarts)


def test_parts_that_are_more_than_the_whole_are_refused():
    with pytest.raises(ConfigError, match="no more than 1"):
        check(PhaseSettings, Document("x.yaml", {"prune": 0.8, "replace": 0.3}, {}))


@pytest.mark.parametrize(("steps", "updates"), SIZES)
@pytest.mark.parametrize("target", [0.9, 0.7, 1 / 3])
def test_the_target_is_reached_with_the_last_pruning_step_exactly_and_kept(steps, updates, target):
    phases = Phases(steps, steps, 2 * steps, ())
    course = [sparsity_by(step, phases, target, updates) for step in range(2 * steps + 1)]
    assert course[0] == 0.0 and course == sorted(course)
    assert set(course[steps:]) == {target} and course[steps - 1] < target
    changes = sum(after > before for before, after in itertools.pairwise(course))
    assert changes == min(steps, updates)


def test_updates_are_evenly_spread():
    steps = [step for step in range(1, 101) if updates_by(step, 100, 5) > updates_by(step - 1, 100, 5)]
    assert steps == [20, 40, 60, 80, 100]


def test_the_first_updates_drop_most():
    course = [cubic(0.0, 0.9, update / 12) for update in range(13)]
    drops = [after - before for before, after in itertools.pairwise(course)]
    assert drops == sorted(drops, reverse=True) and course[6] == pytest.approx(0.9 * (1 - 1 / 8))


@pytest.mark.parametrize(("steps", "updates"), SIZES)
def test_the_published_updates_miss_the_target_where_they_divide_the_steps(steps, updates):
    phases = Phases(steps, steps, 2 * steps, ())
    last = sparsity_by(2 * steps, phases, 0.9, updates, miss=True)
    if steps % updates == 0 or steps < updates:
        assert last < 0.9
    else:
        assert last == 0.9


@pytest.mark.parametrize("kind", ["constant", "linear", "mixed"])
def test_every_rate_starts_where_it_is_told_and_ends_at_1(kind):
    course = [replacing_rate(step, SIXTY, ReplacingSettings(kind=kind, start=0.6)) for step in range(60)]
    assert course[0] == 0.6 and course == sorted(course)
    assert set(course[40:]) == {1.0} and course[39] < 1.0


def test_rates_rise_in_their_parts():
    def course(kind):
        return [replacing_rate(step, SIXTY, ReplacingSettings(kind=kind, start=0.6)) for step in range(60)]

    assert set(course("constant")[:40]) == {0.6}
    assert set(course("mixed")[:31]) == {0.6} and course("mixed")[35] == pytest.approx(0.8)
    assert course("linear")[20] == pytest.approx(0.8)


def test_the_published_rate_never_reaches_1():
    settings = ReplacingSettings(start=0.8)
    assert {replacing_rate(step, SIXTY, settings, constant=True) for step in range(60)} == {0.8}
