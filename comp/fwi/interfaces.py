"""Maps of layers between bent interfaces, and how such layers are read from a blurred map.

Interfaces are (layers − 1, nx) depths in cells, 0 at the map's top; velocities (layers,) in m/s. In
published families they lie about evenly, ny / (layers − 1) apart, and are bent alike. `readings`
uses that; what is read may then be moved freely, out of the map too.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_DECAY = 25.0  # cells; with depth a blurred map knows less
_RISE = 3.0  # m/s: what it costs the first interface to rise or fall by a cell to the next column
_ROUNDS = 12
_CLEAR = 60.0  # m/s from the velocity at the top, by which the second layer is told
_FOLLOWED = 3  # rounds, at most
_STAY = 5.0  # m/s: what it costs to move an interface by a cell
_FEW = 8  # cells that say nothing about a layer's velocity
VELOCITY_STEP, VELOCITY_LIMIT = 4.0, 300.0  # m/s, of derivatives and of a change at most
_REACH = 3.5  # layers' thickness, down to which the first interface is looked for


class Layers(NamedTuple):
    """Velocities (layers,) and interfaces (layers − 1, nx), descending from row to row."""

    velocity: np.ndarray
    depth: np.ndarray

    def map(self, rows: int) -> np.ndarray:
        """(rows, nx) m/s; a cell that an interface runs through has a mean velocity."""
        return draw(self.velocity[None], self.depth[None], rows)[0]

    def level(self, rows: int) -> float:
        """Share of the neighbouring columns that the first interface crosses in the same row.

        Where it runs inside a map of so many rows; 1 where it does not.
        """
        first = self.depth[0]
        inside = (first > 0) & (first < rows)
        stays = np.diff(first)[inside[1:] & inside[:-1]] == 0
        return float(stays.mean()) if stays.size else 1.0

    def ordered(self) -> "Layers":
        """With no interface above the one before it."""
        return Layers(self.velocity, np.maximum.accumulate(self.depth, 0))


def draw(velocity: np.ndarray, depth: np.ndarray, rows: int) -> np.ndarray:
    """The maps (k, rows, nx) of many layers at once.

    Args:
        velocity: (k, layers) m/s.
        depth: (k, layers − 1, nx) cells.
        rows: of the maps.
    """
    depth = depth.clip(0, rows)
    top = np.floor(depth).astype(int)
    part = depth - top
    maps, _, columns = depth.shape
    each, column = np.ogrid[:maps, :columns]
    # What each row adds to the one above.
    change = np.zeros((maps, rows + 2, columns))
    change[:, 0] = velocity[:, :1]
    for i, jump in enumerate(np.diff(velocity, axis=1).T[:, :, None]):
        change[each, top[:, i], column] += jump * (1 - part[:, i])
        change[each, top[:, i] + 1, column] += jump * part[:, i]
    return change[:, :rows].cumsum(1)


def inward(velocity: np.ndarray, most: float) -> np.ndarray:
    """Steps for derivatives by velocities in m/s, down where up would be over `most`."""
    return np.where(velocity + VELOCITY_STEP <= most, VELOCITY_STEP, -VELOCITY_STEP)


def readings(velocity: np.ndarray, layers: range) -> list[Layers]:
    """What a map (ny, nx) may be with these numbers of layers, 2 or more; the likeliest first."""
    rows, columns = velocity.shape
    clear = np.abs(velocity - np.median(velocity[:2])) > _CLEAR
    first = np.where(clear.any(0), clear.argmax(0), rows)
    found = []
    for number in layers:
        apart = rows / (number - 1)
        starts = first.clip(max=2 * apart), np.full(columns, apart), np.full(columns, 0.6 * apart)
        found += [_aligned(velocity, number, start) for start in starts]
    return [layers for _, layers in sorted(found, key=lambda costed: costed[0])]


def _aligned(velocity: np.ndarray, layers: int, first: np.ndarray) -> tuple[float, Layers]:
    """The cost of layers of even thickness, and these, from a first interface (nx,).

    In turn, each layer gets its median velocity, and the first interface the path of least cost.
    """
    rows, apart = len(velocity), len(velocity) / (layers - 1)
    weight = np.exp(-np.arange(rows) / _DECAY)[:, None]
    tops = np.arange(-int(apart), int(_REACH * apart) + 1)
    best = np.inf, None
    for _ in range(_ROUNDS):
        member = _member(first, apart, layers, rows)
        of_layer = _medians(velocity, member, np.broadcast_to(weight, velocity.shape), layers)
        candidate = of_layer[_member(tops, apart, layers, rows)]  # (rows, tops)
        cost = np.stack([(weight * abs(velocity - c[:, None])).sum(0) for c in candidate.T])
        total, path = _cheapest(cost, _RISE * abs(tops[:, None] - tops))
        if total >= best[0]:
            break
        first = tops[path]
        depth = np.rint(first + apart * np.arange(layers - 1)[:, None])
        best = total, Layers(of_layer, depth)
    return best


def _member(first: np.ndarray, apart: float, layers: int, rows: int) -> np.ndarray:
    """(rows, n) the layer of each cell below first interfaces (n,)."""
    below = (np.arange(rows)[:, None] + 0.5 - first) / apart
    return (np.floor(below).astype(int) + 1).clip(0, layers - 1)


def _medians(values: np.ndarray, member: np.ndarray, weight: np.ndarray, layers: int) -> np.ndarray:
    """(layers,) weighted medians of each layer's values; an empty layer has that above it."""
    out = np.full(layers, float(np.median(values[0])))
    for layer in range(layers):
        inside = member == layer
        if inside.any():
            order = values[inside].argsort()
            sums = weight[inside][order].cumsum()
            out[layer] = values[inside][order][np.searchsorted(sums, sums[-1] / 2)]
        elif layer:
            out[layer] = out[layer - 1]
    return out


