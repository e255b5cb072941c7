"""The sponge scheme and its adjoint on the CPU: compiled loops, one job per (map, shot).

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

from comp.fwi.survey import Survey
from comp.fwi.wave.scheme import STENCIL, Gradients, Scheme

# Two cells are copied around each edge of the field to realise the wrap.
HALO = 2
# Columns before the first cell and unit of a row's length: 64 bytes or more, so that the vector
# stores never straddle a cache line (15 % faster).
LANES = 16
# Maps whose coefficients are held at once; bounds the memory of a large batch.
CHUNK = 32
# Steps between two saved states of the field. A shot's gradient needs nt/SEGMENT pairs of fields
# from the forward run and SEGMENT fields at a time beside them: 36 MB at the official size.
SEGMENT = 32


def chunk(velocity: torch.Tensor, survey: Survey, gradient: bool) -> int:
    """How many maps to simulate at once."""
    return CHUNK


def run(scheme: Scheme, keep: bool) -> tuple[torch.Tensor, tuple[torch.Tensor]]:
    """Records of a scheme's maps.

    Args:
        scheme: n maps, on the CPU.
        keep: save what `gradients` needs.

    Returns:
        (n, shots, nt, receivers) records, and the saved states (n, shots, states, 2, Y, length):
        the fields of two successive steps, every SEGMENT steps; no states unless `keep`.
    """
    n, shots, nt = scheme.amplitude.shape
    states = (nt - 1) // SEGMENT if keep else 0
    fields = _fields(scheme, 2).shape
    record = scheme.alpha.new_empty(n, shots, nt, len(scheme.receivers))
    saved = scheme.alpha.new_empty(n, shots, states, *fields)
    _each_shot(partial(_run_shot, scheme, record, saved), n, shots)
    return record, (saved,)


def gradients(scheme: Scheme, saved: tuple[torch.Tensor], grad_record: torch.Tensor) -> Gradients:
    """What Σ grad_record·record changes with each coefficient; `saved` is from `run`."""
    n, shots, _ = scheme.amplitude.shape
    per_shot = scheme.alpha.new_zeros(2, n, shots, *scheme.alpha.shape[1:])
    amplitude = torch.empty_like(scheme.amplitude)
    grad_record = grad_record.contiguous()
    job = partial(_gradient_shot, scheme, saved[0], grad_record, per_shot, amplitude)
    _each_shot(job, n, shots)
    alpha, kappa = per_shot.sum(2) / scheme.alpha
    return Gradients(alpha, kappa, amplitude)


def snapshots(scheme: Scheme, every: int) -> torch.Tensor:
    """Fields of one map's shots after each `every` steps, (nt // every, shots, Y, X)."""
    _, shots, nt = scheme.amplitude.shape
    history = scheme.alpha.new_empty(nt // every, shots, *scheme.alpha.shape[1:])
    _each_shot(partial(_snapshots_of_shot, scheme, every, history), 1, shots)
    return history


def _each_shot(job: Callable[[tuple[int, int]], None], n: int, shots: int) -> None:
    """Run `job` for each (map, shot) on `torch.get_num_threads()` threads."""
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=_flush_denormals) as pool:
        list(pool.map(job, np.ndindex(n, shots)))  # list: raises what a job raised


def _flush_denormals() -> None:
    """Round denormals to zero in this thread.

    The front of the numerical wave runs ahead of the physical one and fades through the
    denormals: 3 to 10 % of the run on an AMD Zen 4, far more where they take microcode.
    """
    torch.set_flush_denormal(True)


