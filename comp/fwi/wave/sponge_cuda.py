"""The sponge scheme and its adjoint on an NVIDIA GPU: one launch a time step, see `sponge.cu`.

The gradient needs the forward field's Laplacian at every step, 1.9 GB a map with 5 shots. It is
kept while the GPU has room in plenty; otherwise every SEGMENT steps the field's state is kept and
the segments are run again, which gives the same bits for a quarter more time.
"""

from pathlib import Path

import torch

from comp.core.errors import InputError
from comp.fwi.survey import Survey
from comp.fwi.wave import nvrtc, rows
from comp.fwi.wave.scheme import STENCIL, Gradients, Scheme

SOURCE = Path(__file__).with_name("sponge.cu")
# Rows that a thread walks down. On an H200 4 are 7 % faster than 8 and 50 % faster than 16.
ROWS = 4
# Maps whose fields go through a launch together: fewer leave the GPU waiting for the next launch.
CHUNK = 32
# Steps between two saved states of the field. Memory is least near √nt.
SEGMENT = 32
# Adjoint fields at hand at a time: a segment's and the two that it starts from.
SLOTS = SEGMENT + 2
# Fields a shot that a chunk needs at a time beside what is saved: the adjoint ones, the Laplacians
# of a segment, two states and the forward fields, and traces.
WORK = SLOTS + SEGMENT + 12
# Share of the GPU's memory that keeping whole runs must leave free.
LEAVE_FREE = 0.4
# Positions of arguments of the kernel `step` that change from launch to launch.
NOW, BEFORE, AFTER, LAPLACIAN, STEP = 0, 1, 2, 3, 16

Saved = tuple[torch.Tensor, torch.Tensor]


