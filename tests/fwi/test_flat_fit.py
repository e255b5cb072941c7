"""The misfit of v(z) and its slope, measured against simulations."""

import numpy as np
import pytest
import torch

from comp.fwi.flat_fit import FlatFit, to_u, to_velocity
from comp.fwi.survey import Survey
from comp.fwi.wave import simulate

TINY = Survey(
    ny=20, nx=16, nt=300, pad=30, source_columns=(0, 15), receiver_columns=tuple(range(16))
)
TRUTH = np.repeat([1800.0, 2300.0, 2900.0], [6, 7, 7])


def record():
    maps = torch.from_numpy(np.repeat(TRUTH[None, :, None], TINY.nx, 2))
    return simulate(maps, TINY)[0].numpy()


@pytest.fixture(scope="module")
def fit():
    return FlatFit(TINY, record(), "sponge", torch.float64, "cpu")


def test_u_is_undone():
    velocity = np.array([1500.0, 2000.0, 4500.0])
    np.testing.assert_allclose(to_velocity(to_u(velocity)), velocity, rtol=1e-14)
    np.testing.assert_allclose(to_u(2000.5) - to_u(1999.5), 1, rtol=1e-6)
    assert to_velocity(np.array([0.0, 1.0])).tolist() == [np.inf, np.inf]


def test_misfit_is_nothing_at_the_truth_alone(fit):
    right, wrong = fit.states(np.stack([TRUTH, TRUTH + 10]))
    assert right.misfit == 0 and wrong.misfit > 0.01


def test_the_last_row_and_other_shots_do_not_count():
    spoilt = record()
    spoilt[:, -1] = 1e3
    spoilt[1:] = 0
    fit = FlatFit(TINY, spoilt, "sponge", torch.float64, "cpu")
    assert fit.states(TRUTH[None])[0].misfit == 0


def test_slope_is_that_of_finite_differences(fit):
    at = TRUTH + 15 * np.sin(np.arange(TINY.ny))
    slope = fit.slope(fit.states(at[None])[0])
    _, downhill = slope.in_velocity()
    along = np.cos(np.arange(TINY.ny))
    up, down = (s.misfit**2 / 2 for s in fit.states(at + np.outer([0.1, -0.1], along)))
    assert (down - up) / 0.2 == pytest.approx(downhill @ along, rel=0.01)


def predicted(slope, hessian, downhill, change):
    squared = slope.state.misfit**2 - 2 * downhill @ change + change @ hessian @ change
    return np.sqrt(max(squared, 0))


def test_squared_slowness_tells_more_than_velocity(fit):
    """The truth, seen from a profile that differs by what waves from above cannot resolve."""
    rows = np.arange(TINY.ny)
    at = TRUTH + np.where(rows > 5, 60 * (-1.0) ** rows, 0)
    slope = fit.slope(fit.states(at[None])[0])
    in_u = predicted(slope, slope.hessian, slope.downhill, to_u(TRUTH) - to_u(at))
    in_v = predicted(slope, *slope.in_velocity(), TRUTH - at)
    assert in_u < 0.5 * in_v


def test_floor_is_the_noise():
    plain, generator = record(), np.random.default_rng(0)
    noisy = plain + 0.001 * np.abs(plain).mean() * generator.normal(size=plain.shape)
    fit = FlatFit(TINY, noisy, "sponge", torch.float64, "cpu")
    right, wrong = fit.states(np.stack([TRUTH, TRUTH + 3]))
    assert 0.95 * right.misfit < fit.slope(right).floor <= right.misfit
    assert fit.slope(wrong).floor == pytest.approx(right.misfit, rel=0.1)
    assert wrong.misfit > 1.3 * right.misfit
