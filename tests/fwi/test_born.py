"""Derivatives of spectra against differences of the exact scheme's records."""

from dataclasses import replace

import pytest
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave import simulate
from comp.fwi.wave.born import Born

# With an odd choice of sources and receivers, and waves still about when the record ends.
SURVEY = Survey(
    ny=18,
    nx=25,
    nt=300,
    pad=20,
    source_columns=(3, 20),
    receiver_columns=(0, 7, 16, 24),
    source_row=1,
    receiver_row=2,
)
BORN = Born(SURVEY, 45)


def steps(survey=SURVEY):
    """A map with a step sideways and one downward."""
    velocity = torch.full((1, *survey.map_shape), 1800.0, dtype=torch.float64)
    velocity[:, 6:] = 2300
    velocity[:, 11:, 12:] = 2900
    velocity[:, 4, 18] = 1700  # the slowest also sets the sponge's strength, which is left out
    return velocity


@pytest.fixture(scope="module")
def derivatives():
    """(shots, bins, receivers, cells)."""
    return torch.stack(list(BORN.derivatives(steps()[0].float())))


def difference(change, step=1.0, born=BORN):
    moved = [simulate(steps() + sign * step * change, born.survey)[0] for sign in (1, -1)]
    return born.spectrum((moved[0] - moved[1]) / (2 * step))


# Inside, at the edges, in corners, under a source and under a receiver.
@pytest.mark.parametrize(
    ("row", "column"),
    [(9, 12), (5, 4), (9, 0), (17, 9), (0, 13), (1, 20), (2, 7), (0, 0), (17, 24)],
)
def test_a_cells_derivative(derivatives, row, column):
    change = torch.zeros_like(steps())
    change[0, row, column] = 1
    expected = difference(change)
    found = derivatives[..., row * SURVEY.nx + column]
    assert (found - expected).norm() < 2e-3 * expected.norm()


def test_all_cells_but_the_slowest_together(derivatives):
    change = (steps() > 1700).double()
    expected = difference(change)
    found = derivatives @ change.flatten().to(derivatives.dtype)
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("highest", [6.5, 15, 26, 60])
def test_up_to_other_frequencies(highest):
    """Of low ones fields hold more than is asked for, and the record's end mixes them."""
    born = Born(replace(SURVEY, nt=500), highest)
    change = (steps() > 1700).double()
    expected = difference(change, born=born)
    found = torch.stack(list(born.derivatives(steps()[0].float())))
    found = found @ change.flatten().to(found.dtype)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_sources_and_receivers_in_one_row():
    """Which are simulated together."""
    survey = replace(SURVEY, receiver_row=SURVEY.source_row)
    born, velocity = Born(survey, 45), steps(survey)
    change = (velocity > 1700).double()
    moved = [simulate(velocity + sign * change, survey)[0] for sign in (1, -1)]
    expected = born.spectrum((moved[0] - moved[1]) / 2)
    found = torch.stack(list(born.derivatives(velocity[0].float())))
    found = found @ change.flatten().to(found.dtype)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_gradient_and_hessian_are_of_the_derivatives(derivatives):
    born = Born(SURVEY, 45)
    weights = torch.linspace(0, 2, len(born.bins), dtype=torch.float64)
    scaled = (2 * weights).sqrt()[:, None, None] * derivatives
    parts = torch.view_as_real(scaled).transpose(3, 4).flatten(0, 3)
    generator = torch.Generator().manual_seed(0)
    spectra = torch.randn(derivatives.shape[:-1], dtype=torch.complex128, generator=generator)
    gradient, found = born.normal(steps()[0].float(), weights, spectra)
    assert (found - parts.T @ parts).norm() < 1e-5 * found.norm()
    assert torch.equal(found, found.T)
    # Twice the real part of the derivatives' conjugates times the spectra.
    expected = (derivatives.conj() * (2 * weights[:, None] * spectra)[..., None]).real.sum(
        (0, 1, 2)
    )
    assert (gradient.flatten() - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same(derivatives):
    found = torch.stack(list(Born(SURVEY, 45).derivatives(steps()[0].float().cuda()))).cpu()
    assert (found - derivatives).norm() < 1e-4 * derivatives.norm()


def test_sampling_follows_the_highest_frequency():
    born = Born(SURVEY, 45)
    assert (born.every, born.length) == (5, SURVEY.nt)
    assert born.frequency(born.bins[-1]) <= 45 < born.frequency(born.bins[-1] + 1)
    assert Born(replace(SURVEY, nt=303), 45).length == 300
