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
"""

import cmath
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from comp.fwi.survey import Survey
from comp.fwi.wave.scheme import discretise
from comp.fwi.wave.sponge import snapshots

# Samples of the fields in a period of the highest frequency.
_SAMPLES = 4.4
# Positions simulated at once; bounds the memory of their fields.
_AT_ONCE = 35


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
        return max(1, int(1 / (_SAMPLES * self.highest * self.survey.dt)))

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
        """(nt,) a Gaussian that is down by half at `highest`."""
        width = math.sqrt(2 * math.log(2)) / (2 * math.pi * self.highest)
        late = np.arange(self.survey.nt) * self.survey.dt / width - 4
        return np.exp(-(late**2) / 2)

    @property
    def memory(self) -> int:
        """Bytes that `derivatives` takes, 9 GB with the official survey and 45 Hz."""
        survey, samples = self.survey, self.length // self.every
        cells = (survey.ny + 2 * survey.pad) * (survey.nx + 2 * survey.pad)
        history = min(_AT_ONCE, survey.receivers) * samples * cells * 4
        fields = len(self._fine) * (survey.receivers + survey.shots) * cells * 8
        products = 2 * (samples + 1) * survey.receivers * survey.ny * survey.nx * 8
        return history + fields + products

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
        survey = self.survey
        scheme = discretise(velocity[None], survey)
        alpha, kappa = scheme.alpha[0], scheme.kappa[0]
        # 2 / (v³·dt²), the velocity taken from α as the padded grid has it, for a sum over samples.
        weight = 2 * survey.dt / (alpha.double().sqrt() * survey.dx) ** 3 / self.every
        sources = self._fields(velocity, survey.source_row, survey.source_columns, survey.wavelet())
        receivers = self._fields(velocity, survey.receiver_row, survey.receiver_columns, self.pulse)
        samples = self.length // self.every
        for shot in range(survey.shots):
            product = receivers.new_zeros(samples + 1, survey.receivers, velocity.numel())
            for number, source, receiver in zip(self._fine, sources[:, shot], receivers):
                z = cmath.exp(-1j * math.pi * number / self.length)
                scattered = source * ((1 - (2 - kappa) * z + (1 - kappa) * z**2) * weight)
                ends = scattered.to(receiver.dtype) * receiver
                product[number] = _fold(ends, survey.pad).flatten(1)
            yield self._spectrum(torch.fft.irfft(product, n=2 * samples, dim=0)[:samples], 0)

    @property
    def _fine(self) -> range:
        """Bins of twice the length, which hold the product of two spectra."""
        return range(1, 2 * self.bins[-1] + 2)

    def _spectrum(self, traces: torch.Tensor, axis: int) -> torch.Tensor:
        """`bins` of samples along `axis`, faded out."""
        shape = [1] * traces.ndim
        shape[axis] = samples = traces.shape[axis]
        late = (torch.arange(samples, device=traces.device) / samples - 0.9).clamp(min=0) / 0.1
        fade = (0.5 + 0.5 * torch.cos(math.pi * late)).to(traces.dtype).view(shape)
        spectrum = torch.fft.rfft(fade * traces, dim=axis)
        return spectrum.narrow(axis, self.bins[0], len(self.bins)) * self.every

    def _fields(
        self, velocity: torch.Tensor, row: int, columns: Sequence[int], wavelet: np.ndarray
    ) -> torch.Tensor:
        """(fine bins, columns, Y, X) complex64 spectra of what sources in a row make."""
        fine = self._fine
        # A field is sampled after the last of each `every` steps.
        shift = -1j * math.pi * (self.every - 1) / self.length
        phase = torch.tensor([self.every * cmath.exp(shift * number) for number in fine])
        phase = phase.to(velocity.device, torch.complex64)[:, None, None]
        parts = []
        for first in range(0, len(columns), _AT_ONCE):
            some = tuple(columns[first : first + _AT_ONCE])
            survey = replace(self.survey, source_row=row, source_columns=some)
            history = snapshots(discretise(velocity[None], survey, wavelet), self.every)
            for place in range(len(some)):  # one by one for the memory
                spectrum = torch.fft.rfft(history[:, place], n=2 * len(history), dim=0)
                parts.append(spectrum[fine.start : fine.stop] * phase)
        return torch.stack(parts, 1)


def _fold(wide: torch.Tensor, pad: int) -> torch.Tensor:
    """(…, ny, nx) of (…, Y, X): what belongs to the sponge is added to the edge it continues."""
    for axis in (-2, -1):
        inner = wide.shape[axis] - 2 * pad
        first = wide.narrow(axis, 0, pad).sum(axis, keepdim=True)
        last = wide.narrow(axis, pad + inner, pad).sum(axis, keepdim=True)
        wide = wide.narrow(axis, pad, inner).clone()
        wide.narrow(axis, 0, 1).add_(first)
        wide.narrow(axis, inner - 1, 1).add_(last)
    return wide
