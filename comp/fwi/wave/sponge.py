"""The exact forward model and its gradient: one scheme, run by a backend for each kind of device.

A backend is a module with four functions: `chunk`, how many maps it takes at once, `run` and
`gradients` over the `Scheme` of so many, and `snapshots` of one map's fields; `sponge_cpu` and
`sponge_cuda` say what they take and give. `onchip` goes before where the GPU can.

The gradient is that of the discrete scheme, not of a discretised adjoint equation. One step is

    u[k] = (2 − κ)·u[k−1] − (1 − κ)·u[k−2] + α·L·u[k−1] + s[k],      record[k] = R·u[k],

with L symmetric and R the receivers. For the gradient g of the record the multipliers obey
λ[k] = Rᵀ·g[k] + (2 − κ)·λ[k+1] − (1 − κ)·λ[k+2] + L·α·λ[k+1], which for μ = α·λ is the same step
run backward in time with α·Rᵀ·g as its source:

    μ[k] = (2 − κ)·μ[k+1] − (1 − κ)·μ[k+2] + α·L·μ[k+1] + α·Rᵀ·g[k].

Then ∂/∂α = Σ λ[k]·L·u[k−1], ∂/∂κ = −Σ λ[k]·(u[k−1] − u[k−2]), ∂/∂s[k] = λ[k], cell by cell; the
chain rule from there to the velocity (edge cells repeated into the sponge, the sponge's strength
from the slowest cell, the source's own cell) is autograd's, through `discretise`. The adjoint-state
method for this problem: Plessix 2006, doi:10.1111/j.1365-246X.2006.02978.x.
"""

from collections.abc import Iterable
from types import ModuleType

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from comp.core.errors import InputError
from comp.fwi.survey import Survey
from comp.fwi.wave import onchip, sponge_cpu, sponge_cuda
from comp.fwi.wave.scheme import Scheme, check, discretise
from comp.fwi.wave.streams import joined


def simulate(velocity: torch.Tensor, survey: Survey) -> torch.Tensor:
    """Shot records of velocity maps, by the scheme that made the official data.

    As `comp.fwi.wave.simulate`, which see. On the CPU it runs on `torch.get_num_threads()` threads.
    """
    engine = backend(velocity, survey)
    check(velocity.detach(), survey)
    gradient = torch.is_grad_enabled() and velocity.requires_grad
    parts = velocity.split(engine.chunk(velocity, survey, gradient))

    def work(part: torch.Tensor) -> torch.Tensor:
        scheme = discretise(part, survey)
        if not gradient:
            return engine.run(scheme, keep=False)[0]
        *fields, pad = vars(scheme).values()
        return _Run.apply(engine, pad, *fields)

    return joined(parts, work, overlap=engine is onchip and not gradient)


def backend(velocity: torch.Tensor, survey: Survey) -> ModuleType:
    """What runs the scheme on these maps, the fastest that can.

    Raises:
        InputError: on neither the CPU nor a CUDA device.
    """
    if velocity.device.type == "cpu":
        return sponge_cpu
    if velocity.device.type == "cuda":
        return onchip if onchip.fits(velocity, survey) else sponge_cuda
    raise InputError(f"velocity: on {velocity.device}, expected the CPU or a CUDA device")


def snapshots(scheme: Scheme, survey: Survey, every: int) -> torch.Tensor:
    """Fields of one map's shots after each `every` steps, (nt // every, shots, Y, X).

    `survey` is that of the scheme.
    """
    return backend(scheme.alpha, survey).snapshots(scheme, every)


class _Run(torch.autograd.Function):
    """A backend's two functions as one operation of autograd."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, backend: ModuleType, pad: int, *fields: torch.Tensor
    ) -> torch.Tensor:
        record, saved = backend.run(_detached(fields, pad), keep=True)
        ctx.backend, ctx.pad = backend, pad
        ctx.save_for_backward(*fields, *saved)
        return record

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_record: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        fields, saved = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        found = ctx.backend.gradients(_detached(fields, ctx.pad), saved, grad_record)
        return None, None, found.alpha, found.kappa, found.amplitude, None, None


def _detached(fields: Iterable[torch.Tensor], pad: int) -> Scheme:
    return Scheme(*(field.detach() for field in fields), pad)
