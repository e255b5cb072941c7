"""The solver's gradient against finite differences, exact derivatives and itself."""

from dataclasses import replace

import pytest
import torch
from waves import rough_maps

from comp.core.errors import InputError
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave import onchip, reference, scheme, simulate, sponge, sponge_cuda

# Everything is small or unequal; the steps fill two segments of the saved states and part of a
# third, and the wave has been through the sponge and round the edges.
SMALL = Survey(
    ny=7,
    nx=9,
    nt=80,
    pad=6,
    source_columns=(0, 8),
    source_row=2,
    receiver_row=1,
    receiver_columns=(0, 3, 8),
    sponge_reflection=100.0,
)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def random_maps(count: int, survey: Survey = SMALL, **how) -> torch.Tensor:
    """(count, ny, nx) rough maps."""
    return rough_maps(count, survey, **how)


def gradient(velocity: torch.Tensor, weights: torch.Tensor, survey: Survey = SMALL):
    """The record, and the gradient of Σ weights·record in the velocity."""
    velocity = velocity.detach().requires_grad_()
    record = simulate(velocity, survey)
    return record.detach(), torch.autograd.grad(record, velocity, weights)[0]


def weights_for(velocity: torch.Tensor, survey: Survey = SMALL) -> torch.Tensor:
    """(n, shots, nt, receivers) weights, the same for each position in a batch."""
    one = torch.randn(survey.record_shape, generator=torch.Generator().manual_seed(1))
    return one.to(velocity).expand(len(velocity), -1, -1, -1)


@pytest.mark.parametrize("device", DEVICES)
def test_every_cell_equals_finite_differences(device):
    """Edge cells too, whose velocity is repeated through the sponge, and the slowest one, whose
    velocity sets the sponge's strength."""
    velocity = random_maps(1, device=device).requires_grad_()

    def record(maps):
        return simulate(maps, SMALL)

    assert torch.autograd.gradcheck(record, velocity, eps=1e-2, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("nt", [1, 2, 32, 33, 80])
def test_is_the_adjoint_of_the_exact_derivative(device, nt):
    """⟨J·δv, w⟩ = ⟨δv, Jᵀ·w⟩, with J·δv from complex arithmetic in the plain transcription."""
    survey = replace(SMALL, nt=nt)
    velocity, change = random_maps(1, survey), random_maps(1, survey, seed=1) - 3000
    weights = weights_for(velocity, survey)
    tiny = 1e-30
    derivative = reference.simulate(velocity[0].numpy() + tiny * 1j * change[0].numpy(), survey)
    _, found = gradient(velocity.to(device), weights.to(device), survey)
    expected = float((torch.from_numpy(derivative.imag / tiny) * weights[0]).sum())
    assert float((found.cpu() * change).sum()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_propagation_and_its_adjoint_are_one_operator(device):
    """⟨F·s, w⟩ = ⟨s, Fᵀ·w⟩ for the sources s, in which the record is linear."""
    velocity = random_maps(2, device=device)
    coefficients = scheme.discretise(velocity, SMALL)
    amplitude = torch.randn(2, 2, SMALL.nt, generator=torch.Generator().manual_seed(0))
    coefficients = replace(coefficients, amplitude=amplitude.to(velocity))
    backend = sponge.backend(velocity, SMALL)
    record, saved = backend.run(coefficients, keep=True)
    weights = weights_for(velocity)
    found = backend.gradients(coefficients, saved, weights).amplitude
    left, right = (record * weights).sum(), (coefficients.amplitude * found).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alone_or_in_a_batch_and_again_the_same_bits(device, dtype):
    velocity = random_maps(5, device=device, dtype=dtype)
    together = gradient(velocity, weights_for(velocity))
    again = gradient(velocity, weights_for(velocity))
    alone = [gradient(v[None], weights_for(v[None])) for v in velocity]
    record, slope = (torch.cat(parts) for parts in zip(*alone))
    assert torch.equal(together[0], record) and torch.equal(together[0], again[0])
    assert torch.equal(together[0], simulate(velocity, SMALL))
    assert torch.equal(together[1], again[1])
    if device == "cpu":
        assert torch.equal(together[1], slope)
    else:  # torch sums the share of the repeated edges in an order that depends on the batch
        torch.testing.assert_close(together[1], slope)


def test_single_precision_is_close_to_double():
    velocity = random_maps(1)
    _, exact = gradient(velocity, weights_for(velocity))
    _, single = gradient(velocity.float(), weights_for(velocity).float())
    assert float((single - exact).norm() / exact.norm()) < 1e-5


def test_a_gradient_after_an_inference():
    survey = replace(SMALL, nt=41)  # met by no other test, so that nothing is at hand yet
    velocity = random_maps(1, survey)
    with torch.inference_mode():
        simulate(velocity, survey)
    assert gradient(velocity, weights_for(velocity, survey), survey)[1].isfinite().all()


def test_two_gradients_of_one_record():
    velocity = random_maps(1).requires_grad_()
    record = simulate(velocity, SMALL)
    first = torch.autograd.grad(record.sum(), velocity, retain_graph=True)[0]
    second = torch.autograd.grad(record.sum(), velocity)[0]
    assert torch.equal(first, second)


@pytest.fixture
def cuda() -> torch.device:
    """The GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device("cuda", 0)


def test_gpu_and_cpu_agree(cuda, monkeypatch):
    monkeypatch.setattr(onchip, "fits", lambda *_: False)  # it has tests of its own
    survey = replace(OFFICIAL, nt=300)
    velocity = random_maps(2, survey, dtype=torch.float32)
    weights = weights_for(velocity, survey)
    for found, expected in zip(
        gradient(velocity.to(cuda), weights.to(cuda), survey), gradient(velocity, weights, survey)
    ):
        assert float((found.cpu() - expected).norm() / expected.norm()) < 2e-5


def test_gpu_gradient_is_the_same_whatever_is_kept(cuda, monkeypatch):
    velocity = random_maps(3, device=cuda, dtype=torch.float32)
    kept = gradient(velocity, weights_for(velocity))[1]
    monkeypatch.setattr(sponge_cuda, "LEAVE_FREE", 1.0)  # no room: everything is run again
    assert torch.equal(gradient(velocity, weights_for(velocity))[1], kept)


def test_too_large_a_batch_is_refused_with_the_size_that_fits(cuda, monkeypatch):
    velocity = random_maps(3, device=cuda)
    monkeypatch.setattr(sponge_cuda, "free_memory", lambda _: 550_000)
    with pytest.raises(
        InputError, match=r"3 maps × 2 shots with gradient take 0.0 GB .* 1 maps fit"
    ):
        gradient(velocity, weights_for(velocity))
