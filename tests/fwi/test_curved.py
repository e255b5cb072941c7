"""Inversion for layers between bent interfaces."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi import refine
from comp.fwi.bends import Bends
from comp.fwi.curved import CurvedInversion
from comp.fwi.guesses import Guess
from comp.fwi.interfaces import Layers, moved, moves
from comp.fwi.layered import LayeredInversion
from comp.fwi.refine import Refiner, Sample, Settings
from comp.fwi.row_moves import RowMoves, _runs
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.wave import simulate

SURVEY = Survey(
    ny=24, nx=20, nt=320, pad=30, source_columns=(0, 9, 19), receiver_columns=tuple(range(20))
)
VELOCITY = np.array([1800.0, 2300, 2900])
BENDS = Bends(3, SURVEY)
# Depths at columns 0, 10 and 27 of both interfaces, in cells.
UNKNOWNS = np.concatenate([VELOCITY, [5.3, 11.4, 2.1], [17.8, 22.9, 14.2]])


def bent():
    return BENDS.whole(UNKNOWNS)


def record(velocity):
    return simulate(torch.tensor(velocity[None], dtype=torch.float32), SURVEY)[0].numpy()


def fit(observed, highest=3.0):
    return LayeredInversion(SURVEY).fit(highest, observed)


@pytest.fixture(scope="module")
def observed():
    return record(bent().map(24))


def error(velocity):
    return np.abs(velocity - bent().map(24)).mean()


def blurred():
    """A map whose lower half is too slow and too deep."""
    deeper = Layers(VELOCITY, bent().depth + 1)
    start = gaussian_filter(deeper.map(24), 1.0, mode="nearest")
    start[14:] *= 0.97
    return start


def test_residuals_are_those_of_the_squared_misfit(observed):
    fit = SpectralFit(observed, 2.0, SURVEY, "sponge", torch.float32, "cpu", 45.0, 0.05)
    maps = np.stack([bent().map(24), bent().map(24) * 1.02])
    residuals, misfits = fit.residuals(maps)
    assert residuals[0].abs().max() == 0 and misfits[0] == 0
    state = fit.state(torch.from_numpy(maps[1]))
    assert float(residuals[1] @ residuals[1]) == pytest.approx(float(state.squared), rel=1e-6)
    assert misfits[1] == pytest.approx(state.misfit, rel=1e-6)


def test_unknowns_come_back_from_their_layers():
    found = BENDS.nearest(bent())
    np.testing.assert_allclose(BENDS.layers(found).depth, BENDS.layers(UNKNOWNS).depth, atol=0.6)
    even = BENDS.layers(BENDS.even(bent()))
    np.testing.assert_allclose(np.diff(even.depth, axis=0), 12)
    np.testing.assert_allclose(even.depth[0], BENDS.layers(UNKNOWNS).depth[0], atol=0.6)


def test_gauss_newton_finds_velocities_and_depths():
    truth = BENDS.layers(UNKNOWNS)
    start = UNKNOWNS + [0, 40, -60, 1, -1, 0.5, -1, 1, 1]
    found, squared, misfit = BENDS.improve(fit(record(truth.map(24))), start, 10, 0.0)
    np.testing.assert_allclose(found[:3], VELOCITY, atol=2)
    np.testing.assert_allclose(BENDS.layers(found).depth, truth.depth, atol=0.05)
    assert squared < 1e-6 and misfit < 3e-3


def test_whole_rows_are_judged_as_such(observed):
    start = UNKNOWNS + [0, 5, -10, 0.3, -0.2, 0.1, -0.2, 0.2, 0.3]
    smooth, whole = (BENDS.improve(fit(observed), start, 6, 0.1, whole) for whole in (False, True))
    assert whole[2] < 0.5 * smooth[2]
    assert error(BENDS.whole(whole[0]).map(24)) < error(BENDS.whole(start).map(24))


def test_a_velocity_comes_back_from_the_fastest_there_is():
    truth = Layers(np.array([2000.0, 3000, 4300]), bent().depth)
    start = Layers(np.array([2000.0, 3000, 4500]), bent().depth)
    to_truth = fit(record(truth.map(24)))
    assert RowMoves(SURVEY)(to_truth, start)[1] == 0
    smooth = UNKNOWNS.copy()
    smooth[:3] = start.velocity
    found = BENDS.improve(to_truth, smooth, 10, 0.1)[0]
    assert found[2] == pytest.approx(4300, abs=60)


def test_moves_rows_and_velocities_to_the_truth(observed):
    depth = bent().depth.copy()
    depth[0, 3:9] += 1
    depth[1, [2, 15]] -= 1
    found, misfit = RowMoves(SURVEY)(fit(observed), Layers(VELOCITY + [0, 6, -9], depth))
    assert misfit == 0
    np.testing.assert_array_equal(found.map(24), bent().map(24))


def test_runs_of_moves_are_neighbours_of_one_interface_and_way():
    possible = list(moves(bent(), 24))
    runs = _runs(possible)
    assert sorted(np.concatenate(runs)) == list(range(len(possible)))
    for run in runs:
        of = [possible[i] for i in run]
        assert len({(move.interface, move.rows) for move in of}) == 1
        assert (np.diff([move.column for move in of]) == 1).all()
    assert max(map(len, runs)) == 20


def test_ends_at_the_truth(observed):
    found, misfit = CurvedInversion(SURVEY, layers=range(3, 4))(blurred(), observed)
    assert error(blurred()) > 40 and misfit <= 1e-6
    np.testing.assert_allclose(found, bent().map(24), atol=0.1)


def test_total_variation_takes_turns_where_moves_end_short(observed, monkeypatch):
    """Whatever it returns, the better layers are kept."""
    maps = iter([bent().map(24), bent().map(24) * 1.05])
    monkeypatch.setattr(LayeredInversion, "__call__", lambda self, start, record: next(maps))
    short = Layers(VELOCITY + [0, 0, 20], bent().depth), 1e-3
    monkeypatch.setattr(CurvedInversion, "_turn", lambda self, *how: short)
    found, misfit = CurvedInversion(SURVEY, layers=range(3, 4), cycles=1)(blurred(), observed)
    assert misfit == 0 and error(found) == 0
    monkeypatch.setattr(RowMoves, "__call__", lambda self, fit, layers: (layers, 5e-3))
    found, misfit = CurvedInversion(SURVEY, layers=range(3, 4), cycles=1)(blurred(), observed)
    assert misfit == 1e-3
    np.testing.assert_array_equal(found, short[0].map(24))


def test_level_layers_cut_by_a_fault_are_left_alone(monkeypatch):
    truth = np.full(SURVEY.map_shape, 1800.0)
    truth[6:, :9], truth[10:, 9:], truth[18:] = 2300, 2300, 2900
    start, observed = gaussian_filter(truth, 0.5), record(truth)
    assert np.abs(start - truth).mean() > 10
    tried = []
    turn = lambda self, *how: tried.append(how) or (bent(), 1.0)  # noqa: E731
    monkeypatch.setattr(CurvedInversion, "_turn", turn)
    assert CurvedInversion(SURVEY, layers=range(3, 4))(start, observed) is None
    assert not tried
    assert CurvedInversion(SURVEY, layers=range(3, 4), level=1.0)(start, observed).misfit == 1
    assert tried


def test_gently_bent_layers_are_looked_for_in_maps_that_they_explain():
    """They stay in a row as long as level ones cut by faults do."""
    gentle = Layers(VELOCITY, np.repeat([[7.0, 8.0], [16.0, 17.0]], 10, 1))
    blurred = gaussian_filter(gentle.map(24), 1.5)
    invert = CurvedInversion(SURVEY)
    assert gentle.level(24) > invert.level
    assert invert._bent(gentle.map(24), gentle) and not invert._bent(blurred, gentle)


def test_a_map_that_is_not_of_layers_is_not_explained():
    random = np.random.default_rng(0)
    truth = 2500 + 400 * gaussian_filter(random.normal(size=(24, 20)), 2.0) * 5
    start = truth + 3 * random.normal(size=truth.shape)
    found = CurvedInversion(SURVEY, layers=range(3, 5), turns=1, rounds=1)(start, record(truth))
    assert found is None or found[1] > 2e-2


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


def test_each_move_is_drawn_as_if_made():
    layers = Layers(VELOCITY, bent().depth + [[-6], [3]])
    possible = list(moves(layers, 24))
    expected = [moved(layers, 24, [move]).map(24) for move in possible]
    np.testing.assert_array_equal(RowMoves(SURVEY)._each(layers, possible), expected)
