"""Training-time changes to (shots, velocity): each a random draw and a pure transform apart."""

from dataclasses import dataclass

import torch

from comp.core.mixing import Mix, draw_mixup, mix
from comp.fwi.config import AugmentConfig
from comp.fwi.survey import OFFICIAL_COLUMNS, Survey


@dataclass(frozen=True)
class Draw:
    """Everything random about one batch.

    Attributes:
        mirror: (b,) bool.
        gain: (b,) float32 factor on the amplitudes.
        noise: (b,) float32 noise level, share of the record's RMS.
        seed: of the noise itself, which is drawn on the device.
        mixup: partners and weights, or None.
    """

    mirror: torch.Tensor
    gain: torch.Tensor
    noise: torch.Tensor
    seed: int
    mixup: Mix | None


def draw_augment(size: int, config: AugmentConfig, generator: torch.Generator) -> Draw:
    """Draw for a batch of `size` samples from a CPU generator."""
    mirror = torch.rand(size, generator=generator) < config.mirror
    gain = 1 + config.amplitude * (2 * torch.rand(size, generator=generator) - 1)
    noise = config.noise * torch.rand(size, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    mixup = draw_mixup(size, config.mixup, generator) if config.mixup > 0 else None
    return Draw(mirror, gain, noise, seed, mixup)


def augment(
    shots: torch.Tensor, velocity: torch.Tensor, draw: Draw, survey: Survey
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a draw.

    Args:
        shots: (b, shots, nt, receivers) float32, all the survey's shots.
        velocity: (b, 1, ny, nx) m/s.
        draw: from `draw_augment`.
        survey: says where the shots stand.

    Returns:
        (b, 5, nt, receivers) official shots and (b, 1, ny, nx) velocity.
    """
    flip = draw.mirror.to(shots.device, non_blocking=True)
    shots = torch.where(
        flip.view(-1, 1, 1, 1),
        official_shots(mirror_shots(shots), survey),
        official_shots(shots, survey),
    )
    velocity = torch.where(flip.view(-1, 1, 1, 1), velocity.flip(-1), velocity)
    if bool((draw.gain != 1).any()):
        shots = shots * draw.gain.to(shots.device, non_blocking=True).view(-1, 1, 1, 1)
    if bool((draw.noise > 0).any()):
        generator = torch.Generator(shots.device).manual_seed(draw.seed)
        noise = torch.randn(shots.shape, generator=generator, device=shots.device)
        level = draw.noise.to(shots.device, non_blocking=True)
        level = level * shots.square().mean((1, 2, 3)).sqrt()
        shots = shots + level.view(-1, 1, 1, 1) * noise
    if draw.mixup is not None:
        shots, velocity = mix(shots, draw.mixup), mix(velocity, draw.mixup)
    return shots, velocity


def mirror_shots(shots: torch.Tensor) -> torch.Tensor:
    """Mirror a record left to right: shots in reverse order, receivers too.

    Exact for the six-shot survey, which is its own mirror image. With the five official shots the
    mirrored source of column 34 stands at column 35 and is taken for 34's, one cell off.
    """
    return shots.flip(-3, -1)


def official_shots(shots: torch.Tensor, survey: Survey) -> torch.Tensor:
    """The five official shots of a record, in their order: (..., 5, nt, receivers)."""
    if survey.source_columns == OFFICIAL_COLUMNS:
        return shots
    return shots[..., survey.shot_rows(OFFICIAL_COLUMNS), :, :]
