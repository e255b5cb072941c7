"""Interfaces moved by whole rows until a record is explained.

A map of whole rows is not reached by small steps. Each interface is tried a row up and down in each
column; what these simulations change in the record is taken as additive, so that the best set of
moves is a least-squares problem with binary unknowns (`comp.fwi.flips`). Its best few answers are
simulated, and all starts again from the best of them.
"""

from dataclasses import dataclass

import numpy as np
import torch

from comp.fwi.flips import descend
from comp.fwi.interfaces import VELOCITY_LIMIT, Layers, Move, draw, inward, moved, moves
from comp.fwi.spectral import SpectralFit
from comp.fwi.survey import Survey

_GAIN = 0.9  # of the squared misfit, that a round must leave at most for another one


@dataclass(frozen=True)
class RowMoves:
    """Moves of whole rows, and velocities with them.

    Attributes:
        survey: of the records.
        rounds: at most.
        steps: moves, pairs and runs of moves in a round, at most.
        tolerance: relative L2 misfit at which it ends.
    """

    survey: Survey
    rounds: int = 6
    steps: int = 80
    tolerance: float = 1e-6

    def __call__(self, fit: SpectralFit, layers: Layers) -> tuple[Layers, float]:
        """The layers reached from some with whole rows, and their plain relative misfit."""
        residuals, misfits = fit.residuals(self._maps([layers]))
        residual, misfit = residuals[0], float(misfits[0])
        for _ in range(self.rounds):
            if misfit <= self.tolerance:
                break
            possible = list(moves(layers, self.survey.ny))
            step = inward(layers.velocity, self.survey.max_velocity)
            other = [Layers(speed, layers.depth) for speed in layers.velocity + np.diag(step)]
            near = np.concatenate([self._each(layers, possible), self._maps(other)])
            effects = fit.residuals(near)[0] - residual
            slopes = effects[len(possible) :] / torch.from_numpy(step).to(effects)[:, None]
            trials = self._trials(layers, possible, effects[: len(possible)], slopes, residual)
            residuals, misfits = fit.residuals(self._maps(trials))
            squares = residuals.square().sum(1)
            best = int(squares.argmin())
            gained = squares[best] < _GAIN * residual.square().sum()
            if squares[best] < residual.square().sum():
                layers, residual, misfit = trials[best], residuals[best], float(misfits[best])
            if not gained:
                break
        return layers, misfit

    def _maps(self, layers: list[Layers]) -> np.ndarray:
        """(k, ny, nx) of as many layers each, within the survey's velocities."""
        velocity, depth = (np.stack(part) for part in zip(*layers))
        return self.survey.clip(draw(velocity, depth, self.survey.ny))

    def _each(self, layers: Layers, possible: list[Move]) -> np.ndarray:
        """(moves, ny, nx) the map after each move alone, of which one column differs."""
        columns = np.array([move.column for move in possible], int)
        interfaces = np.array([move.interface for move in possible], int)
        every = np.arange(len(possible))
        depth = layers.depth[:, columns]
        rows = np.array([move.rows for move in possible])
        depth[interfaces, every] = depth[interfaces, every].clip(0, self.survey.ny) + rows
        changed = Layers(layers.velocity, depth).ordered().map(self.survey.ny)
        out = np.repeat(self._maps([layers]), len(possible), 0)
        out[every, :, columns] = self.survey.clip(changed).T
        return out

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
        squared = float(rest @ rest)
        found = descend(products, along, squared, _runs(possible), np.array(against), self.steps)
        trials = []
        for chosen in (np.zeros(len(possible), bool), *found):
            left = residual + effects[torch.from_numpy(chosen).to(effects.device)].sum(0)
            change = -(inverse @ left).cpu().numpy().clip(-VELOCITY_LIMIT, VELOCITY_LIMIT)
            made = [possible[i] for i in np.flatnonzero(chosen)]
            depth = moved(layers, self.survey.ny, made).depth
            velocity = self.survey.clip(layers.velocity + change)
            trials += [Layers(velocity, depth), Layers(np.rint(velocity), depth)]
        return trials


def _runs(possible: list[Move]) -> list[np.ndarray]:
    """The numbers of moves of one interface in one way, column after column without a gap."""
    runs, last = [], None
    for number, move in enumerate(possible):
        if last is None or move != last._replace(column=last.column + 1):
            runs.append([])
        runs[-1].append(number)
        last = move
    return [np.array(run) for run in runs]
