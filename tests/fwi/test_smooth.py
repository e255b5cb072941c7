"""Gauss-Newton inversion of a smooth map."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi.guesses import guesses
from comp.fwi.layered import LayeredInversion
from comp.fwi.priors import SmoothPrior
from comp.fwi.refine import Refiner, Sample, Settings
from comp.fwi.shards import AMPLITUDE_SCALE
from comp.fwi.smooth import SmoothInversion, Stage, _precision
from comp.fwi.survey import Survey
from comp.fwi.wave import simulate

SURVEY = Survey(
    ny=20, nx=24, nt=320, pad=40, source_columns=(0, 11, 23), receiver_columns=tuple(range(24))
)


def smooth():
    """Shapes of some cells that stand out from a growth with depth."""
    noise = np.random.default_rng(1).standard_normal(SURVEY.map_shape)
    field = gaussian_filter(noise, 2.0)
    return 1900 + 40.0 * np.arange(SURVEY.ny)[:, None] + 120 * field / field.std()


def record(velocity):
    return simulate(torch.tensor(velocity[None], dtype=torch.float32), SURVEY)[0].numpy()


def error(velocity):
    return np.abs(velocity - smooth()).mean()


@pytest.fixture(scope="module")
def start():
    return gaussian_filter(smooth(), 2.5, mode="nearest")


@pytest.fixture(scope="module")
def found(start):
    return SmoothInversion(LayeredInversion(SURVEY))(start, record(smooth()))


def test_comes_close_to_the_truth_and_is_the_same_again(start, found):
    assert error(start) > 40
    assert error(found.velocity) < 0.1 * error(start)
    again = record(found.velocity)[:, : SURVEY.trusted_rows]
    observed = record(smooth())[:, : SURVEY.trusted_rows]
    misfit = np.linalg.norm(again - observed) / np.linalg.norm(observed)
    assert found.misfit == pytest.approx(misfit, rel=1e-3)
    same = SmoothInversion(LayeredInversion(SURVEY))(start, record(smooth()))
    np.testing.assert_array_equal(same.velocity, found.velocity)


def test_lbfgs_stays_farther_off(start, found):
    settings = Settings(batch=1, newton="off")
    sample = Sample(0, start, record(smooth()), "smooth")
    (ended,) = [one for some in Refiner(settings, SURVEY).refine([sample]) for one in some]
    assert error(found.velocity) < 0.5 * error(ended.velocity)


def test_the_refiner_takes_what_it_finds(start, found):
    assert "smooth" not in guesses(SURVEY, "sponge", torch.float32, "cpu", "off")
    settings = Settings(batch=1, newton="on")
    sample = Sample(0, start, record(smooth()), "smooth")
    (ended,) = [one for some in Refiner(settings, SURVEY).refine([sample]) for one in some]
    assert (ended.stop, len(ended.misfit)) == ("tolerance", 2)
    np.testing.assert_array_equal(ended.velocity, found.velocity.astype(np.float32))


def test_the_truth_stays():
    found = SmoothInversion(LayeredInversion(SURVEY))(smooth(), record(smooth()))
    np.testing.assert_array_equal(found.velocity, smooth())


def test_rounding_of_the_record_is_not_fitted():
    """To halves, as prepared folders hold records: a misfit of 2e-4 that no map explains."""
    exact = record(smooth())
    rounded = (AMPLITUDE_SCALE * exact).astype(np.float16).astype(np.float32) / AMPLITUDE_SCALE
    found = SmoothInversion(LayeredInversion(SURVEY))(smooth(), rounded)
    assert 1 < error(found.velocity) < 6
    penalty = SmoothPrior().penalty(torch.from_numpy(np.stack([smooth(), found.velocity])))[0]
    assert penalty[1] < 1.3 * penalty[0]


def test_keeps_to_the_surveys_velocities(start):
    layered = LayeredInversion(replace(SURVEY, min_velocity=1800.0, max_velocity=2600.0))
    found = SmoothInversion(layered, (Stage(1, 2),))(start, record(smooth()))
    assert (found.velocity.min(), found.velocity.max()) == (1800, 2600)


def states(*squares):
    """Of the start, with other squared misfits."""
    fit = LayeredInversion(SURVEY).fit(1.0, record(smooth()))
    state = fit.state(torch.from_numpy(gaussian_filter(smooth(), 2.5)))
    return [replace(state, squared=torch.tensor(float(one))) for one in squares]


@pytest.mark.parametrize(
    ("squares", "taken"),
    [
        ((8, 1.5, 1, 3), 1),
        ((8, 3, 1), 2),
        ((0.9, 1), 0),
        ((12, 9), 1),
        ((10, 11), None),
        ((), None),
    ],
)
def test_the_smoothest_of_what_fits_about_as_well(monkeypatch, squares, taken):
    """Or none where none fits better than the last map does, of squared misfit 10."""
    last, *tried = states(10, *squares)
    monkeypatch.setattr(SmoothInversion, "_trials", lambda *_: tried)
    chosen = SmoothInversion(LayeredInversion(SURVEY))._step(None, Stage(1, 1), last)
    assert chosen is (last if taken is None else tried[taken])


def test_less_of_the_prior_is_rougher_and_fits_better(start):
    invert = SmoothInversion(LayeredInversion(SURVEY))
    fit = invert.layered.fit(1.0, record(smooth()))
    near = fit.state(torch.from_numpy(smooth() + 0.02 * (start - smooth())))
    tried = invert._trials(fit, Stage(1, 1, slowness=False), near)
    assert len(tried) == len(invert.shares)
    squares = [float(one.squared) for one in tried]
    penalties = [float(SmoothPrior().penalty(one.velocity[None])[0]) for one in tried]
    assert squares == sorted(squares, reverse=True) and squares[0] < float(near.squared)
    assert penalties == sorted(penalties)


def test_no_trial_comes_from_a_factor_that_is_all_but_singular(start, monkeypatch):
    """The ones before it stay."""
    invert = SmoothInversion(LayeredInversion(SURVEY))
    fit = invert.layered.fit(1.0, record(smooth()))
    state, solve, called = fit.state(torch.from_numpy(start)), torch.cholesky_solve, []

    def spoilt(right, factor):
        called.append(1)
        return solve(right, factor) * (torch.nan if len(called) == 3 else 1)

    monkeypatch.setattr(torch, "cholesky_solve", spoilt)
    assert len(invert._trials(fit, Stage(1, 1), state)) == 2


def test_the_precision_is_that_of_the_priors_penalty():
    velocity = torch.from_numpy(smooth())
    precision = _precision(SURVEY.map_shape, velocity.device)
    value, slope = SmoothPrior().penalty(velocity[None])
    torch.testing.assert_close(precision @ velocity.flatten(), slope.flatten())
    torch.testing.assert_close(0.5 * velocity.flatten() @ precision @ velocity.flatten(), value[0])
    assert torch.equal(precision, precision.T)
