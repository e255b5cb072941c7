"""Layers between interfaces that are bent alike, as few unknowns: what CurveVel maps are made of.

Each interface of a published map is the quadratic spline through depths at some columns
(`comp.fwi.velocity_layers.CURVE_KNOTS`), rounded to whole rows, and each layer at each of these
columns ny / (layers − 1) thick, give or take a cell. So 8 depths of an interface say where it is in
70 columns.
"""

import numpy as np
import torch

from comp.fwi.interfaces import VELOCITY_LIMIT, VELOCITY_STEP, Layers, draw, inward
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.velocity_layers import curve_knots, spline_weights

_VELOCITY, _DEPTH = 50.0, 1.0  # m/s and cells: what unknowns are measured in
_LIMIT = VELOCITY_LIMIT, 3.0  # m/s and cells, a step at most
_DIFFERENCE = VELOCITY_STEP, 0.2  # m/s and cells, of the Jacobian
_UNEVEN = 0.7  # cells, by which a layer's thickness at a knot may differ from the common one
_DAMPING = (0.03, 0.2, 1.0, 5.0, 30.0, 200.0)  # times the last one, tried together
_LEAST = 1e-6  # damping: knots that move no cell leave the Hessian singular
_PARTS = (1.0, 0.3)  # of a step, tried together where rows are whole
_GAIN = 0.995  # a step that gains less is not taken, and ends it
_OUTSIDE = 0.02  # weight of a depth outside the map
_OFF = 0.5  # cells beyond which a row counts less: it may be wrong rather than rounded
_ROUNDED = 0.3  # cells, RMS of rounding to whole rows
_REWEIGHTED = 8  # times


