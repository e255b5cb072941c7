"""What is known of a map beforehand: a penalty and a metric for its inversion, for each kind.

The penalty is added to the squared misfit. The metric says which changes are likely: it is the
first inverse Hessian of L-BFGS, and matters far more for the maps that 100 evaluations reach,
because records alone hardly tell one change of a few cells from another.

Both kinds of metric are M·(I + L)⁻ᵖ·M with a diagonal M that grows with depth, because the waves'
energy spreads out and the records' sensitivity falls with it, and a Laplacian L of the grid:

- layered: L's links between neighbouring cells are cut where the map has an interface, so that a
  change spreads over a layer and not beyond. The weights are those of iteratively reweighted least
  squares for total variation (Vogel and Oman, 1996). The penalty is total variation.
- smooth: L is uniform, and (I + L)⁻² the covariance of a Gaussian process of the Matérn kind
  (Lindgren, Rue and Lindström, 2011). The penalty is its quadratic form without the I, so that a
  constant map costs nothing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

# Steps of the conjugate gradients that apply (I + L)⁻¹; a fixed number, so that no map's result
# depends on what else is in the batch.
CG_STEPS = 60


class Prior(ABC):
    """A kind of map. Everything is done map by map; arrays are (k, ny, nx) float64.

    Attributes:
        share: the penalty's part of the squared misfit that it is added to.
    """

    share: float

    @abstractmethod
    def penalty(self, velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value (k,) and gradient (k, ny, nx) of the penalty; the caller gives it a weight."""

    @abstractmethod
    def metric(self, vectors: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """The likely changes for gradients `vectors` (k, ny, nx) at `velocity` (k, ny, nx)."""


@dataclass(frozen=True)
class NoPrior(Prior):
    """Nothing is known but that the records' sensitivity falls with depth.

    Attributes:
        depth_power: M² grows as (depth + `shallowest`)^depth_power.
        shallowest: cells added to the depth.
    """

    share: float = 0.0
    depth_power: float = 2.0
    shallowest: float = 5.0

    def penalty(self, velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """None."""
        return velocity.new_zeros(len(velocity)), torch.zeros_like(velocity)

    def metric(self, vectors: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """M²·vectors."""
        return self._root(velocity) ** 2 * vectors

    def _root(self, velocity: torch.Tensor) -> torch.Tensor:
        """M, (ny, 1)."""
        rows = torch.arange(velocity.shape[1], device=velocity.device, dtype=velocity.dtype)
        depth = rows + self.shallowest
        return (depth / depth.mean())[:, None] ** (self.depth_power / 2)


@dataclass(frozen=True)
class LayeredPrior(NoPrior):
    """Layers and blocks of one velocity each, with sharp edges.

    Attributes:
        rounding: m/s; the penalty of a difference d is √(d² + rounding²) − rounding.
        edge: m/s; a difference much larger than this is an interface.
        spread: weight of a link inside a layer, in units of a cell's own.
    """

    share: float = 0.1
    rounding: float = 0.3
    edge: float = 0.3
    spread: float = 300.0
    depth_power: float = 3.0

    def penalty(self, velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smoothed total variation over vertical and horizontal neighbours."""
        value, gradient = velocity.new_zeros(len(velocity)), torch.zeros_like(velocity)
        for axis in (1, 2):
            difference = velocity.diff(dim=axis)
            size = (difference**2 + self.rounding**2).sqrt()
            value += (size - self.rounding).sum(2).sum(1)
            add_difference(gradient, difference / size, axis)
        return value, gradient

    def metric(self, vectors: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """M·(I + L)⁻¹·M·vectors, L's links cut where `velocity` has an interface."""
        links = [
            self.spread / (1 + (velocity.diff(dim=axis) / self.edge) ** 2).sqrt() for axis in (1, 2)
        ]
        root = self._root(velocity)
        return root * solve(root * vectors, links)


@dataclass(frozen=True)
class SmoothPrior(NoPrior):
    """A smooth field without layers.

    Attributes:
        length: cells over which changes are alike.
    """

    share: float = 1e-4
    length: float = 1.0

    def penalty(self, velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """½·|L·velocity|²."""
        links = self._links(velocity)
        bent = laplacian(velocity, links)
        return 0.5 * (bent**2).sum(2).sum(1), laplacian(bent, links)

    def metric(self, vectors: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """M·(I + L)⁻²·M·vectors."""
        links, root = self._links(velocity), self._root(velocity)
        return root * solve(solve(root * vectors, links), links)

    def _links(self, velocity: torch.Tensor) -> list[torch.Tensor]:
        return [torch.full_like(velocity.diff(dim=axis), self.length**2) for axis in (1, 2)]


PRIORS: dict[str, Prior] = {
    "flat": LayeredPrior(),  # after `comp.fwi.flat`
    "layered": LayeredPrior(),
    "smooth": SmoothPrior(),
    "none": NoPrior(),
}


def laplacian(field: torch.Tensor, links: list[torch.Tensor]) -> torch.Tensor:
    """L·field for link weights between vertical (k, ny − 1, nx) and horizontal neighbours."""
    out = torch.zeros_like(field)
    for axis, link in enumerate(links, 1):
        add_difference(out, link * field.diff(dim=axis), axis)
    return out


def solve(right: torch.Tensor, links: list[torch.Tensor]) -> torch.Tensor:
    """(I + L)⁻¹·right (k, ny, nx) by CG_STEPS of conjugate gradients, preconditioned by I + L's
    diagonal."""
    diagonal = torch.ones_like(right)
    for axis, link in enumerate(links, 1):
        length = link.shape[axis]
        diagonal.narrow(axis, 0, length).add_(link)
        diagonal.narrow(axis, 1, length).add_(link)
    found = torch.zeros_like(right)
    residual = right
    scaled = residual / diagonal
    direction, size = scaled, _inner(residual, scaled)
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(CG_STEPS):
        image = direction + laplacian(direction, links)
        step = size / _inner(direction, image).clamp(min=tiny)
        found = found + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        size, before = _inner(residual, scaled), size
        direction = scaled + size / before.clamp(min=tiny) * direction
    return found


def add_difference(out: torch.Tensor, flow: torch.Tensor, axis: int) -> None:
    """Add the transpose of `diff` along `axis`, applied to `flow`, to `out`."""
    length = flow.shape[axis]
    out.narrow(axis, 0, length).sub_(flow)
    out.narrow(axis, 1, length).add_(flow)


def _inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(k, 1, 1) inner products, each summed alike whatever k is."""
    return (a * b).sum(2).sum(1)[:, None, None]
