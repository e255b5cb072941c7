"""Changes of a map that leave it in few pieces: total variation under a quadratic misfit.

The problem is convex but not smooth. Reweighted least squares take hundreds of factorisations to
settle which neighbours are equal; the alternating direction method of multipliers (Boyd et al.,
2011) takes one, and cheap sweeps with it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from comp.fwi.priors import laplacian

# m/s: how far a difference moves in a sweep, in which the penalty of the splitting is expressed.
_SCALE = 50.0
_SWEEPS = 200
_RECORDED = 20  # sweeps in a CUDA graph, of which _SWEEPS is a multiple
_RELAXED = 1.6  # over-relaxation, 1 for none
GROUPS = 256  # that cells can be drawn to


class Pull(NamedTuple):
    """Cells that are to be alike, however far apart: each is drawn to the middle of its group.

    Attributes:
        group: (ny, nx) int64 numbers below GROUPS, −1 for cells of none.
        weights: (ny, nx) of how far a cell is off.
    """

    group: torch.Tensor
    weights: torch.Tensor

    def centres(self, velocity: torch.Tensor) -> torch.Tensor:
        """(ny, nx) the median of each cell's group, the cell's own where it has none."""
        group, values = (one.flatten().cpu().numpy() for one in (self.group, velocity))
        order = np.lexsort((values, group))
        first, count = np.unique(group[order], return_index=True, return_counts=True)[1:]
        low, high = first + (count - 1) // 2, first + count // 2
        middle = (values[order[low]] + values[order[high]]) / 2
        middle = middle[np.unique(group, return_inverse=True)[1]]
        found = torch.from_numpy(np.where(group < 0, values, middle))
        return found.to(velocity).view_as(velocity)

    def off(self, velocity: torch.Tensor) -> torch.Tensor:
        """What it costs; a little more than with the best centres, which weights move."""
        return (self.weights * (velocity - self.centres(velocity)).abs()).sum()


class SparseChange:
    """Solves for changes of maps of one shape on one device; float64 throughout.

    Takes five matrices of (ny·nx)², 1 GB with official maps. For one call at a time.

    A sweep finds the map whose differences are nearest to split ones, moves these by the soft
    threshold and adds to dual ones by how much the two still differ. For maps this small a GPU
    takes as long to start an operation as to do it, so it is worked out on what takes the fewest:
    with b the differences of `velocity`, on split + dual + b, and on dual + b. All differences,
    vertical and horizontal, are in one tensor (2, ny, nx), zero where a cell has no neighbour. How
    far cells are off their groups goes the same way, in a tensor (ny, nx) of its own; the groups'
    velocities are unknowns too, of which each sweep finds the best.
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
        self._map, self._free, self._back = cells.new_zeros(3, *shape)
        self._jumps = cells.new_zeros(2, *shape)
        # Split − dual − b, below a row and beside a column of zeros.
        self._flows = cells.new_zeros(2, shape[0] + 1, shape[1] + 1)
        self._split = _Split(self._flows[:, 1:, 1:])
        self._off = _Off(shape, cells)
        self._graphs = {}
        if graph and cells.is_cuda:
            self._graphs = {pulled: self._record(pulled) for pulled in (False, True)}

    def __call__(
        self,
        hessian: torch.Tensor,
        gradient: torch.Tensor,
        velocity: torch.Tensor,
        weights: Sequence[torch.Tensor],
        pull: Pull | None = None,
    ) -> torch.Tensor:
        """The change d that minimises gradient·d + ½ d·hessian·d + Σ weights·|D(velocity + d)|.

        D takes the differences of neighbouring cells. With `pull`, also of cells and their groups'
        velocities, whichever suit best.

        Args:
            hessian: (ny·nx, ny·nx), symmetric and positive.
            gradient, velocity: (ny, nx).
            weights: of the vertical (ny − 1, nx) and the horizontal (ny, nx − 1) differences.
            pull: of cells to their groups.

        Raises:
            torch.linalg.LinAlgError: the Hessian is not positive.
        """
        priced = [w.flatten() for w in weights]
        if pull:
            priced = [w[w > 0] for w in (*priced, pull.weights[pull.group >= 0])]
        rho = float(torch.cat(priced).mean()) / _SCALE
        sum_ = torch.add(hessian, self._laplacian, alpha=rho)
        if pull:
            self._off.set(pull, velocity, rho)
            self._off.add_square(sum_, rho)
        factor = torch.linalg.cholesky(sum_)
        del sum_
        # Applied hundreds of times: one product each instead of two triangular solves.
        inverse = torch.cholesky_inverse(factor)
        torch.sub(velocity, (inverse @ gradient.flatten()).view_as(velocity), out=self._free)
        torch.mul(inverse, rho, out=self._inverse)
        before, near = self._jumps.new_zeros(2, *self._jumps.shape)
        for padded, parts in ((before, differences(velocity)), (near, weights)):
            padded[0, :-1], padded[1, :, :-1] = parts
        self._split.set(before, near / rho)
        self._sweeps(pull is not None)
        return self._map - velocity

    def _sweeps(self, pulled: bool) -> None:
        for _ in range(_SWEEPS // _RECORDED):
            if self._graphs:
                self._graphs[pulled].replay()
            else:
                for _ in range(_RECORDED):
                    self._sweep(pulled)

    def _sweep(self, pulled: bool) -> None:
        """One sweep, from the splits to `_map` and these."""
        flows, now = self._flows[:, 1:, 1:], self._map
        # The transpose of the differences.
        torch.sub(self._flows[0, :-1, 1:], flows[0], out=self._back)
        self._back.add_(self._flows[1, 1:, :-1]).sub_(flows[1])
        if pulled:
            self._back.add_(self._off.back().view_as(self._back))
        torch.addmv(self._free.view(-1), self._inverse, self._back.view(-1), out=now.view(-1))
        torch.sub(now[1:], now[:-1], out=self._jumps[0, :-1])
        torch.sub(now[:, 1:], now[:, :-1], out=self._jumps[1, :, :-1])
        self._split.sweep(self._jumps)
        if pulled:
            self._off.sweep(now)

    def _record(self, pulled: bool) -> torch.cuda.CUDAGraph:
        """A graph of _RECORDED sweeps."""
        with torch.cuda.device(self._map.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._sweep(pulled)  # first calls set libraries up, which cannot be recorded
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(_RECORDED):
                    self._sweep(pulled)
        return graph


class _Split:
    """Split copies of what is penalised, and the dual ones; see `SparseChange`.

    A graph works on the memory that it was recorded with, so all of it stays.
    """

    def __init__(self, flow: torch.Tensor) -> None:
        """`flow`: where to keep what goes back to the cells, split − dual − b."""
        self._flow = flow
        self._moved, self._dual, self._low, self._high = flow.new_zeros(4, *flow.shape)

    def set(self, before: torch.Tensor, near: torch.Tensor) -> None:
        """Begin with `before` as the splits and no dual ones; those are at most `near`."""
        torch.sub(before, near, out=self._low)
        torch.add(before, near, out=self._high)
        torch.mul(before, 2, out=self._moved)
        self._dual.copy_(before)
        self._flow.zero_()

    def sweep(self, found: torch.Tensor) -> None:
        """After the map, which has `found` of it."""
        self._moved.lerp_(self._dual, _RELAXED).add_(found, alpha=_RELAXED)
        # Soft threshold: what it takes off is the dual one.
        torch.clamp(self._moved, self._low, self._high, out=self._dual)
        torch.sub(self._moved, self._dual, alpha=2, out=self._flow)


class _Off:
    """The part of a sweep that draws cells to their groups' velocities.

    These are not kept: whatever the cells, the best ones are means, of cells − split + dual.
    """

    def __init__(self, shape: tuple[int, int], like: torch.Tensor) -> None:
        """For maps of a shape, on the device of `like`."""
        size = shape[0] * shape[1]
        self._means = like.new_zeros(GROUPS, size)  # one row takes the mean of a group's cells
        self._group = torch.zeros(size, dtype=torch.int64, device=like.device)
        self._grouped = like.new_zeros(size)  # 1, 0 for cells of no group
        self._flow = like.new_zeros(size)
        self._split = _Split(self._flow)

    def set(self, pull: Pull, velocity: torch.Tensor, rho: float) -> None:
        """Begin, with splits as the velocity's own."""
        group = pull.group.flatten()
        self._group.copy_(group.clamp(min=0))
        self._grouped.copy_(group >= 0)
        self._means.zero_()
        self._means[self._group, torch.arange(len(group), device=group.device)] = self._grouped
        self._means /= self._means.sum(1, keepdim=True).clamp(min=1)
        self._split.set(self._from_means(velocity.flatten()), pull.weights.flatten() / rho)

    def add_square(self, matrix: torch.Tensor, rho: float) -> None:
        """Add what being off the means takes to the matrix that finds the map."""
        matrix.diagonal().add_(self._grouped, alpha=rho)
        same = (self._means > 0).to(self._means)
        matrix.addmm_(same.T, self._means, alpha=-rho)

    def back(self) -> torch.Tensor:
        """(ny·nx,) the transpose of how far cells are off, of splits − dual ones."""
        return self._from_means(self._flow)

    def sweep(self, now: torch.Tensor) -> None:
        """Move the splits and the dual ones after the map."""
        cells = now.view(-1)
        off = self._grouped * (cells - (self._means @ (cells - self._flow))[self._group])
        self._split.sweep(off)

    def _from_means(self, cells: torch.Tensor) -> torch.Tensor:
        return self._grouped * (cells - (self._means @ cells)[self._group])


def differences(velocity: torch.Tensor) -> list[torch.Tensor]:
    """Vertical (…, ny − 1, nx) and horizontal (…, ny, nx − 1) differences of maps."""
    return [velocity.diff(dim=-2), velocity.diff(dim=-1)]


def variation(
    velocity: torch.Tensor, weights: Sequence[torch.Tensor], pull: Pull | None = None
) -> torch.Tensor:
    """Weighted total variation of a map (ny, nx), and what cells are off their groups."""
    total = sum((w * d.abs()).sum() for w, d in zip(weights, differences(velocity)))
    return total + pull.off(velocity) if pull else total
