"""Where to cut: one pass over sorted probabilities that finds the threshold with the largest gain.

Lowering a threshold lets labels in one by one, each with a gain to the metric known from the counts
so far. Their running sum is the metric at every threshold, so its maximum is found in one pass.

`best_cut` sees every distinct value. `Histogram` is for a threshold shared by up to 120 million
values: it sums gains by float32 bits with 16 bits of precision, so that thresholds less than 1.5e-5
of their value apart are not told apart; nothing else is approximate.
"""

from typing import NamedTuple

import numpy as np

from comp.image.ranking import as_bits

_DROPPED_BITS = 8
FORCED = np.float32(1.5)  # stands for a probability that every threshold lets in
_ONE, _TOP = (int(bits) >> _DROPPED_BITS for bits in as_bits(np.array([1, FORCED])))


class Cut(NamedTuple):
    """A threshold and the gain of all above it over choosing none but the forced."""

    threshold: float
    gain: float


def best_cut(values: np.ndarray, gains: np.ndarray) -> Cut:
    """The best threshold for values that are let in from the largest down.

    Args:
        values: (m,) float32, 0 to 1, descending. Zeros cannot be let in.
        gains: (m,) float64 gain of letting each in after those before it; only sums over equal
            values need be right.

    Returns:
        Half-way to the next value, since what lies between was seen to make no difference; 1 where
        letting none in is best. Of equally good thresholds the highest.
    """
    end = np.append(values[1:] != values[:-1], True) if len(values) else np.zeros(0, bool)
    sums = np.cumsum(gains)[end]
    steps = values[end]
    return _choose(steps, steps, sums)


def _choose(lower: np.ndarray, upper: np.ndarray, sums: np.ndarray) -> Cut:
    """The best of m steps (from `upper` down to `lower`, descending) by the gain after each."""
    sums = sums[lower > 0]
    if not len(sums):
        return Cut(1.0, 0.0)
    best = int(sums.argmax())
    # Running sums of equal gains differ in the last digits; that is no reason to let more in.
    best = int(np.argmax(sums >= sums[best] - 1e-12 * max(1.0, abs(sums[best]))))
    if sums[best] <= 1e-12:
        return Cut(1.0, 0.0)
    below = upper[best + 1] if best + 1 < len(upper) else np.float32(0)
    middle = np.float32((np.float64(lower[best]) + np.float64(below)) / 2)
    return Cut(float(min(middle, np.nextafter(lower[best], np.float32(0)))), float(sums[best]))


class Histogram:
    """Gains by probability, summed over any number of values in any order."""

    def __init__(self) -> None:
        self._gains = np.zeros(_TOP + 1)

    def add(self, values: np.ndarray, gains: np.ndarray | float = 1.0) -> None:
        """Add values of any shape, 0 to 1 or FORCED, with a gain each, or the same for all."""
        bins = (as_bits(values) >> _DROPPED_BITS).astype(np.intp)
        np.add.at(self._gains, bins.ravel(), np.ravel(gains) if np.ndim(gains) else gains)

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Bins from the largest down in which something was gained or lost, and their gains.

        What is FORCED and the bin of zero are left out: no threshold changes them.
        """
        bins = np.flatnonzero(self._gains[1 : _ONE + 1])[::-1] + 1
        return bins, self._gains[bins]

    def at(self, bins: np.ndarray) -> np.ndarray:
        """What was gained in each of `bins`."""
        return self._gains[bins]

    @property
    def forced(self) -> float:
        """What was gained by the forced values."""
        return float(self._gains[_TOP])


def best_bin_cut(bins: np.ndarray, sums: np.ndarray) -> Cut:
    """As `best_cut`, for bins of `Histogram.steps` and the gain after letting in each."""
    lower, upper = (
        (edge.astype(np.uint32) << _DROPPED_BITS).view(np.float32) for edge in (bins, bins + 1)
    )
    return _choose(lower, np.nextafter(upper, np.float32(0)), sums)