def _cheapest(cost: np.ndarray, change: np.ndarray) -> tuple[float, np.ndarray]:
    """The path through the columns of `cost` (states, n) with the least sum (Viterbi, 1967).

    `change` (states, states) is added from a column to the next.
    """
    total, back = cost[:, 0], []
    for column in cost.T[1:]:
        before = total + change
        back.append(before.argmin(1))
        total = before.min(1) + column
    path = [int(total.argmin())]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    return float(total.min()), np.array(path[::-1])


def follow(layers: Layers, velocity: np.ndarray) -> Layers:
    """The same layers where a sharper map (ny, nx) now has them.

    In turn, each column is divided so that its cells are nearest to their layers' velocities, and
    each layer gets its median. Where that leaves a choice, interfaces stay.
    """
    rows, columns = velocity.shape
    speed, depth = layers.velocity.copy(), layers.depth.clip(0, rows)
    places, every = np.arange(rows + 1)[:, None], np.arange(columns)
    for _ in range(_FOLLOWED):
        # (layers, rows + 1, nx) what all cells above a depth cost in a layer.
        above = np.pad(abs(velocity - speed[:, None, None]).cumsum(1), ((0, 0), (1, 0), (0, 0)))
        least, back = above[0], []
        for layer, before in zip(above[1:], depth):
            # Up to each depth, the least of all that end the layer above there or higher.
            total = least - layer + _STAY * abs(places - before)
            lowest = np.minimum.accumulate(total, 0)
            new = np.diff(lowest, axis=0, prepend=np.inf) < 0
            back.append(np.maximum.accumulate(np.where(new, places, 0), 0))
            least = lowest + layer
        path = [np.full(columns, rows)]
        for ends in reversed(back):
            path.append(ends[path[-1], every])
        last, depth = depth, np.stack(path[:0:-1]).astype(float)
        member = (places[:-1, :, None] >= depth.T).sum(2)
        for layer in range(len(speed)):
            if np.count_nonzero(member == layer) > _FEW:
                speed[layer] = np.median(velocity[member == layer])
        if (depth == last).all():
            break
    return Layers(speed, depth)


class Move(NamedTuple):
    """An interface that goes a row up (−1) or down (+1) in a column."""

    interface: int
    column: int
    rows: int


def moves(layers: Layers, rows: int) -> Iterator[Move]:
    """All that keep whole interfaces in order and in the map of so many rows."""
    depth = layers.depth.clip(0, rows)
    depth = np.pad(depth, ((1, 1), (0, 0)), constant_values=((0, rows), (0, 0)))
    for way in (-1, 1):
        to = depth[1:-1] + way
        for i, x in np.argwhere((to >= depth[:-2]) & (to <= depth[2:])).tolist():
            yield Move(i, x, way)


def moved(layers: Layers, rows: int, chosen: list[Move]) -> Layers:
    """With some moves made in a map of so many rows."""
    depth = layers.depth.copy()
    for i, x, way in chosen:
        depth[i, x] = depth[i, x].clip(0, rows) + way
    return Layers(layers.velocity, depth).ordered()
