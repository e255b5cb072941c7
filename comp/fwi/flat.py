"""Inversion of a record of level layers for the velocity at each depth, v(z).

In a map of level layers the record does not change when a shot and its receivers move along, which
`comp.fwi.router` sees in the record alone, and one shot says all. That leaves few enough unknowns
for Gauss-Newton with a Jacobian by finite differences, which needs no gradient and costs a fifth of
a five-shot simulation an unknown.

Velocities of single cells are far beyond what 15 Hz resolve: the spectrum of the Hessian falls by
six orders over the depths. What the waves leave open is settled by sparseness: by dividing the
depths into blocks of one velocity each, and, as long as the start is too far off for that, by total
variation; where it is farther still, by that with low frequencies first (Bunks et al., 1995).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from comp.fwi.blocks import Blocks, Ends, ends_of
from comp.fwi.flat_fit import FlatFit, Slope, State, solve
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver


@dataclass(frozen=True)
class FlatInversion:
    """The inversion of one record after the other.

    Attributes:
        survey: of the records.
        solver, dtype, device: of the simulations.
        low: highest frequencies of steps with total variation before all others, in peak
            frequencies of the wavelet …
        low_steps: … so many with each …
        far: … where a start has a misfit above this; otherwise it is tried without them first …
        poor: … and the other way where one ends above this misfit.
        smooth_steps: Gauss-Newton steps with total variation and all frequencies, at most.
        block_steps: steps with blocks, at most; most records need two to five.
        patience: steps with blocks that may bring nothing, before total variation is asked again.
        tolerance: relative misfit at which it ends.
        hopeful: blocks are followed up once their misfit is below this share of the smooth one.
        share: of the squared misfit that the total variation is given.
        rounding: m/s; the variation of a difference d is √(d² + rounding²).
        most: blocks that a profile is divided into.
        tried: divisions simulated in a step.
        worth: a further block must lower the misfit by this factor …
        fraction: … and velocities that are not whole m/s by this one. The search ends where even a
            free fit of all rows would gain no more.
    """

    survey: Survey
    solver: Solver = "sponge"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    low: tuple[float, ...] = (1 / 3, 7 / 15, 2 / 3, 14 / 15)
    low_steps: int = 3
    far: float = 0.6
    poor: float = 3e-3
    smooth_steps: int = 7
    block_steps: int = 16
    patience: int = 3
    tolerance: float = 1e-5
    hopeful: float = 0.5
    share: float = 0.1
    rounding: float = 0.5
    most: int = 10
    tried: int = 6
    worth: float = 1.5
    fraction: float = 1.05

    def __call__(self, start: np.ndarray, record: np.ndarray) -> np.ndarray:
        """The (ny, nx) map of level layers for a start (ny, nx) and a record, float64, m/s."""
        fit = self._fit(record)
        given = fit.states(start.mean(1, dtype=np.float64)[None])[0]
        found = given
        for low in (True, False) if given.misfit > self.far else (False, True):
            near = fit.states(self._low(record, given.profile)[None])[0] if low else given
            reached = self._find(fit, near)
            found = min(found, reached, key=lambda state: state.misfit)
            if found.misfit <= self.poor:
                break
        return np.repeat(found.profile[:, None], self.survey.nx, 1)

    def _fit(self, record: np.ndarray, highest: float = math.inf) -> FlatFit:
        return FlatFit(self.survey, record, self.solver, self.dtype, self.device, highest)

    def _low(self, record: np.ndarray, profile: np.ndarray) -> np.ndarray:
        """The profile (ny,) after steps with low frequencies."""
        for highest in self.low:
            fit = self._fit(record, highest * self.survey.peak_frequency)
            state = fit.states(profile[None])[0]
            for _ in range(self.low_steps):
                state = self._smoother(fit, fit.slope(state))
            profile = state.profile
        return profile

    def _find(self, fit: FlatFit, smooth: State) -> State:
        """What blocks and total variation find from a state, with all frequencies."""
        search = _Search(self, fit)
        for left in reversed(range(self.smooth_steps + 1)):
            slope = fit.slope(smooth)
            search.look(slope)
            last = left == 0 or smooth.misfit <= self.tolerance
            if last or (search.fresh and search.best.misfit <= self.hopeful * smooth.misfit):
                search.run()
            if last or search.settled:
                break
            smooth = self._smoother(fit, slope)
        level = search.settled or search.best.misfit <= self.worth * smooth.misfit
        return search.best if level else smooth

    def _smoother(self, fit: FlatFit, slope: Slope) -> State:
        """After a step with total variation, its weight by the present misfit."""
        state = slope.state
        hessian, downhill = slope.in_velocity()
        weight = self.share * state.misfit**2 / self._variation(state.profile).sum()
        change = np.zeros_like(state.profile)
        for _ in range(30):  # reweighted least squares
            links = 1 / self._variation(state.profile + change)
            stiff = 0.5 * weight * _stiffness(links)
            change = solve(hessian + stiff, downhill - stiff @ state.profile)
        trials = fit.states(state.profile + np.outer([1, 0.5, 0.25, 0.125], change))
        return min(
            [state, *trials],
            key=lambda s: s.misfit**2 + weight * self._variation(s.profile).sum(),
        )

    def _variation(self, profile: np.ndarray) -> np.ndarray:
        return np.sqrt(np.diff(profile) ** 2 + self.rounding**2)


class _Search:
    """Best-first search over profiles of few blocks.

    A step takes a profile, predicts from there what each division of the depths would reach, and
    simulates the best few.

    Attributes:
        best: profile so far, None before the first look.
        fresh: it was found after the last run.
        settled: its misfit is within the tolerance, or nothing but noise is left to fit.
    """

    def __init__(self, how: FlatInversion, fit: FlatFit) -> None:
        self.best: State | None = None
        self.fresh = self.settled = False
        self._how, self._fit = how, fit
        self._steps = how.block_steps
        self._seen: set[bytes] = set()
        self._open: list[State] = []
        self._divided: set[Ends] = set()

    def look(self, slope: Slope, near: Ends = ()) -> None:
        """Simulate the divisions that promise most at `slope`, and keep them for later steps."""
        how, blocks = self._how, Blocks(slope)
        trials = []
        for ends in blocks.best(how.most, how.worth, how.tried, near):
            fitted = self._how.survey.clip(blocks.profile(ends))
            for profile in (fitted, np.rint(fitted)):
                if profile.tobytes() not in self._seen:
                    self._seen.add(profile.tobytes())
                    trials.append(profile)
        if trials:
            self._open += self._fit.states(np.stack(trials))
            self._open.sort(key=self._score)
            if self.best is None or self._score(self._open[0]) < self._score(self.best):
                self.best, self.fresh = self._open[0], True
        self.settled = self.best.misfit <= how.tolerance

    def run(self) -> None:
        """Steps until it is settled, out of patience or out of steps."""
        how, stale = self._how, 0
        while not self.settled and self._steps and stale < how.patience:
            if (state := self._next()) is None:
                break
            self._steps -= 1
            before, slope = self.best, self._fit.slope(state)
            self.look(slope, ends_of(state.profile))
            stale = 0 if self.best is not before else stale + 1
            if state is self.best and state.misfit <= how.fraction * slope.floor:
                self.settled = True
        self.fresh = False

    def _next(self) -> State | None:
        """The best profile that has not been taken, unless one of its division has.

        Only the best of all is taken even so: from others, the predictions would be much the same.
        """
        while self._open:
            state = self._open.pop(0)
            ends = ends_of(state.profile)
            if state is self.best or ends not in self._divided:
                self._divided.add(ends)
                return state
        return None

    def _score(self, state: State) -> float:
        """The misfit, and a price for each block and for velocities that are not whole.

        Published layers have whole ones, and rounded records cannot tell a fraction of a m/s.
        """
        whole = (state.profile == np.rint(state.profile)).all()
        price = 1.0 if whole else self._how.fraction
        return price * state.misfit * self._how.worth ** len(ends_of(state.profile))


def _stiffness(links: np.ndarray) -> np.ndarray:
    """(ny, ny) matrix of Σ links·(difference of neighbours)²."""
    difference = np.diff(np.eye(len(links) + 1), axis=0)
    return difference.T @ (links[:, None] * difference)
