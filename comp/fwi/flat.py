"""Inversion of a record of level layers for the velocity at each depth, v(z).

In a map of level layers the record does not change when a shot and its receivers move along, which
`comp.fwi.router` sees in the record alone, and one shot says all. That leaves few enough unknowns
for Gauss-Newton with a Jacobian by finite differences, which needs no gradient and costs a fifth of
a five-shot simulation an unknown.

Velocities of single cells are far beyond what 15 Hz resolve: the spectrum of the Hessian falls by
six orders over the depths. What the waves leave open is settled by sparseness, first by total
variation, then by dividing the depths into blocks of one velocity each.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from comp.fwi.survey import Survey
from comp.fwi.wave import Solver, simulate

# Maps simulated in one call.
_BATCH = 128


@dataclass(frozen=True)
class FlatInversion:
    """The inversion of one record after the other.

    Attributes:
        survey: of the records.
        solver, dtype, device: of the simulations.
        smooth_steps: Gauss-Newton steps with total variation.
        block_steps: steps with blocks, at most.
        tolerance: relative misfit at which it ends.
        share: of the squared misfit that the total variation is given.
        rounding: m/s; the variation of a difference d is √(d² + rounding²).
        difference: m/s, of the finite differences.
        most: blocks that a smooth profile is divided into.
        worth: a further block must lower the misfit by this factor …
        fraction: … and velocities that are not whole m/s by this one.
    """

    survey: Survey
    solver: Solver = "sponge"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    smooth_steps: int = 7
    block_steps: int = 8
    tolerance: float = 1e-5
    share: float = 0.1
    rounding: float = 0.5
    difference: float = 2.0
    most: int = 10
    worth: float = 1.5
    fraction: float = 1.05

    def __call__(self, start: np.ndarray, record: np.ndarray) -> np.ndarray:
        """The (ny, nx) map of level layers for a start (ny, nx) and a record, float64, m/s."""
        fit = _Fit(self, record)
        profile = self._smooth(fit, fit.clip(start.mean(1, dtype=np.float64)))
        profile = self._blocks(fit, profile)
        return np.repeat(profile[:, None], self.survey.nx, 1)

    def _smooth(self, fit: "_Fit", profile: np.ndarray) -> np.ndarray:
        """Steps with total variation, its weight by the present misfit."""
        state = fit.state(profile)
        for _ in range(self.smooth_steps):
            if state.misfit <= self.tolerance:
                break
            hessian, downhill = fit.linearise(state)
            weight = self.share * state.misfit**2 / self._variation(state.profile).sum()
            change = np.zeros_like(profile)
            for _ in range(30):  # reweighted least squares
                links = 1 / self._variation(state.profile + change)
                stiff = 0.5 * weight * _stiffness(links)
                change = _solve(hessian + stiff, downhill - stiff @ state.profile)
            trials = fit.states(state.profile + np.outer([1, 0.5, 0.25, 0.125], change))
            penalised = [
                s.misfit**2 + weight * self._variation(s.profile).sum() for s in [state, *trials]
            ]
            state = [state, *trials][int(np.argmin(penalised))]
        return state.profile

    def _variation(self, profile: np.ndarray) -> np.ndarray:
        return np.sqrt(np.diff(profile) ** 2 + self.rounding**2)

    def _blocks(self, fit: "_Fit", profile: np.ndarray) -> np.ndarray:
        """Steps over maps of few blocks: their velocities by Gauss-Newton, their ends by trial."""
        divisions = [divide(profile, count) for count in range(2, self.most + 1)]
        smooth = state = fit.state(profile)
        best, ends = None, ()
        for _ in range(self.block_steps):
            hessian, downhill = fit.linearise(state)
            trials = []
            for cuts in dict.fromkeys([ends, *_neighbours(ends, len(profile)), *divisions]):
                blocks = _members(cuts, len(profile))
                right = blocks.T @ (downhill + hessian @ state.profile)
                fitted = blocks @ _solve(blocks.T @ hessian @ blocks, right)
                trials += [fitted, np.rint(fitted)]
            found = min(fit.states(trials), key=self._score)
            if best is not None and self._score(found) >= self._score(best):
                break
            state = best = found
            ends = _ends(best.profile)
            if best.misfit <= self.tolerance:
                break
        return (best if best.misfit <= self.worth * smooth.misfit else smooth).profile

    def _score(self, state: "_State") -> float:
        """The misfit, and a price for each block and for velocities that are not whole.

        Published layers have whole ones, and rounded records cannot tell a fraction of a m/s.
        """
        price = 1.0 if (state.profile == np.rint(state.profile)).all() else self.fraction
        return price * state.misfit * self.worth ** len(_ends(state.profile))


@dataclass(frozen=True)
class _State:
    """A profile (ny,) with its modelled first shot, weighted, and its relative misfit."""

    profile: np.ndarray
    modelled: np.ndarray
    misfit: float


class _Fit:
    """The first shot's weighted misfit of profiles.

    Amplitudes are divided by their local root mean square, which else the direct wave would rule.
    """

    def __init__(self, how: FlatInversion, record: np.ndarray) -> None:
        self._how = how
        self._survey = replace(how.survey, source_columns=how.survey.source_columns[:1])
        self._rows = self._survey.trusted_rows
        observed = torch.from_numpy(record[:1, : self._rows].astype(np.float64))
        power = avg_pool2d(observed**2, (51, 5), 1, (25, 2), count_include_pad=False)
        weight = (power + 1e-4 * power.max()).rsqrt()
        self._weight = (weight / (weight * observed).norm()).numpy()
        self._observed = self._weight * observed.numpy()

    def clip(self, profile: np.ndarray) -> np.ndarray:
        """Within the survey's velocities."""
        return np.clip(profile, self._survey.min_velocity, self._survey.max_velocity)

    def states(self, profiles: np.ndarray | list[np.ndarray]) -> list[_State]:
        """Of profiles (k, ny), clipped."""
        profiles = self.clip(np.asarray(profiles))
        modelled = self._simulate(profiles)
        misfit = np.sqrt(((modelled - self._observed) ** 2).sum((1, 2, 3)))
        return [_State(*of) for of in zip(profiles, modelled, misfit.tolist())]

    def state(self, profile: np.ndarray) -> _State:
        """Of one profile."""
        return self.states(profile[None])[0]

    def linearise(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton Hessian (ny, ny) and downhill direction (ny,) of half the squared misfit."""
        step = np.where(
            state.profile + self._how.difference > self._survey.max_velocity,
            -self._how.difference,
            self._how.difference,
        )
        moved = self._simulate(state.profile + np.diag(step))
        jacobian = ((moved - state.modelled) / step[:, None, None, None]).reshape(len(step), -1)
        return jacobian @ jacobian.T, jacobian @ (self._observed - state.modelled).ravel()

    def _simulate(self, profiles: np.ndarray) -> np.ndarray:
        """(k, 1, nt − 1, receivers) weighted first shots of profiles (k, ny)."""
        how, nx = self._how, self._survey.nx
        maps = torch.from_numpy(profiles).to(how.device, how.dtype)[:, :, None].expand(-1, -1, nx)
        with torch.no_grad():
            records = [
                simulate(part.contiguous(), self._survey, how.solver) for part in maps.split(_BATCH)
            ]
        shots = [record[:, :, : self._rows].double().cpu() for record in records]
        return self._weight * torch.cat(shots).numpy()


def divide(profile: np.ndarray, count: int) -> tuple[int, ...]:
    """The first rows of all but the first of `count` blocks that fit a profile (ny,) best.

    By dynamic programming over least squares within a block.
    """
    n = len(profile)
    total, squares = (np.concatenate([[0], np.cumsum(profile**p)]) for p in (1, 2))
    rows = np.arange(n + 1)
    length = np.maximum(rows[None] - rows[:, None], 1)
    spread = squares[None] - squares[:, None] - (total[None] - total[:, None]) ** 2 / length
    cost = np.where(rows[None] > rows[:, None], spread, np.inf)  # of rows i … j − 1 as a block
    best, came = cost[0], []
    for _ in range(count - 1):
        longer = best[:, None] + cost
        came.append(longer.argmin(0))
        best = longer.min(0)
    ends, end = [], n
    for origin in reversed(came):
        end = int(origin[end])
        ends.append(end)
    return tuple(reversed(ends))


def _ends(profile: np.ndarray) -> tuple[int, ...]:
    """The rows of a profile (ny,) at which the velocity changes."""
    return tuple((np.flatnonzero(np.diff(profile)) + 1).tolist())


def _neighbours(ends: tuple[int, ...], rows: int) -> list[tuple[int, ...]]:
    """Divisions with one end moved by a row or two, or left out."""
    found = []
    for i, end in enumerate(ends):
        for moved in (end - 2, end - 1, end + 1, end + 2, None):
            new = [*ends[:i], *([] if moved is None else [moved]), *ends[i + 1 :]]
            if all(a < b for a, b in pairwise([0, *new, rows])):
                found.append(tuple(new))
    return found


def _members(ends: tuple[int, ...], rows: int) -> np.ndarray:
    """(rows, blocks) 1 where a row is in a block."""
    block = np.searchsorted(ends, np.arange(rows), side="right")
    return np.eye(len(ends) + 1)[block]


def _stiffness(links: np.ndarray) -> np.ndarray:
    """(ny, ny) matrix of Σ links·(difference of neighbours)²."""
    difference = np.diff(np.eye(len(links) + 1), axis=0)
    return difference.T @ (links[:, None] * difference)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """matrix⁻¹·right for a matrix that may be singular but for rounding."""
    return np.linalg.solve(matrix + 1e-13 * np.trace(matrix) * np.eye(len(matrix)), right)
