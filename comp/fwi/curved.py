"""Inversion of a record for layers between bent interfaces.

Published maps of this kind are known but for a few dozen numbers (`comp.fwi.bends`), few enough for
Jacobians by simulation, and for several starts. So, from a network's map or any other,

- what its layers may be, three to nine of them, is read from the map (`comp.fwi.interfaces`);
- Gauss-Newton moves velocities and depths, low frequencies first (Bunks et al., 1995), from the
  readings that explain the record best, fewer of them with each frequency;
- then with whole rows, as published maps have them, which the record tells from smooth interfaces
  at a misfit of a hundredth;
- the rows that are still wrong are moved by binary least squares (`comp.fwi.row_moves`);
- all of it again, read from the map reached, as long as the misfit falls;
- and in turn with total variation, which from so near a start finds what single moves do not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from comp.fwi.bends import Bends
from comp.fwi.interfaces import Layers, follow, readings
from comp.fwi.layered import NEAR, NEAR_DAMPING, LayeredInversion
from comp.fwi.row_moves import RowMoves
from comp.fwi.spectral import Found, SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver

_APART = 5.0  # m/s, in the mean, by which starts must differ


class Pass(NamedTuple):
    """Gauss-Newton from the best few starts.

    Attributes:
        highest: of the frequencies, in peak frequencies of the wavelet.
        starts: that are tried.
        steps: at most.
        share: of the squared misfit that uneven layers are given.
        most: relative L2 misfit, of all frequencies, above which the map has more than bent layers.
    """

    highest: float
    starts: int
    steps: int
    share: float
    most: float = np.inf


# Of 36 maps of bent layers the worst but one were left 0.19, 0.06, 0.034 and 0.034 by these passes,
# of 28 with faults all but six more than is allowed here.
_FIRST = (Pass(0.4, 6, 6, 1.0, 0.25), Pass(2 / 3, 3, 5, 0.3, 0.08), Pass(14 / 15, 2, 5, 0.1, 0.05))
_NEXT = (Pass(2 / 3, 6, 4, 0.1), Pass(14 / 15, 3, 5, 0.1))
_LAST = (Pass(4 / 3, 1, 5, 0.1, 0.04),)
_WHOLE = (Pass(14 / 15, 1, 5, 0.1), Pass(4 / 3, 1, 5, 0.1), Pass(3, 1, 5, 0.1))


@dataclass(frozen=True)
class CurvedInversion:
    """The inversion of one record after the other.

    Attributes:
        survey: of the records.
        solver, dtype, device: of the simulations.
        layers: numbers of layers that are compared.
        turns: from reading a map to moving rows, at most.
        cycles: of total variation and moves of rows after that, at most.
        rounds: of moves in a turn or cycle, at most.
        floor: as in `SpectralFit`.
        level: share of columns in which a bent interface may stay in its row. Of published bent
            ones 1 % have more than 0.77; of level ones cut by faults, whose edges are soft, 1 %
            have less than 0.82. Bent layers that stay longer are looked for …
        alike: … in maps that they explain to so many m/s in the mean: faulted ones, as total
            variation leaves them, are 18 and more away.
        hopeful: relative L2 misfit above which the first turn is the last …
        promising: … and above which any other is.
        falls: a turn or cycle that leaves more than this share of the misfit is the last.
        tolerance: relative L2 misfit at which it ends.
    """

    survey: Survey
    solver: Solver = "sponge"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    layers: range = range(3, 10)
    turns: int = 3
    cycles: int = 2
    rounds: int = 6
    floor: float = 0.05
    level: float = 0.8
    alike: float = 15.0
    hopeful: float = 2.5e-2
    promising: float = 5e-3
    falls: float = 0.9
    tolerance: float = 1e-6

    def __call__(
        self,
        start: np.ndarray,
        record: np.ndarray,
        enough: float = np.inf,
        patient: bool = False,
    ) -> Found | None:
        """The map of layers reached; None where it soon shows that they are not all of the map.

        Args:
            start: (ny, nx) m/s, a network's or what another method left.
            record: (shots, nt, receivers) amplitudes.
            enough: relative L2 misfit above which a turn is the last.
            patient: a turn is not given up halfway for what it leaves.
        """
        read = readings(np.asarray(start, np.float64), self.layers)
        if not self._bent(start, read[0]):
            return None
        fits = self._fits(record)

        def turn(best: Layers) -> tuple[Layers, float]:
            settled = best.map(self.survey.ny)
            return self._turn(fits, readings(settled, self.layers), settled)

        def cycle(best: Layers) -> tuple[Layers, float]:
            sharper = self._total_variation(best.map(self.survey.ny), record)
            return self._moves(fits(_WHOLE[-1].highest), follow(best, sharper))

        if (reached := self._turn(fits, read, None, patient)) is None:
            return None
        best, misfit = reached
        bar = min(self.hopeful, enough)
        for way, most in ((turn, self.turns - 1), (cycle, self.cycles)):
            for _ in range(most):
                if not self.tolerance < misfit < bar:
                    break
                layers, reached = way(best)
                fell = reached < self.falls * misfit
                if reached < misfit:
                    best, misfit = layers, reached
                bar = min(self.promising, enough)
                if not fell:
                    break
        return Found(best.map(self.survey.ny), misfit)

    def _bent(self, velocity: np.ndarray, read: Layers) -> bool:
        """Whether what was read from a map may be all that there is to it."""
        if read.level(self.survey.ny) <= self.level:
            return True
        return bool(np.abs(velocity - read.map(self.survey.ny)).mean() < self.alike)

    def _turn(
        self,
        fits: Callable[[float], SpectralFit],
        read: list[Layers],
        settled: np.ndarray | None,
        patient: bool = True,
    ) -> tuple[Layers, float] | None:
        """From readings to whole rows; the layers and their plain misfit, None if it is given up.

        `settled` is the map they were read from, where its rows are worth following one by one.
        """
        starts = []
        for layers in read:
            bends = Bends(len(layers.velocity), self.survey)
            even = bends.even(layers)
            starts.append((bends, even))
            if settled is not None:
                starts.append((bends, bends.nearest(follow(bends.whole(even), settled))))
        for one in (*(_FIRST if settled is None else _NEXT), *_LAST):
            fit, found, misfits = fits(one.highest), [], []
            for bends, x in self._distinct(fit, starts, one.starts):
                x, squared, misfit = bends.improve(fit, x, one.steps, one.share)
                found.append((squared, bends, x))
                misfits.append(misfit)
            if not patient and min(misfits) > one.most:
                return None
            starts = [start for _, *start in sorted(found, key=lambda costed: costed[0])]
        bends, x = starts[0]
        for one in _WHOLE:
            x, *_ = bends.improve(fits(one.highest), x, one.steps, one.share, whole=True)
        return self._moves(fits(_WHOLE[-1].highest), bends.whole(x))

    def _distinct(
        self, fit: SpectralFit, starts: list[tuple[Bends, np.ndarray]], most: int
    ) -> list[tuple[Bends, np.ndarray]]:
        """The best few starts that differ."""
        maps = np.stack([bends.layers(x).map(self.survey.ny) for bends, x in starts])
        squares = fit.residuals(maps)[0].square().sum(1).cpu().numpy()
        kept: list[int] = []
        for i in squares.argsort():
            same = [j for j in kept if starts[i][0].number == starts[j][0].number]
            if all(np.abs(maps[i] - maps[j]).mean() > _APART for j in same):
                kept.append(int(i))
            if len(kept) == most:
                break
        return [starts[i] for i in kept]

    def _fits(self, record: np.ndarray) -> Callable[[float], SpectralFit]:
        """Highest frequency -> the fit of the record up to it, made once."""
        made: dict[float, SpectralFit] = {}

        def fit(highest: float) -> SpectralFit:
            if highest not in made:
                made[highest] = self._total_variation.fit(highest, record)
            return made[highest]

        return fit

    @cached_property
    def _moves(self) -> RowMoves:
        return RowMoves(self.survey, self.rounds, tolerance=self.tolerance)

    @cached_property
    def _total_variation(self) -> LayeredInversion:
        how = self.survey, self.solver, self.dtype, self.device
        return LayeredInversion(*how, NEAR, self.floor, NEAR_DAMPING, tolerance=self.tolerance)