def _fields(scheme: Scheme, count: int) -> torch.Tensor:
    """(count, Y + 2·HALO, length) zeros; cell (y, x) stands at [y + HALO, x + LANES]."""
    rows, columns = scheme.alpha.shape[1:]
    length = LANES * (1 + -(-(columns + HALO) // LANES))
    # From torch because it aligns to 64 bytes; NumPy does not.
    return torch.zeros(count, rows + 2 * HALO, length, dtype=scheme.alpha.dtype)


def _coefficients(scheme: Scheme, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """α, κ of map `i` and the stencil, in the field's dtype."""
    alpha = scheme.alpha[i].numpy()
    return alpha, scheme.kappa[i].numpy(), np.array(STENCIL, alpha.dtype)


def _run_shot(
    scheme: Scheme, record: torch.Tensor, saved: torch.Tensor, job: tuple[int, int]
) -> None:
    """Fill `record` and `saved` at `job`, a map and a shot of the scheme."""
    _propagate(
        _fields(scheme, 2).numpy(),
        *_coefficients(scheme, job[0]),
        scheme.amplitude[job].numpy(),
        scheme.sources[job[1]].numpy(),
        scheme.receivers.numpy(),
        SEGMENT,
        record[job].numpy(),
        saved[job].numpy(),
    )


def _snapshots_of_shot(
    scheme: Scheme, every: int, history: torch.Tensor, job: tuple[int, int]
) -> None:
    """Fill `history` (samples, shots, Y, X) at a shot: states of segments, and the last field."""
    nt, (rows, columns) = scheme.amplitude.shape[2], scheme.alpha.shape[1:]
    fields = _fields(scheme, 2)
    states = fields.new_empty((nt - 1) // every, *fields.shape)
    _propagate(
        fields.numpy(),
        *_coefficients(scheme, job[0]),
        scheme.amplitude[job].numpy(),
        scheme.sources[job[1]].numpy(),
        scheme.receivers[:0].numpy(),
        every,
        np.empty((nt, 0), fields.numpy().dtype),
        states.numpy(),
    )
    inner = slice(HALO, HALO + rows), slice(LANES, LANES + columns)
    history[: len(states), job[1]] = states[:, 1, *inner]
    if nt % every == 0:
        history[-1, job[1]] = fields[nt % 2][inner]


def _gradient_shot(
    scheme: Scheme,
    saved: torch.Tensor,
    grad_record: torch.Tensor,
    per_shot: torch.Tensor,
    grad_amplitude: torch.Tensor,
    job: tuple[int, int],
) -> None:
    """Add a shot's α·(gradients in α, in κ) to `per_shot`, fill `grad_amplitude`, at `job`."""
    _back_propagate(
        _fields(scheme, 2).numpy(),
        _fields(scheme, SEGMENT + 1).numpy(),
        *_coefficients(scheme, job[0]),
        scheme.amplitude[job].numpy(),
        scheme.sources[job[1]].numpy(),
        scheme.receivers.numpy(),
        SEGMENT,
        saved[job].numpy(),
        grad_record[job].numpy(),
        per_shot[0][job].numpy(),
        per_shot[1][job].numpy(),
        grad_amplitude[job].numpy(),
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
    stencil: np.ndarray,
    amplitude: np.ndarray,
    source: np.ndarray,
    receivers: np.ndarray,
    segment: int,
    record: np.ndarray,
    saved: np.ndarray,
) -> None:
    """All time steps of one shot.

    Args:
        fields: (2, Y + 2·HALO, length) zeros.
        alpha, kappa: (Y, X).
        stencil: (3,) `scheme.STENCIL` in the field's dtype.
        amplitude: (nt,) added to the cell `source` (2,) after each step.
        receivers: (receivers, 2) cells whose values go to `record` (nt, receivers).
        segment: steps between two saved states.
        saved: (states, 2, Y + 2·HALO, length); [s] becomes the fields after steps
            (s + 1)·segment − 2 and (s + 1)·segment − 1. May be empty.
    """
    for k in range(record.shape[0]):
        now, new = fields[k % 2], fields[(k + 1) % 2]
        if k % segment == 0 and 0 < k // segment <= saved.shape[0]:
            saved[k // segment - 1, 0] = new
            saved[k // segment - 1, 1] = now
        _wrap(now, alpha.shape)
        _step(new, now, alpha, kappa, stencil)
        new[source[0] + HALO, source[1] + LANES] += amplitude[k]
        for r in range(receivers.shape[0]):
            record[k, r] = new[receivers[r, 0] + HALO, receivers[r, 1] + LANES]


@_compiled
def _back_propagate(
    adjoint: np.ndarray,
    history: np.ndarray,
    alpha: np.ndarray,
    kappa: np.ndarray,
    stencil: np.ndarray,
    amplitude: np.ndarray,
    source: np.ndarray,
    receivers: np.ndarray,
    segment: int,
    saved: np.ndarray,
    grad_record: np.ndarray,
    grad_alpha: np.ndarray,
    grad_kappa: np.ndarray,
    grad_amplitude: np.ndarray,
) -> None:
    """The adjoint of `_propagate`, one segment after another from the last; see `sponge`.

    Args (those of `_propagate`, and):
        adjoint: (2, Y + 2·HALO, length) zeros.
        history: (segment + 1, Y + 2·HALO, length) room for the fields of a segment: [j] is the one
            after step first + j − 2.
        grad_record: (nt, receivers).
        grad_alpha, grad_kappa: (Y, X); α times the gradients is added.
        grad_amplitude: (nt,), filled.
    """
    nt = grad_record.shape[0]
    for part in range((nt - 1) // segment, -1, -1):
        first, end = part * segment, min((part + 1) * segment, nt)
        if part > 0:
            history[:2] = saved[part - 1]
        else:
            history[:2] = 0
        for k in range(first, end - 1):
            now, new = history[k - first + 1], history[k - first + 2]
            _wrap(now, alpha.shape)
            new[:] = history[k - first]
            _step(new, now, alpha, kappa, stencil)
            new[source[0] + HALO, source[1] + LANES] += amplitude[k]
        _wrap(history[end - first], alpha.shape)
        for k in range(end - 1, first - 1, -1):
            later, mu = adjoint[(k + 1) % 2], adjoint[k % 2]
            _wrap(later, alpha.shape)
            _step(mu, later, alpha, kappa, stencil)
            for r in range(receivers.shape[0]):
                y, x = receivers[r]
                mu[y + HALO, x + LANES] += alpha[y, x] * grad_record[k, r]
            y, x = source
            grad_amplitude[k] = mu[y + HALO, x + LANES] / alpha[y, x]
            _correlate(
                grad_alpha, grad_kappa, mu, history[k - first + 1], history[k - first], stencil
            )


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
def _laplacian(field: np.ndarray, y: int, x: int, stencil: np.ndarray) -> float:
    """dx² times the Laplacian at an element of the field."""
    centre, near, far = stencil  # in the field's dtype: a plain number would make it float64
    ring1 = (field[y, x - 1] + field[y, x + 1]) + (field[y - 1, x] + field[y + 1, x])
    ring2 = (field[y, x - 2] + field[y, x + 2]) + (field[y - 2, x] + field[y + 2, x])
    return centre * field[y, x] + near * ring1 + far * ring2


@_compiled
def _step(
    new: np.ndarray, now: np.ndarray, alpha: np.ndarray, kappa: np.ndarray, stencil: np.ndarray
) -> None:
    """One step; `new` holds the field before `now` and is overwritten with the one after."""
    for i in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            y, x = i + HALO, j + LANES
            p = now[y, x]
            change = p - new[y, x]
            change -= kappa[i, j] * change
            new[y, x] = p + change + alpha[i, j] * _laplacian(now, y, x, stencil)


@_compiled
def _correlate(
    grad_alpha: np.ndarray,
    grad_kappa: np.ndarray,
    mu: np.ndarray,
    now: np.ndarray,
    before: np.ndarray,
    stencil: np.ndarray,
) -> None:
    """Add what the step from `before` and `now` contributes where its adjoint field is `mu`."""
    for i in range(grad_alpha.shape[0]):
        for j in range(grad_alpha.shape[1]):
            y, x = i + HALO, j + LANES
            m = mu[y, x]
            grad_alpha[i, j] += m * _laplacian(now, y, x, stencil)
            grad_kappa[i, j] -= m * (now[y, x] - before[y, x])
