"""Faulted velocity maps: the Fault families A (one moved block) and B (two stacks, more faults).

Depths, throws and slips are in cells, velocities in m/s. The dip of a fault is given as its slope,
columns to the right for each row down.
"""

import numpy as np

from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity_layers import ROWS, fill, fill_soft, soft_step, sorted_velocities

COLUMNS = np.arange(OFFICIAL.nx)[None, :] + 0.5  # distances of the cells' centres
MIDDLE_VELOCITY = 3000
THINNEST_BLOCK, THINNEST_STACKED = 15, 7  # least thickness of a layer, A and B
HALFWAY = 7, 14  # columns beside the fault of a block where an interface has moved half of the way


def block_faulted(
    rng: np.random.Generator,
    count: int,
    curved: bool,
    layers: tuple[int, ...] = (2, 3, 4),
    halfway: float = 0.0,
) -> np.ndarray:
    """Draw FlatFault_A or CurveFault_A maps: few thick layers, one block of them moved.

    Half of the layers are slower than 3000 m/s. The block lies below a fault that crosses the map;
    in some maps a second, steep fault near the edge of the map closes it.

    Args:
        rng: source of randomness.
        count: maps to draw.
        curved: layers folded along one sine.
        layers: layer counts to draw from.
        halfway: chance that beside the fault, where the block moved the first interface, the
            velocity is the mean of both layers' rather than that of the one which moved in.

    Returns:
        (count, ny, nx) float32, m/s; interfaces and faults are slightly blurred.
    """
    number = rng.choice(layers, count)
    depths = thick_depths(rng, number, THINNEST_BLOCK)
    velocity = sorted_velocities(rng, number, split=MIDDLE_VELOCITY)
    position = ROWS - fold(rng, count, (4, 11), (55, 85)) if curved else ROWS[None]

    # The fault leans over the block, so the block widens with depth, and steepens with depth.
    side = sign(rng, count)
    slope = -side * draw(rng, count, 0, 1.2)
    column = np.where(side > 0, 0, OFFICIAL.nx) + side * draw(rng, count, 0, OFFICIAL.nx)
    steepening = slope * (ROWS - OFFICIAL.ny / 2) ** 2 / OFFICIAL.ny
    beyond = side * beyond_fault(column - steepening, slope)
    block = soft_step(beyond)
    margin = draw(rng, count, 2, 14)
    end = np.where(side > 0, OFFICIAL.nx - margin, margin)
    closed = soft_step(-side * beyond_fault(end, draw(rng, count, -0.2, 0.2)))
    block *= np.where(rng.random((count, 1, 1)) < 0.3, closed, 1)

    throw = sign(rng, count) * draw(rng, count, 5, 10)
    still = fill_soft(position, depths, velocity)
    moved = fill_soft(position - throw, depths, velocity)
    maps = still + block * (moved - still)
    if halfway:
        strip = block * soft_step(draw(rng, count, *HALFWAY) - beyond)
        strip *= rng.random((count, 1, 1)) < halfway
        jump = (velocity[:, 1] - velocity[:, 0])[:, None, None]
        came = soft_step(position - throw - depths[:, :1]) - soft_step(position - depths[:, :1])
        maps -= strip * jump * came / 2
    return maps.astype(np.float32)


def stack_faulted(
    rng: np.random.Generator, count: int, curved: bool, layers: tuple[int, ...] = (6, 7, 8)
) -> np.ndarray:
    """Draw FlatFault_B or CurveFault_B maps: two stacks of thin layers, torn by further faults.

    A main fault parts two stacks with velocities and depths of their own. Two or three further
    faults tear both: all that lies on one side has slipped along the fault.

    Args:
        rng: source of randomness.
        count: maps to draw.
        curved: each stack is folded along two sines of its own.
        layers: layer counts to draw from, of each stack.

    Returns:
        (count, ny, nx) float32, whole m/s.
    """
    number = rng.choice(layers, count)
    # Go back in time: from each cell to the place (y, x) it had before the faults slipped.
    y, x = ROWS[None], COLUMNS[None]
    for chance in (1, 1, 0.6):
        slope = sign(rng, count) * draw(rng, count, 0.2, 1.2)
        beyond = sign(rng, count) * beyond_fault(draw(rng, count, 0, OFFICIAL.nx), slope) > 0
        slip = sign(rng, count) * draw(rng, count, 6, 24) * (rng.random((count, 1, 1)) < chance)
        down = np.where(beyond, slip / np.hypot(1, slope), 0)
        y, x = y - down, x - down * slope
    stacks = []
    for _ in range(2):
        position = y
        if curved:
            position = position - fold(rng, count, (6, 18), (20, 50), x)
            position = position - fold(rng, count, (1, 9), (12, 25), x)
        depths = thick_depths(rng, number, THINNEST_STACKED)
        stacks.append(fill(position, depths, sorted_velocities(rng, number)))
    main = beyond_fault(draw(rng, count, 15, 55), draw(rng, count, -0.45, 0.45))
    return np.where(main > 0, *stacks)


def thick_depths(rng: np.random.Generator, layers: np.ndarray, thinnest: int) -> np.ndarray:
    """Draw depths of level interfaces between layers that fill the map.

    Each layer is at least `thinnest` rows thick. The rows left over are handed out in random order,
    each layer taking a uniform share of what is left and the last one all of it.

    Returns:
        (n, max(layers) − 1, 1) float64 depths, cells.
    """
    n, most = len(layers), layers.max()
    used = np.arange(most) < layers[:, None]
    order = np.argsort(np.where(used, rng.random((n, most)), np.inf), axis=1)
    thickness = np.full((n, most), float(thinnest))
    left = (OFFICIAL.ny - thinnest * layers).astype(float)
    for turn in range(most):
        taken = np.where(turn == layers - 1, left, left * rng.random(n))
        thickness[np.arange(n), order[:, turn]] += taken
        left -= taken
    depths = np.cumsum(thickness, axis=1)[:, :-1]
    depths[~used[:, 1:]] = np.inf
    return depths[:, :, None]


def beyond_fault(column: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Distance (n, ny, nx) of each cell to the right of a fault, cells; negative to its left.

    The fault passes `column`, (n, 1, 1) or one for each row (n, ny, 1), at half the map's depth.
    """
    return (COLUMNS - column - slope * (ROWS - OFFICIAL.ny / 2)) / np.hypot(1, slope)


def fold(
    rng: np.random.Generator,
    count: int,
    height: tuple[float, float],
    period: tuple[float, float],
    x: np.ndarray = COLUMNS,
) -> np.ndarray:
    """Draw a sine along `x` with a height and a period from these ranges, cells."""
    angle = x / draw(rng, count, *period) + draw(rng, count, 0, 1)
    return draw(rng, count, *height) * np.sin(2 * np.pi * angle)


def draw(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """One uniform number a map, (count, 1, 1)."""
    return rng.uniform(low, high, (count, 1, 1))


def sign(rng: np.random.Generator, count: int) -> np.ndarray:
    """One random sign a map, (count, 1, 1)."""
    return rng.choice([-1.0, 1.0], (count, 1, 1))
