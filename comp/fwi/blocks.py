"""Divisions of the depths into blocks of one velocity, by what a `Slope` predicts for them.

In u the misfit is close to a quadratic over hundreds of m/s. There, a division's best velocities
and misfit cost microseconds instead of a simulation, and thousands of divisions can be compared:
best-subset regression (Hastie et al., The Elements of Statistical Learning, section 3.3) of the
record on the rows at which a block ends.
"""

from itertools import combinations, product

import numpy as np

from comp.fwi.flat_fit import Slope, solve, to_u, to_velocity

_PAIR = (-2, -1, 0, 1, 2)  # rows by which two neighbouring ends are moved together
_LESS = 1 - 1e-9  # a squared misfit must fall by this factor, beyond rounding

# The first rows of all blocks but the first, ascending.
Ends = tuple[int, ...]


class Blocks:
    """Predicted misfits of all divisions.

    Sums over blocks are differences of running sums, which are taken once.
    """

    def __init__(self, slope: Slope) -> None:
        u = to_u(slope.state.profile)
        right = slope.downhill + slope.hessian @ u
        self._rows = len(u)
        self._constant = slope.state.misfit**2 + (slope.downhill + right) @ u
        self._hessian = np.pad(slope.hessian.cumsum(0).cumsum(1), (1, 0))
        self._right, self._u = (np.pad(values.cumsum(), (1, 0)) for values in (right, u))

    def profile(self, ends: Ends) -> np.ndarray:
        """(ny,) best velocities for a division, m/s, the same within a block."""
        u, _ = self._fit(np.array([ends], int))
        return to_velocity(u[0])[members(ends, self._rows)]

    def misfit(self, divisions: np.ndarray) -> np.ndarray:
        """(k,) predicted squared misfits of divisions, the rows of (k, ends)."""
        return self._fit(divisions)[1]

    def best(self, most: int, worth: float, count: int, near: Ends = ()) -> list[Ends]:
        """The `count` divisions with the least misfit·worth^ends of all that were compared.

        For each number of blocks, up to `most`, the best division of one block less gets an end
        more, and ends are moved as long as that lowers the misfit; then back from `most`, leaving
        out one after the other, and from `near`.
        """
        known: dict[Ends, float] = {}
        division = self._least(np.empty((1, 0), int), known)
        for _ in range(min(most, self._rows) - 1):
            division = self._descend(_with_one_more(division, self._rows), known)
        while len(division) > 1:
            division = self._descend(_with_one_less(division), known)
        if near:
            self._descend(np.array([near]), known)
        return sorted(known, key=lambda ends: known[ends] * worth ** (2 * len(ends)))[:count]

    def _fit(self, divisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best u (k, blocks) and predicted squared misfits (k,)."""
        ends = _bounded(divisions, self._rows)
        sums = self._hessian[ends[:, :, None], ends[:, None, :]]
        hessian = np.diff(np.diff(sums, axis=1), axis=2)
        right = np.diff(self._right[ends])
        mean = np.diff(self._u[ends]) / np.diff(ends)
        u = mean + solve(hessian, right - _times(hessian, mean))
        squared = self._constant - (u * (2 * right - _times(hessian, u))).sum(1)
        return u, squared.clip(min=0)

    def _descend(self, divisions: np.ndarray, known: dict[Ends, float]) -> np.ndarray:
        """(ends,) the best of `divisions`, its ends moved to where none lowers the misfit more."""
        best = self._least(divisions, known)
        while len(best):
            moved = self._least(_neighbours(best, self._rows), known)
            if known[_key(moved)] >= known[_key(best)] * _LESS:
                break
            best = moved
        return best

    def _least(self, divisions: np.ndarray, known: dict[Ends, float]) -> np.ndarray:
        """The best of `divisions`; the misfits of all are noted in `known`."""
        squared = self.misfit(divisions)
        known.update(zip(map(_key, divisions), squared.tolist()))
        return divisions[squared.argmin()]


def ends_of(profile: np.ndarray) -> Ends:
    """The rows of a profile (ny,) at which the velocity changes."""
    return tuple((np.flatnonzero(np.diff(profile)) + 1).tolist())


def members(ends: Ends, rows: int) -> np.ndarray:
    """(rows,) the number of the block that a row is in."""
    return np.searchsorted(ends, np.arange(rows), side="right")


def _key(division: np.ndarray) -> Ends:
    return tuple(division.tolist())


def _bounded(divisions: np.ndarray, rows: int) -> np.ndarray:
    """Divisions with the first row before their ends and the last row's next after them."""
    return np.pad(divisions, ((0, 0), (1, 1)), constant_values=((0, 0), (0, rows)))


def _with_one_more(division: np.ndarray, rows: int) -> np.ndarray:
    """All divisions that have one end more."""
    new = np.setdiff1d(np.arange(1, rows), division)
    old = np.repeat(division[None], len(new), 0)
    return np.sort(np.concatenate([old, new[:, None]], 1), 1)


def _with_one_less(division: np.ndarray) -> np.ndarray:
    """All divisions that have one end less."""
    return np.array(list(combinations(division.tolist(), len(division) - 1)), int)


def _neighbours(division: np.ndarray, rows: int) -> np.ndarray:
    """Divisions with one end moved anywhere, itself included, or two ends next to one another."""
    moved = [_with_one_more(one_less, rows) for one_less in _with_one_less(division)]
    for i in range(len(division) - 1):
        pairs = np.repeat(division[None], len(_PAIR) ** 2, 0)
        pairs[:, i : i + 2] += list(product(_PAIR, _PAIR))
        moved.append(pairs)
    divisions = np.concatenate(moved)
    return divisions[(np.diff(_bounded(divisions, rows)) > 0).all(1)]


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(k, n) products of matrices (k, n, n) and vectors (k, n)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]
