"""What an inversion changes in place of velocity: squared slowness, of which waves see the mean.

What is finer than a wave tells is mixtures: one cell may be wrong by what the next makes up for,
and what waves see of both is the mean of 1/v². In velocity these directions, which are all that is
still to be found towards the end, are curved: at a misfit of 5e-5 of a faulted map the quadratic
misfit was 100 times too large at the true one.
"""

import torch

REFERENCE = 3000.0  # m/s, where a change of squared slowness counts as one of velocity


def to_unknown(velocity: torch.Tensor, slowness: bool) -> torch.Tensor:
    """Velocity itself or, of `slowness`, what is in m/s at REFERENCE and grows with velocity."""
    return -(REFERENCE**3) / 2 / velocity**2 if slowness else velocity


def to_velocity(unknown: torch.Tensor, slowness: bool) -> torch.Tensor:
    """Back again; 3 · REFERENCE for what no velocity has."""
    if not slowness:
        return unknown
    return (REFERENCE**3 / 2 / (-unknown).clamp(min=REFERENCE / 18)) ** 0.5


def by_unknown(
    gradient: torch.Tensor, hessian: torch.Tensor, velocity: torch.Tensor, slowness: bool
) -> None:
    """Turn a gradient (ny, nx) and a Hessian (ny·nx, ny·nx) by velocity into those by the unknown.

    In place; of the Hessian as Gauss and Newton have it, without the unknown's own curvature.
    """
    if slowness:
        slope = (velocity / REFERENCE) ** 3
        gradient *= slope
        hessian *= slope.flatten()[:, None] * slope.flatten()
