"""Changes of a map that leave it in few pieces: total variation under a quadratic misfit.

The problem is convex but not smooth. Reweighted least squares take hundreds of factorisations to
settle which neighbours are equal; the alternating direction method of multipliers (Boyd et al.,
2011) takes one, and cheap sweeps with it.
"""

from collections.abc import Sequence

import torch

from comp.fwi.priors import add_difference, laplacian

# m/s: how far a difference moves in a sweep, in which the penalty of the splitting is expressed.
_SCALE = 50.0
_SWEEPS = 200
_RELAXED = 1.6  # over-relaxation, 1 for none


class SparseChange:
    """Solves for changes of maps of one shape on one device; float64 throughout.

    Takes four matrices of (ny·nx)², 0.8 GB with official maps.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device | str) -> None:
        self._shape, size = shape, shape[0] * shape[1]
        cells = torch.eye(size, dtype=torch.float64, device=device).view(size, *shape)
        even = [torch.ones_like(difference) for difference in differences(cells)]
        self._laplacian = laplacian(cells, even).view(size, size)

    def __call__(
        self,
        hessian: torch.Tensor,
        gradient: torch.Tensor,
        velocity: torch.Tensor,
        weights: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """The change d that minimises gradient·d + ½ d·hessian·d + Σ weights·|D(velocity + d)|.

        D takes the differences of neighbouring cells.

        Args:
            hessian: (ny·nx, ny·nx), symmetric and positive.
            gradient, velocity: (ny, nx).
            weights: of the vertical (ny − 1, nx) and the horizontal (ny, nx − 1) differences.

        Raises:
            torch.linalg.LinAlgError: the Hessian is not positive.
        """
        rho = float(torch.cat([w.flatten() for w in weights]).mean()) / _SCALE
        factor = torch.linalg.cholesky(hessian + rho * self._laplacian)
        # Applied hundreds of times: one product each instead of two triangular solves.
        inverse = torch.cholesky_inverse(factor)
        free = -(inverse @ gradient.flatten())
        before = differences(velocity)
        split, dual = list(before), [torch.zeros_like(difference) for difference in before]
        change = velocity
        for _ in range(_SWEEPS):
            pull = [z - u - b for z, u, b in zip(split, dual, before)]
            change = (free + rho * (inverse @ _transposed(pull).flatten())).view(self._shape)
            for axis, moved in enumerate(differences(change)):
                moved = _RELAXED * (before[axis] + moved) + (1 - _RELAXED) * split[axis]
                moved = moved + dual[axis]
                # Soft threshold.
                near = weights[axis] / rho
                split[axis] = moved - moved.clamp(-near, near)
                dual[axis] = moved - split[axis]
        return change


def differences(velocity: torch.Tensor) -> list[torch.Tensor]:
    """Vertical (…, ny − 1, nx) and horizontal (…, ny, nx − 1) differences of maps."""
    return [velocity.diff(dim=-2), velocity.diff(dim=-1)]


def variation(velocity: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weighted total variation of a map (ny, nx)."""
    return sum((w * d.abs()).sum() for w, d in zip(weights, differences(velocity)))


def _transposed(flows: Sequence[torch.Tensor]) -> torch.Tensor:
    """(ny, nx): the transpose of `differences`."""
    out = flows[0].new_zeros(flows[1].shape[0], flows[0].shape[1])
    for axis, flow in enumerate(flows):
        add_difference(out, flow, axis)
    return out
