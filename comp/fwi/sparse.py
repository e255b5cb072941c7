"""Changes of a map that leave it in few pieces: total variation under a quadratic misfit.

The problem is convex but not smooth. Reweighted least squares take hundreds of factorisations to
settle which neighbours are equal; the alternating direction method of multipliers (Boyd et al.,
2011) takes one, and cheap sweeps with it.
"""

from collections.abc import Sequence

import torch

from comp.fwi.priors import laplacian

# m/s: how far a difference moves in a sweep, in which the penalty of the splitting is expressed.
_SCALE = 50.0
_SWEEPS = 200
_RECORDED = 20  # sweeps in a CUDA graph, of which _SWEEPS is a multiple
_RELAXED = 1.6  # over-relaxation, 1 for none


class SparseChange:
    """Solves for changes of maps of one shape on one device; float64 throughout.

    Takes five matrices of (ny·nx)², 1 GB with official maps. For one call at a time.

    A sweep finds the map whose differences are nearest to split ones, moves these by the soft
    threshold and adds to dual ones by how much the two still differ. For maps this small a GPU
    takes as long to start an operation as to do it, so it is worked out on what takes the fewest:
    with b the differences of `velocity`, on split + dual + b, and on dual + b. All differences,
    vertical and horizontal, are in one tensor (2, ny, nx), zero where a cell has no neighbour.
    """

    def __init__(
        self, shape: tuple[int, int], device: torch.device | str, graph: bool = True
    ) -> None:
        """`graph`: on a GPU sweep by a CUDA graph, which starts operations with less delay."""
        size = shape[0] * shape[1]
        cells = torch.eye(size, dtype=torch.float64, device=device).view(size, *shape)
        even = [torch.ones_like(difference) for difference in differences(cells)]
        self._laplacian = laplacian(cells, even).view(size, size)
        # A graph works on the memory that it was recorded with: all that a sweep uses stays.
        self._inverse = torch.zeros_like(self._laplacian)  # times the penalty
        self._map, self._free, self._pull = cells.new_zeros(3, *shape)
        both = cells.new_zeros(5, 2, *shape)
        self._moved, self._dual, self._low, self._high, self._jumps = both
        # Split − dual − b, below a row and beside a column of zeros.
        self._flows = cells.new_zeros(2, shape[0] + 1, shape[1] + 1)
        self._graph = self._record() if graph and cells.is_cuda else None

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
        factor = torch.linalg.cholesky(torch.add(hessian, self._laplacian, alpha=rho))
        # Applied hundreds of times: one product each instead of two triangular solves.
        inverse = torch.cholesky_inverse(factor)
        torch.sub(velocity, (inverse @ gradient.flatten()).view_as(velocity), out=self._free)
        torch.mul(inverse, rho, out=self._inverse)
        before, near = torch.zeros_like(self._moved), torch.zeros_like(self._moved)
        for padded, parts in ((before, differences(velocity)), (near, weights)):
            padded[0, :-1], padded[1, :, :-1] = parts
        near /= rho
        torch.sub(before, near, out=self._low)
        torch.add(before, near, out=self._high)
        # Split as the velocity's own, dual zero.
        torch.mul(before, 2, out=self._moved)
        self._dual.copy_(before)
        self._flows.zero_()
        self._sweeps()
        return self._map - velocity

    def _sweeps(self) -> None:
        if self._graph is None:
            for _ in range(_SWEEPS):
                self._sweep()
        else:
            for _ in range(_SWEEPS // _RECORDED):
                self._graph.replay()

    def _sweep(self) -> None:
        """One sweep, from `_moved`, `_dual` and `_flows` to `_map` and these three."""
        flows, now = self._flows[:, 1:, 1:], self._map
        # The transpose of the differences.
        torch.sub(self._flows[0, :-1, 1:], flows[0], out=self._pull)
        self._pull.add_(self._flows[1, 1:, :-1]).sub_(flows[1])
        torch.addmv(self._free.view(-1), self._inverse, self._pull.view(-1), out=now.view(-1))
        torch.sub(now[1:], now[:-1], out=self._jumps[0, :-1])
        torch.sub(now[:, 1:], now[:, :-1], out=self._jumps[1, :, :-1])
        self._moved.lerp_(self._dual, _RELAXED).add_(self._jumps, alpha=_RELAXED)
        # Soft threshold: what it takes off is the dual one.
        torch.clamp(self._moved, self._low, self._high, out=self._dual)
        torch.sub(self._moved, self._dual, alpha=2, out=flows)

    def _record(self) -> torch.cuda.CUDAGraph:
        """A graph of _RECORDED sweeps."""
        with torch.cuda.device(self._map.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._sweep()  # first calls set libraries up, which cannot be recorded
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(_RECORDED):
                    self._sweep()
        return graph


def differences(velocity: torch.Tensor) -> list[torch.Tensor]:
    """Vertical (…, ny − 1, nx) and horizontal (…, ny, nx − 1) differences of maps."""
    return [velocity.diff(dim=-2), velocity.diff(dim=-1)]


def variation(velocity: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weighted total variation of a map (ny, nx)."""
    return sum((w * d.abs()).sum() for w, d in zip(weights, differences(velocity)))
