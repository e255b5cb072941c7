"""Inversion of a record for a map of few pieces: Gauss-Newton with the whole Hessian.

L-BFGS never sees more than a few dozen directions of a Hessian whose eigenvalues fall by eight
orders, and stalls with deep layers wrong. Here the Hessian comes from all derivatives of the
record's spectrum (`comp.fwi.wave.born`), so that thirty steps do, each of which

- takes more of the spectrum than the last: low frequencies first, for which a wrong map is still
  near enough (Bunks et al., 1995), and all of them weighted alike rather than as the wavelet has
  them, since the few below 5 Hz say most of deep layers;
- minimises the quadratic misfit with total variation, whose share of the misfit grows, and at the
  end with its logarithmic form (Candès, Wakin and Boyd, 2008), which takes nothing off interfaces
  that stand and so lets small ones vanish: not while many stand wrongly, which it would hold on to;
- is damped until it lowers what it should (Levenberg and Marquardt).

From twice the wavelet's peak frequency on steps are in squared slowness (`comp.fwi.unknowns`).
Those that have nothing to add to a map as near as it is already are left out.

A step simulates a shot for each source and receiver: 0.13 s on an H100, a minute on a CPU.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from comp.fwi.sparse import Pull, SparseChange, variation
from comp.fwi.spectral import SpectralFit, State, newton_memory
from comp.fwi.survey import Survey
from comp.fwi.unknowns import REFERENCE, by_unknown, to_unknown, to_velocity
from comp.fwi.wave import Solver

_DAMPING = (1e-7, 1e6)  # smallest and largest
_LIMIT = 0.1  # of what structure gains, which the variation may cost
_DECLINE = 0.5  # of the price from step to step
_SHARE = 0.3  # of differences within a group and from cells of none, beside being off a group


@dataclass(frozen=True)
class Stage:
    """Some steps with the same part of the spectrum and the same prior.

    Attributes:
        highest: of the frequencies with full weight, in peak frequencies of the wavelet.
        steps: at most.
        share: of the squared misfit that the variation is given.
        edge: m/s; a difference d counts by edge·log(1 + |d| / edge), by |d| where it is None.
        slowness: the misfit is taken to be quadratic in squared slowness rather than in velocity.
        enough: relative L2 misfit at which it has nothing to add.
    """

    highest: float
    steps: int
    share: float
    edge: float | None = None
    slowness: bool = False
    enough: float = 0.0


STAGES = (
    Stage(1 / 3, 2, 0.1, enough=0.1),
    Stage(7 / 15, 2, 0.1, enough=0.1),
    Stage(2 / 3, 2, 0.1),
    Stage(14 / 15, 2, 0.5),
    Stage(4 / 3, 2, 0.5),
    Stage(2, 4, 0.5, None, True, enough=3e-5),
    Stage(3, 4, 0.5, None, True, enough=1e-5),
    Stage(3, 2, 2.0, 100.0, True),
    Stage(3, 2, 2.0, 30.0, True),
    Stage(3, 10, 2.0, 10.0, True),
)
# From a start that is near already, with the first damping.
NEAR, NEAR_DAMPING = (Stage(3, 8, 2.0, 10.0, True),), 1e-2


@dataclass(frozen=True)
class LayeredInversion:
    """The inversion of one record after the other.

    Attributes:
        survey: of the records.
        solver, dtype: of the simulations that the misfit is taken from; its derivatives are
            those of the exact scheme in float32.
        device: of everything.
        stages: in their order.
        floor: the spectrum is divided by the wavelet's, but by no less than this share of its peak.
        damping: first damping, in units of the Hessian's diagonal.
        typical: m/s, mean change in a step, at most.
        largest: m/s, change of a cell in a step, at most.
        tries: dampings in a step.
        tolerance: relative L2 misfit at which it ends.
        rounding: at this one it ends with the first step of the logarithmic variation that fails:
            what is left is mostly rounding in float32, from which no later step gains.
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
    rounding: float = 1e-5

    @property
    def memory(self) -> int:
        """Bytes on the device, beside the simulations of one map: 13 GB with official maps."""
        return newton_memory(self.survey, self.last)

    @property
    def last(self) -> float:
        """The highest frequency of all stages, Hz."""
        return self.survey.peak_frequency * max(stage.highest for stage in self.stages)

    def __call__(self, start: np.ndarray, record: np.ndarray) -> np.ndarray:
        """The map (ny, nx) reached from a start (ny, nx) and a record, float64, m/s."""
        velocity = self.survey.clip(torch.from_numpy(start.astype(np.float64)).to(self.device))
        # A map without structure: the variation must stay cheaper than what structure gains, or the
        # best map would be this one.
        surface = float(velocity[: 2 * self.survey.receiver_row + 1].mean())
        plain = torch.full_like(velocity, surface)
        damping, reach, cost = self.damping, 0.0, math.inf
        for stage in self.stages:
            if stage.highest != reach:
                reach, cost = stage.highest, math.inf
                fit = self.fit(reach, record)
                state, without = fit.states([velocity, plain])
                worst = without.squared
            for _ in range(stage.steps):
                if state.misfit <= self.tolerance:
                    return state.velocity.cpu().numpy()
                if state.misfit <= stage.enough:
                    damping = min(damping, NEAR_DAMPING)
                    break
                last = state
                # The variation's price. With a misfit that does not fall it must fall itself, or
                # it would hold the misfit up.
                limit = _LIMIT * torch.maximum(worst - state.squared, 0.01 * worst)
                cost = min(_DECLINE * cost, stage.share * float(state.squared), float(limit))
                state, damping = self.step(fit, stage, state, cost, damping)
                if state is last:
                    if stage.edge and state.misfit <= self.rounding:
                        return state.velocity.cpu().numpy()
                    break
            velocity = state.velocity
        return velocity.cpu().numpy()

    def step(
        self,
        fit: SpectralFit,
        stage: Stage,
        state: State,
        cost: float,
        damping: float,
        group: torch.Tensor | None = None,
    ) -> tuple[State, float]:
        """The next state, the same if no damping lowers the value, and the next damping.

        Args:
            fit, stage: what to fit, and how.
            state: of the present map.
            cost: what the present variation counts beside the squared misfit.
            damping: the first to try.
            group: (ny, nx) numbers; cells of one are to be alike, −1 for those of none. Variation
                is then mostly how far they are from that, and no matter from group to group.
        """
        velocity = state.velocity
        unknown = to_unknown(velocity, stage.slowness)
        weights, pull = _weights(velocity, stage, group)
        now = variation(unknown, weights, pull)
        factor = cost / now.clamp(min=1)
        weights = [factor * weight for weight in weights]
        pull = pull and Pull(pull.group, factor * pull.weights)
        value = state.squared + factor * now
        gradient, hessian = fit.normal(state)
        by_unknown(gradient, hessian, velocity, stage.slowness)
        diagonal = hessian.diagonal().clone()
        scale = diagonal + 1e-2 * diagonal.mean()
        tries = 0
        while tries < self.tries and damping < _DAMPING[1]:
            hessian.diagonal().copy_(diagonal + damping * scale)
            try:
                near = unknown + self._sparse(hessian, gradient, unknown, weights, pull)
            except torch.linalg.LinAlgError:  # rounding in float32 makes eigenvalues negative
                damping *= 8
                continue
            change = to_velocity(near, stage.slowness) - velocity
            # Beyond what the quadratic can know; NaN where the Hessian was all but singular.
            if not change.abs().mean() <= self.typical:
                damping *= 8
                continue
            tries += 1
            moved = velocity + change.clamp(-self.largest, self.largest)
            trial = fit.state(self.survey.clip(moved))
            varied = variation(to_unknown(trial.velocity, stage.slowness), weights, pull)
            if trial.squared + varied < value:
                return trial, max(damping * 0.2, _DAMPING[0])
            damping *= 8
        return state, damping

    def fit(self, highest: float, record: np.ndarray, last: float | None = None) -> SpectralFit:
        """Of a record (shots, nt, receivers) up to `highest`, in peak frequencies.

        Behind it follows a ramp, up to `last` (Hz) at most, that of the stages where it is None.
        """
        how = self.survey, self.solver, self.dtype, self.device
        return SpectralFit(record, highest, *how, last or self.last, self.floor)

    @property
    def _sparse(self) -> SparseChange:
        return _sparse_change(self.survey.map_shape, torch.device(self.device))


