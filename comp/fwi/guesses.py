"""Other methods than L-BFGS, for the kinds of map that they invert better."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch

from comp.fwi.curved import CurvedInversion
from comp.fwi.faulted import FaultedInversion
from comp.fwi.flat import FlatInversion
from comp.fwi.layered import LayeredInversion
from comp.fwi.router import evenness
from comp.fwi.smooth import SmoothInversion
from comp.fwi.spectral import Found
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver

Newton = Literal["auto", "on", "off"]
# Relative misfit of bent layers that are the map: up to the first nothing else is tried; up to the
# next few rows can be wrong, and L-BFGS could only spoil them. Beyond, they may not be all of it,
# but up to the last they are where free cells should start.
_SURE, _FINAL, _CLOSE = 1e-4, 2e-3, 1e-2
# Where free cells that started elsewhere end above this misfit, bent layers are looked for in what
# they leave, the second limit being for maps where these were soon given up before …
_ENOUGH, _UNBENT = 1e-5, 1e-4
# … and given up unless they get down to this multiple of its misfit at once, or to this misfit.
_HOPEFUL, _NEAR = 20.0, 1e-3
# Above this one nothing has been found, and bent layers are not given up halfway again.
_LOST = 1e-2
# So few unknowns are nearer to the map even where one for each cell fits better by this: of a map
# that neither found, bent layers were 22 m/s off, total variation, which fitted better, 70.
_SIMPLER = 5.0
# Above these misfits layered and smooth Gauss-Newton leave doubt whether a map is of their kind. By
# its own method either ends at 2e-6 to 2e-5, but for faulted layers that are not all found.
_DOUBTFUL = {"layered": 1e-3, "smooth": 2e-5}
# So they do where what was found does not look like their kind. Either left photographs an
# `evenness` of 0.61 and more (24 maps), the smooth one left layers at most 0.56 where it got below
# that misfit; published layers have at most 0.44.
_EVEN = 0.59
# What is of the map's kind is nearer to it even where the other fits better by this.
_ALIKE = 5.0
_ROOM = 1.2  # of its own arrays, for the simulations and what lies between
_CONTEXT = 10**9  # bytes that a process takes of a GPU before it does anything
LINALG_ERRORS = np.linalg.LinAlgError, torch.linalg.LinAlgError


class Guess(NamedTuple):
    """What another method finds.

    Attributes:
        velocity: (ny, nx) m/s.
        misfit: its relative L2 one, NaN where the method does not say.
        final: it is of so few unknowns that fitting the record better would make the map worse.
    """

    velocity: np.ndarray
    misfit: float = math.nan
    final: bool = False


Method = Callable[[np.ndarray, np.ndarray], Guess]


def guesses(
    survey: Survey,
    solver: Solver,
    dtype: torch.dtype,
    device: torch.device | str,
    newton: Newton,
    curved: bool = True,
    beside: int = 1,
) -> dict[str, Method]:
    """Prior -> (start (ny, nx), record) -> guess, for the priors that have such a method.

    Gauss-Newton for layered and smooth maps takes seconds a map on a GPU and many minutes on a CPU:
    `auto` is on where the device is a GPU with the memory for it, for each of so many processes
    `beside` each other. `curved` looks for layers between bent interfaces first, and once more in
    what total variation leaves.
    """
    how = survey, solver, dtype, device
    flat, layered, bent = FlatInversion(*how), LayeredInversion(*how), CurvedInversion(*how)
    faulted, smooth = FaultedInversion(layered), SmoothInversion(layered)

    def bent_layers(*given: np.ndarray | float, patient: bool = False) -> Found | None:
        try:
            return bent(*given, patient=patient) if curved else None
        except LINALG_ERRORS:  # free cells may still do
            return None

    def layers(start: np.ndarray, record: np.ndarray) -> Guess:
        found = bent_layers(start, record)
        if found and found.misfit <= _SURE:
            return Guess(*found, final=True)
        close = found is not None and found.misfit <= _CLOSE
        free = faulted(found.velocity if close else start, record)
        tried = [found]
        if not close and free.misfit > (_ENOUGH if found else _UNBENT):
            enough = max(_HOPEFUL * free.misfit, _NEAR)
            tried.append(bent_layers(free.velocity, record, enough))
        if free.misfit > _LOST:
            tried.append(bent_layers(start, record, patient=True))
        best = min(filter(None, tried), key=lambda one: one.misfit, default=free)
        if best.misfit > _SIMPLER * free.misfit:
            best = free
        return Guess(*best, final=best is not free and best.misfit <= _FINAL)

    def smooth_field(start: np.ndarray, record: np.ndarray) -> Guess:
        return Guess(*smooth(start, record))

    found: dict[str, Method] = {"flat": lambda start, record: Guess(flat(start, record))}
    for kind, method, memory in (
        ("layered", layers, layered.memory),
        ("smooth", smooth_field, smooth.memory),
    ):
        if newton == "on" or (newton == "auto" and _fits(kind, memory, device, beside)):
            found[kind] = method
    if {"layered", "smooth"} <= found.keys():
        found["layered"] = _either("layered", layers, smooth_field)
        found["smooth"] = _either("smooth", smooth_field, layers)
    return found


def _either(kind: str, first: Method, second: Method) -> Method:
    """The second method too where the first, for maps of its kind, leaves doubt."""

    def fitting(guess: Guess) -> bool:
        return (evenness(guess.velocity) > _EVEN) == (kind == "smooth")

    def method(start: np.ndarray, record: np.ndarray) -> Guess:
        found = first(start, record)
        if found.final or (found.misfit <= _DOUBTFUL[kind] and fitting(found)):
            return found
        other = second(start, record)
        best = other if other.misfit < found.misfit else found
        own = found if fitting(best) else other
        return own if own.misfit <= _ALIKE * best.misfit else best

    return method


def _fits(kind: str, memory: int, device: torch.device | str, beside: int) -> bool:
    """Whether Gauss-Newton should run where it is; says so where only memory is lacking."""
    if torch.device(device).type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    if beside > 1:  # the others may not have taken theirs yet
        free = min(free, total // beside - _CONTEXT)
    needed = _ROOM * memory
    if free < needed:
        needs = f"{needed / 1e9:.1f} GB of GPU memory"
        each = f" for each of {beside} processes" if beside > 1 else ""
        found = f"{max(free, 0) / 1e9:.1f} are free{each}"
        print(f"note: Gauss-Newton for {kind} maps takes {needs}, {found}: off")
    return free >= needed
