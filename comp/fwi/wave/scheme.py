"""The finite-difference scheme of the official data: its coefficients, checks and limits.

On a grid padded by `survey.pad` cells of edge velocity, with α = (v·dt/dx)² and κ = damping·dt,

    p⁺ = p + (1 − κ)(p − p⁻) + α·lap(p),      then   p⁺[source] += (v_source·dt)²·wavelet[k],

where lap is the fourth-order Laplacian (times dx²) whose neighbours wrap round the padded grid,
and κ a sponge that grows quadratically outward. It is the scheme behind OpenFWI (arXiv
2111.02926): wrap, sponge and all, because a better absorber makes other records.

Every backend takes its coefficients from `discretise`, so that no two can drift apart. They are
torch operations: they run on any device, and the chain rule through them is autograd's.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from comp.core.errors import InputError
from comp.fwi.checks import VELOCITY_RANGE
from comp.fwi.survey import Survey

# The Laplacian times dx², fourth order: weights of the cell itself (−5/2 from each axis), of its
# four neighbours one cell away and of its four neighbours two cells away.
STENCIL = (-5.0, 4 / 3, -1 / 12)
# Its largest eigenvalue in magnitude: both axes at the Nyquist wavenumber, 16/3 from each.
LARGEST_EIGENVALUE = 32 / 3


@dataclass(frozen=True)
class Scheme:
    """Coefficients of `n` maps on the padded grid (Y, X), and the cells used on it.

    Attributes:
        alpha: (n, Y, X) squared Courant number (v·dt/dx)².
        kappa: (n, Y, X) damping per step.
        amplitude: (n, shots, nt) what is added to the source cell at each step.
        sources: (shots, 2) row and column of each source, int64, on the CPU.
        receivers: (receivers, 2) row and column of each receiver, likewise.
        pad: cells on each side of the map, in which α is that of the map's edge.
    """

    alpha: torch.Tensor
    kappa: torch.Tensor
    amplitude: torch.Tensor
    sources: torch.Tensor
    receivers: torch.Tensor
    pad: int


@dataclass(frozen=True)
class Gradients:
    """What a scalar changes with each coefficient of a `Scheme`; the shapes are the same."""

    alpha: torch.Tensor
    kappa: torch.Tensor
    amplitude: torch.Tensor


def discretise(velocity: torch.Tensor, survey: Survey, wavelet: np.ndarray | None = None) -> Scheme:
    """Coefficients for velocity maps (n, ny, nx), m/s, in their dtype and on their device.

    The sources fire `wavelet` (nt,), the survey's own by default.

    They are computed in float64 and rounded once. Each map's depend on that map alone.
    The maps are taken as they are: `check` them first.
    """
    exact = velocity.double()
    alpha = ((exact * (survey.dt / survey.dx)) ** 2).to(velocity.dtype)
    alpha = _repeat_edges(_repeat_edges(alpha, survey.pad, 1), survey.pad, 2)
    kappa = _sponge(exact.amin((1, 2)), survey).to(velocity.dtype)

    # One by one: the host would wait for a list of indices to be copied to a GPU.
    at_source = torch.stack([exact[:, survey.source_row, x] for x in survey.source_columns], 1)
    if wavelet is None:
        wavelet = _own_wavelet(survey, velocity.device)
    wavelet = torch.as_tensor(wavelet, device=velocity.device)
    amplitude = ((at_source * survey.dt) ** 2)[..., None] * wavelet
    return Scheme(
        alpha,
        kappa,
        amplitude.to(velocity.dtype),
        _padded_cells(survey.source_row, survey.source_columns, survey),
        _padded_cells(survey.receiver_row, survey.receiver_columns, survey),
        survey.pad,
    )


@cache
def _own_wavelet(survey: Survey, device: torch.device) -> torch.Tensor:
    """The survey's wavelet (nt,), copied to a device once."""
    with torch.inference_mode(False):  # or no gradient could use it later
        return torch.as_tensor(survey.wavelet(), device=device)


def _repeat_edges(maps: torch.Tensor, pad: int, axis: int) -> torch.Tensor:
    """`maps` with its first and last slice along `axis` repeated `pad` times outward.

    As torch's own replication padding, whose gradient on a GPU is a sum in no fixed order.
    """
    first, last = maps.narrow(axis, 0, 1), maps.narrow(axis, maps.shape[axis] - 1, 1)
    shape = list(maps.shape)
    shape[axis] = pad
    return torch.cat([first.expand(shape), maps, last.expand(shape)], axis)


