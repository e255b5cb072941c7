"""The misfit of a record's spectrum, with all frequencies weighted alike up to a highest one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave import Solver, simulate
from comp.fwi.wave.born import Born

_LAST = 1.3  # weights fall to zero at this multiple of the highest frequency
# Square in a map's cells and in float64, that a step has beside the derivatives: the Hessian, also
# as it was found, its factor or inverse, the prior's or the sweeps' part of it, and two in passing.
_MATRICES = 6
_BATCH = 64  # maps whose spectra are taken at once; 1.2 GB with their transforms


@dataclass(frozen=True)
class State:
    """A map (ny, nx), its weighted squared misfit, its plain relative misfit.

    Also (shots, bins, receivers) spectra of modelled − observed.
    """

    velocity: torch.Tensor
    squared: torch.Tensor
    misfit: float
    spectra: torch.Tensor


class Found(NamedTuple):
    """A map (ny, nx) in m/s and its relative L2 misfit."""

    velocity: np.ndarray
    misfit: float


def ramp(frequencies: np.ndarray, highest: float) -> np.ndarray:
    """Shares of `frequencies` that are 1 up to the highest one and fall to 0 soon behind it."""
    return (1 - (frequencies / highest - 1) / (_LAST - 1)).clip(0, 1)


def newton_memory(survey: Survey, last: float) -> int:
    """Bytes of a step of Gauss-Newton for every cell, with frequencies up to `last` (Hz)."""
    return Born(survey, last).memory + _MATRICES * 8 * (survey.ny * survey.nx) ** 2


class SpectralFit:
    """The weighted squared misfit of one record's spectrum, relative to the record's own.

    All frequencies are weighted alike rather than as the wavelet has them: the few below 5 Hz say
    most of deep layers.
    """

    def __init__(
        self,
        record: np.ndarray,
        highest: float,
        survey: Survey,
        solver: Solver,
        dtype: torch.dtype,
        device: torch.device | str,
        last: float,
        floor: float,
    ) -> None:
        """For a record (shots, nt, receivers).

        Args:
            record: observed amplitudes.
            highest: frequency with full weight, in peak frequencies of the wavelet; a ramp behind.
            survey: of the record.
            solver, dtype, device: of the simulations.
            last: Hz, where the ramp ends at the latest.
            floor: the spectrum is divided by the wavelet's, but by no less than this share of its
                peak.
        """
        self._survey, self._solver, self._dtype, self._device = survey, solver, dtype, device
        self._rows = survey.trusted_rows
        self._observed = torch.from_numpy(record[:, : self._rows].astype(np.float64)).to(device)
        reach = highest * survey.peak_frequency
        self._born = born = Born(survey, min(_LAST * reach, last))
        wavelet = np.abs(np.fft.rfft(survey.wavelet()[: born.length]))
        share = np.maximum(wavelet / wavelet.max(), floor)[list(born.bins)]
        frequencies = np.array([born.frequency(number) for number in born.bins])
        weights = ramp(frequencies, reach) * (floor / share) ** 2
        self._weights = torch.from_numpy(weights).to(device)
        self._total = self._weighted(born.spectrum(self._observed))
        self._derived: tuple[State, torch.Tensor, torch.Tensor] | None = None

    def state(self, velocity: torch.Tensor) -> State:
        """Of a map (ny, nx)."""
        return self.states([velocity])[0]

    def states(self, maps: Sequence[torch.Tensor]) -> list[State]:
        """Of maps (ny, nx), simulated together."""
        if not maps:
            return []
        with torch.no_grad():
            differences = self._difference(torch.stack(tuple(maps)).to(self._dtype))
        found = []
        for velocity, difference in zip(maps, differences):
            spectra = self._born.spectrum(difference)
            misfit = float(difference.norm() / self._observed.norm())
            found.append(State(velocity, self._weighted(spectra) / self._total, misfit, spectra))
        return found

    def normal(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient (ny, nx) and Gauss-Newton Hessian (ny·nx, ny·nx) of it, float64, in m/s.

        Without what the slowest cell does to the sponge. Of the state asked for last they are kept,
        for other steps from there.
        """
        if self._derived is None or self._derived[0] is not state:
            self._derived = None  # frees the last ones
            weights = self._weights / self._total
            found = self._born.normal(state.velocity.float(), weights, state.spectra)
            self._derived = state, *found
        _, gradient, hessian = self._derived
        return gradient.clone(), hessian.double()

    def residuals(self, maps: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """What the weighted squared misfits of maps (k, ny, nx) are the sums of squares of.

        Returns:
            (k, n) float64 on the device, and the plain relative misfits (k,).
        """
        found, plain = [], []
        scale = (self._weights / self._total).sqrt()[:, None]
        for part in torch.from_numpy(maps).to(self._device, self._dtype).split(_BATCH):
            with torch.no_grad():
                difference = self._difference(part)
            plain.append(difference.square().sum((1, 2, 3)).sqrt() / self._observed.norm())
            spectra = self._born.spectrum(difference.flatten(0, 1)) * scale
            found.append(torch.view_as_real(spectra).reshape(len(part), -1))
        return torch.cat(found), torch.cat(plain).cpu().numpy()

    def _difference(self, velocity: torch.Tensor) -> torch.Tensor:
        """(k, shots, rows, receivers) float64, modelled − observed."""
        modelled = simulate(velocity, self._survey, self._solver)[:, :, : self._rows]
        return modelled.double() - self._observed

    def _weighted(self, spectra: torch.Tensor) -> torch.Tensor:
        """Weighted sum of squares of (shots, bins, receivers)."""
        return (spectra.abs().square() * self._weights[:, None]).sum()
