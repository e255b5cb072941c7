"""Derivatives of spectra against differences of the exact scheme's records."""

from dataclasses import replace

import pytest
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave import simulate
from comp.fwi.wave.born import Born

# Long enough for the waves to leave, with an odd choice of sources and receivers.
SURVEY = Survey(
    ny=18,
    nx=25,
    nt=600,
    pad=60,
    source_columns=(3, 20),
    receiver_columns=(0, 7, 16, 24),
    source_row=1,
    receiver_row=2,
)


def steps(survey=SURVEY):
    """A map with a step sideways and one downward."""
    velocity = torch.full((1, *survey.map_shape), 1800.0, dtype=torch.float64)
    velocity[:, 6:] = 2300
    velocity[:, 11:, 12:] = 2900
    return velocity


def spectrum(records, born):
    """(bins, shots · receivers)."""
    found = torch.fft.rfft(records[0], n=born.length, dim=1)[:, list(born.bins)]
    return found.movedim(1, 0).flatten(1)


@pytest.fixture
def derivatives(one_thread):
    born = Born(SURVEY, 45)
    return torch.stack(list(born.derivatives(steps()[0].float(), born.bins)))


def difference(change, step=1.0):
    born = Born(SURVEY, 45)
    moved = simulate(steps() + step * change, SURVEY) - simulate(steps() - step * change, SURVEY)
    return spectrum(moved / (2 * step), born)


@pytest.mark.parametrize(
    ("row", "column", "off"),
    [(9, 12, 0.06), (5, 4, 0.06), (14, 20, 0.08), (9, 0, 0.2), (17, 9, 0.2)],
)
def test_a_cells_derivative(derivatives, row, column, off):
    change = torch.zeros_like(steps())
    change[0, row, column] = 1
    expected = difference(change)
    found = derivatives[:, :, row * SURVEY.nx + column]
    assert (found - expected).norm() < off * expected.norm()


def test_all_cells_together_with_their_margin(derivatives):
    """What the edges' continuation adds is in it: a uniform change moves the margin too."""
    expected = difference(torch.ones_like(steps()))
    assert (derivatives.sum(2) - expected).norm() < 0.06 * expected.norm()


def test_one_bin_alone_is_the_same(derivatives):
    born = Born(SURVEY, 45)
    (found,) = born.derivatives(steps()[0].float(), [7])
    torch.testing.assert_close(found, derivatives[list(born.bins).index(7)])


def test_sampling_follows_the_highest_frequency():
    born = Born(SURVEY, 45)
    assert (born.every, born.length) == (5, 600)
    assert born.frequency(born.bins[-1]) <= 45 < born.frequency(born.bins[-1] + 1)
    assert Born(replace(SURVEY, nt=603), 45).length == 600
