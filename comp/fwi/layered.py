"""Inversion of a record for a map of few pieces: Gauss-Newton with the whole Hessian.

L-BFGS never sees more than a few dozen directions of a Hessian whose eigenvalues fall by eight
orders, and stalls with deep layers wrong. Here the Hessian comes from all derivatives of the
record's spectrum (`comp.fwi.wave.born`), so that thirty steps do, each of which

- takes more of the spectrum than the last: low frequencies first, for which a wrong map is still
  near enough (Bunks et al., 1995), and all of them weighted alike rather than as the wavelet has
  them, since the few below 5 Hz say most of deep layers;
- minimises the quadratic misfit with total variation, whose share of the misfit grows, and towards
  the end with its logarithmic form (Candès, Wakin and Boyd, 2008), which takes nothing off
  interfaces that stand and so lets small ones vanish;
- is damped until it lowers what it should (Levenberg and Marquardt).

A step simulates as many shots as there are receivers: 0.2 s on an H100, a minute on a CPU.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from comp.fwi.sparse import SparseChange, differences, variation
from comp.fwi.spectral import SpectralFit, State
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver
from comp.fwi.wave.born import Born

_DAMPING = (1e-7, 1e6)  # smallest and largest
_LIMIT = 0.1  # of what structure gains, which the variation may cost
_DECLINE = 0.5  # of the price from step to step


@dataclass(frozen=True)
class Stage:
    """Some steps with the same part of the spectrum and the same prior.

    Attributes:
        highest: of the frequencies with full weight, in peak frequencies of the wavelet.
        steps: at most.
        share: of the squared misfit that the variation is given.
        edge: m/s; a difference d counts by edge·log(1 + |d| / edge), by |d| where it is None.
    """

    highest: float
    steps: int
    share: float
    edge: float | None = None


STAGES = (
    Stage(1 / 3, 2, 0.1),
    Stage(7 / 15, 2, 0.1),
    Stage(2 / 3, 2, 0.1),
    Stage(14 / 15, 2, 0.5),
    Stage(4 / 3, 2, 0.5),
    Stage(2, 2, 2.0, 100.0),
    Stage(3, 3, 2.0, 100.0),
    Stage(3, 3, 2.0, 30.0),
    Stage(3, 10, 2.0, 10.0),
)
# From a start that is near already, with the first damping.
NEAR, NEAR_DAMPING = (Stage(3, 8, 2.0, 10.0),), 1e-2


@dataclass(frozen=True)
class LayeredInversion:
    """The inversion of one record after the other.

    Attributes:
        survey: of the records.
        solver, dtype: of the simulations that the misfit and its gradient are taken from.
        device: of everything.
        stages: in their order.
        floor: the spectrum is divided by the wavelet's, but by no less than this share of its peak.
        damping: first damping, in units of the Hessian's diagonal.
        typical: m/s, mean change in a step, at most.
        largest: m/s, change of a cell in a step, at most.
        tries: dampings in a step.
        tolerance: relative L2 misfit at which it ends.
    """

    survey: Survey
    solver: Solver = "sponge"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    stages: tuple[Stage, ...] = STAGES
    floor: float = 0.05
    damping: float = 1.0
    typical: float = 150.0
    largest: float = 400.0
    tries: int = 3
    tolerance: float = 2e-6

    @property
    def memory(self) -> int:
        """Bytes on the device, beside the simulations of one map: 13 GB with official maps."""
        return Born(self.survey, self.last).memory + 5 * 8 * (self.survey.ny * self.survey.nx) ** 2

    @property
    def last(self) -> float:
        """The highest frequency of all stages, Hz."""
        return self.survey.peak_frequency * max(stage.highest for stage in self.stages)

    def __call__(self, start: np.ndarray, record: np.ndarray) -> np.ndarray:
        """The map (ny, nx) reached from a start (ny, nx) and a record, float64, m/s."""
        velocity = torch.from_numpy(start.astype(np.float64)).to(self.device)
        velocity = velocity.clamp(self.survey.min_velocity, self.survey.max_velocity)
        # A map without structure: the variation must stay cheaper than what structure gains, or the
        # best map would be this one.
        surface = float(velocity[: 2 * self.survey.receiver_row + 1].mean())
        plain = torch.full_like(velocity, surface)
        damping, reach, cost = self.damping, 0.0, math.inf
        for stage in self.stages:
            if stage.highest != reach:
                reach, cost = stage.highest, math.inf
                fit = self.fit(reach, record)
                worst = fit.squared(plain)
            for _ in range(stage.steps):
                state = fit.state(velocity)
                if state.misfit <= self.tolerance:
                    return velocity.cpu().numpy()
                last = velocity
                # The variation's price. With a misfit that does not fall it must fall itself, or
                # it would hold the misfit up.
                limit = _LIMIT * torch.maximum(worst - state.squared, 0.01 * worst)
                cost = min(_DECLINE * cost, stage.share * float(state.squared), float(limit))
                velocity, damping = self._step(fit, stage, state, cost, damping)
                if velocity is last:
                    break
        return velocity.cpu().numpy()

    def _step(
        self, fit: SpectralFit, stage: Stage, state: State, cost: float, damping: float
    ) -> tuple[torch.Tensor, float]:
        """The next map, the same if no damping lowers the value, and the next damping.

        `cost` is what the present variation counts beside the squared misfit.
        """
        velocity = state.velocity
        jumps = [jump.abs() for jump in differences(velocity)]
        weights = [1 / (1 + j / stage.edge) if stage.edge else torch.ones_like(j) for j in jumps]
        now = variation(velocity, weights)
        factor = cost / now.clamp(min=1)
        weights = [factor * weight for weight in weights]
        value = state.squared + factor * now
        hessian = fit.hessian(velocity)
        diagonal = hessian.diagonal().clone()
        scale = diagonal + 1e-2 * diagonal.mean()
        tries = 0
        while tries < self.tries and damping < _DAMPING[1]:
            hessian.diagonal().copy_(diagonal + damping * scale)
            change = self._sparse(hessian, state.gradient, velocity, weights)
            if change.abs().mean() > self.typical:  # beyond what the quadratic can know
                damping *= 8
                continue
            tries += 1
            trial = velocity + change.clamp(-self.largest, self.largest)
            trial = trial.clamp(self.survey.min_velocity, self.survey.max_velocity)
            if fit.squared(trial) + variation(trial, weights) < value:
                return trial, max(damping * 0.2, _DAMPING[0])
            damping *= 8
        return velocity, damping

    def fit(self, highest: float, record: np.ndarray) -> SpectralFit:
        """Of a record (shots, nt, receivers) up to `highest`, in peak frequencies."""
        how = self.survey, self.solver, self.dtype, self.device
        return SpectralFit(record, highest, *how, self.last, self.floor)

    @property
    def _sparse(self) -> SparseChange:
        return _sparse_change(self.survey.map_shape, torch.device(self.device))


@lru_cache(maxsize=2)
def _sparse_change(shape: tuple[int, int], device: torch.device) -> SparseChange:
    """One for all inversions that take turns on a device: its matrices are large."""
    return SparseChange(shape, device)
