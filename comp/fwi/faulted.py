"""Inversion of a record for even layers, whatever cuts them.

Total variation alone leaves layers that drift and interfaces whose rows share wrongly what lies
between, by little enough that neighbours hardly differ. So in a few more steps cells are drawn less
to their neighbours than to the middle of all that are to be like them (`comp.fwi.even`), as
strongly as a record's last digits allow.

Pieces that stand wrongly may hold each other up. A map that is stuck like that is blurred and taken
as a start: its edges may form anew, and what was right elsewhere is soon found again.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi.even import even_groups
from comp.fwi.layered import NEAR, NEAR_DAMPING, LayeredInversion, Stage
from comp.fwi.spectral import Found, SpectralFit

_EVEN = Stage(3, 8, 0.5, 5.0, slowness=True)
# Of being uneven, as a weighted squared misfit: at first a hundred times what float32 leaves of it.
_PRICE, _DECLINE = 3e-9, 0.5
_FALLS = 0.9  # of a misfit, that starting again must leave at most


@dataclass(frozen=True)
class FaultedInversion:
    """The inversion of one record after the other.

    Attributes:
        layered: total variation, from afar.
        tries: of it again from where it ended, while that is …
        poor: … a relative L2 misfit above this, and the misfit falls.
        blur: cells, σ of the Gaussian by which a map is blurred that ends with a misfit above
            `poor`, to start once more from there …
        lost: … unless the misfit is above this.
        worse: of two maps the later one is better, being more even, while its misfit is no more
            than this multiple of the least.
    """

    layered: LayeredInversion
    tries: int = 4
    poor: float = 3e-5
    blur: float = 2.0
    lost: float = 1e-2
    worse: float = 2.0

    def __call__(self, start: np.ndarray, record: np.ndarray) -> Found:
        """The map reached from a start (ny, nx) in m/s and a record (shots, nt, receivers)."""
        found = self._find(start, record)
        if self.poor < found.misfit <= self.lost:
            again = self._find(gaussian_filter(found.velocity, self.blur), record)
            found = min(found, again, key=lambda one: one.misfit)
        return found

    def _find(self, start: np.ndarray, record: np.ndarray) -> Found:
        """What total variation and evening find from a start."""
        fit = self.layered.fit(_EVEN.highest, record)

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
        tried = [best, *self._evened(fit, best.velocity)]
        least = min(one.misfit for one in tried)
        return next(one for one in reversed(tried) if one.misfit <= self.worse * least)

    def _evened(self, fit: SpectralFit, start: np.ndarray) -> list[Found]:
        """Maps after each step towards even layers."""
        price, damping, tried = _PRICE, NEAR_DAMPING, []
        state = fit.state(torch.from_numpy(start).to(self.layered.device))
        while len(tried) < _EVEN.steps and state.misfit > self.layered.tolerance:
            group = torch.from_numpy(even_groups(state.velocity.cpu().numpy()))
            group = group.to(state.velocity.device)
            cost = max(price, _EVEN.share * float(state.squared))
            after, damping = self.layered.step(fit, _EVEN, state, cost, damping, group)
            if after is state:
                break
            state, price = after, _DECLINE * price
            tried.append(Found(state.velocity.cpu().numpy(), state.misfit))
        return tried

    @cached_property
    def _again(self) -> LayeredInversion:
        return replace(self.layered, stages=NEAR, damping=NEAR_DAMPING)
