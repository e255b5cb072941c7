"""The exact forward model on the CPU: compiled loops, one thread per (map, shot).

The compiler may neither fuse nor reorder arithmetic (it would gain nothing: the loop waits for
memory), so a record does not depend, to the last bit, on the width of the processor's vectors, on
what shares the batch or on how many threads run.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numba import njit

from comp.core.errors import InputError
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave.scheme import STENCIL, Scheme, check, discretise

# Two cells are copied around each edge of the field to realise the wrap.
HALO = 2
# Columns before the first cell and unit of a row's length: 64 bytes or more, so that the vector
# stores never straddle a cache line (15 % faster).
LANES = 16
# Maps whose coefficients are held at once; bounds the memory of a large batch.
CHUNK = 32


def simulate(velocity: torch.Tensor, survey: Survey = OFFICIAL) -> torch.Tensor:
    """Shot records of velocity maps, by the scheme that made the official data.

    Runs on `torch.get_num_threads()` threads. Not differentiable.

    Args:
        velocity: (n, ny, nx) m/s, float32 or float64, on the CPU.
        survey: the acquisition.

    Returns:
        (n, shots, nt, receivers) pressure in the dtype of `velocity`; row k is the field right
        after wavelet sample k was added.

    Raises:
        InputError: wrong shape, dtype or device, NaN, a velocity outside 1000 … 6000 m/s or too
            fast for the time step, a source or receiver outside the map.
    """
    if velocity.device.type != "cpu":
        raise InputError(f"velocity: on {velocity.device}, expected a CPU tensor")
    if velocity.requires_grad:
        raise InputError("velocity: requires a gradient, which this solver does not give")
    check(velocity, survey)
    record = torch.empty(len(velocity), *survey.record_shape, dtype=velocity.dtype)
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=_flush_denormals) as pool:
        for first in range(0, len(velocity), CHUNK):
            scheme = discretise(velocity[first : first + CHUNK], survey)
            part = record[first : first + CHUNK].numpy()
            jobs = np.ndindex(part.shape[:2])
            list(pool.map(partial(_run_shot, scheme, part), jobs))  # list: raises what a job raised
    return record


def _flush_denormals() -> None:
    """Round denormals to zero in this thread.

    The front of the numerical wave runs ahead of the physical one and fades through the
    denormals: 3 to 10 % of the run on an AMD Zen 4, far more where they take microcode.
    """
    torch.set_flush_denormal(True)


def _run_shot(scheme: Scheme, record: np.ndarray, job: tuple[int, int]) -> None:
    """Fill `record` (n, shots, nt, receivers) at `job`, a map and a shot of the scheme."""
    i, shot = job
    alpha = scheme.alpha[i]
    rows, columns = alpha.shape
    length = LANES * (1 + -(-(columns + HALO) // LANES))
    # From torch because it aligns to 64 bytes; NumPy does not.
    fields = torch.zeros(2, rows + 2 * HALO, length, dtype=alpha.dtype)
    _propagate(
        fields.numpy(),
        alpha.numpy(),
        scheme.kappa[i].numpy(),
        scheme.amplitude[i, shot].numpy(),
        scheme.sources[shot].numpy(),
        scheme.receivers.numpy(),
        np.array(STENCIL, record.dtype),
        record[job],
    )


def _compiled(function: Callable) -> Callable:
    """`function` compiled at its first call, releasing the GIL; kept on disk if anywhere can be."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)


@_compiled
def _propagate(
    fields: np.ndarray,
    alpha: np.ndarray,
    kappa: np.ndarray,
    amplitude: np.ndarray,
    source: np.ndarray,
    receivers: np.ndarray,
    stencil: np.ndarray,
    record: np.ndarray,
) -> None:
    """All time steps of one shot.

    Args:
        fields: (2, Y + 2·HALO, length) zeros; cell (y, x) stands at [y + HALO, x + LANES].
        alpha, kappa: (Y, X).
        amplitude: (nt,) added to the cell `source` (2,) after each step.
        receivers: (receivers, 2) cells whose values go to `record` (nt, receivers).
        stencil: (3,) `scheme.STENCIL` in the field's dtype.
    """
    for k in range(record.shape[0]):
        now, new = fields[k % 2], fields[(k + 1) % 2]
        _wrap(now, alpha.shape)
        _step(new, now, alpha, kappa, stencil)
        new[source[0] + HALO, source[1] + LANES] += amplitude[k]
        for r in range(receivers.shape[0]):
            record[k, r] = new[receivers[r, 0] + HALO, receivers[r, 1] + LANES]


@_compiled
def _wrap(field: np.ndarray, shape: tuple[int, int]) -> None:
    """Copy the edges into the halo on the far side: the grid is a torus."""
    rows, columns = shape
    for h in range(HALO):
        field[h] = field[h + rows]
        field[h + rows + HALO] = field[h + HALO]
    for y in range(field.shape[0]):
        for h in range(HALO):
            field[y, LANES - HALO + h] = field[y, LANES - HALO + h + columns]
            field[y, LANES + columns + h] = field[y, LANES + h]


@_compiled
def _step(
    new: np.ndarray, now: np.ndarray, alpha: np.ndarray, kappa: np.ndarray, stencil: np.ndarray
) -> None:
    """One step; `new` holds the field before `now` and is overwritten with the one after."""
    centre, near, far = stencil  # in the field's dtype: a plain number would make it float64
    for i in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            y, x = i + HALO, j + LANES
            p = now[y, x]
            ring1 = (now[y, x - 1] + now[y, x + 1]) + (now[y - 1, x] + now[y + 1, x])
            ring2 = (now[y, x - 2] + now[y, x + 2]) + (now[y - 2, x] + now[y + 2, x])
            laplacian = centre * p + near * ring1 + far * ring2
            change = p - new[y, x]
            new[y, x] = p + (change - kappa[i, j] * change) + alpha[i, j] * laplacian
