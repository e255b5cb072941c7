"""Velocity-map generators, one for each of the ten OpenFWI families.

The families are described in OpenFWI (arXiv 2111.02926), whose generator was never released. The
numbers used here were read off published maps; `benchmarks/velocity_statistics.py` measures how
close the generated maps come to them.
"""

import difflib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from comp.core.errors import InputError
from comp.fwi.velocity_faults import block_faulted, stack_faulted
from comp.fwi.velocity_layers import layered
from comp.fwi.velocity_style import styled

_DRAW: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "FlatVel_A": partial(layered, curved=False, shuffled=False),
    "FlatVel_B": partial(layered, curved=False, shuffled=True),
    "CurveVel_A": partial(layered, curved=True, shuffled=False),
    "CurveVel_B": partial(layered, curved=True, shuffled=True),
    # What lies half of the way shows in 27 % of 250 published maps, and with this chance of these.
    "FlatFault_A": partial(block_faulted, curved=False, halfway=0.43),
    "FlatFault_B": partial(stack_faulted, curved=False),
    "CurveFault_A": partial(block_faulted, curved=True),
    "CurveFault_B": partial(stack_faulted, curved=True),
    "Style_A": partial(styled, smooth=True),
    "Style_B": partial(styled, smooth=False),
}
FAMILIES: tuple[str, ...] = tuple(_DRAW)


def generate(family: str, count: int, seed: int | Sequence[int]) -> np.ndarray:
    """Draw velocity maps of one family.

    Args:
        family: one of FAMILIES.
        count: maps to draw, all in one batch (up to 0.4 MB of memory each while drawing).
        seed: the same family, count and seed give the same maps; a sequence of ints names one of
            many independent streams, such as (seed, shard).

    Returns:
        (count, ny, nx) float32, m/s within the survey's range, depth × distance. Vel and Fault B
        maps hold whole numbers.

    Raises:
        InputError: unknown family, naming the nearest known one; count below 1.
    """
    if family not in _DRAW:
        nearest = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0)[0]
        raise InputError(f"family {family!r}: unknown, the nearest known one is {nearest!r}")
    if count < 1:
        raise InputError(f"count {count}: expected at least 1 map")
    # The family is part of the seed: no two families share their draws.
    entropy = (*np.ravel(seed).tolist(), FAMILIES.index(family))
    return _DRAW[family](np.random.default_rng(entropy), count)