def _sponge(slowest: torch.Tensor, survey: Survey) -> torch.Tensor:
    """κ (n, Y, X) from each map's minimum velocity (n,); left and right strips own the corners."""

    def outward(cells: int) -> torch.Tensor:
        """Cells from the map's edge along one axis: 0 in the map and in the first sponge cell."""
        i = torch.arange(cells + 2 * survey.pad, device=slowest.device, dtype=slowest.dtype)
        return torch.maximum(survey.pad - 1 - i, i - survey.pad - cells).clamp(min=0)

    columns = torch.arange(survey.nx + 2 * survey.pad, device=slowest.device)
    side = (columns < survey.pad) | (columns >= survey.pad + survey.nx)
    depth = torch.where(side, outward(survey.nx), outward(survey.ny)[:, None])
    return _strongest(slowest, survey)[:, None, None] * (depth / (survey.pad - 1)) ** 2


def _strongest(slowest: torch.Tensor, survey: Survey) -> torch.Tensor:
    """κ (n,) of the outermost sponge cell, from each map's minimum velocity (n,)."""
    width = (survey.pad - 1) * survey.dx
    return 3 * slowest * math.log(survey.sponge_reflection) / (2 * width) * survey.dt


def _padded_cells(row: int, columns: tuple[int, ...], survey: Survey) -> torch.Tensor:
    """(len(columns), 2) row and column on the padded grid."""
    return torch.tensor([(row, column) for column in columns]) + survey.pad


def check(velocity: torch.Tensor, survey: Survey) -> None:
    """Check that the scheme can run on these maps.

    Raises:
        InputError: a source or receiver outside the map; shape other than (n, ny, nx); dtype other
            than float32 or float64; NaN; outside VELOCITY_RANGE; unstable with the survey's dt.
    """
    _check_survey(survey)
    if velocity.dtype not in (torch.float32, torch.float64):
        raise InputError(f"velocity: {velocity.dtype}, expected torch.float32 or torch.float64")
    if velocity.ndim != 3 or tuple(velocity.shape[1:]) != survey.map_shape:
        want = f"(n, {survey.ny}, {survey.nx})"
        raise InputError(f"velocity: shape {tuple(velocity.shape)}, expected {want}")
    if not len(velocity):
        return
    low, high = VELOCITY_RANGE
    lowest, highest = velocity.amin((1, 2)), velocity.amax((1, 2))
    bad = ~((lowest >= low) & (highest <= high))  # NaN compares false, so it is bad too
    if bad.any():
        i = int(bad.nonzero()[0])
        found = f"{lowest[i]:g} … {highest[i]:g} m/s"
        if lowest[i].isnan():
            found = "holds NaN"
        elif low <= 1000 * lowest[i] <= 1000 * highest[i] <= high:
            found += ", which looks like km/s"
        raise InputError(f"velocity[{i}]: {found}, expected {low:g} … {high:g} m/s")
    _check_stable(velocity.double(), survey)


def _check_stable(velocity: torch.Tensor, survey: Survey) -> None:
    """Raise InputError where the scheme would blow up.

    The discrete energy stays positive while α·LARGEST_EIGENVALUE ≤ 4 − 2κ at every cell: the usual
    limit, lowered where there is damping because that is a backward difference in time. Outward
    from an edge α stays the same and κ grows, so only the map and the outermost cells can break it.
    """
    kappa = _strongest(velocity.amin((1, 2)), survey)
    edges = torch.cat([velocity[:, [0, -1]].flatten(1), velocity[:, :, [0, -1]].flatten(1)], 1)
    for where, fastest, damping in (
        ("the map", velocity.amax((1, 2)), torch.zeros_like(kappa)),
        ("its edge", edges.amax(1), kappa),
    ):
        courant = ((4 - 2 * damping).clamp(min=0) / LARGEST_EIGENVALUE).sqrt()
        limit = courant * (survey.dx / survey.dt)
        bad = ~(fastest <= limit)
        if bad.any():
            i = int(bad.nonzero()[0])
            raise InputError(
                f"velocity[{i}]: unstable: {fastest[i]:g} m/s in {where}, expected at most "
                f"{limit[i]:.0f} with dx {survey.dx:g} m and dt {survey.dt:g} s"
            )


def _check_survey(survey: Survey) -> None:
    """Raise InputError unless sources and receivers lie in the map and the sponge has a width."""
    if survey.pad < 2:
        raise InputError(f"survey: pad is {survey.pad}, expected at least 2 absorbing cells")
    for name, row, columns in (
        ("source", survey.source_row, survey.source_columns),
        ("receiver", survey.receiver_row, survey.receiver_columns),
    ):
        if not 0 <= row < survey.ny:
            raise InputError(f"survey: {name}_row is {row}, expected 0 … {survey.ny - 1}")
        if not columns or not 0 <= min(columns) <= max(columns) < survey.nx:
            raise InputError(
                f"survey: {name}_columns is {columns}, expected columns 0 … {survey.nx - 1}"
            )
