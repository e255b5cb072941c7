"""Inversion for layers between bent interfaces."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi import refine
from comp.fwi.bends import Bends
from comp.fwi.curved import CurvedInversion
from comp.fwi.guesses import Guess
from comp.fwi.interfaces import Layers, moved, moves, readings
from comp.fwi.layered import LayeredInversion
from comp.fwi.refine import Refiner, Sample, Settings
from comp.fwi.row_moves import RowMoves, _runs
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.velocity_layers import CURVE_KNOTS, curve_knots, spline_weights
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


def test_layers_are_kept_about_even_at_a_price():
    start = UNKNOWNS + [0, 0, 0, 0, 0, 0, -4, 3, -4]
    to_truth = fit(record(BENDS.layers(start).map(24)))

    def uneven(share):
        found = BENDS.improve(to_truth, start + [0, 40, 40, *[0.0] * 6], 6, share)[0]
        return np.abs(np.diff(found[3:].reshape(2, 3), axis=0) - 12).mean()

    assert uneven(100.0) < 0.8 * uneven(0.0)


def test_interfaces_below_the_map_do_no_harm():
    below = np.concatenate([VELOCITY, np.full(3, 40.0), np.full(3, 52.0)])
    found, squared, _ = BENDS.improve(fit(record(bent().map(24))), below, 6, 0.0)
    assert np.isfinite(found).all() and np.isfinite(squared)


@pytest.mark.parametrize("columns", [5, 10, 11, 20, 21, 69, 70, 71])
def test_splines_of_any_width_have_three_knots_that_matter(columns):
    knots = curve_knots(columns)
    weights = spline_weights(knots, columns)
    assert len(knots) >= 3 and np.abs(weights).max(1).all()
    np.testing.assert_allclose(weights.sum(0), 1)
    assert curve_knots(70) == CURVE_KNOTS


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


def test_a_second_turn_starts_from_the_rows_of_the_first(observed):
    depth = bent().depth.copy()
    depth[0, 3:6] += 1
    settled = Layers(VELOCITY + [0, 10, -10], depth)
    invert = CurvedInversion(SURVEY, layers=range(3, 4), rounds=0)
    read = readings(settled.map(24), invert.layers)
    layers, misfit = invert._turn(invert._fits(observed), read, settled.map(24))
    assert misfit < 0.3 * float(fit(observed).residuals(settled.map(24)[None])[1][0])
    assert error(layers.map(24)) < 0.3 * error(settled.map(24))


def test_rows_of_a_settled_map_are_followed_one_by_one(observed, monkeypatch):
    """Its layers are not even: what is read from it alone is further off."""
    uneven = BENDS.whole(UNKNOWNS + [0, 0, 0, 0, 0, 0, 2, -2, 2])
    invert = CurvedInversion(SURVEY, layers=range(3, 4), rounds=0)
    to_uneven = invert._fits(record(uneven.map(24)))

    def unmoved(self, fit, x, *how, **more):
        return x, float(fit.residuals(self._maps([x]))[0].square().sum()), 0.0

    monkeypatch.setattr(Bends, "improve", unmoved)
    read = readings(uneven.map(24), invert.layers)
    settled, alone = (
        np.abs(invert._turn(to_uneven, read, of)[0].map(24) - uneven.map(24)).mean()
        for of in (uneven.map(24), None)
    )
    assert settled < 0.7 * alone


def reached(monkeypatch, turns, cycles=(), **limits):
    """The misfit kept and how many turns and cycles it took, where these are what they end at."""
    ends, moved = iter(turns), iter(cycles)
    taken = []
    monkeypatch.setattr(
        CurvedInversion, "_turn", lambda self, *how: taken.append("turn") or (bent(), next(ends))
    )
    monkeypatch.setattr(LayeredInversion, "__call__", lambda self, start, record: start)
    monkeypatch.setattr(
        RowMoves, "__call__", lambda self, fit, of: taken.append("cycle") or (of, next(moved))
    )
    record = np.ones(SURVEY.record_shape, np.float32)
    misfit = CurvedInversion(SURVEY, layers=range(3, 4))(blurred(), record, **limits).misfit
    return misfit, taken.count("turn"), taken.count("cycle")


def test_turns_and_cycles_go_on_while_they_help(monkeypatch):
    assert reached(monkeypatch, [2e-2, 4e-3, 1e-7]) == (1e-7, 3, 0)
    assert reached(monkeypatch, [1e-3, 1e-4, 1e-5], [1e-6, 1e-7]) == (1e-6, 3, 1)
    assert reached(monkeypatch, [1e-3, 0.95e-3], [1e-3]) == (0.95e-3, 2, 1)


def test_what_the_layers_cannot_explain_is_given_up(monkeypatch):
    assert reached(monkeypatch, [3e-2]) == (3e-2, 1, 0)
    assert reached(monkeypatch, [2e-2, 6e-3]) == (6e-3, 2, 0)
    assert reached(monkeypatch, [2e-2], enough=1e-2) == (2e-2, 1, 0)
    assert reached(monkeypatch, [4e-3, 2e-3], enough=5e-4) == (4e-3, 1, 0)


def test_a_turn_is_given_up_halfway_unless_patient(observed):
    """One bent interface less than there are, and a start that is fine otherwise."""
    invert = CurvedInversion(SURVEY, layers=range(2, 3), turns=1, cycles=0, rounds=0)
    assert invert(bent().map(24), observed) is None
    assert invert(bent().map(24), observed, patient=True).misfit > 0.04


def test_total_variation_takes_turns_where_moves_end_short(observed, monkeypatch):
    maps = iter([bent().map(24)])
    monkeypatch.setattr(LayeredInversion, "__call__", lambda self, start, record: next(maps))
    short = Layers(VELOCITY + [0, 0, 20], bent().depth), 1e-3
    monkeypatch.setattr(CurvedInversion, "_turn", lambda self, *how: short)
    found, misfit = CurvedInversion(SURVEY, layers=range(3, 4), cycles=1)(blurred(), observed)
    assert misfit == 0 and error(found) == 0


def test_starts_of_other_layer_numbers_differ_where_their_maps_do_not(observed):
    level = Layers(np.array([1800.0, 1800]), np.full((1, 20), 40.0))
    more = Layers(np.array([1800.0, 1800, 1800]), np.full((2, 20), 40.0))
    near = Layers(np.array([1802.0, 1802]), np.full((1, 20), 40.0))
    starts = [
        (bends, bends.even(one))
        for one in (level, more, near)
        for bends in [Bends(len(one.velocity), SURVEY)]
    ]
    kept = CurvedInversion(SURVEY)._distinct(fit(observed), starts, 3)
    assert sorted(bends.number for bends, _ in kept) == [2, 3]


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
        refine, "guesses", lambda *how: {"layered": lambda *of: Guess(layers, final=final)}
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
