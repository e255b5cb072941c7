"""Inversion of a record for a smooth map: Gauss-Newton with the whole Hessian and a Gaussian prior.

L-BFGS sees a few dozen directions of a Hessian whose eigenvalues fall by eight orders, and is far
from the map when its evaluations are spent. With all of the Hessian (`comp.fwi.wave.born`) and the
precision of a Gaussian process (`comp.fwi.priors.SmoothPrior`) a step is one factorisation, and a
dozen of them do: low frequencies first, then in squared slowness (`comp.fwi.unknowns`), and up to
where float32 leaves anything of the wavelet.

How much the prior is to count nobody knows beforehand. So each step is tried with several weights,
which costs little beside the Hessian, and the largest is taken that leaves, within twice, as little
of the squared misfit as any: the smoothest map that the record allows. Where little is gained, what
is left is rounding, and fitting that would only roughen the map.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from comp.fwi.layered import LayeredInversion
from comp.fwi.priors import PRIORS
from comp.fwi.spectral import Found, SpectralFit, State, newton_memory
from comp.fwi.unknowns import by_unknown, to_unknown, to_velocity


class Stage(NamedTuple):
    """Some steps with the same part of the spectrum.

    Attributes:
        highest: of the frequencies with full weight, in peak frequencies of the wavelet.
        steps: at most.
        slowness: the misfit is taken to be quadratic in squared slowness rather than in velocity.
    """

    highest: float
    steps: int
    slowness: bool = True


STAGES = (Stage(1, 2, slowness=False), Stage(2, 3), Stage(3, 4), Stage(4, 8))
# Of the Hessian's mean diagonal, added to it: rounding in float32 makes eigenvalues negative.
_ROUNDING = 1e-7
_SMALLEST = 1e-12  # roughness, in place of zero where it divides


@dataclass(frozen=True)
class SmoothInversion:
    """The inversion of one record after the other.

    Attributes:
        layered: whose survey, fits of records and tolerance are used.
        stages: in their order.
        shares: of the squared misfit that the prior is given in a step's trials, falling.
        alike: the first trial is taken whose squared misfit is within this multiple of the least.
        falls: a step that leaves more than this share of the squared misfit is its stage's last.
        largest: m/s, change of a cell in a step, at most.
    """

    layered: LayeredInversion
    stages: tuple[Stage, ...] = STAGES
    shares: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    alike: float = 2.0
    falls: float = 0.5
    largest: float = 600.0

    @property
    def memory(self) -> int:
        """Bytes on the device, beside the simulations of one map: 17 GB with official maps."""
        return newton_memory(self.layered.survey, self.last)

    @property
    def last(self) -> float:
        """The highest frequency of all stages, Hz."""
        return self.layered.survey.peak_frequency * max(stage.highest for stage in self.stages)

    def __call__(self, start: np.ndarray, record: np.ndarray) -> Found:
        """The map reached from a start (ny, nx) in m/s and a record (shots, nt, receivers)."""
        survey = self.layered.survey
        velocity = survey.clip(torch.from_numpy(start.astype(np.float64)).to(self.layered.device))
        for stage in self.stages:
            fit = self.layered.fit(stage.highest, record, self.last)
            state = fit.state(velocity)
            for _ in range(stage.steps):
                if state.misfit <= self.layered.tolerance:
                    return Found(state.velocity.cpu().numpy(), state.misfit)
                last, state = state, self._step(fit, stage, state)
                if state.squared > self.falls * last.squared:
                    break
            velocity = state.velocity
        return Found(velocity.cpu().numpy(), state.misfit)

    def _step(self, fit: SpectralFit, stage: Stage, state: State) -> State:
        """The next map's state, the same where no trial's squared misfit falls."""
        tried = self._trials(fit, stage, state)
        least = min((float(one.squared) for one in tried), default=math.inf)
        if least >= float(state.squared):
            return state
        limit = min(self.alike * least, float(state.squared))
        return next(one for one in tried if one.squared <= limit)

    def _trials(self, fit: SpectralFit, stage: Stage, state: State) -> list[State]:
        """Of the maps that suit best with less and less of the prior."""
        survey, velocity = self.layered.survey, state.velocity
        unknown = to_unknown(velocity, stage.slowness)
        gradient, hessian = fit.normal(state)
        by_unknown(gradient, hessian, velocity, stage.slowness)
        hessian.diagonal().add_(_ROUNDING * hessian.diagonal().mean())
        precision = _precision(survey.map_shape, velocity.device)
        stiff = (precision @ unknown.flatten()).view_as(unknown)
        roughness = (0.5 * (unknown * stiff).sum()).clamp(min=_SMALLEST)
        trials = []
        for share in self.shares:
            weight = share * state.squared / roughness
            factor, failed = torch.linalg.cholesky_ex(hessian + weight * precision)
            if failed:
                break
            down = -(gradient + weight * stiff).flatten()[:, None]
            moved = unknown + torch.cholesky_solve(down, factor).view_as(unknown)
            change = to_velocity(moved, stage.slowness) - velocity
            if not change.isfinite().all():  # the factor was all but singular
                break
            trial = velocity + change.clamp(-self.largest, self.largest)
            trials.append(survey.clip(trial))
        return fit.states(trials)


@lru_cache(maxsize=2)
def _precision(shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(ny·nx, ny·nx) float64 second derivative of the smooth prior's penalty."""
    size = shape[0] * shape[1]
    cells = torch.eye(size, dtype=torch.float64, device=device).view(size, *shape)
    return PRIORS["smooth"].penalty(cells)[1].view(size, size)
