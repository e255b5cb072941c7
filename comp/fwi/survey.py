"""The acquisition: where the sources and receivers stand, what is fired, how long is recorded.

This file is the only place where the competition's numbers are written. Everything else takes a
`Survey` and asks it.
"""

import math
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch

Velocity = TypeVar("Velocity", np.ndarray, torch.Tensor)

OFFICIAL_COLUMNS = (0, 17, 34, 52, 69)
# Column 34 mirrors to column 35, so a mirrored official record needs a shot that was never fired.
# With the sixth shot the set is its own mirror image and mirroring is exact.
SIX_COLUMNS = (0, 17, 34, 35, 52, 69)


@dataclass(frozen=True)
class Survey:
    """A fixed-spread 2-D acquisition over a square velocity map (OpenFWI, arXiv 2111.02926).

    Attributes:
        ny, nx: cells of the velocity map, depth × distance.
        dx: cell size, m, both axes.
        dt: time step, s; also the sampling interval of the record.
        nt: recorded time steps.
        source_columns: column of each shot, in recording order.
        source_row, receiver_row: depth in cells.
        receiver_columns: column of each receiver.
        pad: absorbing cells on each side.
        peak_frequency: of the Ricker wavelet, Hz.
        wavelet_peak: sample index of the wavelet's peak; it spans 2·peak + 1 samples.
        sponge_reflection: theoretical reflection coefficient R of the sponge is 1/this.
        min_velocity, max_velocity: range of the competition's maps, m/s.
    """

    ny: int = 70
    nx: int = 70
    dx: float = 10.0
    dt: float = 1e-3
    nt: int = 1000
    source_columns: tuple[int, ...] = OFFICIAL_COLUMNS
    source_row: int = 1
    receiver_row: int = 1
    receiver_columns: tuple[int, ...] = field(default=tuple(range(70)))
    pad: int = 120
    peak_frequency: float = 15.0
    wavelet_peak: int = 73
    sponge_reflection: float = 1e7
    min_velocity: float = 1500.0
    max_velocity: float = 4500.0

    @property
    def shots(self) -> int:
        """Number of shots."""
        return len(self.source_columns)

    @property
    def receivers(self) -> int:
        """Number of receivers."""
        return len(self.receiver_columns)

    @property
    def record_shape(self) -> tuple[int, int, int]:
        """(shots, time steps, receivers) of one record."""
        return self.shots, self.nt, self.receivers

    @property
    def trusted_rows(self) -> int:
        """Rows of a record from its start that can be trusted: official data's last one cannot."""
        return self.nt - 1

    @property
    def map_shape(self) -> tuple[int, int]:
        """(depth, distance) cells of one velocity map."""
        return self.ny, self.nx

    def clip(self, velocity: Velocity) -> Velocity:
        """Velocities of any shape, m/s, brought within those that maps may have."""
        return velocity.clip(self.min_velocity, self.max_velocity)

    def with_six_shots(self) -> "Survey":
        """The same survey with the sixth shot that makes mirroring exact."""
        return replace(self, source_columns=SIX_COLUMNS)

    def wavelet(self) -> np.ndarray:
        """(nt,) float64 Ricker wavelet, dimensionless; zero after 2·wavelet_peak + 1 samples."""
        k = np.arange(self.nt)
        beta = (math.pi * self.peak_frequency * self.dt * (self.wavelet_peak - k)) ** 2
        return np.where(k <= 2 * self.wavelet_peak, (1 - 2 * beta) * np.exp(-beta), 0.0)

    def shot_rows(self, columns: tuple[int, ...]) -> list[int]:
        """Positions of the shots at `columns` in this survey; ValueError if one is absent."""
        return [self.source_columns.index(c) for c in columns]


OFFICIAL = Survey()
