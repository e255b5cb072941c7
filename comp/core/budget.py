"""What fits into the time: how many (network, view) pairs each row gets.

Pairs come in a fixed order: the plain view of every network, then the further views, network after
network. What has to go goes from the end, so views go before networks. Every record is read once,
for all pairs, so the choice is made before the work: one batch through each pair says what it
costs, and the pairs that would not fit are left out for all rows alike. As it goes, the time that
chunks really took is compared with that; only if the rest would come too late, it gets fewer pairs,
and never less than one.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from comp.core.errors import InputError

Pair = tuple[int, int]  # network, view

_RESERVE = 0.03  # of the time is not planned with
_MEMORY = 0.5  # weight of the chunks before in the measured speed


def ordered_pairs(networks: int, views: int) -> list[Pair]:
    """All pairs, the ones that go last in front; view 0 is the plain one."""
    return [(network, view) for view in range(views) for network in range(networks)]


class Budget:
    """So many hours from now on, or no limit.

    Attributes:
        limited: whether there is a limit.
        clock: seconds, as of `time.monotonic`.
    """

    def __init__(
        self, hours: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if hours is not None and not hours > 0:
            raise InputError(f"--hours: got {hours:g}, expected a positive number")
        self.limited, self.clock = hours is not None, clock
        seconds = 3600 * hours if self.limited else 0.0
        self._ends, self._reserve = clock() + seconds, _RESERVE * seconds

    @property
    def left(self) -> float:
        """Seconds to plan with."""
        return self._ends - self._reserve - self.clock() if self.limited else math.inf

    @property
    def over(self) -> bool:
        """Whether the time is up, the reserve too."""
        return self.limited and self.clock() >= self._ends


def affordable(costs: Sequence[float], rows: int, seconds: float) -> int:
    """How many of the first pairs, at such seconds a row, fit for so many rows; never none."""
    return max(1, int(np.searchsorted(rows * np.cumsum(costs), seconds, side="right")))


class Pace:
    """How many pairs a process's next chunk gets.

    Attributes:
        pairs: the number; it only ever falls.
        rows: rows that are still to be done.
    """

    def __init__(
        self, budget: Budget, pairs: int, rows: int, costs: Sequence[float] | None
    ) -> None:
        """`costs` in seconds a row and pair; None where there is no limit."""
        self.pairs, self.rows = pairs, rows
        self._budget, self._costs = budget, costs
        self._since, self._took, self._expected = None, 0.0, 0.0

    def advance(self, rows: int, pairs: int) -> None:
        """So many rows are done, which had so many pairs."""
        self.rows -= rows
        now, since = self._budget.clock(), self._since
        self._since = now
        if self._costs is None or since is None:  # the first chunk began with starting the loader
            return
        self._took = _MEMORY * self._took + now - since
        self._expected = _MEMORY * self._expected + rows * sum(self._costs[:pairs])
        slower = self._took / max(self._expected, 1e-9)
        costs = [slower * cost for cost in self._costs]
        self.pairs = min(self.pairs, affordable(costs, self.rows, self._budget.left))
