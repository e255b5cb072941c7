"""How the spectra of a record change with each cell of its map: the Born approximation.

A change of velocity in a cell scatters what arrives there from the source on to the receivers. In
the frequency domain the derivative of a trace is therefore the product of two fields, that of the
source and, by reciprocity, that of a source in the receiver's place (Pratt, Shin and Hicks, 1998).
One simulation for each source and receiver gives the derivatives of all traces by all cells: 75
instead of 4900 with the official survey.

For the scheme of `sponge` this is exact, sponge and wrap included, but for the sponge's strength,
which follows the slowest cell. With the fields u of a source s and of one at a receiver r, and with
α = (v·dt/dx)², the step

    u[k] = (2 − κ)·u[k−1] − (1 − κ)·u[k−2] + α·L·u[k−1] + s[k]

turns, for a field uᵣ made by the pulse g in place of the wavelet, into

    ĝ·∂û/∂v = 2·ûₛ·ûᵣ·(1 − (2 − κ)·z + (1 − κ)·z²) / (v³·dt²),      z = exp(−iω·dt):

the spectrum of α·L·uₛ, times the response of the receiver to a source in the cell. In the source's
own cell the spectrum lacks s, and what s gains with v makes up for exactly that.

The pulse stays with it: dividing by ĝ would need times beyond the end of the record. So these are
derivatives of `spectrum`, the spectrum of the record convolved with g, which is so short that it
leaves all frequencies in.

Fields are known up to the record's end only, and break off there, so what a cell scatters is wrong
after it; with few frequencies that error spreads to all times. Therefore ten bins more are taken
than are asked for, as many as the fading of the record mixes, which matters most where the wavelet
is strong, and fields fade out, which matters where it is weak: what they hold in that time is heard
when the record itself has all but faded. Without both, derivatives of bins near 15 Hz were off by
2 % with the official survey, those below 4 Hz by 10 to 100 %, those near 45 Hz by as much.

All of the sponge counts: it is what the map's edges continue into. With half of it, fading out,
derivatives by edge cells are off by 14 to 33 % of their norm over all frequencies weighted alike,
and the inversion of a small map ended with three times the error.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave.scheme import discretise
from comp.fwi.wave.sponge import snapshots

# Samples of the fields in a period of the highest frequency.
_SAMPLES = 4.4
# Beyond so many peak frequencies there is next to nothing of the wavelet. What there is before must
# not be taken, for lack of samples, for a frequency that is asked for.
_WAVELET = 3.5
# Periods of the peak frequency in which fields fade out.
_FADING = 0.45
# Bins that the fading of a record's last tenth mixes.
_MIXED = 10
# Fine bins worked on at once; bounds the memory of their fields.
_AT_ONCE = 24
# Columns of the Hessian that are found in one product, each from its first one downward.
_BLOCK = 1024


@dataclass(frozen=True)
class Born:
    """Derivatives of records' spectra.

    Attributes:
        survey: the acquisition.
        highest: the highest frequency, Hz.
    """

    survey: Survey
    highest: float

    @property
    def every(self) -> int:
        """Time steps from one sample of the fields to the next."""
        folded = self.highest + _WAVELET * self.survey.peak_frequency
        rate = max(_SAMPLES * self.highest, folded)
        return max(1, int(1 / (rate * self.survey.dt)))

    @property
    def length(self) -> int:
        """Time steps that the spectra are taken over; the survey's, rounded to whole samples."""
        return self.survey.nt // self.every * self.every

    @property
    def bins(self) -> range:
        """Bins of the spectra, from the first up to `highest`; `frequency` says which they are."""
        return range(1, int(self.highest * self.length * self.survey.dt + 1e-6) + 1)

    @property
    def pulse(self) -> np.ndarray:
        """(nt,) a Gaussian that is down by half at `highest`.

        No later than it must be: what comes after the record's end is lost.
        """
        width = math.sqrt(2 * math.log(2)) / (2 * math.pi * self.highest)
        late = np.arange(self.survey.nt) * self.survey.dt / width - 4
        return np.exp(-(late**2) / 2)

    @property
    def memory(self) -> int:
        """Bytes that `derivatives` and `normal` take, 12 GB with the official survey and 45 Hz."""
        survey, samples, fine = self.survey, self.length // self.every, len(self._fine)
        wide = (survey.ny + 2 * survey.pad) * (survey.nx + 2 * survey.pad)
        history = 4 * (survey.shots + survey.receivers) * samples * wide
        fields = 8 * 3 * min(_AT_ONCE, fine) * (survey.shots + survey.receivers) * wide
        cells = survey.ny * survey.nx
        products = 8 * (survey.shots + 2) * fine * survey.receivers * cells
        return max(history + fields, 8 * cells**2) + products

    def frequency(self, number: int) -> float:
        """Of a bin, Hz."""
        return number / (self.length * self.survey.dt)

    def spectrum(self, record: torch.Tensor) -> torch.Tensor:
        """(shots, bins, receivers) complex, of (shots, time steps, receivers) and the pulse.

        The first time steps will do; the last tenth of the record fades out.
        """
        pulse = torch.from_numpy(self.pulse).to(record)[:, None]
        n = 2 * self.length  # so that nothing comes round
        both = torch.fft.rfft(record, n=n, dim=1) * torch.fft.rfft(pulse, n=n, dim=0)
        return self._spectrum(torch.fft.irfft(both, n=n, dim=1)[:, : self.length : self.every], 1)

    def derivatives(self, velocity: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of `spectrum`, shot by shot, (bins, receivers, ny · nx) complex64, amplitude per m/s.

        Takes `memory` on the device of `velocity`.

        Args:
            velocity: (ny, nx) float32, m/s.
        """
        shape = len(self.bins), 2, self.survey.receivers, velocity.numel()
        for parts in self._parts(velocity, self._response):
            yield torch.complex(*parts.view(shape).unbind(1))

    def normal(
        self, velocity: torch.Tensor, weights: torch.Tensor, spectra: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient and Gauss-Newton Hessian of Σ weights·|spectra|², in one go.

        Both are of the very same derivatives. With a gradient from elsewhere, though as exact, the
        directions that the record hardly tells would get a step of its error over next to nothing.
        And with what the slowest cell does to the sponge, that one cell is moved to make up for
        all others: inversions of five faulted maps ended 9 m/s off, and 3 without.

        Takes `memory` on the device of `velocity`.

        Args:
            velocity: (ny, nx) float32, m/s.
            weights: (bins,), none negative.
            spectra: (shots, bins, receivers) complex, modelled − observed.

        Returns:
            (ny, nx) float64 and (ny · nx, ny · nx) float32.
        """
        scale = (2 * weights).sqrt().cpu()
        response = (scale[:, None, None] * self._response)[scale > 0]
        apart = (spectra * scale[:, None].to(spectra.device))[:, scale > 0]
        apart = torch.view_as_real(apart).transpose(2, 3).flatten(1).to(velocity)
        size = velocity.numel()
        gradient = velocity.new_zeros(size, dtype=torch.float64)
        lower = velocity.new_zeros(size, size)
        for parts, ours in zip(self._parts(velocity, response), apart):
            gradient += ours @ parts
            for first in range(0, size, _BLOCK):
                block = slice(first, first + _BLOCK)
                lower[first:, block].addmm_(parts[:, first:].T, parts[:, block])
        return gradient.view_as(velocity), lower.tril() + lower.tril(-1).T

    @property
    def _fine(self) -> range:
        """Bins of twice the length, which hold the product of two spectra."""
        samples = self.length // self.every
        return range(1, min(2 * (self.bins[-1] + _MIXED) + 2, samples))

    @cached_property
    def _response(self) -> torch.Tensor:
        """(bins, 2, 2 · fine bins) float64: real and imaginary parts of `bins` from those of the
        fine ones, first all real ones: back to samples, the first `length` steps, and forth."""
        samples, fine = self.length // self.every, self._fine
        unit = torch.eye(len(fine), dtype=torch.complex128)
        unit = torch.nn.functional.pad(torch.cat([unit, 1j * unit], 1), (0, 0, 1, 0))
        back = torch.fft.irfft(unit, n=2 * samples, dim=0)[:samples]
        return torch.view_as_real(self._spectrum(back, 0)).transpose(1, 2)

    def _spectrum(self, traces: torch.Tensor, axis: int) -> torch.Tensor:
        """`bins` of samples along `axis`, faded out."""
        shape = [1] * traces.ndim
        shape[axis] = samples = traces.shape[axis]
        late = (torch.arange(samples, device=traces.device) / samples - 0.9).clamp(min=0) / 0.1
        fade = (0.5 + 0.5 * torch.cos(math.pi * late)).to(traces.dtype).view(shape)
        spectrum = torch.fft.rfft(fade * traces, dim=axis)
        return spectrum.narrow(axis, self.bins[0], len(self.bins)) * self.every

    def _parts(self, velocity: torch.Tensor, response: torch.Tensor) -> Iterator[torch.Tensor]:
        """Derivatives mixed by `response`, shot by shot (its rows · receivers, ny · nx)."""
        response = response.flatten(0, 1).to(velocity)
        products = self._products(velocity)
        for shot in range(self.survey.shots):
            product = torch.view_as_real(products[:, shot].flatten(1))
            product = product.permute(2, 0, 1).reshape(response.shape[1], -1)
            yield (response @ product).view(-1, velocity.numel())

    def _products(self, velocity: torch.Tensor) -> torch.Tensor:
        """(fine bins, shots, receivers, ny, nx) complex64 derivatives of the fine spectra."""
        survey = self.survey
        scheme, histories = discretise(velocity[None], survey), self._histories(velocity)
        alpha, kappa = scheme.alpha[0].double(), scheme.kappa[0].double()
        # 2 / (v³·dt²), the velocity taken from α as the padded grid has it, for a sum over samples.
        weight = 2 * survey.dt / (alpha.sqrt() * survey.dx) ** 3 / self.every
        shape = len(self._fine), survey.shots, survey.receivers, survey.ny, survey.nx
        products = torch.empty(shape, dtype=torch.complex64, device=velocity.device)
        for first in range(0, len(self._fine), _AT_ONCE):
            angles = self._angles[first : first + _AT_ONCE]
            fields = [self._spectra(history, angles) for history in histories]
            if len(fields) == 1:
                fields = fields[0].split([survey.shots, survey.receivers], 1)
            sources, receivers = fields
            z = torch.polar(torch.ones_like(angles), -angles).to(velocity.device)[:, None, None]
            # In float64: at low frequencies it is a small difference of its terms.
            factor = (1 - (2 - kappa) * z + (1 - kappa) * z**2) * weight
            scattered = sources * factor.to(sources.dtype)[:, None]
            _folded_products(scattered, receivers, survey.pad, products[first : first + _AT_ONCE])
        return products

    @property
    def _angles(self) -> torch.Tensor:
        """(fine bins,) float64 ω·dt."""
        return torch.tensor(self._fine, dtype=torch.float64) * (math.pi / self.length)

    def _histories(self, velocity: torch.Tensor) -> list[torch.Tensor]:
        """Samples of the fields of sources at the shots and then the receivers.

        In one tensor (samples, shots + receivers, Y, X) or, where they are in two rows, in two.
        """
        survey = self.survey
        row, columns = survey.receiver_row, survey.receiver_columns
        turned = replace(survey, source_row=row, source_columns=columns)
        one = discretise(velocity[None], survey)
        other = discretise(velocity[None], turned, self.pulse)
        if row != survey.source_row:
            pairs = (one, survey), (other, turned)
            return [snapshots(scheme, its, self.every) for scheme, its in pairs]
        # In one run, since a launch costs time; the kernels take sources in one row only.
        amplitude = torch.cat([one.amplitude, other.amplitude], 1)
        both = replace(one, amplitude=amplitude, sources=torch.cat([one.sources, other.sources]))
        of_both = replace(survey, source_columns=(*survey.source_columns, *columns))
        return [snapshots(both, of_both, self.every)]

    def _spectra(self, history: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """(frequencies, places, Y, X) complex64 of (samples, places, Y, X) at angles ω·dt."""
        # As a product: few of all frequencies are wanted. A field is sampled after the last of each
        # `every` steps.
        steps = torch.arange(self.every - 1, self.length, self.every, dtype=angles.dtype)
        turns = angles[:, None] * steps
        fading = _FADING / (self.survey.peak_frequency * self.survey.dt)
        left = ((self.length - 1 - steps) / fading).clamp(max=1)
        weights = self.every * (0.5 - 0.5 * torch.cos(math.pi * left))
        waves = weights * torch.cat([turns.cos(), -turns.sin()])
        found = waves.to(history) @ history.flatten(1)
        return torch.complex(*found.view(2, -1, *history.shape[1:]))


def _folded_products(ours: torch.Tensor, theirs: torch.Tensor, pad: int, out: torch.Tensor) -> None:
    """Write products of ours (f, s, Y, X) and theirs (f, r, Y, X) to `out` (f, s, r, ny, nx).

    What belongs to the sponge is added to the edge it continues.
    """
    ny, nx = out.shape[-2:]
    mid_y, mid_x = slice(pad, pad + ny), slice(pad, pad + nx)
    torch.mul(ours[:, :, None, mid_y, mid_x], theirs[:, None, :, mid_y, mid_x], out=out)
    # The row or the column of an edge in the map, and the sponge's that continue it.
    before, behind = slice(0, pad), slice(-pad, None)
    rows, columns = ((0, before), (ny - 1, behind)), ((0, before), (nx - 1, behind))

    def summed(over: str, y: slice, x: slice) -> torch.Tensor:
        return torch.einsum(over, ours[..., y, x], theirs[..., y, x])

    for row, y in rows:
        out[..., row, :] += summed("fsyx,fryx->fsrx", y, mid_x)
        for column, x in columns:
            out[..., row, column] += summed("fsyx,fryx->fsr", y, x)
    for column, x in columns:
        out[..., column] += summed("fsyx,fryx->fsry", mid_y, x)
