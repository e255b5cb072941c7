"""The sponge scheme and its adjoint on the CPU: one job per (map, shot), see `sponge_loops`.

A record does not depend, to the last bit, on what shares the batch or on how many threads run.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave.scheme import STENCIL, Gradients, Scheme
from comp.fwi.wave.sponge_loops import HALO, LANES, back_propagate, propagate

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
    propagate(
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
    propagate(
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
    back_propagate(
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