class Bends:
    """Maps of a number of layers. Unknowns are in one vector (layers + (layers − 1) · knots,).

    First come velocities in m/s, then depths at the knots of interface after interface, in cells.
    """

    def __init__(self, layers: int, survey: Survey) -> None:
        self.number, self.survey = layers, survey
        self.thickness = survey.ny / (layers - 1)
        self._weights = spline_weights(curve_knots(survey.nx), survey.nx)
        knots, size = len(self._weights), layers + (layers - 1) * len(self._weights)
        depths = np.eye(size)[layers:].reshape(layers - 1, knots, size)
        self._uneven = np.diff(depths, axis=0).reshape(-1, size) / _UNEVEN
        of = np.repeat([0, 1], [layers, size - layers])
        self._unit, self._limit, self._difference = (
            np.array(pair)[of] for pair in ((_VELOCITY, _DEPTH), _LIMIT, _DIFFERENCE)
        )

    def layers(self, unknowns: np.ndarray) -> Layers:
        """The layers that unknowns stand for; velocities within the survey's."""
        velocity, depth = self._parts(unknowns[None])
        return Layers(velocity[0], depth[0])

    def whole(self, unknowns: np.ndarray) -> Layers:
        """The same with interfaces between rows."""
        velocity, depth = self.layers(unknowns)
        return Layers(velocity, np.rint(depth))

    def even(self, layers: Layers) -> np.ndarray:
        """Unknowns of layers whose interfaces are all bent as the first one of `layers`."""
        depth, knots = layers.depth[0], len(self._weights)
        weight = self._inside(depth)
        smooth = 0.05 * np.diff(np.eye(knots), axis=0)  # for knots that lie outside
        first = _robust(self._weights.T, depth, weight, smooth, np.zeros(knots - 1))
        below = self.thickness * np.arange(self.number - 1)[:, None]
        return np.concatenate([layers.velocity, (first + below).ravel()])

    def nearest(self, layers: Layers) -> np.ndarray:
        """Unknowns of the layers that are nearest to `layers`, upper interfaces above all."""
        depth, n = layers.depth, self.number - 1
        certain = np.exp(-np.arange(n) / 3)[:, None] * self._inside(depth) / _ROUNDED
        design = np.kron(np.eye(n), self._weights.T)
        uneven = self._uneven[:, self.number :]
        even = np.full(len(uneven), self.thickness / _UNEVEN)
        knots = _robust(design, depth.ravel(), certain.ravel(), uneven, even)
        return np.concatenate([layers.velocity, knots])

    def improve(
        self, fit: SpectralFit, unknowns: np.ndarray, steps: int, share: float, whole: bool = False
    ) -> tuple[np.ndarray, float, float]:
        """Gauss-Newton, its damping chosen by simulation.

        Args:
            fit: of the record.
            unknowns: to start from.
            steps: at most.
            share: of the squared misfit that uneven layers are given.
            whole: judge maps of whole rows; derivatives are those of smooth ones.

        Returns:
            unknowns, their weighted squared misfit and their plain relative one.
        """
        parts = _PARTS if whole else (1.0,)
        x, damping, n, unit = unknowns.copy(), 1e-2, self.number, self._unit
        residual, misfit = (found[0] for found in fit.residuals(self._maps([x], whole)))
        for _ in range(steps):
            # Back from where the survey's velocities end, and with steps that stay inside.
            x[:n] = self.layers(x).velocity
            step = self._difference.copy()
            step[:n] = inward(x[:n], self.survey.max_velocity)
            near = fit.residuals(self._maps([x, *(x + np.diag(step))]))[0]
            jacobian = (near[1:] - near[0]) * torch.from_numpy(unit / step).to(near)[:, None]
            squared, uneven = float(residual @ residual), self._uneven * unit
            price = share * squared / max(len(uneven), 1)
            hessian = (jacobian @ jacobian.T).cpu().numpy()
            scale = np.diag(hessian.diagonal() + 1e-6 * hessian.diagonal().max())
            hessian += price * uneven.T @ uneven
            downhill = -(jacobian @ residual).cpu().numpy() - price * uneven.T @ self._excess(x)
            trials = []
            for factor in _DAMPING:
                change = np.linalg.solve(hessian + damping * factor * scale, downhill)
                limit = self._limit / unit
                trials += [x + unit * (part * change).clip(-limit, limit) for part in parts]
            residuals, misfits = fit.residuals(self._maps(trials, whole))
            squares = residuals.square().sum(1).cpu().numpy()
            values = squares + [price * np.square(self._excess(trial)).sum() for trial in trials]
            best = int(values.argmin())
            if values[best] >= _GAIN * (squared + price * np.square(self._excess(x)).sum()):
                break
            damping = max(damping * _DAMPING[best // len(parts)], _LEAST)
            x, residual, misfit = trials[best], residuals[best], misfits[best]
        return x, float(residual @ residual), float(misfit)

    def _parts(self, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Velocities (k, layers) and depths (k, layers − 1, nx) of many unknowns (k, size)."""
        velocity, depth = np.split(unknowns, [self.number], axis=1)
        velocity = self.survey.clip(velocity)
        depth = depth.reshape(len(depth), self.number - 1, -1) @ self._weights
        return velocity, np.maximum.accumulate(depth, 1)  # no interface above the one before it

    def _maps(self, unknowns: list[np.ndarray], whole: bool = False) -> np.ndarray:
        """(k, ny, nx) m/s."""
        velocity, depth = self._parts(np.stack(unknowns))
        return draw(velocity, np.rint(depth) if whole else depth, self.survey.ny)

    def _excess(self, unknowns: np.ndarray) -> np.ndarray:
        """By how much layers are thicker at knots than they should be, in `_UNEVEN` cells."""
        return self._uneven @ unknowns - self.thickness / _UNEVEN

    def _inside(self, depth: np.ndarray) -> np.ndarray:
        return np.where((depth > 0) & (depth < self.survey.ny), 1.0, _OUTSIDE)


def _robust(
    design: np.ndarray, depth: np.ndarray, weight: np.ndarray, prior: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Knots k for which design k is near depth, and prior k near mean.

    By least squares, reweighted so that rows far off count less.
    """
    near = weight
    for _ in range(_REWEIGHTED):
        rows, values = np.vstack([design * near[:, None], prior]), np.append(depth * near, mean)
        knots = np.linalg.lstsq(rows, values, rcond=None)[0]
        near = weight / np.maximum(np.abs(design @ knots - depth), _OFF)
    return knots
