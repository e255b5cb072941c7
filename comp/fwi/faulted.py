"""Inversion of a record for even layers, whatever cuts them.

Total variation alone leaves layers that drift and interfaces whose rows share wrongly what lies
between. So it takes turns with what published maps look like: of the map that it leaves the nearest
one of even layers and level interfaces (`comp.fwi.facets`) is where it starts again.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from comp.fwi.facets import facets
from comp.fwi.layered import NEAR, NEAR_DAMPING, LayeredInversion, Stage
from comp.fwi.spectral import Found

_EVEN = (Stage(3, 8, 0.5, 5.0),)  # from even layers
_FALLS = 0.9  # of a misfit, that starting again must leave at most


@dataclass(frozen=True)
class FaultedInversion:
    """The inversion of one record after the other.

    Attributes:
        layered: total variation, from afar.
        tries: of it again from where it ended, while that is …
        poor: … a relative L2 misfit above this, and the misfit falls.
        turns: with even layers, at most …
        alike: … where these are so many m/s from the map or less, in the mean; else it is not of
            even layers.
        enough: relative L2 misfit at which it ends.
        worse: of two maps the later one is better, being more even, while its misfit is no more
            than this multiple of the least.
    """

    layered: LayeredInversion
    tries: int = 2
    poor: float = 1e-4
    turns: int = 2
    alike: float = 15.0
    enough: float = 1e-5
    worse: float = 2.0

    def __call__(self, start: np.ndarray, record: np.ndarray) -> Found:
        """The map reached from a start (ny, nx) in m/s and a record (shots, nt, receivers)."""
        fit = self.layered.fit(max(stage.highest for stage in _EVEN), record)

        def found(velocity: np.ndarray) -> Found:
            return Found(velocity, float(fit.residuals(velocity[None])[1][0]))

        best = found(self.layered(start, record))
        for _ in range(self.tries):
            if best.misfit <= self.poor:
                break
            again = found(self._again(best.velocity, record))
            fell = again.misfit < _FALLS * best.misfit
            best = min(best, again, key=lambda one: one.misfit)
            if not fell:
                break
        tried = [best]
        for _ in range(self.turns):
            if tried[-1].misfit <= self.enough:
                break
            even = facets(tried[-1].velocity)
            if np.abs(even - tried[-1].velocity).mean() > self.alike:
                break
            tried.append(found(self._from_even(even, record)))
        least = min(one.misfit for one in tried)
        return next(one for one in reversed(tried) if one.misfit <= self.worse * least)

    @cached_property
    def _again(self) -> LayeredInversion:
        return replace(self.layered, stages=NEAR, damping=NEAR_DAMPING)

    @cached_property
    def _from_even(self) -> LayeredInversion:
        return replace(self.layered, stages=_EVEN, damping=NEAR_DAMPING)
