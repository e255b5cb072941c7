"""Layered velocity maps: layer velocities, interface depths, and how both become a map.

Depths are in cells, velocities in m/s. One array holds maps with different numbers of layers:
interfaces that a map does not have lie at infinite depth.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from comp.fwi.survey import OFFICIAL

LOWEST, HIGHEST = int(OFFICIAL.min_velocity), int(OFFICIAL.max_velocity)
# CurveVel bends its interfaces along a quadratic spline through random depths at these columns;
# columns 0, 10 and 20 share the first parabola. Such splines fit published interfaces to the
# rounding of whole cells (RMS 0.28 cells).
CURVE_KNOTS = (0, 10, 20, 30, 40, 50, 60, 77)  # = curve_knots(70)
# In published FlatFault_A maps an interface takes two to three rows, like a step blurred so far.
EDGE_WIDTH = 0.4

ROWS = np.arange(OFFICIAL.ny)[:, None] + 0.5  # depths of the cells' centres


def layered(rng: np.random.Generator, count: int, curved: bool, shuffled: bool) -> np.ndarray:
    """Draw unfaulted maps of 4 to 8 layers: FlatVel and CurveVel, A and B.

    Args:
        rng: source of randomness.
        count: maps to draw.
        curved: interfaces bent (Curve) instead of level (Flat).
        shuffled: velocities in random order with depth (B) instead of growing (A).

    Returns:
        (count, ny, nx) float32, whole m/s.
    """
    layers = rng.integers(4, 8, count, endpoint=True)
    depths = even_depths(rng, layers, curved)
    velocity = sorted_velocities(rng, layers)
    if shuffled:
        velocity = shuffle_layers(rng, velocity, layers)
    return fill(ROWS, depths, velocity)


def sorted_velocities(
    rng: np.random.Generator, layers: np.ndarray, split: int | None = None
) -> np.ndarray:
    """Draw whole layer velocities that grow with depth, uniform over the survey's range.

    Args:
        rng: source of randomness.
        layers: (n,) layers of each map.
        split: if given, layers // 2 layers are slower than this (m/s) and the others are not.

    Returns:
        (n, max(layers)) float64, m/s; entries past a map's last layer hold the highest velocity.
    """
    order = np.arange(layers.max())
    low, high = LOWEST, HIGHEST
    if split is not None:
        slow = order < layers[:, None] // 2
        low, high = np.where(slow, LOWEST, split), np.where(slow, split - 1, HIGHEST)
    drawn = rng.integers(low, high, (len(layers), len(order)), endpoint=True)
    return np.sort(np.where(order < layers[:, None], drawn, HIGHEST), axis=1).astype(float)


def shuffle_layers(
    rng: np.random.Generator, velocity: np.ndarray, layers: np.ndarray
) -> np.ndarray:
    """Put the velocities (n, max(layers)) of each map's layers in random order with depth."""
    used = np.arange(velocity.shape[1]) < layers[:, None]
    key = np.where(used, rng.random(velocity.shape), np.inf)
    return np.take_along_axis(velocity, np.argsort(key, axis=1), axis=1)


def even_depths(rng: np.random.Generator, layers: np.ndarray, curved: bool) -> np.ndarray:
    """Draw evenly spaced interfaces, level or bent nearly alike.

    The spacing is the map's height over layers − 1, so the deepest layer can lie below the map.
    The first interface lies 0.5 to 1.5 spacings deep and each further layer is one spacing ± 1 cell
    thick, drawn once if level or at each knot if bent: in published CurveVel maps thickness varies
    by 0.56 cells (RMS) from knot to knot.

    Args:
        rng: source of randomness.
        layers: (n,) layers of each map, at least 2.
        curved: bent along random splines instead of level.

    Returns:
        (n, max(layers) − 1, nx) float64 depths if curved, else (n, max(layers) − 1, 1).
    """
    knots = len(CURVE_KNOTS) if curved else 1
    spacing = OFFICIAL.ny / (layers[:, None, None] - 1)
    thickness = spacing + rng.uniform(-1, 1, (len(layers), layers.max() - 1, knots))
    thickness[:, :1] = spacing * rng.uniform(0.5, 1.5, (len(layers), 1, knots))
    depths = np.cumsum(thickness, axis=1)
    if curved:
        # Splines through knots a cell apart may come nearer than that, or cross, between them.
        depths = np.maximum.accumulate(depths @ spline_weights(CURVE_KNOTS, OFFICIAL.nx), axis=1)
    depths[np.arange(layers.max() - 1) >= layers[:, None] - 1] = np.inf
    return depths


def curve_knots(columns: int) -> tuple[int, ...]:
    """`CURVE_KNOTS`, for maps of another width: three at least, each but the last in the map."""
    return *range(0, max(columns - 1, 11), 10), max(columns, 11) + 7


def spline_weights(at: Sequence[int], width: int) -> np.ndarray:
    """(knots, width) matrix that turns depths at knots into a depth at every column.

    The first three knots share a parabola; three are needed.
    """
    knots, values = np.array(at, float), np.eye(len(at))
    columns = np.arange(width)
    chord = np.diff(values, axis=1) / np.diff(knots)
    bend = (chord[:, 1] - chord[:, 0]) / (knots[2] - knots[0])
    slope = chord[:, 0] - bend * (knots[1] - knots[0])
    weights = np.empty((len(knots), len(columns)))
    for start, end in zip((0, *range(2, len(knots) - 1)), range(2, len(knots))):
        length = knots[end] - knots[start]
        if start > 0:  # leave with the slope the piece before arrived with, and reach the next knot
            bend = (chord[:, start] - slope) / length
        inside = (columns >= knots[start]) & (columns <= knots[end])
        offset = columns[inside] - knots[start]
        curve = np.outer(slope, offset) + np.outer(bend, offset**2)
        weights[:, inside] = values[:, [start]] + curve
        slope = slope + 2 * bend * length
    return weights


def fill(position: np.ndarray, depths: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Give each cell the velocity of the layer it lies in.

    Args:
        position: depth of each cell in its stack of layers, broadcastable to (n, ny, nx).
        depths: (n, m − 1, nx or 1) interface depths, growing along axis 1.
        velocity: (n, m) m/s.

    Returns:
        (n, ny, nx) float32, m/s.
    """
    maps = np.empty((len(velocity), *OFFICIAL.map_shape), np.float32)
    maps[:] = velocity[:, :1, None]
    for i in range(depths.shape[1]):
        below = position >= depths[:, i, None]
        np.copyto(maps, velocity[:, i + 1, None, None], where=below, casting="same_kind")
    return maps


def fill_soft(position: np.ndarray, depths: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """As `fill`, with every interface blurred by EDGE_WIDTH cells; float64."""
    maps = np.empty((len(velocity), *OFFICIAL.map_shape))
    maps[:] = velocity[:, :1, None]
    for i, jump in enumerate(np.diff(velocity, axis=1).T):
        maps += jump[:, None, None] * soft_step(position - depths[:, i, None])
    return maps


def soft_step(distance: np.ndarray) -> np.ndarray:
    """A step from 0 to 1 at distance 0 (cells), blurred by EDGE_WIDTH."""
    return ndtr(distance / EDGE_WIDTH)
