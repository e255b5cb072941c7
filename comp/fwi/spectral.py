"""The misfit of a record's spectrum, with all frequencies weighted alike up to a highest one."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave import Solver, simulate
from comp.fwi.wave.born import Born

_LAST = 1.3  # weights fall to zero at this multiple of the highest frequency
_BATCH = 64  # maps whose spectra are taken at once; 1.2 GB with their transforms


@dataclass(frozen=True)
class State:
    """A map (ny, nx), its weighted squared misfit with the gradient, its plain relative misfit."""

    velocity: torch.Tensor
    squared: torch.Tensor
    gradient: torch.Tensor
    misfit: float


class Found(NamedTuple):
    """A map (ny, nx) in m/s and its relative L2 misfit."""

    velocity: np.ndarray
    misfit: float


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
        ramp = (1 - (frequencies / reach - 1) / (_LAST - 1)).clip(0, 1)
        weights = ramp * (floor / share) ** 2
        self._weights = torch.from_numpy(weights).to(device)
        self._total = self._energy(self._observed)

    def state(self, velocity: torch.Tensor) -> State:
        """Of a map (ny, nx)."""
        leaf = velocity.to(self._dtype)[None].requires_grad_()
        difference = self._difference(leaf)[0]
        squared = self._energy(difference) / self._total
        (gradient,) = torch.autograd.grad(squared, leaf)
        misfit = float(difference.detach().norm() / self._observed.norm())
        return State(velocity, squared.detach(), gradient[0].double(), misfit)

    def squared(self, velocity: torch.Tensor) -> torch.Tensor:
        """The weighted squared misfit of a map (ny, nx)."""
        with torch.no_grad():
            difference = self._difference(velocity.to(self._dtype)[None])[0]
        return self._energy(difference) / self._total

    def hessian(self, velocity: torch.Tensor) -> torch.Tensor:
        """(ny·nx, ny·nx) float64 Gauss-Newton Hessian."""
        weights = self._weights / self._total
        return self._born.hessian(velocity.float(), weights).double()

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

    def _energy(self, traces: torch.Tensor) -> torch.Tensor:
        """Weighted sum of squares of (shots, rows, receivers) over the spectrum."""
        spectrum = self._born.spectrum(traces)
        return (spectrum.abs().square() * self._weights[:, None]).sum()
