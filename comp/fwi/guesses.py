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
Guess = Callable[[np.ndarray, np.ndarray], np.ndarray]


def guesses(
    survey: Survey,
    solver: Solver,
    dtype: torch.dtype,
    device: torch.device | str,
    newton: Newton,
) -> dict[str, Guess]:
    """Prior -> (start (ny, nx), record) -> map (ny, nx), for the priors that have such a method.

    Gauss-Newton for layered maps takes seconds a map on a GPU and an hour on a CPU: `auto` is on
    where the device is a GPU.
    """
    found: dict[str, Guess] = {"flat": FlatInversion(survey, solver, dtype, device)}
    if newton == "on" or (newton == "auto" and torch.device(device).type == "cuda"):
        found["layered"] = LayeredInversion(survey, solver, dtype, device)
    return found
