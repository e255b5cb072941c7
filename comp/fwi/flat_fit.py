"""The misfit of one shot over level layers, and how it changes with the depths' squared slowness.

A wave sees layers thinner than its length through the mean of their squared slowness alone, as the
density is constant. So modelled shots are taken as linear in 1/v² of each cell, not in v, of which
they are far less so.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from comp.fwi.spectral import ramp
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver, simulate

_BATCH = 128  # maps simulated in one call
_DIFFERENCE = 2.0  # m/s, of the finite differences
_UNIT = 2000.0**3  # makes a change of u one of v at 2000 m/s


def to_u(velocity: np.ndarray) -> np.ndarray:
    """u = −½·2000³/v², which rises with the velocity (m/s)."""
    return -0.5 * _UNIT / velocity**2


def to_velocity(u: np.ndarray) -> np.ndarray:
    """The inverse of `to_u`; infinite for u ≥ 0."""
    slowness = np.sqrt(np.maximum(-2 / _UNIT * u, 0))
    return np.divide(1, slowness, out=np.full_like(slowness, np.inf), where=slowness > 0)


class State(NamedTuple):
    """A profile (ny,), m/s, and its relative misfit."""

    profile: np.ndarray
    misfit: float


class Slope(NamedTuple):
    """What half the squared misfit does near a state, by Gauss-Newton.

    Attributes:
        state: where.
        hessian: (ny, ny) in u.
        downhill: (ny,) direction in u, the negative gradient.
    """

    state: State
    hessian: np.ndarray
    downhill: np.ndarray

    def in_velocity(self) -> tuple[np.ndarray, np.ndarray]:
        """Hessian and downhill direction in v."""
        change = _UNIT / self.state.profile**3  # du/dv
        return self.hessian * np.outer(change, change), self.downhill * change

    @property
    def floor(self) -> float:
        """The least misfit that any profile is predicted to have; noise, at the truth."""
        gain = self.downhill @ solve(self.hessian, self.downhill)
        return float(np.sqrt(max(self.state.misfit**2 - gain, 0)))


class FlatFit:
    """The first shot's weighted misfit of profiles.

    Amplitudes are divided by their local root mean square, which else the direct wave would rule.
    """

    def __init__(
        self,
        survey: Survey,
        record: np.ndarray,
        solver: Solver,
        dtype: torch.dtype,
        device: torch.device | str,
        highest: float = math.inf,
    ) -> None:
        """For a record (shots, nt, receivers) of `survey`.

        Args:
            survey, record: what to fit.
            solver, dtype, device: how to simulate.
            highest: Hz; of the spectrum what is above fades out.
        """
        self._survey = replace(survey, source_columns=survey.source_columns[:1])
        self._solver, self._dtype, self._device = solver, dtype, device
        self._rows = self._survey.trusted_rows
        share = ramp(np.fft.rfftfreq(self._rows, survey.dt), highest)[:, None]
        self._share = torch.from_numpy(share).to(device) if share.min() < 1 else None
        observed = torch.from_numpy(record[:1, : self._rows].astype(np.float64)).to(device)
        observed = self._low(observed)
        power = avg_pool2d(observed**2, (51, 5), 1, (25, 2), count_include_pad=False)
        weight = (power + 1e-4 * power.max()).rsqrt()
        self._weight = weight / (weight * observed).norm()
        self._observed = self._weight * observed

    def states(self, profiles: np.ndarray) -> list[State]:
        """Of profiles (k, ny), clipped."""
        profiles = self._survey.clip(profiles)
        squared = (self._simulate(profiles) - self._observed).square().sum((1, 2, 3))
        return [State(*of) for of in zip(profiles, squared.sqrt().tolist())]

    def slope(self, state: State) -> Slope:
        """By a simulation for each row, its velocity moved."""
        profile, _ = state
        up = profile + _DIFFERENCE <= self._survey.max_velocity
        moved = profile + np.where(up, _DIFFERENCE, -_DIFFERENCE)
        one_moved = np.where(np.eye(len(moved), dtype=bool), moved, profile)
        every = self._simulate(np.concatenate([profile[None], one_moved]))
        plain, others = every[0], every[1:]
        change = torch.from_numpy(to_u(moved) - to_u(profile)).to(plain)[:, None]
        jacobian = (others - plain).flatten(1) / change
        downhill = jacobian @ (self._observed[0] - plain).flatten()
        return Slope(state, (jacobian @ jacobian.T).cpu().numpy(), downhill.cpu().numpy())

    def _simulate(self, profiles: np.ndarray) -> torch.Tensor:
        """(k, 1, nt − 1, receivers) weighted first shots of profiles (k, ny), float64."""
        maps = torch.from_numpy(profiles).to(self._device, self._dtype)
        maps = maps[:, :, None].expand(-1, -1, self._survey.nx)
        with torch.no_grad():
            records = [
                simulate(part.contiguous(), self._survey, self._solver)
                for part in maps.split(_BATCH)
            ]
        return self._weight * self._low(torch.cat(records)[:, :, : self._rows].double())

    def _low(self, records: torch.Tensor) -> torch.Tensor:
        """The frequencies that are fitted, of records (…, rows, receivers)."""
        if self._share is None:
            return records
        spectrum = torch.fft.rfft(records, dim=-2)
        return torch.fft.irfft(self._share * spectrum, self._rows, dim=-2)


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """matrix⁻¹·right for matrices (…, n, n) that may be singular but for rounding.

    `right` is (…, n).
    """
    ridge = 1e-13 * np.trace(matrix, axis1=-2, axis2=-1)[..., None, None] * np.eye(matrix.shape[-1])
    return np.linalg.solve(matrix + ridge, right[..., None])[..., 0]
