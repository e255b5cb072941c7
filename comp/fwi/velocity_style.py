"""Smooth velocity maps: the Style families, after natural images.

OpenFWI carries the velocities of a geological model over to photographs. Without photographs, the
maps here have what those show: a velocity that grows with depth, shapes of all sizes that stand
out from it, and in Style_B sharp outlines and texture, which Style_A blurs away. The numbers follow
pictures of published maps: growth with depth, spread along a row, correlation length.
"""

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from comp.fwi.survey import OFFICIAL

# Side of the periodic fields that the maps are cut from, so that opposite edges don't match.
GRID = fft.next_fast_len(OFFICIAL.ny + OFFICIAL.ny // 2)


def styled(rng: np.random.Generator, count: int, smooth: bool) -> np.ndarray:
    """Draw Style maps.

    Args:
        rng: source of randomness.
        count: maps to draw.
        smooth: Style_A (blurred) instead of Style_B (sharp).

    Returns:
        (count, ny, nx) float32, m/s; each map spans about 1600 to 4300 m/s.
    """
    depth = np.linspace(0, 1, OFFICIAL.ny, dtype=np.float32)[:, None]
    trend = depth ** per_map(rng, count, 0.75, 1.1)
    field = random_field(rng, count, slope=2.5, longest=40)
    # Heights are relative to the whole growth with depth; the outlines of the shapes are the
    # field's contours, drawn over a wider range of values where they will be blurred.
    if smooth:
        height = per_map(rng, count, 0.5, 0.8) * np.sqrt(0.4 + 0.6 * depth)
        maps = trend + height * np.clip((field + 0.1) / 0.9, -0.1, 1)
        maps = gaussian_filter(maps, 2.8, axes=(1, 2))
    else:
        height = per_map(rng, count, 0.17, 0.3)
        shapes = np.clip((field - 0.1) / 0.25, 0, 1)
        texture = random_field(rng, count, slope=1, longest=6)
        maps = trend + height * (shapes + 0.3 * (0.15 + shapes) * texture)
        maps = gaussian_filter(maps, 0.45, axes=(1, 2))
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    slowest, fastest = per_map(rng, count, 1550, 1650), per_map(rng, count, 4150, 4400)
    return slowest + (fastest - slowest) * (maps - low) / (high - low)


def random_field(rng: np.random.Generator, count: int, slope: float, longest: float) -> np.ndarray:
    """Draw Gaussian random fields of mean 0 and variance 1.

    Args:
        rng: source of randomness.
        count: fields to draw.
        slope: the amplitude falls as wavenumber to the power −slope, about 1 in photographs.
        longest: wavelength, cells, beyond which it falls no more.

    Returns:
        (count, ny, nx) float32.
    """
    wavenumber = np.hypot(fft.fftfreq(GRID)[:, None], fft.fftfreq(GRID)[None, :])
    amplitude = (wavenumber**2 + longest**-2.0) ** (-slope / 2)
    amplitude[0, 0] = 0
    # White noise of variance 1 leaves the filter with the mean square of its amplitude.
    amplitude /= np.sqrt((amplitude**2).mean())
    noise = fft.rfft2(rng.standard_normal((count, GRID, GRID), dtype=np.float32))
    half = amplitude[:, : noise.shape[2]].astype(np.float32)
    field = fft.irfft2(noise * half, s=(GRID, GRID), overwrite_x=True)
    return field[:, : OFFICIAL.ny, : OFFICIAL.nx]


def per_map(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """One uniform number a map, (count, 1, 1) float32."""
    return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)
