"""Even layers cut by faults: read from maps, and inverted for."""

import numpy as np
import pytest
import torch

from comp.fwi.facets import facets
from comp.fwi.faulted import FaultedInversion
from comp.fwi.layered import LayeredInversion
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.velocity import generate
from comp.fwi.velocity_layers import soft_step
from comp.fwi.wave import simulate

SURVEY = Survey(
    ny=24, nx=20, nt=320, pad=30, source_columns=(0, 9, 19), receiver_columns=tuple(range(20))
)


def faulted(rows=24, columns=20):
    """Three layers, right of column 9 three rows lower."""
    depth = np.where(np.arange(columns) < 9, 0.0, 3.0)
    cell = np.arange(rows)[:, None] + 0.5
    out = np.full((rows, columns), 1800.0)
    for jump, top in ((500, 7.3), (600, 15.6)):
        out += jump * soft_step(cell - top - depth)
    return out


def test_a_map_of_even_layers_stays():
    np.testing.assert_allclose(facets(faulted()), faulted(), atol=8)
    assert np.abs(facets(faulted()) - faulted()).mean() < 1


def test_layers_are_evened_and_interfaces_share_as_they_should():
    truth = faulted()
    found = truth + np.linspace(-2, 2, 20)  # drifts by less than neighbours may differ
    top, bottom = found[7, :9].copy(), found[8, :9].copy()
    found[7, :9], found[8, :9] = top + 30, bottom - 30
    assert np.abs(facets(found) - truth).mean() < 0.5 * np.abs(found - truth).mean()


@pytest.mark.parametrize(("family", "most"), [("FlatFault_A", 2), ("CurveFault_A", 2.5)])
def test_published_kinds_of_maps_hardly_change(family, most):
    maps = generate(family, 8, 2).astype(float)
    assert np.median([np.abs(facets(one) - one).mean() for one in maps]) < most


def test_what_differs_little_is_one_layer():
    near, far = (np.repeat([2000.0, 2000 + step, 3000], 8)[:, None] for step in (15, 40))
    near, far = (np.repeat(one, 20, 1) for one in (near, far))
    assert len(np.unique(np.rint(facets(near)))) == 4  # two layers, two rows of the interface
    np.testing.assert_allclose(np.unique(facets(far))[[0, -1]], [2000, 3000])
    np.testing.assert_allclose(facets(far)[12], 2040)


def test_thick_transitions_and_thin_layers_at_the_edge_stay():
    ramp = np.repeat(np.interp(np.arange(24), [8, 16], [2000, 3000])[:, None], 20, 1)
    np.testing.assert_allclose(facets(ramp)[8:17], ramp[8:17], atol=1)
    thin = faulted()
    thin[:2] = 1500
    np.testing.assert_array_equal(facets(thin)[:2], 1500)


def test_a_map_without_pieces_stays():
    noise = 2500 + 300 * np.random.default_rng(0).normal(size=(24, 20))
    np.testing.assert_array_equal(facets(noise), noise)
    even = np.full((24, 20), 2000.0)
    np.testing.assert_array_equal(facets(even), even)


def test_a_column_without_layers_stays():
    truth = faulted()
    truth[:, 4] = np.linspace(1500, 4000, 24)
    np.testing.assert_array_equal(facets(truth)[:, 4], truth[:, 4])


def inversion(monkeypatch, maps, misfits, **settings):
    """The map kept, and how many inversions it took, where these are what they end at."""
    results, ended = iter(maps), []

    def total_variation(self, start, record):
        ended.append(next(results))
        return ended[-1]

    def residuals(self, velocity):
        near = [np.abs(one - velocity[0]).mean() for one in maps]
        return None, np.array([misfits[int(np.argmin(near))]])

    monkeypatch.setattr(LayeredInversion, "__call__", total_variation)
    monkeypatch.setattr(SpectralFit, "residuals", residuals)
    record = np.ones(SURVEY.record_shape, np.float32)
    found = FaultedInversion(LayeredInversion(SURVEY), **settings)(faulted(), record)
    return [one is found.velocity for one in maps].index(True), len(ended)


def test_of_maps_that_fit_about_as_well_the_more_even_one_is_kept(monkeypatch):
    maps = [faulted() + step for step in (9, 6, 3)]
    assert inversion(monkeypatch, maps, [8e-5, 4e-5, 6e-5]) == (2, 3)
    assert inversion(monkeypatch, maps, [8e-5, 4e-5, 9e-5]) == (1, 3)
    assert inversion(monkeypatch, maps, [2e-5, 5e-5, 6e-5]) == (0, 3)


def test_nothing_more_is_done_for_a_map_that_fits(monkeypatch):
    maps = [faulted() + step for step in (9, 6, 3)]
    assert inversion(monkeypatch, maps, [9e-6, 1e-7, 1e-7]) == (0, 1)
    assert inversion(monkeypatch, maps, [8e-5, 9e-6, 1e-7]) == (1, 2)


def test_total_variation_is_tried_again_while_it_helps(monkeypatch):
    maps = [faulted() + step for step in (60, 30, 31, 0)]
    assert inversion(monkeypatch, maps, [9e-4, 5e-4, 4.9e-4, 1e-7], tries=3, turns=0) == (2, 3)
    assert inversion(monkeypatch, maps, [9e-4, 9e-5, 1e-7, 1e-7], tries=3, turns=0) == (1, 2)
    assert inversion(monkeypatch, maps, [9e-5, 1e-7, 1e-7, 1e-7], tries=3, turns=0) == (0, 1)


def test_maps_that_are_not_of_even_layers_are_left_alone(monkeypatch):
    truth = np.repeat(2000 + 5.0 * np.arange(24)[:, None], 20, 1)  # all of it one piece
    observed = simulate(torch.tensor(truth[None], dtype=torch.float32), SURVEY)[0].numpy()
    ended, starts = truth + 30, []
    monkeypatch.setattr(
        LayeredInversion, "__call__", lambda self, start, record: starts.append(start) or ended
    )
    invert = FaultedInversion(LayeredInversion(SURVEY), tries=0)
    assert np.abs(facets(ended) - ended).mean() > invert.alike
    np.testing.assert_array_equal(invert(truth, observed).velocity, ended)
    assert len(starts) == 1