def chunk(velocity: torch.Tensor, survey: Survey, gradient: bool) -> int:
    """How many maps to simulate at once.

    Raises:
        InputError: the GPU's memory is too small for all maps with their gradient.
    """
    n = len(velocity)
    if not gradient or not n:
        return CHUNK
    cells = (survey.ny + 2 * survey.pad) * (survey.nx + 2 * survey.pad)
    shot = cells * velocity.element_size()
    saved, work = (2 * _states(survey.nt) * survey.shots + 4) * shot, WORK * survey.shots * shot
    free = free_memory(velocity.device)
    if n * saved + work > free:
        fit = max(0, int((free - work) // saved))
        raise InputError(
            f"velocity: {n} maps × {survey.shots} shots with gradient take "
            f"{(n * saved + work) / 1e9:.1f} GB of GPU memory, {free / 1e9:.1f} are free; "
            f"{fit} maps fit"
        )
    return max(1, min(CHUNK, int((free - n * saved) // work)))


def _states(nt: int) -> int:
    """States saved in a run of `nt` steps: none is needed for the first segment."""
    return (nt - 1) // SEGMENT


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the GPU, torch's own reserve included."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def run(scheme: Scheme, keep: bool) -> tuple[torch.Tensor, Saved]:
    """Records of a scheme's maps, on its device.

    Args:
        scheme: n maps.
        keep: save what `gradients` needs.

    Returns:
        (n, shots, nt, receivers) records; the saved states (states, 2, n, shots, Y, X), pairs of
        successive fields every SEGMENT steps, and Laplacians (nt or 0, n, shots, Y, X).
    """
    with torch.cuda.device(scheme.alpha.device):
        n, shots, nt = scheme.amplitude.shape
        Y, X = scheme.alpha.shape[1:]
        new = scheme.alpha.new_empty
        states = new(_states(nt) if keep else 0, 2, n, shots, Y, X)
        laplacians = new(nt if keep and _room(scheme) else 0, n, shots, Y, X)
        record = rows.zeros(scheme)
        forward = _Forward(scheme, record)
        for k in range(nt):
            if keep and k and k % SEGMENT == 0:
                states[k // SEGMENT - 1] = forward.state(k)
            forward.step(k, laplacians, k)
        return rows.at_receivers(scheme, record), (states, laplacians)


def _room(scheme: Scheme) -> bool:
    """Whether the Laplacians of all steps fit and enough memory is left."""
    alpha, (_, shots, nt) = scheme.alpha, scheme.amplitude.shape
    size = nt * shots * alpha.numel() * alpha.element_size()
    total = torch.cuda.get_device_properties(alpha.device).total_memory
    return free_memory(alpha.device) - size >= LEAVE_FREE * total


def gradients(scheme: Scheme, saved: Saved, grad_record: torch.Tensor) -> Gradients:
    """What Σ grad_record·record changes with each coefficient; `saved` is from `run`."""
    with torch.cuda.device(scheme.alpha.device):
        states, laplacians = saved
        n, shots, nt = scheme.amplitude.shape
        Y, X = scheme.alpha.shape[1:]
        source_row, row = int(scheme.sources[0, 0]), int(scheme.receivers[0, 0])

        inject = rows.residuals(scheme, grad_record)
        trace = rows.zeros(scheme)
        mu = scheme.alpha.new_zeros(SLOTS, n, shots, Y, X)
        sums = scheme.alpha.new_zeros(2, n, Y, X)
        backward = _launch_step(scheme, inject, trace, row, source_row)
        if not len(laplacians):
            forward = _Forward(scheme, None)
            buffer = scheme.alpha.new_empty(min(SEGMENT, nt), n, shots, Y, X)
        for part in range(len(states), -1, -1):
            first, end = part * SEGMENT, min((part + 1) * SEGMENT, nt)
            state = states[part - 1] if part else mu.new_zeros(2, n, shots, Y, X)
            if len(laplacians):
                kept = laplacians[first:end]
            else:
                kept = buffer
                forward.go_on_from(state, first)
                for k in range(first, end):
                    forward.step(k, kept, k - first)
            for k in range(end - 1, first - 1, -1):
                for position, slot in ((NOW, k + 1), (BEFORE, k + 2), (AFTER, k)):
                    backward[position] = _address(mu, slot % SLOTS)
                backward[STEP] = k
                backward()
            _launch_correlate(scheme, mu, kept, state, sums, first, end)()

        alpha, kappa = sums / scheme.alpha
        return Gradients(alpha, kappa, rows.amplitude_gradient(scheme, trace))


def snapshots(scheme: Scheme, every: int) -> torch.Tensor:
    """Fields of one map's shots after each `every` steps, (nt // every, shots, Y, X)."""
    with torch.cuda.device(scheme.alpha.device):
        _, shots, nt = scheme.amplitude.shape
        samples = nt // every
        history = scheme.alpha.new_empty(samples, shots, *scheme.alpha.shape[1:])
        forward = _Forward(scheme, None)
        for k in range(samples * every):
            forward.step(k, history[:0], 0)
            if (k + 1) % every == 0:
                history[k // every] = forward.field_after(k)[0]
        return history


class _Forward:
    """The two fields of a forward run and the launches for even and for odd steps.

    Step k finds the field before it in fields[k % 2] and overwrites the other, the one before that.
    """

    def __init__(self, scheme: Scheme, record: torch.Tensor | None) -> None:
        """`record`, as `rows.zeros` makes it, keeps the receivers' row; None keeps nothing."""
        n, shots, _ = scheme.amplitude.shape
        Y, X = scheme.alpha.shape[1:]
        self._inject = rows.sources(scheme)
        self._fields = scheme.alpha.new_zeros(2, n, shots, Y, X)
        put, kept = int(scheme.sources[0, 0]), int(scheme.receivers[0, 0])
        if record is None:
            kept = -1
        self._launches = []
        for now in range(2):
            launch = _launch_step(scheme, self._inject, record, put, kept)
            launch[NOW] = _address(self._fields, now)
            launch[BEFORE] = launch[AFTER] = _address(self._fields, 1 - now)
            self._launches.append(launch)

    def step(self, k: int, laplacians: torch.Tensor, place: int) -> None:
        """Run step `k`; keep the Laplacian it used in `laplacians[place]`, if that has any."""
        launch = self._launches[k % 2]
        if len(laplacians):
            launch[LAPLACIAN] = _address(laplacians, place)
        launch[STEP] = k
        launch()

    def field_after(self, k: int) -> torch.Tensor:
        """(n, shots, Y, X) the field after step k, until the next step but one."""
        return self._fields[1 - k % 2]

    def state(self, k: int) -> torch.Tensor:
        """(2, n, shots, Y, X) copy of the fields after steps k − 2 and k − 1."""
        return self._fields.roll(k + 1, 0)

    def go_on_from(self, state: torch.Tensor, k: int) -> None:
        """Take up `state`, the fields after steps k − 2 and k − 1."""
        self._fields.copy_(state.roll(k + 1, 0))


def _launch_step(
    scheme: Scheme, inject: torch.Tensor, record: torch.Tensor | None, put: int, kept: int
) -> nvrtc.Launch:
    """The kernel `step` without its fields; `put` and `kept` are the rows of source and record."""
    n, shots, nt = scheme.amplitude.shape
    Y, X = scheme.alpha.shape[1:]
    threads = min(512, -(-X // 32) * 32)
    blocks = -(-X // threads), -(-Y // ROWS), n * shots
    pointers = None, None, None, None, scheme.alpha, scheme.kappa, inject, record
    arguments = *pointers, Y, X, shots, nt, put, kept, *rows.span(scheme), 0
    return nvrtc.Launch(_function("step", scheme), blocks, threads, arguments)


def _launch_correlate(
    scheme: Scheme,
    mu: torch.Tensor,
    laplacian: torch.Tensor,
    state: torch.Tensor,
    sums: torch.Tensor,
    first: int,
    end: int,
) -> nvrtc.Launch:
    """The kernel `correlate` for the steps first … end − 1."""
    n, shots, _ = scheme.amplitude.shape
    cells = scheme.alpha[0].numel()
    pointers = mu, laplacian, state, scheme.alpha, scheme.kappa, sums[0], sums[1]
    arguments = *pointers, cells, n, shots, SLOTS, first, end
    return nvrtc.Launch(_function("correlate", scheme), (-(-cells // 256), n, 1), 256, arguments)


def _function(name: str, scheme: Scheme) -> object:
    """A kernel of `sponge.cu` for the scheme's dtype."""
    real = "double" if scheme.alpha.dtype == torch.float64 else "float"
    weights = dict(zip(("CENTRE", "NEAR", "FAR"), map(repr, STENCIL)))
    return nvrtc.load(SOURCE, name, {"real": real, "ROWS": str(ROWS), **weights})


def _address(fields: torch.Tensor, position: int) -> int:
    """Where fields[position] lies."""
    return fields.data_ptr() + position * fields.stride(0) * fields.element_size()