@lru_cache(maxsize=2)
def _sparse_change(shape: tuple[int, int], device: torch.device) -> SparseChange:
    """One for all inversions that take turns on a device: its matrices are large."""
    return SparseChange(shape, device)


def _weights(
    velocity: torch.Tensor, stage: Stage, group: torch.Tensor | None
) -> tuple[list[torch.Tensor], Pull | None]:
    """Of the variation in the unknown, which is as large as the one in velocity."""

    def weight(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        out = torch.ones_like(one)
        if stage.edge:
            out /= 1 + (one - other).abs() / stage.edge
        if stage.slowness:  # velocity's difference over that of the unknown
            out *= 2 * (one * other) ** 2 / (one + other) / REFERENCE**3
        return out

    links = [weight(a, b) for a, b in _neighbours(velocity)]
    if group is None:
        return links, None
    inside = [(a == b) | (a < 0) | (b < 0) for a, b in _neighbours(group)]
    links = [_SHARE * link * one for link, one in zip(links, inside)]
    pull = Pull(group, torch.ones_like(velocity))
    return links, Pull(group, weight(velocity, pull.centres(velocity)))


def _neighbours(field: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Lower and upper, right and left ones."""
    return [(field[1:], field[:-1]), (field[:, 1:], field[:, :-1])]
