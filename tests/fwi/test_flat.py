"""Inversion for v(z): it finds the truth exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from comp.fwi.blocks import ends_of
from comp.fwi.flat import FlatInversion
from comp.fwi.flat_fit import FlatFit
from comp.fwi.survey import Survey
from comp.fwi.wave import simulate

NARROW = Survey(
    ny=30, nx=24, nt=300, pad=30, source_columns=(0, 18), receiver_columns=tuple(range(24))
)


def record(velocity, survey=NARROW):
    return simulate(torch.tensor(velocity[None], dtype=torch.float32), survey)[0].numpy()


def level(*layers):
    """A map of `NARROW` from (rows, velocity) pairs."""
    profile = np.concatenate([np.full(rows, velocity) for rows, velocity in layers])
    return np.repeat(profile[:, None].astype(float), NARROW.nx, 1)


def smeared(truth, width):
    """`truth` with its interfaces blurred over 2·width + 1 rows, and waves of 3 % on it."""
    kernel = np.full(2 * width + 1, 1 / (2 * width + 1))
    blurred = [np.convolve(np.pad(c, width, "edge"), kernel, "valid") for c in truth.T]
    waves = 1 + 0.03 * np.sin(np.arange(NARROW.ny)[:, None] / 4)
    return np.stack(blurred).T * waves + 20 * np.sin(np.arange(NARROW.nx) / 5)


@pytest.fixture
def slopes(monkeypatch):
    """Every state at which the misfit's slope is taken."""
    found, plain = [], FlatFit.slope

    def remember(self, state):
        found.append(state)
        return plain(self, state)

    monkeypatch.setattr(FlatFit, "slope", remember)
    return found


@pytest.mark.parametrize(
    ("width", "layers"),
    [
        (3, ((8, 1700), (9, 2400), (13, 3100))),
        # Contrasts of 4 and 8 m/s; local optima for a search that moves one end by a row or two.
        (6, ((5, 3736), (7, 3411), (6, 3415), (8, 3881), (4, 1527))),
        (6, ((4, 3645), (9, 3653), (12, 2038), (5, 4103))),
        # Slower layers below faster ones; the first blocks found are a local optimum.
        (4, ((8, 3484), (5, 4109), (8, 2089), (5, 4147), (4, 1730))),
    ],
)
def test_finds_the_truth_exactly(width, layers):
    truth = level(*layers)
    found = FlatInversion(NARROW)(smeared(truth, width), record(truth))
    np.testing.assert_array_equal(found, truth)


def test_ends_where_only_rounding_is_left_to_fit(slopes):
    """A record in float16 has a misfit above the tolerance at its own map."""
    truth = level((8, 1700), (9, 2400), (13, 3100))
    rounded = (256 * record(truth)).astype(np.float16).astype(np.float32) / 256
    inversion = FlatInversion(NARROW)
    np.testing.assert_array_equal(inversion(smeared(truth, 3), rounded), truth)
    assert len(slopes) <= 5 and slopes[-1].misfit > 5 * inversion.tolerance


def test_a_start_far_off_takes_smooth_steps(slopes):
    truth = level((12, 2000), (18, 3000))
    inversion = FlatInversion(NARROW)
    found = inversion(np.full(truth.shape, 1700.0), record(truth))
    np.testing.assert_array_equal(found, truth)
    assert max(len(ends_of(state.profile)) for state in slopes) >= inversion.most


@pytest.mark.parametrize(
    ("start", "layers"),
    [
        (smeared, ((5, 3214), (5, 2841), (6, 1519), (14, 3130))),
        (smeared, ((9, 2025), (2, 3939), (3, 3448), (2, 4238), (14, 3010))),
        (np.full_like, ((4, 2943), (1, 2768), (2, 2709), (15, 1584), (8, 1516))),
    ],
)
def test_low_frequencies_lead_out_of_a_local_optimum(start, layers):
    truth = level(*layers)
    start, observed = start(truth, 8 if start is smeared else truth.mean()), record(truth)
    np.testing.assert_array_equal(FlatInversion(NARROW)(start, observed), truth)
    without = FlatInversion(NARROW, low=())(start, observed)
    assert np.abs(without - truth).mean() > 50


def test_all_frequencies_are_tried_where_low_ones_lead_astray(monkeypatch):
    truth = level((8, 1700), (9, 2400), (13, 3100))
    astray = np.full(NARROW.ny, 4000.0)
    monkeypatch.setattr(FlatInversion, "_low", lambda self, record, profile: astray)
    for far in (0.0, 10.0):
        found = FlatInversion(NARROW, far=far, smooth_steps=3)(smeared(truth, 3), record(truth))
        np.testing.assert_array_equal(found, truth)


def test_a_gradient_stays_smooth():
    """No few blocks fit it. The lowest rows are not in the record yet."""
    truth = np.repeat(np.linspace(1700, 2900, NARROW.ny)[:, None], NARROW.nx, 1)
    start = smeared(truth, 3)
    found = FlatInversion(NARROW, most=4, block_steps=3)(start, record(truth))
    assert len(np.unique(found)) > 4
    before, after = (np.abs(v - truth)[:18].mean() for v in (start, found))
    assert after < 0.4 * before


def test_keeps_to_the_surveys_velocities():
    survey = replace(NARROW, max_velocity=2900.0)
    truth = level((15, 1700), (15, 3400))
    found = FlatInversion(survey, smooth_steps=2, block_steps=2)(truth * 0.8, record(truth))
    assert found.min() >= 1500 and found.max() <= 2900
