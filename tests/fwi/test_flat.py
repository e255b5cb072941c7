"""Inversion for v(z): it finds the truth exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from comp.fwi.flat import FlatInversion, divide
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


def test_finds_the_truth_exactly():
    truth = level((8, 1700), (9, 2400), (13, 3100))
    x, z = np.meshgrid(np.arange(NARROW.nx), np.arange(NARROW.ny))
    start = np.stack(
        [np.convolve(np.pad(c, 3, "edge"), np.full(7, 1 / 7), "valid") for c in truth.T]
    )
    start = start.T * (1 + 0.03 * np.sin(z / 4)) + 20 * np.sin(x / 5)
    found = FlatInversion(NARROW)(start, record(truth))
    np.testing.assert_array_equal(found, truth)


def test_keeps_to_the_surveys_velocities():
    survey = replace(NARROW, max_velocity=2900.0)
    truth = level((15, 1700), (15, 3400))
    found = FlatInversion(survey, smooth_steps=2, block_steps=2)(truth * 0.8, record(truth))
    assert found.min() >= 1500 and found.max() <= 2900


@pytest.mark.parametrize("count", [1, 3, 4])
def test_divide_finds_the_blocks(count):
    profile = np.repeat([1.0, 5.0, 4.0, 9.0][:count], [4, 7, 3, 6][:count])
    assert divide(profile, count) == (4, 11, 14)[: count - 1]


def test_divide_is_the_best_of_all():
    profile = np.random.default_rng(0).normal(size=9).cumsum()

    def cost(cuts):
        return sum(part.var() * len(part) for part in np.split(profile, cuts))

    best = min(((i, j) for j in range(2, 9) for i in range(1, j)), key=cost)
    assert divide(profile, 3) == best
