"""Shapes of cascades: what they cost, and which are chosen; the answers rest on none of it."""

import numpy as np
import pytest

from halfspace import cascade_fit, cascade_shape
from halfspace.basis import fit_basis, transformed
from halfspace.cascade_shape import CACHED_CODES, WIDE_SLACK, Shape, reading, try_out
from halfspace.codes import leading_width

D, COUNT = 16, 10**6


@pytest.fixture(scope="module")
def tried():
    """A sample in its basis, and normals."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((1000, D)).astype(np.float32) / np.arange(1, D + 1)
    basis = fit_basis(points, rng.standard_normal((64, D)), cascade_fit.REACH)
    u, _ = transformed(basis, points)
    return basis, u, rng.standard_normal((8, D))


def costs(trial, offsets, opened=1.0, count=COUNT):
    """By shape, of all that may be chosen."""
    prices = cascade_shape._Prices(trial, 4, count)
    choices = prices.at(cascade_shape._shapes(D), offsets, opened)
    return {choice.shape: float(choice.cost.mean()) for choice in choices}


def test_where_nobody_says_how_many_wide_reports_decide_between_shapes_of_nearly_a_cost(tried):
    trial = try_out(*tried, 0.005, False, 0)
    chosen = cascade_shape._choose(trial, 4, COUNT, 1.0, 1.0).shape
    usual, wide = costs(trial, trial.offsets), costs(trial, trial.wide)
    near = [shape for shape in usual if usual[shape] <= WIDE_SLACK * min(usual.values())]
    assert chosen == min(near, key=wide.__getitem__)
    assert len(near) > 1


def test_where_it_is_told_the_cheapest_for_that_is_chosen(tried):
    trial = try_out(*tried, 0.005, True, 0)
    assert trial.wide is None
    chosen = cascade_shape._choose(trial, 4, COUNT, 1.0, 1.0).shape
    usual = costs(trial, trial.offsets)
    assert usual[chosen] == min(usual.values())


def test_wide_half_spaces_hold_a_tenth_of_the_sample(tried):
    trial = try_out(*tried, 0.005, False, 0)
    assert np.count_nonzero(trial.scores >= trial.wide, axis=0).tolist() == [100] * 8


@pytest.mark.parametrize("shape", [Shape(D, 4, True), Shape(D, 6, True), Shape(D, 8, False)])
def test_codes_and_points_that_caches_hold_cost_less(shape, tried):
    most = CACHED_CODES // leading_width(D, *shape[:2])
    assert reading(D, shape, most) < reading(D, shape, most + 1)
    trial = try_out(*tried, 0.1, True, 0)
    few, many = (
        cascade_shape._Prices(trial, 4, count).at([shape], trial.offsets, 0.0)[0].settling.mean()
        for count in (10_000, COUNT)
    )
    assert few < many
