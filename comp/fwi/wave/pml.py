"""The wave equation through deepwave: the same survey, a perfectly matched layer for the sponge.

deepwave.scalar (Richardson, https://github.com/ar4/deepwave) has the stencil and the time step of
the official scheme, but its layer reflects less than the official sponge: whole records differ by
0.1 to 1.6 % from family to family (`benchmarks/solver_agreement.py`), however wide the layer is.
With 20 absorbing cells instead of 120 it has an eighth of the cells to compute.
"""

import math
from dataclasses import replace

import deepwave
import torch
from torch.autograd.function import once_differentiable

from comp.core.errors import InputError
from comp.fwi.checks import VELOCITY_RANGE
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave.scheme import LARGEST_EIGENVALUE, check

# Absorbing cells on each side: deepwave's usual choice.
PML_WIDTH = 20
# Bytes of wavefields held at once on the CPU; on a GPU, half of what is free.
CPU_BUDGET = 2 << 30
_ORDER = 4  # of accuracy in space
_REACH = _ORDER // 2  # cells that the stencil reaches beyond the layer
_FIELDS = 6  # deepwave's wavefields a shot: two of pressure, two for each direction in the layer


def simulate(
    velocity: torch.Tensor, survey: Survey = OFFICIAL, pml_width: int = PML_WIDTH
) -> torch.Tensor:
    """Shot records of velocity maps by deepwave; differentiable in the velocity, once.

    A map's record is the same to the last bit whatever shares the batch, its gradient to rounding.
    (deepwave derives its inner time step and its layer from the fastest cell of the batch unless
    told otherwise; here both follow from the survey.)

    On a CPU deepwave's threads wait for each other at every time step: beside other busy processes
    `torch.set_num_threads(1)` is many times faster.

    With gradients, a batch whose wavefields do not fit into the budget is run in parts, and each
    part is simulated again when its gradient is due: one more forward run for the memory.

    Args:
        velocity: (n, ny, nx) m/s, float32 or float64, on the CPU or a GPU.
        survey: the acquisition; its `pad` and sponge are not used.
        pml_width: absorbing cells on each side, filled with the edge velocity.

    Returns:
        (n, shots, nt, receivers) pressure in the dtype and on the device of `velocity`, in the sign
        and timing of the official data.

    Raises:
        InputError: what `scheme.check` refuses; a `pml_width` below 1.
    """
    check(velocity.detach(), replace(survey, sponge_reflection=1.0))  # none: no limit of its own
    if pml_width < 1:
        raise InputError(f"pml_width: got {pml_width}, expected at least 1 absorbing cell")
    if not len(velocity):
        return velocity.new_empty(0, *survey.record_shape)
    # Every (map, shot) is a run of its own.
    maps = velocity.repeat_interleave(survey.shots, 0)
    shots = torch.arange(survey.shots, device=velocity.device).repeat(len(velocity))
    differentiable = torch.is_grad_enabled() and velocity.requires_grad
    size = _runs_at_once(velocity, survey, pml_width, differentiable)
    run = _Recomputed.apply if differentiable and len(maps) > size else _run
    parts = [run(m, s, survey, pml_width) for m, s in zip(maps.split(size), shots.split(size))]
    return torch.cat(parts).view(len(velocity), *survey.record_shape)


def _run(maps: torch.Tensor, shots: torch.Tensor, survey: Survey, pml_width: int) -> torch.Tensor:
    """Records (n, nt, receivers) of maps (n, ny, nx), each with the shot named in `shots` (n,)."""
    columns = torch.tensor(survey.source_columns, device=maps.device)[shots]
    sources = torch.stack([torch.full_like(columns, survey.source_row), columns], 1)
    receivers = [(survey.receiver_row, column) for column in survey.receiver_columns]
    # deepwave scales its sources by −(v·dt)², the official scheme by (v·dt)².
    wavelet = -torch.from_numpy(survey.wavelet()).to(maps)
    found = deepwave.scalar(
        maps,
        survey.dx,
        survey.dt,
        source_amplitudes=wavelet.expand(len(maps), 1, -1),
        source_locations=sources[:, None],
        receiver_locations=torch.tensor(receivers, device=maps.device).expand(len(maps), -1, -1),
        accuracy=_ORDER,
        pml_width=pml_width,
        pml_freq=survey.peak_frequency,
        nt=survey.nt + 1,
        **_time_stepping(survey),
    )
    # deepwave records before each step, the official scheme after it.
    return found.receiver_amplitudes[..., 1:].mT


class _Recomputed(torch.autograd.Function):
    """`_run` that keeps nothing for its gradient but the maps.

    torch.utils.checkpoint would not do: deepwave's history is no saved tensor, which the
    non-reentrant form drops alone, and the reentrant one forbids torch.autograd.grad.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        maps: torch.Tensor,
        shots: torch.Tensor,
        survey: Survey,
        pml_width: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(maps, shots)
        ctx.how = survey, pml_width
        return _run(maps, shots, survey, pml_width)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        maps, shots = ctx.saved_tensors
        maps = maps.detach().requires_grad_()
        with torch.enable_grad():
            record = _run(maps, shots, *ctx.how)
        return *torch.autograd.grad(record, maps, gradient), None, None, None


def _time_stepping(survey: Survey) -> dict[str, float]:
    """deepwave's `max_vel` and `courant_number`: one inner step a sample for every lawful map.

    At deepwave's own Courant number, 0.6, there would be two above 4243 m/s with the official
    survey. `max_vel` also sets the strength of the layer; the fastest velocity that `check` lets
    pass serves as well as the maps' own: against 4500 m/s it leaves the distance to the official
    scheme over a whole record 2 to 4 % lower, and that over the first 130 ms 30 % higher.
    """
    stable = math.sqrt(4 / LARGEST_EIGENVALUE) * survey.dx / survey.dt
    return {
        # At a rounding above the critical number there would be two steps; deepwave takes a map
        # that much faster than `max_vel` all the same.
        "max_vel": min(VELOCITY_RANGE[1], stable) * (1 - 1e-13),
        "courant_number": deepwave.discretisation.critical_courant_number(
            _ORDER, propagator="scalar"
        ),
    }


def _runs_at_once(
    velocity: torch.Tensor, survey: Survey, pml_width: int, differentiable: bool
) -> int:
    """How many (map, shot) runs fit into the memory that may be used, at least one."""
    rows, columns = (side + 2 * (pml_width + _REACH) for side in survey.map_shape)
    # With gradients one field of every time step is kept, to be correlated with the adjoint.
    fields = _FIELDS + (survey.nt + 1 if differentiable else 0)
    budget = CPU_BUDGET
    if velocity.is_cuda:
        cached = torch.cuda.memory_reserved(velocity.device)
        cached -= torch.cuda.memory_allocated(velocity.device)
        budget = (torch.cuda.mem_get_info(velocity.device)[0] + cached) // 2
    return max(1, budget // (fields * rows * columns * velocity.element_size()))
