"""What an inversion changes in place of velocity: squared slowness, of which waves see the mean.

What is finer than a wave tells is mixtures: one cell may be wrong by what the next makes up for,
and what waves see of both is the mean of 1/v². In velocity these directions, which are all that is
still to be found towards the end, are curved: at a misfit of 5e-5 of a faulted map the quadratic
misfit was 100 times too large at the true one.
"""

import torch

REFERENCE = 3000.0  # m/s, where a change of squared slowness counts as one of velocity


def to_unknown(velocity: torch.Tensor, slowness: bool) -> torch.Tensor:
    """What stands for velocities of any shape, m/s: themselves or, with `slowness`, −1/v².

    That is scaled so that a change at REFERENCE counts as the one of velocity, m/s, that it is.
    """
    return -(REFERENCE**3) / 2 / velocity**2 if slowness else velocity


def to_velocity(unknown: torch.Tensor, slowness: bool) -> torch.Tensor:
    """The velocities, m/s, that `to_unknown` gives these for; 3 · REFERENCE where none does."""
    if not slowness:
        return unknown
    return (REFERENCE**3 / 2 / (-unknown).clamp(min=REFERENCE / 18)) ** 0.5


def by_unknown(
    gradient: torch.Tensor, hessian: torch.Tensor, velocity: torch.Tensor, slowness: bool
) -> None:
    """Turn derivatives by velocity, m/s, into those by its `to_unknown`, in place.

    Args:
        gradient: (ny, nx).
        hessian: (ny·nx, ny·nx) of Gauss and Newton, so without the unknown's own curvature.
        velocity: (ny, nx) where they were taken.
        slowness: as in `to_unknown`.
    """
    if slowness:
        slope = (velocity / REFERENCE) ** 3
        gradient *= slope
        hessian *= slope.flatten()[:, None] * slope.flatten()
