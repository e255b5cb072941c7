"""Other methods than L-BFGS, for the kinds of map that they invert better."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from comp.fwi.flat import FlatInversion
from comp.fwi.layered import LayeredInversion
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver

Newton = Literal["auto", "on", "off"]
_ROOM = 1.2  # of its own arrays, for the simulations and what lies between
Guess = Callable[[np.ndarray, np.ndarray], np.ndarray]


def guesses(
    survey: Survey,
    solver: Solver,
    dtype: torch.dtype,
    device: torch.device | str,
    newton: Newton,
) -> dict[str, Guess]:
    """Prior -> (start (ny, nx), record) -> map (ny, nx), for the priors that have such a method.

    Gauss-Newton for layered maps takes seconds a map on a GPU and half an hour on a CPU: `auto` is
    on where the device is a GPU with the memory for it.
    """
    found: dict[str, Guess] = {"flat": FlatInversion(survey, solver, dtype, device)}
    layered = LayeredInversion(survey, solver, dtype, device)
    if newton == "on" or (newton == "auto" and _fits(layered)):
        found["layered"] = layered
    return found


def _fits(layered: LayeredInversion) -> bool:
    """Whether it should run where it is; says so where only memory is lacking."""
    if torch.device(layered.device).type != "cuda":
        return False
    free = torch.cuda.mem_get_info(layered.device)[0]
    if free < _ROOM * layered.memory:
        needs = f"{_ROOM * layered.memory / 1e9:.1f} GB of GPU memory"
        print(f"note: Gauss-Newton for layered maps takes {needs}, {free / 1e9:.1f} are free: off")
    return free >= _ROOM * layered.memory
