"""Gauss-Newton inversion of a map of few pieces."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from comp.fwi.curved import CurvedInversion
from comp.fwi.faulted import FaultedInversion
from comp.fwi.guesses import guesses
from comp.fwi.layered import NEAR_DAMPING, LayeredInversion, Stage, _weights
from comp.fwi.smooth import SmoothInversion
from comp.fwi.sparse import SparseChange, variation
from comp.fwi.spectral import Found, SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.unknowns import to_unknown, to_velocity
from comp.fwi.wave import simulate
from comp.fwi.wave.born import Born

SURVEY = Survey(
    ny=20, nx=24, nt=320, pad=40, source_columns=(0, 11, 23), receiver_columns=tuple(range(24))
)

# Fewer than by default: the map is small.
STAGES = (Stage(2 / 3, 2, 0.1), Stage(4 / 3, 2, 0.5), Stage(3, 3, 2.0, 100), Stage(3, 3, 2.0, 30))


def faulted():
    """Two interfaces, cut by a fault."""
    velocity = np.full(SURVEY.map_shape, 1800.0)
    velocity[6:, :13], velocity[8:, 13:] = 2300, 2300
    velocity[12:, :13], velocity[14:, 13:] = 3000, 3000
    return velocity


def blurred(velocity):
    """As a network would predict it: blurred, and off by some per cent."""
    for axis in (0, 1):
        padded = np.pad(velocity, [(3, 3) if a == axis else (0, 0) for a in (0, 1)], "edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 7, axis)
        velocity = windows.mean(-1)
    return velocity * (1 + 0.03 * np.sin(np.arange(len(velocity)) / 4))[:, None]


def record(velocity):
    return simulate(torch.tensor(velocity[None], dtype=torch.float32), SURVEY)[0].numpy()


def error(velocity):
    return np.abs(velocity - faulted()).mean()


def test_comes_close_to_the_truth_and_is_the_same_again():
    invert = LayeredInversion(SURVEY, stages=STAGES)
    start, observed = blurred(faulted()), record(faulted())
    found = invert(start, observed)
    assert error(start) > 100
    assert error(found) < 20
    np.testing.assert_array_equal(invert(start, observed), found)


def test_waves_see_the_mean_of_squared_slowness():
    """Of what is finer than they are; the last steps rely on it."""
    checks = np.indices(SURVEY.map_shape).sum(0) % 2
    fine, plain = np.full((2, *SURVEY.map_shape), 2000.0)
    fine[8:16, 6:18] += np.where(checks, 300, -300)[8:16, 6:18]
    even = plain.copy()
    even[8:16, 6:18] = (fine[8:16, 6:18] ** -2).mean() ** -0.5
    observed = record(fine)
    off = [np.linalg.norm(record(one) - observed) for one in (plain, even)]
    assert off[1] < 0.25 * off[0]


@pytest.mark.parametrize("edge", [None, 10.0])
def test_variation_of_squared_slowness_is_as_large_as_of_velocity(edge):
    velocity = torch.from_numpy(blurred(faulted()))
    group = torch.from_numpy(np.digitize(blurred(faulted()), [2000, 2700])).long()
    group[:, 12:14] = -1
    totals = []
    for slowness in (False, True):
        stage = Stage(3, 1, 0.5, edge, slowness)
        unknown = to_unknown(velocity, slowness)
        torch.testing.assert_close(to_velocity(unknown, slowness), velocity)
        totals.append([variation(unknown, *_weights(velocity, stage, g)) for g in (None, group)])
    torch.testing.assert_close(*map(torch.stack, totals), rtol=1e-3, atol=0)
    if edge is None:
        assert totals[0][0] == variation(velocity, [torch.ones(1)] * 2)


def test_links_between_groups_are_free_and_cells_are_drawn_to_theirs():
    group = torch.zeros(SURVEY.map_shape, dtype=torch.int64)
    group[10:] = 1
    group[:, 12] = -1
    velocity = torch.from_numpy(blurred(faulted()))
    (down, across), pull = _weights(velocity, Stage(3, 1, 0.5, 10.0, True), group)
    assert (down[9] == 0).nonzero().flatten().tolist() == [x for x in range(24) if x != 12]
    assert (down[[*range(9), *range(10, 19)]] > 0).all() and (across > 0).all()
    assert (pull.weights > 0).all() and torch.equal(pull.group, group)


def test_a_step_that_gains_nothing_is_not_taken(monkeypatch):
    invert = LayeredInversion(SURVEY)
    fit = invert.fit(1.0, record(faulted()))
    state = fit.state(torch.from_numpy(blurred(faulted())))
    stage, cost = Stage(1.0, 1, 0.1), 0.1 * float(state.squared)
    for factor, taken in ((2, False), (0, True)):

        def found(self, velocity, squared=factor * state.squared):
            return replace(state, velocity=velocity, squared=squared)

        monkeypatch.setattr(SpectralFit, "state", found)
        moved, damping = invert.step(fit, stage, state, cost, 1.0)
        assert (moved is not state) == taken and (taken or damping >= 8**3)


def test_a_hessian_that_rounding_made_singular_is_damped(monkeypatch):
    """Its factorisation fails, or its inverse is of no use."""
    invert = LayeredInversion(SURVEY)
    fit = invert.fit(1.0, record(faulted()))
    state = fit.state(torch.from_numpy(blurred(faulted())))
    solve, called = SparseChange.__call__, []

    def spoilt(self, hessian, *others):
        called.append(float(hessian.diagonal().mean()))
        if len(called) == 1:
            raise torch.linalg.LinAlgError("not positive-definite")
        found = solve(self, hessian, *others)
        return found * torch.nan if len(called) == 2 else found

    monkeypatch.setattr(SparseChange, "__call__", spoilt)
    moved, _ = invert.step(fit, Stage(1.0, 1, 0.1), state, 0.1 * float(state.squared), 1.0)
    assert moved.squared < state.squared
    assert len(called) >= 3 and called[0] < called[1] < called[2]


def test_steps_from_one_state_share_its_derivatives(monkeypatch):
    fit = LayeredInversion(SURVEY).fit(0.5, record(faulted()))
    states = fit.states([torch.from_numpy(blurred(faulted())), torch.from_numpy(faulted())])
    normal, asked = Born.normal, []

    def noted(self, velocity, *args):
        asked.append(velocity)
        return normal(self, velocity, *args)

    monkeypatch.setattr(Born, "normal", noted)
    first = fit.normal(states[0])
    expected = [part.clone() for part in first]
    for part in first:  # steps work on them in place
        part.zero_()
    for part, other in zip(fit.normal(states[0]), expected):
        torch.testing.assert_close(part, other, rtol=0, atol=0)
    assert len(asked) == 1
    assert not torch.equal(fit.normal(states[1])[0], expected[0]) and len(asked) == 2


@pytest.mark.parametrize(("edge", "rounding", "tried"), [(10.0, 1, 1), (10.0, 0, 2), (None, 1, 2)])
def test_a_failing_logarithmic_step_ends_it_where_rounding_is_left(
    monkeypatch, edge, rounding, tried
):
    stages, steps = (Stage(0.5, 3, 0.5, edge), Stage(1.0, 3, 0.5, edge)), []

    def fails(self, fit, stage, state, cost, damping):
        steps.append(stage)
        return state, damping

    monkeypatch.setattr(LayeredInversion, "step", fails)
    invert = LayeredInversion(SURVEY, stages=stages, rounding=rounding)
    np.testing.assert_array_equal(invert(faulted() + 20, record(faulted())), faulted() + 20)
    assert len(steps) == tried


def test_a_stage_is_passed_over_where_the_misfit_is_low_enough(monkeypatch):
    def found(enough):
        tried.clear()
        stages = Stage(1 / 3, 2, 0.1, enough=enough), Stage(1.0, 1, 0.5)
        return LayeredInversion(SURVEY, stages=stages)(blurred(faulted()), record(faulted()))

    step, tried = LayeredInversion.step, []

    def noted(self, fit, stage, state, cost, damping):
        tried.append((stage.highest, damping))
        return step(self, fit, stage, state, cost, damping)

    monkeypatch.setattr(LayeredInversion, "step", noted)
    found(0.0)
    assert tried[:2] != [(1.0, NEAR_DAMPING)] and tried[0] == (1 / 3, 1.0)
    found(1.0)
    assert tried == [(1.0, NEAR_DAMPING)]


def test_the_truth_stays():
    found = LayeredInversion(SURVEY)(faulted(), record(faulted()))
    np.testing.assert_array_equal(found, faulted())


def test_keeps_to_the_surveys_velocities():
    survey = replace(SURVEY, max_velocity=2700.0)
    found = LayeredInversion(survey, stages=(Stage(1.0, 2, 0.5),))(
        blurred(faulted()), record(faulted())
    )
    assert found.min() >= 1500 and found.max() <= 2700


def test_a_map_worse_than_none_does_not_lose_its_structure():
    """Fast layers reflect little: a start can be off by more than a constant map."""
    truth = faulted() * 0.25 + 2800
    start = truth.copy()
    start[:6] += 40 * np.sin(np.arange(SURVEY.nx))
    observed = record(truth)
    found = LayeredInversion(SURVEY, stages=(Stage(1.0, 3, 0.5),))(start, observed)
    assert np.ptp(found[:, 5]) > 0.5 * np.ptp(truth[:, 5])


@pytest.mark.parametrize(
    ("newton", "free", "names"),
    [
        ("off", 1 << 40, {"flat"}),
        ("on", 0, {"flat", "layered", "smooth"}),
        ("auto", 1 << 40, {"flat", "layered", "smooth"}),
        ("auto", int(1.25 * LayeredInversion(SURVEY).memory), {"flat", "layered"}),
        ("auto", 1 << 20, {"flat"}),
    ],
)
def test_auto_waits_for_a_gpu_with_room(monkeypatch, capsys, newton, free, names):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert set(guesses(SURVEY, "sponge", torch.float32, "cuda:0", newton)) == names
    notes = capsys.readouterr().out
    for kind in ("layered", "smooth"):
        lacks = newton == "auto" and kind not in names
        assert (f"note: Gauss-Newton for {kind} maps takes" in notes) == lacks
    several = guesses(SURVEY, "sponge", torch.float32, "cuda:0", newton, beside=2)
    assert set(several) == ({"flat"} if newton == "auto" and free < 1 << 40 else names)
    on_cpu = guesses(SURVEY, "sponge", torch.float32, "cpu", newton)
    assert ("layered" in on_cpu) == ("smooth" in on_cpu) == (newton == "on")


@pytest.mark.parametrize(
    ("curved", "first", "free", "others", "expected", "final"),
    [
        (True, 1e-4, None, [], 4000, True),  # found at once
        (True, 1e-3, 3e-4, [], 4000, True),  # but for a few rows
        (True, 1e-3, 1e-4, [], 4001, False),  # free cells fit much better from there
        (True, 4e-3, 1e-3, [], 4000, False),
        (True, 2e-2, 3e-5, [1e-5], 4002, True),  # found in what total variation leaves
        (True, None, 1e-3, [6e-3], 2001, False),  # layers that fit much worse than free cells
        (True, None, 1e-4, [], 2001, False),  # soon given up, and good without
        (True, 2e-2, 1e-4, [4e-4], 4002, True),  # not much worse
        (True, 2e-2, 9e-3, [3e-2], 4000, False),  # nothing fits: the best of it
        (True, 2e-2, 9e-6, [], 2001, False),  # total variation was enough
        (True, None, 2e-2, [3e-2, 1.5e-2], 4000, False),  # lost: with patience from the start
        (False, None, 1e-2, [], 2001, False),
    ],
)
def test_bent_layers_are_taken_where_they_explain_the_record(
    monkeypatch, curved, first, free, others, expected, final
):
    results, limits = iter([first, *others]), []

    def found(self, start, record, enough=np.inf, patient=False):
        limits.append((enough, patient))
        misfit = next(results)
        return None if misfit is None else Found(start * 2, misfit)

    without = lambda self, start, record: Found(start + 1, free)  # noqa: E731
    monkeypatch.setattr(FaultedInversion, "__call__", without)
    monkeypatch.setattr(CurvedInversion, "__call__", found)
    monkeypatch.setattr(SmoothInversion, "__call__", lambda *_: Found(0, np.inf))
    monkeypatch.setattr("comp.fwi.guesses.evenness", lambda _: 0)
    method = guesses(SURVEY, "sponge", torch.float32, "cpu", "on", curved)["layered"]
    guess = method(np.array([2000.0]), np.zeros(1))
    assert (guess.velocity, guess.final) == (expected, final)
    expected_limits = [(np.inf, False)] if curved else []
    if others:
        expected_limits.append((max(20 * free, 1e-3), False))
    assert limits == [*expected_limits, (np.inf, True)][: len(limits)]
    assert len(limits) == curved * (1 + len(others))


@pytest.mark.parametrize("error", [np.linalg.LinAlgError, torch.linalg.LinAlgError])
def test_what_free_cells_found_is_kept_where_bent_layers_fail(monkeypatch, error):
    def fails(self, start, record, enough=np.inf, patient=False):
        raise error("singular")

    step = np.where(np.arange(8) < 4, 2000.0, 3000.0)[:, None].repeat(8, 1)
    monkeypatch.setattr(FaultedInversion, "__call__", lambda *_: Found(step, 2e-5))
    monkeypatch.setattr(CurvedInversion, "__call__", fails)
    method = guesses(SURVEY, "sponge", torch.float32, "cpu", "on")["layered"]
    found = method(np.array([2000.0]), np.zeros(1))
    assert found.velocity is step and found[1:] == (2e-5, False)


@pytest.mark.parametrize(
    ("kind", "layers", "smooth", "even", "expected"),
    [
        ("layered", 2e-5, 1e-9, False, "layers"),  # beyond doubt
        ("layered", 1e-6, 4e-6, True, "smooth"),  # does not look like layers
        ("layered", 1e-6, 1e-5, True, "layers"),  # fits much better whatever it looks like
        ("layered", 1e-3, 1e-5, True, "smooth"),
        ("layered", 1e-3, 5e-4, False, "layers"),
        ("layered", 1e-3, 1e-5, False, "layers"),  # beyond doubt as well
        ("layered", 1e-2, 1e-5, False, "smooth"),
        ("smooth", 1e-9, 2e-5, True, "smooth"),
        ("smooth", 4e-6, 1e-6, False, "layers"),
        ("smooth", 1e-6, 1e-4, True, "layers"),
        ("smooth", 1e-5, 4e-5, False, "layers"),
        ("smooth", 5e-5, 1e-4, True, "smooth"),
    ],
)
def test_the_other_kind_is_tried_where_the_routers_leaves_doubt(
    monkeypatch, kind, layers, smooth, even, expected
):
    """By misfits, and by whether what is found is even."""
    of_layers, of_smooth = (np.full((2, 2), value) for value in (2000.0, 3000.0))
    monkeypatch.setattr(FaultedInversion, "__call__", lambda *_: Found(of_layers, layers))
    monkeypatch.setattr(SmoothInversion, "__call__", lambda *_: Found(of_smooth, smooth))
    monkeypatch.setattr("comp.fwi.guesses.evenness", lambda _: float(even))
    method = guesses(SURVEY, "sponge", torch.float32, "cpu", "on", curved=False)[kind]
    found = method(np.array([2000.0]), np.zeros(1))
    velocity, misfit = {"layers": (of_layers, layers), "smooth": (of_smooth, smooth)}[expected]
    assert found.velocity is velocity and found.misfit == misfit


def test_layers_that_were_taken_for_a_photograph_are_found():
    method = guesses(SURVEY, "sponge", torch.float32, "cpu", "on", curved=False)["smooth"]
    found = method(blurred(faulted()), record(faulted()))
    assert error(found.velocity) < 1 and found.misfit < 1e-5
