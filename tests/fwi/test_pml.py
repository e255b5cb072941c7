"""deepwave behind `simulate`: the official convention, exact gradients, no coupling in a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from waves import SMALL, layered_map, relative

from comp.core.errors import InputError
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import generate
from comp.fwi.wave import pml, sponge


@pytest.mark.parametrize("width", [20, 60])
def test_is_the_official_scheme_but_for_the_layer(width):
    """Sign, timing and amplitude: each of them wrong would be a distance of a tenth or more."""
    survey = replace(OFFICIAL, nt=600, source_columns=(17, 69))
    maps = np.concatenate([generate(family, 1, 5) for family in ("FlatVel_B", "Style_A")])
    velocity = torch.from_numpy(maps)
    expected, found = sponge.simulate(velocity, survey), pml.simulate(velocity, survey, width)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert relative(found[:, :, :130], expected[:, :, :130]) < 5e-4
    assert relative(found, expected) < 2e-3


def test_one_step_a_sample_also_at_the_fastest_velocity():
    """With two inner steps the first row, (v·dt)²·w[0] at the source, would not be the record's."""
    survey = replace(SMALL, nt=3, receiver_row=2, receiver_columns=SMALL.source_columns)
    for speed in (1500.0, 4500.0, 6000.0):
        velocity = torch.full((1, *survey.map_shape), speed, dtype=torch.float64)
        first = pml.simulate(velocity, survey)[0, :, 0].diagonal()
        expected = (speed * survey.dt) ** 2 * survey.wavelet()[0]
        assert first.tolist() == pytest.approx([expected] * 3, rel=1e-12)


@pytest.mark.parametrize("dt", [0.7e-3, 1e-3, 1.3e-3, 2e-3])
def test_every_lawful_map_runs(dt):
    """Up to the stability limit of the time step, however deepwave rounds it."""
    survey = replace(SMALL, dt=dt)
    fastest = min(6000.0, 0.375**0.5 * survey.dx / dt)
    velocity = torch.full((1, *survey.map_shape), fastest, dtype=torch.float64)
    assert pml.simulate(velocity, survey).abs().max() < 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_is_alone_in_its_batch(monkeypatch, dtype):
    """Bit for bit the same record beside faster maps, and however the batch is cut."""
    velocity = torch.cat([layered_map(SMALL, seed, dtype) for seed in range(4)])
    velocity = torch.cat([velocity, torch.full_like(velocity[:1], 4500)])
    together = pml.simulate(velocity, SMALL)
    assert together.dtype == dtype
    alone = torch.cat([pml.simulate(v[None], SMALL) for v in velocity])
    assert torch.equal(together, alone)
    monkeypatch.setattr(pml, "CPU_BUDGET", 4 * 6 * 56 * 61 * velocity.element_size())
    assert pml._runs_at_once(velocity, SMALL, 20, False) == 4  # of 15: parts cut across the maps
    assert torch.equal(pml.simulate(velocity, SMALL), together)
    assert pml.simulate(velocity[:0], SMALL).shape == (0, *SMALL.record_shape)


def gradient(velocity, weight) -> torch.Tensor:
    velocity = velocity.clone().requires_grad_()
    (found,) = torch.autograd.grad((pml.simulate(velocity, SMALL, 4) * weight).sum(), velocity)
    return found


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "in parts"])
def test_gradient_against_finite_differences(monkeypatch, parts):
    """Along a direction in the interior, at the edges, whose padded cells count, and at sources."""
    if parts:
        monkeypatch.setattr(pml, "CPU_BUDGET", 1)
    velocity = torch.cat([layered_map(SMALL, 1), layered_map(SMALL, 2)])
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, *SMALL.record_shape, generator=generator, dtype=torch.float64)
    found = gradient(velocity, weight)
    interior = torch.zeros(SMALL.map_shape, dtype=torch.float64)
    interior[3:-3, 2:-2] = 1
    source = torch.zeros_like(interior)
    source[SMALL.source_row, list(SMALL.source_columns)] = 1
    corner = torch.zeros_like(interior)
    corner[0, 0] = corner[-1, -1] = 1
    for mask in (interior, 1 - interior, source, corner):
        direction = torch.randn(velocity.shape, generator=generator, dtype=torch.float64) * mask
        up, down = (
            (pml.simulate(velocity + sign * direction, SMALL, 4) * weight).sum((1, 2, 3))
            for sign in (0.02, -0.02)
        )
        slope = (found * direction).sum((1, 2))
        torch.testing.assert_close(slope, (up - down) / 0.04, rtol=1e-5, atol=0)


def test_gradient_does_not_depend_on_how_the_batch_is_cut(monkeypatch):
    velocity = torch.cat([layered_map(SMALL, seed) for seed in range(3)])
    weight = torch.linspace(-1, 1, SMALL.nt, dtype=torch.float64)[:, None]
    whole = gradient(velocity, weight)
    monkeypatch.setattr(pml, "CPU_BUDGET", 1)
    torch.testing.assert_close(gradient(velocity, weight), whole, rtol=1e-10, atol=1e-12)
    velocity.requires_grad_()
    assert pml.simulate(velocity, SMALL).requires_grad
    with torch.no_grad():
        assert not pml.simulate(velocity, SMALL).requires_grad


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("shape (1, 17, 12), expected (n, 12, 17)", lambda v: v.mT),
        ("torch.float16, expected", lambda v: v.half()),
        ("velocity[0]: holds NaN", lambda v: v * torch.nan),
        ("looks like km/s", lambda v: v / 1000),
    ],
)
def test_bad_maps_are_refused(message, change):
    with pytest.raises(InputError) as error:
        pml.simulate(change(torch.full((1, *SMALL.map_shape), 3000.0)), SMALL)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_settings_are_refused():
    velocity = torch.full((1, *SMALL.map_shape), 4500.0)
    with pytest.raises(InputError, match="pml_width: got 0, expected at least 1"):
        pml.simulate(velocity, SMALL, 0)
    with pytest.raises(InputError, match="unstable"):
        pml.simulate(velocity, replace(SMALL, dt=2e-3))
    with pytest.raises(InputError, match="receiver_row is 12"):
        pml.simulate(velocity, replace(SMALL, receiver_row=12))
