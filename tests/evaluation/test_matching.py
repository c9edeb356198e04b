"""Matching is decided at the border as its definition says, and never with one seed."""

import math

import pytest

from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.matching import Highest, highest, matching, universal

FULL = (80.0, 82.0, 84.0)  # mean 82, standard deviation 2
LITTLE = 1e-6


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("worse_by", "matches", "reaches"),
    [
        (-1.0, True, True),
        (0.0, True, True),
        (LITTLE, True, False),
        (2.0 - LITTLE, True, False),
        (2.0, True, False),
        (2.0 + LITTLE, False, False),
    ],
)
def test_the_border_is_the_mean_less_one_sample_deviation_of_the_full_model(lower, worse_by, matches, reaches):
    mean = 82 + worse_by if lower else 82 - worse_by
    found = matching((mean - 5, mean + 5, mean), FULL, lower)  # the sub-network's own spread counts for nothing
    assert (found.matches, found.reaches) == (matches, reaches)
    assert found.sd == pytest.approx(2) and found.bound == pytest.approx(84 if lower else 80)
    assert (found.mean, found.full) == (pytest.approx(mean), 82)


def test_rounding_does_not_decide():
    full = (0.1, 0.2, 0.3)
    for lower in (False, True):
        values = tuple(value + (0.1 if lower else -0.1) for value in full)  # on the border, but for the last bit
        assert matching(values, full, lower).matches
        assert matching((0.3, 0.1, 0.2), full, lower).reaches


def test_a_full_model_that_does_not_vary_must_be_reached():
    assert matching((5.0, 5.0), (5.0, 5.0)).matches
    assert not matching((5.0, 4.9), (5.0, 5.0)).matches


def test_the_full_model_matches_itself():
    for lower in (False, True):
        found = matching(FULL, FULL, lower)
        assert found.matches and found.reaches


def test_one_seed_decides_nothing():
    found = matching((90.0,), (80.0,))
    assert (found.sd, found.bound, found.matches, found.reaches) == (None, None, None, None)
    assert (found.mean, found.full) == (90.0, 80.0)
    assert highest({10.0: found}) is None and universal([found]) is None


@pytest.mark.parametrize("values", [(), (1.0, math.nan), (math.inf,)])
def test_what_is_no_score_is_refused(values):
    with pytest.raises(InputError):
        matching(values, FULL)
    with pytest.raises(InputError):
        matching(FULL, values)


def at(**worse_by):
    return {float(name[1:]): matching((82.0 - by,) * 3, FULL) for name, by in worse_by.items()}


def test_the_highest_sparsity_that_matches_and_whether_all_below_it_do():
    assert highest(at(s10=0, s50=1, s70=3)) == Highest(50.0, True)
    assert highest(at(s10=0, s50=3, s70=1)) == Highest(70.0, False)
    assert highest(at(s70=1, s10=0, s50=1)) == Highest(70.0, True)  # in whatever order
    assert highest(at(s10=3, s50=4)) == Highest(None, False)


def test_the_stricter_criterion_never_gives_a_higher_sparsity():
    found = at(s10=-1, s20=0, s50=1, s70=3)
    assert highest(found, strict=True) == Highest(20.0, True)
    assert highest(found).sparsity >= highest(found, strict=True).sparsity


def test_universal_is_matching_on_every_target():
    good, bad = matching(FULL, FULL), matching((1.0, 2.0), FULL)
    unknown = matching((1.0,), (2.0,))
    assert universal([good, good]) is True
    assert universal([good, bad, unknown]) is False
    assert universal([good, unknown]) is None


def test_nothing_tried_is_no_answer():
    with pytest.raises(InputError):
        highest({})
    with pytest.raises(InputError):
        universal([])
