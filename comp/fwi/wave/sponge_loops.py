"""The compiled loops of `sponge_cpu`: one shot forward, its adjoint backward.

The compiler may neither fuse nor reorder arithmetic (it would gain nothing: the loop waits for
memory), so a record does not depend, to the last bit, on the width of the processor's vectors.
"""

import numpy as np

from comp.core.compiled import compiled

# Two cells are copied around each edge of the field to realise the wrap.
HALO = 2
# Columns before the first cell and unit of a row's length: 64 bytes or more, so that the vector
# stores never straddle a cache line (15 % faster).
LANES = 16


@compiled
def propagate(
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


@compiled
def back_propagate(
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
    """The adjoint of `propagate`, one segment after another from the last; see `sponge`.

    Args (those of `propagate`, and):
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


@compiled
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


@compiled
def _laplacian(field: np.ndarray, y: int, x: int, stencil: np.ndarray) -> float:
    """dx² times the Laplacian at an element of the field."""
    centre, near, far = stencil  # in the field's dtype: a plain number would make it float64
    ring1 = (field[y, x - 1] + field[y, x + 1]) + (field[y - 1, x] + field[y + 1, x])
    ring2 = (field[y, x - 2] + field[y, x + 2]) + (field[y - 2, x] + field[y + 2, x])
    return centre * field[y, x] + near * ring1 + far * ring2


@compiled
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


@compiled
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
