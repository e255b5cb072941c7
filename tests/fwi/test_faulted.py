"""Even layers cut by faults: read from maps, and inverted for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi.even import even_groups
from comp.fwi.faulted import FaultedInversion
from comp.fwi.layered import LayeredInversion, Stage
from comp.fwi.sparse import GROUPS
from comp.fwi.spectral import Found, SpectralFit
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


def off_its_groups(velocity, of):
    """Mean of what the cells of a map's groups are off their groups' medians in another map."""
    group = even_groups(of)
    assert (group >= 0).mean() > 0.75
    numbers = np.unique(group[group >= 0])
    off = [velocity[group == one] - np.median(velocity[group == one]) for one in numbers]
    return np.abs(np.concatenate(off)).mean()


def test_layers_and_rows_of_level_interfaces_are_groups():
    group = even_groups(faulted())
    assert (group[:5] == 0).all() and (group[12:14] == 1).all() and (group[21:] == 2).all()
    for side, rows in ((group[:, :9], slice(5, 9)), (group[:, 9:], slice(8, 12))):
        assert (side == side[:, :1]).all()
        assert len(np.unique(side[rows, 0])) == 4 and (side[rows] > 2).all()
    assert group[7, 0] != group[10, 19]


def test_cells_at_a_fault_and_around_it_are_of_no_group():
    velocity = faulted()
    velocity[5:20, 9] = velocity[5:20, 8:11].mean(1)
    group = even_groups(velocity)
    assert (group[7:10, 8:11] == -1).all()
    assert (group[:4] == 0).all() and (group[:, :7] >= 0).all()
    assert (group < 0).mean() < 0.2


@pytest.mark.parametrize(
    ("family", "most"),
    [("FlatFault_A", 0.1), ("FlatFault_B", 2), ("CurveFault_A", 6)],
)
def test_published_kinds_of_maps_are_even_in_groups(family, most):
    for one in generate(family, 4, 2).astype(float):
        assert off_its_groups(one, one) < most
        assert even_groups(one).max() < GROUPS


def test_groups_of_a_drifting_map_are_those_of_the_map():
    drifts = faulted() + np.linspace(-2, 2, 20)
    assert off_its_groups(faulted(), drifts) < 2
    assert (even_groups(drifts) == even_groups(faulted())).mean() > 0.9


def test_what_differs_little_is_one_layer():
    for step, layers in ((15, 2), (40, 3)):
        velocity = np.repeat(np.repeat([2000.0, 2000 + step, 3000], 8)[:, None], 20, 1)
        group = even_groups(velocity)
        assert len({group[row, 9] for row in (3, 11, 20)}) == layers


def test_thick_transitions_have_no_groups():
    ramp = np.repeat(np.interp(np.arange(24), [8, 16], [2000, 3000])[:, None], 20, 1)
    assert (even_groups(ramp)[10:15] == -1).all()


def test_a_map_without_pieces_has_no_groups():
    noise = 2500 + 300 * np.random.default_rng(0).normal(size=(24, 20))
    assert (even_groups(noise) == -1).all()
    assert (even_groups(np.full((24, 20), 2000.0)) == 0).all()


def test_drifting_layers_are_evened():
    truth = faulted()
    record = simulate(torch.tensor(truth[None], dtype=torch.float32), SURVEY)[0].numpy()
    near = truth + 3 * np.sin(np.arange(20) / 3) + 2 * np.cos(np.arange(24) / 2)[:, None]
    invert = FaultedInversion(
        LayeredInversion(SURVEY, stages=(Stage(3, 2, 0.5, 10.0, True),)), tries=0
    )
    found = invert(near, record)
    assert np.abs(near - truth).mean() > 2
    assert np.abs(found.velocity - truth).mean() < 0.06
    assert found.misfit < 1e-5
    again = invert(near, record)
    np.testing.assert_array_equal(again.velocity, found.velocity)


def inversion(monkeypatch, free, evened, **settings):
    """The misfit kept, and how often total variation ran, where these are what they end at."""
    results, ended = iter(free), []

    def total_variation(self, start, record):
        ended.append(next(results))
        return np.full(SURVEY.map_shape, 2000 + ended[-1])

    monkeypatch.setattr(LayeredInversion, "__call__", total_variation)
    monkeypatch.setattr(SpectralFit, "residuals", lambda self, maps: (None, maps[:, 0, 0] - 2000))
    monkeypatch.setattr(
        FaultedInversion,
        "_evened",
        lambda self, fit, start: [Found(start, misfit) for misfit in evened],
    )
    record = np.ones(SURVEY.record_shape, np.float32)
    found = FaultedInversion(LayeredInversion(SURVEY), **settings)(faulted(), record)
    return pytest.approx(found.misfit), len(ended)


def test_of_maps_that_fit_about_as_well_the_more_even_one_is_kept(monkeypatch):
    assert inversion(monkeypatch, [8e-6], [4e-6, 6e-6]) == (6e-6, 1)
    assert inversion(monkeypatch, [8e-6], [4e-6, 9e-6]) == (4e-6, 1)
    assert inversion(monkeypatch, [2e-6], [5e-6, 6e-6]) == (2e-6, 1)


def test_total_variation_is_tried_again_while_it_helps(monkeypatch):
    tried = {"tries": 3, "lost": 0.0}
    assert inversion(monkeypatch, [9e-4, 5e-4, 4.9e-4, 1e-7], [], **tried) == (4.9e-4, 3)
    assert inversion(monkeypatch, [9e-4, 9e-6, 1e-7], [], **tried) == (9e-6, 2)
    assert inversion(monkeypatch, [9e-6, 1e-7], [], **tried) == (9e-6, 1)


def test_a_map_that_is_stuck_is_a_start_once_more(monkeypatch):
    assert inversion(monkeypatch, [9e-4, 8e-6, 1e-7], [], tries=0) == (8e-6, 2)
    assert inversion(monkeypatch, [9e-4, 1e-3, 1e-7], [], tries=0) == (9e-4, 2)
    assert inversion(monkeypatch, [2e-2, 1e-7], [], tries=0) == (2e-2, 1)


def test_edges_that_stand_wrongly_form_anew():
    depth = np.where(np.arange(20) < 13, 0, -5)
    cell = np.arange(24)[:, None]
    truth = np.choose((cell >= 16 + depth) + 1 * (cell >= 21 + depth), [4166.0, 3832.0, 2853.0])
    record = simulate(torch.tensor(truth[None], dtype=torch.float32), SURVEY)[0].numpy()
    start, invert = gaussian_filter(truth, 3.0), FaultedInversion(LayeredInversion(SURVEY))
    assert np.abs(replace(invert, lost=0.0)(start, record).velocity - truth).mean() > 50
    assert np.abs(invert(start, record).velocity - truth).mean() < 0.1


def test_evening_ends_where_there_is_nothing_to_gain(monkeypatch):
    truth, steps = faulted(), []
    monkeypatch.setattr(
        LayeredInversion,
        "step",
        lambda self, fit, stage, state, cost, damping, group: (
            steps.append(cost) or fit.state(state.velocity + 1 / len(steps)),
            damping,
        ),
    )
    record = simulate(torch.tensor(truth[None], dtype=torch.float32), SURVEY)[0].numpy()
    layered = LayeredInversion(SURVEY)
    fit, even = layered.fit(3, record), FaultedInversion(layered)._evened
    assert even(fit, truth) == [] and not steps  # it fits
    assert len(even(fit, truth + 1)) == 8 == len(steps)
    stays = lambda self, fit, stage, state, *others: (state, 1.0)  # noqa: E731
    monkeypatch.setattr(LayeredInversion, "step", stays)
    assert even(fit, truth + 1) == []
