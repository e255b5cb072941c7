"""The forward model against the plain transcription, against physics, and against real data."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from waves import SMALL, layered_map, relative

from comp.core.errors import InputError
from comp.fwi.survey import OFFICIAL
from comp.fwi.wave import reference, scheme, simulate, sponge_cpu


def test_equals_the_transcription_at_real_size():
    survey = replace(OFFICIAL, source_columns=OFFICIAL.source_columns[1:2])
    velocity = layered_map(survey, dtype=torch.float32)
    expected = reference.simulate(velocity[0].numpy(), survey)
    single, double = simulate(velocity, survey)[0], simulate(velocity.double(), survey)[0]
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert single.shape == expected.shape == survey.record_shape
    assert relative(single, expected) < 2e-5
    assert relative(double, expected) < 1e-12


@pytest.mark.parametrize("pad", [10, 19])
def test_equals_the_transcription_for_other_surveys(pad):
    survey = replace(SMALL, pad=pad)
    velocity = torch.cat([layered_map(survey, seed) for seed in range(2)])
    expected = np.stack([reference.simulate(v.numpy(), survey) for v in velocity])
    assert relative(simulate(velocity, survey), expected) < 1e-12


def test_reciprocity():
    """Swapping source and receiver gives the same trace, whatever lies between.

    In the update divided by α every operator is symmetric and the source term is dx²·w, the same
    at every cell: the factor (v_source·dt)² is just what makes the discrete relation exact.
    """
    there = replace(SMALL, source_columns=(3,), receiver_columns=(14,))
    back = replace(SMALL, source_columns=(14,), source_row=9, receiver_columns=(3,), receiver_row=2)
    velocity = layered_map(SMALL)
    assert velocity[0, 2, 3] != velocity[0, 9, 14]
    assert relative(simulate(velocity, there), simulate(velocity, back)) < 1e-12


@pytest.fixture(scope="module")
def direct_wave():
    """(survey, velocity, record) of a homogeneous map, undamped, before the wrap comes back."""
    survey = replace(OFFICIAL, nt=400, source_columns=(0,), sponge_reflection=1.0)
    velocity = 4000.0
    record = simulate(torch.full((1, *survey.map_shape), velocity).double(), survey)
    return survey, velocity, record[0, 0].numpy()


def test_direct_arrival_travels_at_the_velocity(direct_wave):
    """The lag between two receivers, from their correlation, is distance over velocity."""
    survey, velocity, record = direct_wave
    first = record[:, 10]
    for receiver in (30, 50, 69):
        lags = np.correlate(record[:, receiver], first, mode="full")
        lag = (np.argmax(lags) - (survey.nt - 1)) * survey.dt
        expected = (receiver - 10) * survey.dx / velocity
        assert lag == pytest.approx(expected, abs=survey.dt)


def test_direct_arrival_is_the_analytic_one(direct_wave):
    """Onset, amplitude and sign: the 2-D Green's function convolved with the wavelet.

    For p_tt/v² − Δp = dx²·w(t)·δ(x) the substitution τ = t − (r/v)·cosh u gives
    p(r, t) = dx²/(2π) ∫ w(t − (r/v)·cosh u) du, without the singularity at the front.
    """
    survey, velocity, record = direct_wave

    def wavelet(time):
        beta = (math.pi * survey.peak_frequency * (survey.wavelet_peak * survey.dt - time)) ** 2
        return np.where(time >= 0, (1 - 2 * beta) * np.exp(-beta), 0.0)

    u, du = np.linspace(0, 6, 6000, endpoint=False, retstep=True)
    u += du / 2
    time = (np.arange(survey.nt) + 1) * survey.dt  # w[k] acts at k·dt and row k is one step later
    for receiver in (15, 40, 69):
        onset = receiver * survey.dx / velocity
        shifted = wavelet(time[:, None] - onset * np.cosh(u))
        expected = survey.dx**2 / (2 * math.pi) * shifted.sum(axis=1) * du
        assert relative(record[:, receiver], expected) < 0.02


def test_mirrored_map_gives_the_mirrored_record():
    survey = replace(OFFICIAL.with_six_shots(), nt=300)
    velocity = layered_map(survey, dtype=torch.float32)
    mirrored = simulate(velocity.flip(2), survey)
    assert torch.equal(mirrored, simulate(velocity, survey).flip(1, 3))


def test_edges_wrap():
    """On an undamped homogeneous torus, c cells one way round is as far as c the other way."""
    survey = replace(SMALL, nx=20, pad=2, sponge_reflection=1.0, source_columns=(0,), source_row=0)
    velocity = torch.full((1, *survey.map_shape), 3000.0)

    across, down = survey.nx + 2 * survey.pad, survey.ny + 2 * survey.pad
    survey = replace(survey, receiver_columns=(6, 9, across - 9, across - 6))
    record = simulate(velocity, survey)
    torch.testing.assert_close(record, record.flip(3))

    low, high = (simulate(velocity, replace(survey, receiver_row=row)) for row in (down - 11, 11))
    torch.testing.assert_close(low, high)


def test_a_map_is_alone_in_its_batch(monkeypatch, set_threads):
    """Bit for bit the same record, whatever shares the batch and however many threads run."""
    velocity = torch.cat([layered_map(SMALL, seed, torch.float32) for seed in range(5)])
    monkeypatch.setattr(sponge_cpu, "CHUNK", 2)
    set_threads(2)
    together = simulate(velocity, SMALL)
    set_threads(1)
    alone = torch.cat([simulate(v[None], SMALL) for v in velocity.flip(0)]).flip(0)
    assert torch.equal(together, alone)
    assert simulate(velocity[:0], SMALL).shape == (0, *SMALL.record_shape)


def test_denormals_of_the_caller_are_left_alone():
    simulate(layered_map(SMALL, dtype=torch.float32), SMALL)
    assert torch.tensor([1e-40]) * 0.5 > 0


@pytest.mark.parametrize("reflection", [1.0, 1e7])
def test_the_stability_limit_is_where_the_scheme_blows_up(reflection):
    survey = replace(SMALL, nx=18, pad=20, dt=2e-3, nt=400, sponge_reflection=reflection)
    uniform = torch.ones(1, *survey.map_shape, dtype=torch.float64)

    def accepted(speed: float) -> bool:
        try:
            scheme.check(uniform * speed, survey)
        except InputError as error:
            assert "unstable" in str(error)
            return False
        return True

    limit = next(speed for speed in np.arange(1500.0, 4000, 10) if not accepted(speed))
    with np.errstate(over="ignore", invalid="ignore"):
        below, above = (
            np.abs(reference.simulate(uniform[0].numpy() * speed, survey)).max()
            for speed in (limit - 10, limit * 1.1)
        )
    assert below < 1e3
    assert not above < 1e6


BAD_MAPS = {
    "shape (1, 17, 12), expected (n, 12, 17)": lambda v: v.mT,
    "shape (12, 17), expected (n, 12, 17)": lambda v: v[0],
    "torch.float16, expected": lambda v: v.half(),
    "torch.int64, expected": lambda v: v.long(),
    "velocity[1]: holds NaN": lambda v: torch.cat([v, v * torch.nan]),
    "velocity[1]: 3000 … inf m/s": lambda v: torch.cat(
        [v, v.masked_fill(v == v[0, 0, 0], torch.inf)]
    ),
    "3 … 3 m/s, which looks like km/s, expected 1000 … 6000 m/s": lambda v: v / 1000,
    "900 … 900 m/s, expected 1000": lambda v: v * 0.3,
    "velocity[0]: 6300 … 6300 m/s, expected": lambda v: v * 2.1,
    "on meta, expected the CPU or a CUDA device": lambda v: v.to("meta"),
}


@pytest.mark.parametrize("message", BAD_MAPS)
def test_bad_maps_are_refused(message):
    velocity = torch.full((1, *SMALL.map_shape), 3000.0)
    if "inf" in message:
        velocity[0, 0, 0] = 3001.0
    with pytest.raises(InputError) as error:
        simulate(BAD_MAPS[message](velocity), SMALL)
    assert message in str(error.value) and "\n" not in str(error.value)


BAD_SURVEYS = {
    "source_row is 12, expected 0 … 11": {"source_row": 12},
    "receiver_row is -1, expected 0 … 11": {"receiver_row": -1},
    "source_columns is (0, 17), expected columns 0 … 16": {"source_columns": (0, 17)},
    "receiver_columns is (-1,), expected columns 0 … 16": {"receiver_columns": (-1,)},
    "source_columns is (), expected": {"source_columns": ()},
    "pad is 1, expected at least 2": {"pad": 1},
    "unstable: 3000 m/s in the map, expected at most 2041 with dx 10 m": {"dt": 3e-3},
}


@pytest.mark.parametrize("message", BAD_SURVEYS)
def test_bad_surveys_are_refused(message):
    velocity = torch.full((1, *SMALL.map_shape), 3000.0)
    with pytest.raises(InputError) as error:
        simulate(velocity, replace(SMALL, **BAD_SURVEYS[message]))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def genuine_record():
    """(5, 1000, 70) one record of the competition's test set; its velocity is not known."""
    folder = os.environ.get("COMP_SAMPLE_DATA")
    if not folder:
        pytest.skip("COMP_SAMPLE_DATA is not set")
    return np.load(Path(folder) / "kaggle_waveform_test" / "000039dca2.npy")


def test_genuine_record_begins_as_simulated(genuine_record):
    """In its first 20 ms the trace at the source knows only the two or three cells around.

    Its first sample is (v·dt)²·w[0], which gives v; a homogeneous map of that v must give the rest.
    """
    survey = replace(OFFICIAL, nt=20)
    for shot, column in enumerate(survey.source_columns):
        trace = genuine_record[shot, : survey.nt, column]
        speed = math.sqrt(trace[0] / survey.wavelet()[0]) / survey.dt
        one = replace(survey, source_columns=(column,), receiver_columns=(column,))
        record = simulate(torch.full((1, *survey.map_shape), speed).double(), one)
        assert relative(record[0, 0, :, 0], trace) < 1e-3


def test_genuine_record_is_reciprocal(genuine_record):
    """The sources stand where `OFFICIAL` says. The last row is dropped: it is known to be bad."""
    columns = OFFICIAL.source_columns
    for i, a in enumerate(columns):
        for j, b in enumerate(columns[:i]):
            assert relative(genuine_record[i, :-1, b], genuine_record[j, :-1, a]) < 5e-5
