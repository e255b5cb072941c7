"""A loss that needs no labels: simulate the predicted map and compare with the sample's own record.

After arXiv 2212.02338 (a UNet trained on its own waveform misfit, through deepwave). The record is
what was recorded, before noise or gain were added to what the network sees.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch.autograd.function import FunctionCtx

from comp.fwi.config import PhysicsConfig
from comp.fwi.survey import OFFICIAL_COLUMNS, Survey
from comp.fwi.wave import Solver, simulate

# Keeps the gradient of a distance finite where it vanishes; far below what any solver resolves.
_SMALLEST_SQUARE = 1e-12


@dataclass(frozen=True)
class Part:
    """What of a batch is simulated in a step.

    Attributes:
        samples: so many samples from its start; batches are in random order anyway.
        shots: positions among the official shots, ascending.
        rows: so many rows of the record from its start: a wave's past costs as much as its future.
    """

    samples: int
    shots: tuple[int, ...]
    rows: int

    def cut(self, records: torch.Tensor) -> torch.Tensor:
        """(samples, shots, rows, receivers) of the official shots of a batch."""
        return records[: self.samples, list(self.shots), : self.rows]

    def survey(self, survey: Survey) -> Survey:
        """The survey that records what `cut` leaves."""
        columns = tuple(OFFICIAL_COLUMNS[shot] for shot in self.shots)
        return replace(survey, source_columns=columns, nt=self.rows)


def draw_part(size: int, config: PhysicsConfig, survey: Survey, generator: torch.Generator) -> Part:
    """Draw for a batch of `size` samples from a CPU generator."""
    shots = torch.randperm(len(OFFICIAL_COLUMNS), generator=generator)[: config.shots]
    low, high = config.window
    share = low + (high - low) * float(torch.rand((), generator=generator))
    return Part(
        math.ceil(config.samples * size),
        tuple(sorted(shots.tolist())),
        max(1, round(share * survey.trusted_rows)),
    )


def misfit_weight(config: PhysicsConfig, done: float) -> float:
    """The misfit's weight once a share `done` of all steps lies behind.

    None during `warmup`; then linear in the share over `ramp`, and `config.weight` after it.
    """
    since = done - config.warmup
    if since < 0:
        return 0.0
    return config.weight * (min(1.0, since / config.ramp) if config.ramp else 1.0)


def waveform_misfit(
    velocity: torch.Tensor,
    record: torch.Tensor,
    survey: Survey,
    solver: Solver = "sponge",
    *,
    taper: float = 0.0,
    lowpass: float | None = None,
) -> torch.Tensor:
    """Relative L2 distance between simulated and given records, sample by sample.

    Not squared: at a network's errors it is then of the size of the error over half the velocity
    range, within an order of magnitude over the ten families, where its square spans three.

    Args:
        velocity: (n, ny, nx) m/s; moved into the survey's range, see `within`. NaN gives NaN.
        record: (n, shots, rows, receivers) to compare with.
        survey: the acquisition; its first `rows` time steps are simulated.
        solver: see `simulate`.
        taper: share of the rows over which a cosine fades both records out at their end.
        lowpass: Hz at which a Gaussian filter, applied to both records, passes half the amplitude.
            Waves that a wrong map brings half a period late or more pull it the wrong way; at low
            frequencies fewer do (Bunks et al. 1995, doi:10.1190/1.1443880).

    Returns:
        (n,) in float32, as everything in between, also under autocast.
    """
    with torch.autocast(velocity.device.type, enabled=False):
        velocity, record = velocity.float(), record.float()
        finite = velocity.isfinite().flatten(1).all(1)
        middle = (survey.min_velocity + survey.max_velocity) / 2
        safe = torch.where(finite[:, None, None], velocity, middle)
        safe = within(safe, survey.min_velocity, survey.max_velocity)
        found = simulate(safe, replace(survey, nt=record.shape[2]), solver)
        squares = [
            filtered(wave, taper, lowpass, survey.dt).square().sum((1, 2, 3))
            for wave in (found - record, record)
        ]
        distance = (squares[0] / squares[1] + _SMALLEST_SQUARE).sqrt()
        return torch.where(finite, distance, torch.nan)


def filtered(record: torch.Tensor, taper: float, lowpass: float | None, dt: float) -> torch.Tensor:
    """A record (..., rows, receivers) faded out at its end, then low-passed in time.

    `taper` and `lowpass` as of `waveform_misfit`; `dt` in s.
    """
    rows = record.shape[-2]
    if fading := round(taper * rows):
        phase = torch.arange(1, fading + 1, device=record.device) / fading
        fade = torch.cat([torch.ones(rows - fading, device=record.device), _cosine(phase)])
        record = record * fade[:, None]
    if lowpass is not None:
        length = 2 * rows  # zeros behind the record, so that its end does not reach its start
        frequency = torch.fft.rfftfreq(length, dt, device=record.device)
        response = torch.exp2(-((frequency / lowpass) ** 2))
        spectrum = torch.fft.rfft(record, length, dim=-2) * response[:, None]
        record = torch.fft.irfft(spectrum, length, dim=-2)[..., :rows, :]
    return record


def _cosine(phase: torch.Tensor) -> torch.Tensor:
    """From 1 at phase 0 to 0 at phase 1."""
    return (1 + torch.cos(math.pi * phase)) / 2


def within(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Clamp to [low, high], with a gradient outside that leads back in.

    A plain clamp has none there, so a cell that once left the range would never return. Here a
    cell outside keeps the gradient of the bound it stands on, unless a step down that gradient
    would take it further out.
    """
    return _Within.apply(x, low, high)


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        outward = ((x < low) & (gradient > 0)) | ((x > high) & (gradient < 0))
        return gradient.masked_fill(outward, 0), None, None
