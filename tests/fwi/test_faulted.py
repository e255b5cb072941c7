"""Even layers cut by faults: read from maps, and inverted for."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi.facets import facets
from comp.fwi.faulted import FaultedInversion
from comp.fwi.layered import LayeredInversion
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


def test_published_kinds_of_maps_hardly_change():
    maps = generate("FlatFault_A", 8, 2).astype(float)
    change = [np.abs(facets(one) - one).mean() for one in maps]
    assert np.median(change) < 2


def test_a_map_without_pieces_stays():
    noise = 2500 + 300 * np.random.default_rng(0).normal(size=(24, 20))
    np.testing.assert_array_equal(facets(noise), noise)
    even = np.full((24, 20), 2000.0)
    np.testing.assert_array_equal(facets(even), even)


def test_a_column_without_layers_gets_a_mixture():
    truth = faulted()
    truth[:, 4] = np.linspace(1500, 4000, 24)
    found = facets(truth)
    assert np.isfinite(found).all() and found.min() >= 1800 and found.max() <= 2900.1


def test_takes_turns_and_keeps_the_more_even_map(monkeypatch):
    truth = faulted()
    observed = simulate(torch.tensor(truth[None], dtype=torch.float32), SURVEY)[0].numpy()
    blurred = gaussian_filter(truth, 1.0)
    starts = []

    def inversion(self, start, record):
        """Total variation stops half way; from even layers it gets all the way."""
        starts.append(start)
        return blurred if len(starts) == 1 else 0.9 * truth + 0.1 * start

    monkeypatch.setattr(LayeredInversion, "__call__", inversion)
    found = FaultedInversion(LayeredInversion(SURVEY), tries=0)(blurred, observed)
    assert len(starts) == 3
    np.testing.assert_array_equal(starts[0], blurred)
    assert np.abs(starts[2] - facets(0.9 * truth + 0.1 * starts[1])).max() < 1e-9
    np.testing.assert_array_equal(found.velocity, 0.9 * truth + 0.1 * starts[2])
    monkeypatch.setattr(LayeredInversion, "__call__", lambda self, start, record: truth)
    assert FaultedInversion(LayeredInversion(SURVEY))(blurred, observed).misfit == 0


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


def test_total_variation_is_tried_again_while_it_helps(monkeypatch):
    truth = faulted()
    observed = simulate(torch.tensor(truth[None], dtype=torch.float32), SURVEY)[0].numpy()
    maps = [truth + 60, truth + 30, truth + 31, truth]
    results = iter(maps)
    monkeypatch.setattr(LayeredInversion, "__call__", lambda self, start, record: next(results))
    found = FaultedInversion(LayeredInversion(SURVEY), tries=3, turns=0)(truth, observed)
    np.testing.assert_array_equal(found.velocity, maps[1])
