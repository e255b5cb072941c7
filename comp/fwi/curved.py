"""Inversion of a record for layers between bent interfaces.

Where total variation ends (`comp.fwi.layered`), upper layers are right and deep ones too blurred to
be: 15 Hz do not resolve thousands of free cells under strong layers. Layers and interfaces are
hundreds of unknowns instead, few enough for Jacobians by simulation. So

- how many layers there are, and where about, is read from that map (`comp.fwi.interfaces`);
- Gauss-Newton moves velocities, and interfaces by smooth shifts, low frequencies first (Bunks et
  al., 1995);
- whole rows are settled by trying each interface a row up and down in each column, and making those
  moves which together explain most of what is left (`comp.fwi.flips`);
- in turn with total variation again, which from so near a start finds what single moves do not.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import BSpline

from comp.fwi.flips import descend
from comp.fwi.interfaces import Layers, Move, follow, moved, moves, read
from comp.fwi.layered import LayeredInversion, Stage
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey
from comp.fwi.wave import Solver

_VELOCITY, _DEPTH = 50.0, 1.0  # m/s and cells: what unknowns are measured in
_LIMIT = 300.0, 4.0  # m/s and cells, a step at most
_DIFFERENCE = 4.0, 0.2  # m/s and cells, of the Jacobian
_DAMPING = (0.03, 0.2, 1.0, 5.0, 30.0, 200.0)  # times the last one, tried together
_GAIN = 0.995  # a step that gains less is not taken, and ends it
_ALIKE = 2.0  # cells by which neighbouring interfaces shift apart
_SHARE = 0.02  # of the squared misfit that such shifts may cost
_NEAR = (Stage(3, 8, 2.0, 10.0),)  # total variation from a near start


@dataclass(frozen=True)
class CurvedInversion:
    """The inversion of one record after the other.

    Attributes:
        survey: of the records.
        solver, dtype, device: of the simulations.
        layers: numbers of layers that are compared.
        highest: of each stage's frequencies, in peak frequencies of the wavelet; 3 at most.
        steps: of Gauss-Newton in a stage, at most.
        cycles: of total variation and moves of whole rows, at most.
        rounds: of moves in a cycle, at most.
        flips: moves, pairs and runs of moves in a round, at most.
        spacing: columns from one knot of a shift to the next.
        floor: as in `SpectralFit`.
        level: share of columns in which a bent interface may stay in its row. Of published bent
            ones 1 % have more than 0.77; of level ones cut by faults, whose edges are soft, 1 %
            have less than 0.82.
        enough: relative L2 misfit below which total variation is left alone.
        hopeful: layers are followed up to this multiple of the start's misfit …
        simpler: … and taken up to this one: so few unknowns cannot fit as well.
        tolerance: relative L2 misfit at which it ends.
    """

    survey: Survey
    solver: Solver = "sponge"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    layers: range = range(3, 10)
    highest: tuple[float, ...] = (14 / 15, 4 / 3, 3)
    steps: int = 6
    cycles: int = 4
    rounds: int = 3
    flips: int = 80
    spacing: int = 10
    floor: float = 0.05
    level: float = 0.8
    enough: float = 5e-5
    hopeful: float = 30.0
    simpler: float = 5.0
    tolerance: float = 1e-6

    def __call__(self, start: np.ndarray, record: np.ndarray) -> tuple[np.ndarray, float] | None:
        """The map (ny, nx) of layers and its relative misfit; None where the start is better.

        Args:
            start: (ny, nx) m/s, as total variation leaves it.
            record: (shots, nt, receivers) amplitudes.
        """
        fits = [self._near.fit(highest, record) for highest in self.highest]
        free = np.asarray(start, np.float64)
        bar = float(fits[-1].residuals(free[None])[1][0])
        if bar <= self.enough:
            return None
        layers = read(free, self.layers)
        if layers.level(self.survey.ny) > self.level:
            return None
        best, least = self._settle(fits, layers)
        if least > self.hopeful * bar:
            return None
        layers = best
        for _ in range(self.cycles):
            if least <= self.tolerance:
                break
            sharper = self._near(self._maps([layers])[0], record)
            layers, misfit = self._move(fits[-1], follow(layers, sharper))
            if misfit < least:
                best, least = layers, misfit
        return (self._maps([best])[0], least) if least <= self.simpler * bar else None

    def _settle(self, fits: list[SpectralFit], layers: Layers) -> tuple[Layers, float]:
        """From what was read to whole rows; the layers and their plain misfit."""
        # A row wrong under the receivers weighs more than all deep layers.
        layers, _ = self._move(fits[0], layers)
        for fit in fits:
            layers = self._bend(fit, layers)
        return self._move(fits[-1], Layers(layers.velocity, np.rint(layers.depth)))

    def _bend(self, fit: SpectralFit, layers: Layers) -> Layers:
        """After steps of Gauss-Newton, their damping chosen by simulation."""
        shape = len(layers.depth), len(self._splines)
        unknowns = np.repeat([0, 1], [len(layers.velocity), np.prod(shape)])
        unit, limit, step = (
            np.array(of)[unknowns] for of in ((_VELOCITY, _DEPTH), _LIMIT, _DIFFERENCE)
        )
        # By how much a knot of an interface shifts more than that of the one above.
        knots = np.eye(len(unit))[unknowns == 1].reshape(*shape, -1)
        apart = np.diff(knots, axis=0).reshape(-1, len(unit)) * unit / _ALIKE

        def at(x: np.ndarray) -> Layers:
            speed, shift = (unit * x)[unknowns == 0], (unit * x)[unknowns == 1].reshape(shape)
            velocity = self._clip(layers.velocity + speed)
            return Layers(velocity, layers.depth + shift @ self._splines).ordered()

        x, damping = np.zeros(len(unit)), 1e-2
        residual = fit.residuals(self._maps([layers]))[0][0]
        for _ in range(self.steps):
            # Back from where the survey's velocities end, and with steps that stay inside.
            velocity = at(x).velocity
            x[unknowns == 0] = (velocity - layers.velocity) / _VELOCITY
            step[unknowns == 0] = self._inward(velocity)
            near = self._maps([at(x + row) for row in np.diag(step / unit)])
            jacobian = fit.residuals(near)[0] - residual
            jacobian *= torch.from_numpy(unit / step).to(jacobian)[:, None]
            squared = float(residual @ residual)
            price = _SHARE * squared / max(len(apart), 1)
            hessian = (jacobian @ jacobian.T).cpu().numpy()
            scale = np.diag(hessian.diagonal() + 1e-6 * hessian.diagonal().max())
            hessian += price * apart.T @ apart
            downhill = -(jacobian @ residual).cpu().numpy() - price * apart.T @ (apart @ x)
            trials = [
                x
                + np.linalg.solve(hessian + damping * factor * scale, downhill).clip(
                    -limit / unit, limit / unit
                )
                for factor in _DAMPING
            ]
            residuals, _ = fit.residuals(self._maps([at(trial) for trial in trials]))
            squares = residuals.square().sum(1).tolist()
            values = [s + price * np.square(apart @ t).sum() for s, t in zip(squares, trials)]
            best = int(np.argmin(values))
            if values[best] >= _GAIN * (squared + price * np.square(apart @ x).sum()):
                break
            x, residual, damping = trials[best], residuals[best], damping * _DAMPING[best]
        return at(x)

    def _move(self, fit: SpectralFit, layers: Layers) -> tuple[Layers, float]:
        """Whole rows moved, velocities with them; the layers and their plain misfit."""
        rows = self.survey.ny
        residuals, misfits = fit.residuals(self._maps([layers]))
        residual, misfit = residuals[0], float(misfits[0])
        for _ in range(self.rounds):
            if misfit <= self.tolerance:
                break
            possible = list(moves(layers, rows))
            near = [moved(layers, rows, [move]) for move in possible]
            step = self._inward(layers.velocity)
            near += [Layers(other, layers.depth) for other in layers.velocity + np.diag(step)]
            effects = fit.residuals(self._maps(near))[0] - residual
            slopes = effects[len(possible) :] / torch.from_numpy(step).to(effects)[:, None]
            trials = self._trials(layers, possible, effects[: len(possible)], slopes, residual)
            residuals, misfits = fit.residuals(self._maps(trials))
            squares = residuals.square().sum(1)
            best = int(squares.argmin())
            if squares[best] >= (1 - 1e-6) * residual.square().sum():
                break
            layers, residual, misfit = trials[best], residuals[best], float(misfits[best])
        return layers, misfit

    def _trials(
        self,
        layers: Layers,
        possible: list[Move],
        effects: torch.Tensor,
        slopes: torch.Tensor,
        residual: torch.Tensor,
    ) -> list[Layers]:
        """What promises most: more and more moves, with velocities free and in whole m/s.

        Args:
            layers: as they are.
            possible: moves.
            effects: (moves, n) what each adds to the residual.
            slopes: (layers, n) what 1 m/s adds to it.
            residual: (n,).
        """
        # Velocities adapt to whatever moves: only what they cannot explain counts.
        inverse = torch.linalg.pinv(slopes.T)
        free, rest = effects - effects @ inverse.T @ slopes, residual - inverse @ residual @ slopes
        products, along = (free @ free.T).cpu().numpy(), (free @ rest).cpu().numpy()
        number = {move: i for i, move in enumerate(possible)}
        against = [number.get(move._replace(rows=-move.rows), -1) for move in possible]
        runs, squared = _runs(possible), float(rest @ rest)
        found = descend(products, along, squared, runs, np.array(against), self.flips)
        trials = []
        for chosen in (np.zeros(len(possible), bool), *found):
            left = residual + effects[torch.from_numpy(chosen).to(effects.device)].sum(0)
            change = -(inverse @ left).cpu().numpy().clip(-_LIMIT[0], _LIMIT[0])
            made = [possible[i] for i in np.flatnonzero(chosen)]
            depth = moved(layers, self.survey.ny, made).depth
            velocity = self._clip(layers.velocity + change)
            trials += [Layers(velocity, depth), Layers(np.rint(velocity), depth)]
        return trials

    @cached_property
    def _splines(self) -> np.ndarray:
        """(knots, nx) cubic B-splines that a shift of an interface is made of."""
        last = self.survey.nx - 1
        inner = np.linspace(0, last, max(1, round(last / self.spacing)) + 1)
        columns = np.arange(self.survey.nx)
        return BSpline.design_matrix(columns, np.pad(inner, 3, mode="edge"), 3).toarray().T

    @cached_property
    def _near(self) -> LayeredInversion:
        how = self.survey, self.solver, self.dtype, self.device
        return LayeredInversion(*how, _NEAR, self.floor, damping=1e-2, tolerance=self.tolerance)

    def _maps(self, layers: list[Layers]) -> np.ndarray:
        """(k, ny, nx) within the survey's velocities."""
        return self._clip(np.stack([one.map(self.survey.ny) for one in layers]))

    def _inward(self, velocity: np.ndarray) -> np.ndarray:
        """(layers,) m/s, a step of each velocity that the survey's do not cut off."""
        up = velocity + _DIFFERENCE[0] <= self.survey.max_velocity
        return np.where(up, _DIFFERENCE[0], -_DIFFERENCE[0])

    def _clip(self, velocity: np.ndarray) -> np.ndarray:
        return velocity.clip(self.survey.min_velocity, self.survey.max_velocity)


def _runs(possible: list[Move]) -> list[np.ndarray]:
    """The numbers of moves of one interface in one way, column after column without a gap."""
    runs, last = [], None
    for number, move in enumerate(possible):
        if last is None or move != last._replace(column=last.column + 1):
            runs.append([])
        runs[-1].append(number)
        last = move
    return [np.array(run) for run in runs]
