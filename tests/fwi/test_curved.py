"""Inversion for layers between bent interfaces."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi import refine
from comp.fwi.curved import CurvedInversion
from comp.fwi.guesses import Guess
from comp.fwi.interfaces import Layers
from comp.fwi.refine import Refiner, Sample, Settings
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.wave import simulate

SURVEY = Survey(
    ny=24, nx=20, nt=320, pad=30, source_columns=(0, 9, 19), receiver_columns=tuple(range(20))
)
VELOCITY = np.array([1800.0, 2300, 2900])


def bent():
    first = np.rint(7 + 2 * np.sin(np.arange(20) / 4))
    return Layers(VELOCITY, np.stack([first, first + 11]))


def record(velocity):
    return simulate(torch.tensor(velocity[None], dtype=torch.float32), SURVEY)[0].numpy()


@pytest.fixture(scope="module")
def observed():
    return record(bent().map(24))


def error(velocity):
    return np.abs(velocity - bent().map(24)).mean()


def test_residuals_are_those_of_the_squared_misfit(observed):
    fit = SpectralFit(observed, 2.0, SURVEY, "sponge", torch.float32, "cpu", 45.0, 0.05)
    maps = np.stack([bent().map(24), bent().map(24) * 1.02])
    residuals, misfits = fit.residuals(maps)
    assert residuals[0].abs().max() == 0 and misfits[0] == 0
    state = fit.state(torch.from_numpy(maps[1]))
    assert float(residuals[1] @ residuals[1]) == pytest.approx(float(state.squared), rel=1e-6)
    assert misfits[1] == pytest.approx(state.misfit, rel=1e-6)


def test_ends_at_exactly_the_truth(observed):
    """From a blurred map whose lower half is too slow and too deep."""
    start = gaussian_filter(np.roll(bent().map(24), 1, 0), 1.0, mode="nearest")
    start[:8] = bent().map(24)[:8]
    start[14:] *= 0.97
    invert = CurvedInversion(SURVEY, layers=range(3, 4), cycles=0, rounds=8)
    found, misfit = invert(start, observed)
    assert error(start) > 40 and misfit == 0
    np.testing.assert_array_equal(found, bent().map(24))


def test_what_fits_well_is_left_alone(observed):
    start = bent().map(24)
    start[20, 3] += 1.0
    assert CurvedInversion(SURVEY)(start, observed) is None


def test_level_layers_cut_by_a_fault_are_left_alone(monkeypatch):
    truth = np.full(SURVEY.map_shape, 1800.0)
    truth[6:, :9], truth[10:, 9:], truth[18:] = 2300, 2300, 2900
    start, observed = gaussian_filter(truth, 0.5), record(truth)
    tried = []
    settle = lambda self, fits, layers: tried.append(layers) or (layers, np.inf)  # noqa: E731
    monkeypatch.setattr(CurvedInversion, "_settle", settle)
    assert CurvedInversion(SURVEY, layers=range(3, 4))(start, observed) is None
    assert not tried
    assert CurvedInversion(SURVEY, layers=range(3, 4), level=1.0)(start, observed) is None
    assert len(tried) == 1


def test_a_map_that_is_not_of_layers_is_left_alone():
    random = np.random.default_rng(0)
    truth = 2500 + 400 * gaussian_filter(random.normal(size=(24, 20)), 2.0) * 5
    start = truth + 3 * random.normal(size=truth.shape)
    invert = CurvedInversion(SURVEY, layers=range(3, 5), steps=1, rounds=1, cycles=1)
    assert invert(start, record(truth)) is None


def test_bends_interfaces_and_velocities(observed):
    invert = CurvedInversion(SURVEY)
    fit = invert._near.fit(3, observed)
    shift = 1.5 * np.cos(np.arange(20) / 6)
    before = Layers(VELOCITY * [1, 1.02, 0.98], bent().depth + [[0], [1]] * shift)
    after = invert._bend(fit, before)
    assert (
        np.abs(after.depth - bent().depth).mean()
        < 0.05
        < np.abs(before.depth - bent().depth).mean()
    )
    assert error(after.map(24)) < 0.4 * error(before.map(24))


def test_a_velocity_comes_back_from_the_fastest_there_is():
    truth = Layers(np.array([2000.0, 3000, 4300]), bent().depth)
    start = Layers(np.array([2000.0, 3000, 4500]), bent().depth)
    invert = CurvedInversion(SURVEY)
    fit = invert._near.fit(3, record(truth.map(24)))
    assert invert._move(fit, start)[1] == 0
    assert invert._bend(fit, start).velocity[2] == pytest.approx(4300, abs=5)


@pytest.mark.parametrize("final", [True, False])
def test_a_final_guess_ends_the_refinement(monkeypatch, observed, final):
    """Though its misfit is one that L-BFGS could lower."""
    layers = Layers(VELOCITY * [1, 1, 1.02], bent().depth).map(24)
    monkeypatch.setattr(
        refine, "guesses", lambda *how: {"layered": lambda *of: Guess(layers, final)}
    )
    settings = Settings(evaluations=6, batch=1)
    sample = Sample(0, gaussian_filter(layers, 2.0), observed, "layered")
    (found,) = (one for ended in Refiner(settings, SURVEY).refine([sample]) for one in ended)
    assert found.misfit[1] > 1e-3
    assert (found.stop == "found") == final
    assert (np.abs(found.velocity - layers).max() < 1e-3) == final
