"""The wave equation: `simulate(velocity, survey, solver)` turns velocity maps into shot records.

`scheme` holds the coefficients of the equations behind the official data, `sponge` runs and
differentiates them on whatever device the maps are on, `pml` solves the same survey with deepwave,
and `reference` is the slow, independent transcription that the tests measure against.
"""

from typing import Literal

import torch

from comp.core.errors import InputError
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave import sponge

Solver = Literal["sponge", "deepwave"]


def simulate(
    velocity: torch.Tensor, survey: Survey = OFFICIAL, solver: Solver = "sponge"
) -> torch.Tensor:
    """Shot records of velocity maps, differentiable once in the velocity.

    A map's record is the same to the last bit whatever shares its batch.

    Args:
        velocity: (n, ny, nx) m/s, float32 or float64, on the CPU or a CUDA device.
        survey: the acquisition.
        solver: "sponge", the scheme that made the official data; "deepwave", another
            discretisation with a perfectly matched layer, faster where its grid is smaller and 0.1
            to 1.6 % off (`benchmarks/solver_agreement.py`).

    Returns:
        (n, shots, nt, receivers) pressure, dtype and device of `velocity`; row k is the field right
        after wavelet sample k was added.

    Raises:
        InputError: wrong shape, dtype or device, NaN, a velocity outside 1000 … 6000 m/s or too
            fast for the time step, a source or receiver outside the map, more maps than fit into
            the GPU's memory.
    """
    if solver == "sponge":
        return sponge.simulate(velocity, survey)
    if solver == "deepwave":
        from comp.fwi.wave import pml  # deepwave takes a second to import

        return pml.simulate(velocity, survey)
    raise InputError(f"solver: got {solver!r}, expected 'sponge' or 'deepwave'")


__all__ = ["Solver", "simulate"]
