"""Which prior a sample gets, from its record and its predicted map alone."""

import numpy as np

from comp.fwi.survey import Survey

# The share of a record in which traces are compared: later, the sponge's echoes from the sides come
# in, which differ from shot to shot over level layers too.
EARLY = 0.6
# `sideways_change` is at most 0.0014 over the level maps of both FlatVel families, and at least
# 0.005 over faulted ones.
FLAT_BELOW = 0.003
# Photographs have their change of velocity everywhere, layers and blocks in a few cells, however
# blurred a prediction is: of 24 generated maps of a family, blurred by 1.5 to 3 cells, all
# photographs have an `evenness` above 0.78, and two layered ones at most, but eight of CurveFault_B
# and five of CurveVel_B. Blurred beyond that, layers become as even, but many change less sideways.
# Gauss-Newton for smooth maps finds out soon where it should not have been; the layered one takes
# ten times as long for that.
SMOOTH_EVENNESS = 0.78
SMOOTH_CHANGE = 0.1


def route(record: np.ndarray, start: np.ndarray, survey: Survey) -> str:
    """A name of `comp.fwi.priors.PRIORS` for a sample.

    Args:
        record: (shots, nt, receivers).
        start: (ny, nx) predicted velocity, m/s.
        survey: of the record.
    """
    change = sideways_change(record, survey)
    if change < FLAT_BELOW:
        return "flat"
    even = evenness(start) > SMOOTH_EVENNESS and change > SMOOTH_CHANGE
    return "smooth" if even else "layered"


def sideways_change(record: np.ndarray, survey: Survey) -> float:
    """Relative L2 difference of traces with the same offset but different shots.

    Over level layers nothing tells them apart in the early part of a record. Infinite where the
    receivers do not stand at every column or no two traces share an offset.
    """
    if survey.receiver_columns != tuple(range(survey.nx)):
        return np.inf
    columns, early = survey.source_columns, int(EARLY * survey.nt)
    apart = together = 0.0
    for i, first in enumerate(columns):
        for j, second in enumerate(columns[i + 1 :], i + 1):
            shift = second - first
            left = record[i, :early, : survey.receivers - shift].astype(np.float64)
            right = record[j, :early, shift:].astype(np.float64)
            apart += 2 * ((left - right) ** 2).sum()
            together += (left**2).sum() + (right**2).sum()
    return float(np.sqrt(apart / together)) if together else np.inf


def evenness(velocity: np.ndarray) -> float:
    """How evenly the change of velocity is spread over a map: 1 everywhere, near 0 in few cells.

    The mean of the gradient's length over its root mean square; 1 for a constant map.
    """
    velocity = velocity.astype(np.float64)
    length = np.hypot(np.diff(velocity, axis=0)[:, :-1], np.diff(velocity, axis=1)[:-1])
    spread = np.sqrt((length**2).mean())
    return float(length.mean() / spread) if spread else 1.0
