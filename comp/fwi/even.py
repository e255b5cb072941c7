"""Which cells of a map of even layers are to have one velocity, read from a map that is nearly one.

Total variation leaves layers that drift by some m/s, and interfaces whose two rows share wrongly
what lies between: directions that a record hardly tells. What is known of published maps does.
Cells that agree with their neighbours over three rows are a layer's and have its one velocity; the
rows between two layers mix these, where an interface is level all in the same way; at faults cells
are free.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from comp.fwi.sparse import GROUPS

_ALIKE = 6.0  # m/s between neighbouring cells of a piece
_LAYER = 25.0  # m/s, less than which pieces of different layers do not differ
_HIGH, _PIECE = 3, 15  # rows and cells of a piece, at least
_THICK = 4  # rows between two layers, at most, where an interface is level
_MIXED = 2  # rows on each side of a level interface, of which each is alike
_LEVEL, _RUN = 0.35, 4  # cells by which it may rise or fall, over so many columns at least


class _Edge(NamedTuple):
    """What lies between two layers in a column: rows `top` and `bottom` are the layers' own."""

    column: int
    top: int
    bottom: int
    above: int
    below: int
    depth: float


def even_groups(velocity: np.ndarray) -> np.ndarray:
    """Number of the group of alike cells that each cell of a map is in.

    Args:
        velocity: (ny, nx) m/s.

    Returns:
        (ny, nx) int64 below GROUPS; layers from the slowest to the fastest, then rows of level
        interfaces, −1 for cells on and around what cuts them.
    """
    layer, speed = _layers(velocity)
    group, count = layer.copy(), len(speed)
    if not count:
        return group
    cut = np.zeros(layer.shape, bool)
    beside = (layer[:, 1:] != layer[:, :-1]) & (layer[:, 1:] >= 0) & (layer[:, :-1] >= 0)
    cut[:, 1:] |= beside
    cut[:, :-1] |= beside
    level = np.zeros(layer.shape, bool)
    for run in sorted(_runs(_edges(velocity, layer, speed)), key=len, reverse=True):
        upper = round(np.median([edge.depth for edge in run])) - _MIXED
        for number, row in enumerate(range(upper, upper + 2 * _MIXED), count):
            for column, top, bottom, above, below, _ in run:
                if top < row < bottom or layer[row, column] in (above, below):
                    group[row, column], level[row, column] = number, True
        count += 2 * _MIXED
    cut = (cut & ~level) | (group < 0)
    cut |= group >= GROUPS  # the shortest interfaces
    return np.where(binary_dilation(cut, np.ones((3, 3))), -1, group)


def _layers(velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ny, nx) number of each cell's layer, −1 for none, and the layers' velocities, growing."""
    size = velocity.size
    number = np.arange(size).reshape(velocity.shape)
    down = np.abs(np.diff(velocity, axis=0)) <= _ALIKE
    right = np.abs(np.diff(velocity, axis=1)) <= _ALIKE
    first = np.concatenate([number[:-1][down], number[:, :-1][right]])
    second = np.concatenate([number[1:][down], number[:, 1:][right]])
    graph = coo_matrix((np.ones(len(first)), (first, second)), (size, size))
    piece = connected_components(graph, directed=False)[1].reshape(velocity.shape)
    piece = np.where(_height(piece) >= _HIGH, piece, size)
    cells = np.bincount(piece.ravel(), minlength=size + 1)
    large = np.flatnonzero(cells[:-1] >= _PIECE)
    medians = np.array([np.median(velocity[piece == one]) for one in large])
    layer, speed, weight = np.full(size + 1, -1), [], []
    for i in medians.argsort():
        one, median = large[i], medians[i]
        if speed and median - speed[-1] < _LAYER:
            weight[-1] += cells[one]
            speed[-1] += (median - speed[-1]) * cells[one] / weight[-1]
        else:
            speed.append(median)
            weight.append(cells[one])
        layer[one] = len(speed) - 1
    return layer[piece], np.array(speed)


def _height(piece: np.ndarray) -> np.ndarray:
    """(ny, nx) rows of the same piece that follow each other in a column, for each cell of them."""
    up, down = np.ones((2, *piece.shape), int)
    for row in range(1, len(piece)):
        up[row] += np.where(piece[row] == piece[row - 1], up[row - 1], 0)
        down[-1 - row] += np.where(piece[-1 - row] == piece[-row], down[-row], 0)
    return up + down - 1


def _edges(velocity: np.ndarray, layer: np.ndarray, speed: np.ndarray) -> list[_Edge]:
    """Thin steps from layer to layer, column after column; depths by what is mixed between."""
    found = []
    for column, of in enumerate(layer.T):
        known = np.flatnonzero(of >= 0)
        for top, bottom in pairwise(known):
            if of[top] != of[bottom] and bottom - top <= _THICK + 1:
                above, below = speed[of[top]], speed[of[bottom]]
                mixed = (velocity[top + 1 : bottom, column] - above) / (below - above)
                depth = top + 1 + (1 - mixed.clip(0, 1)).sum()
                found.append(_Edge(column, top, bottom, of[top], of[bottom], depth))
    return found


def _runs(edges: list[_Edge]) -> list[list[_Edge]]:
    """Level interfaces: edges between the same layers, column after column about as deep."""
    done, going = [], []
    for edge in edges:
        for run in going:
            last = run[-1]
            same = (last.above, last.below) == (edge.above, edge.below)
            level = abs(np.median([one.depth for one in run]) - edge.depth) < _LEVEL
            if same and level and last.column == edge.column - 1:
                run.append(edge)
                break
        else:
            going.append([edge])
        ended = [run for run in going if run[-1].column < edge.column - 1]
        going = [run for run in going if run[-1].column >= edge.column - 1]
        done += ended
    return [run for run in done + going if len(run) >= _RUN]
