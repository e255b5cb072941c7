"""Which of many changes to make, each whole or not at all, so that a residual becomes least.

That is least squares with binary unknowns, which a search settles here: as long as something lowers
the sum of squares, the change, the pair or the run of changes that lowers it most is made or taken
back.
"""

from collections.abc import Iterator, Sequence

import numpy as np

_PAIRED = 150  # changes that do most by themselves are tried in pairs
_WORTH = 1e-4  # of the sum of squares, that a step must lower


def descend(
    products: np.ndarray,
    slopes: np.ndarray,
    squared: float,
    runs: Sequence[np.ndarray],
    exclude: np.ndarray,
    most: int,
) -> Iterator[np.ndarray]:
    """Yields the changes made (n,) bool after each step, as long as one lowers the squares.

    Args:
        products: (n, n) inner products of what the changes add to the residual.
        slopes: (n,) their inner products with the residual.
        squared: sum of squares of the residual.
        runs: numbers of changes that follow each other, for each kind of change that comes in
            runs.
        exclude: (n,) of each change the one that cannot be made beside it, or −1.
        most: steps.
    """
    stretches = [_Stretches(np.asarray(run), products) for run in runs]
    chosen, slopes, size = np.zeros(len(slopes), bool), slopes.copy(), products.diagonal()
    for _ in range(most):
        sign = np.where(chosen, -1.0, 1.0)
        gain = 2 * sign * slopes + size
        barred = ~chosen & (exclude >= 0) & chosen[exclude]
        gain[barred] = np.inf
        best, step = gain.min(), [int(gain.argmin())]
        near = gain.argsort()[:_PAIRED]
        pair = gain[near][:, None] + gain[near]
        pair += 2 * sign[near][:, None] * sign[near] * products[np.ix_(near, near)]
        pair[(near[:, None] == near) | (exclude[near][:, None] == near)] = np.inf
        # Two for the price of one step must do clearly more than the better of them.
        if pair.min() < 1.5 * min(best, 0):
            best, step = pair.min(), list(near[list(np.unravel_index(pair.argmin(), pair.shape))])
        for run in stretches:
            value, changes = run.best(gain[run.run], ~(chosen | barred)[run.run])
            if value < 1.2 * min(best, 0):
                best, step = value, changes
        if best >= -_WORTH * squared:
            return
        for one in step:
            slopes += sign[one] * products[one]
            chosen[one] = ~chosen[one]
        squared += best
        yield chosen.copy()


class _Stretches:
    """All stretches of two or more neighbours in a run of changes."""

    def __init__(self, run: np.ndarray, products: np.ndarray) -> None:
        self.run = run
        # Sums over squares [first, behind)² of the products of different changes, from running sums
        # over both axes.
        other = products[np.ix_(run, run)].copy()
        np.fill_diagonal(other, 0)
        sums = np.pad(other, (1, 0)).cumsum(0).cumsum(1)
        self._first, self._behind = first, behind = np.triu_indices(len(run) + 1, 2)
        diagonal = sums.diagonal()
        self._joint = diagonal[behind] + diagonal[first] - sums[first, behind] - sums[behind, first]

    def best(self, gain: np.ndarray, free: np.ndarray) -> tuple[float, list[int]]:
        """What the best stretch of free changes adds to the squares, and its changes.

        Args:
            gain: (run,) what each change adds alone.
            free: (run,) whether it can be made.
        """
        if not self._first.size:
            return np.inf, []
        first, behind = self._first, self._behind
        line = np.append(0.0, np.where(free, gain, 0).cumsum())
        barred = np.append(0, (~free).cumsum())
        value = line[behind] - line[first] + self._joint
        value[barred[behind] > barred[first]] = np.inf
        best = int(value.argmin())
        return float(value[best]), self.run[first[best] : behind[best]].tolist()
