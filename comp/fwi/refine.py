"""Per-sample waveform inversion: each prediction is fitted to its own record.

The second place of the competition took its leaderboard score from 28.8 to 7.6 m/s by that alone,
without training anything: L-BFGS on `mean((simulate(v) − record)²)` with a prior, started from the
network's map. Here many samples advance in the same simulations, each with an optimiser, a prior
and an end of its own; a sample that has ended makes room for the next one. What another method
finds for a kind of map (`comp.fwi.guesses`) is tried first.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from comp.fwi.guesses import LINALG_ERRORS, Guess, guesses
from comp.fwi.lbfgs import BatchedLBFGS
from comp.fwi.priors import PRIORS
from comp.fwi.refine_settings import Settings
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave import simulate

# A sample ends at another method's map whose misfit is below this: records rounded to float16
# differ from their own map by 2e-4 to 5e-4, and going on would fit the rounding.
_FOUND = 1e-3
_SMALLEST = 1e-12  # penalty, in place of zero where it divides


class Sample(NamedTuple):
    """What is inverted.

    Attributes:
        row: names the sample to the caller.
        start: (ny, nx) predicted velocity, m/s.
        record: (shots, nt, receivers) observed amplitudes.
        prior: a name of `PRIORS`.
    """

    row: int
    start: np.ndarray
    record: np.ndarray
    prior: str


class Refined(NamedTuple):
    """An inverted sample.

    Attributes:
        row, prior: as in its `Sample`.
        velocity: (ny, nx) float32, m/s; the start, brought within the survey's velocities, where
            the misfit did not fall.
        misfit: (evaluations,) float32 relative L2 misfit of the map reached after each evaluation;
            the first is the start's.
        iterations: steps taken.
        stop: "tolerance", "found" (by another method), "stalled", "no descent" or "evaluations".
    """

    row: int
    prior: str
    velocity: np.ndarray
    misfit: np.ndarray
    iterations: int
    stop: str


class Refiner:
    """Inverts a stream of samples, `settings.batch` at a time.

    A sample's result does not depend, to the last bit on a CPU, on what else is in the stream.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        survey: Survey = OFFICIAL,
        device: torch.device | str = "cpu",
        beside: int = 1,
    ) -> None:
        """`beside`: processes that share the device, this one among them."""
        self.settings, self.survey = settings or Settings(), survey
        slots, shape = self.settings.batch, survey.map_shape
        self._dtype = getattr(torch, self.settings.precision)
        self._samples: list[Sample | None] = [None] * slots
        self._record = torch.zeros(slots, *survey.record_shape, dtype=self._dtype, device=device)
        self._start = torch.zeros(slots, *shape, dtype=torch.float64, device=device)
        # Relative misfit of the map reached after each evaluation; stale from column `_spent` on.
        self._curve = torch.zeros(slots, self.settings.evaluations, dtype=torch.float64)
        self._spent = torch.zeros(slots, dtype=torch.int64)
        self._weight = torch.zeros(slots, dtype=torch.float64, device=device)
        # What they find is tried once the start has been evaluated; it may be the end.
        self._guess: list[Guess | None] = [None] * slots
        how = survey, self.settings.solver, self._dtype, device
        self._guesses = guesses(*how, self.settings.newton, self.settings.curved, beside)
        self._optimizer = BatchedLBFGS(
            slots,
            shape[0] * shape[1],
            survey.min_velocity,
            survey.max_velocity,
            self.settings.search,
            self._metric,
            device,
        )

    def refine(self, samples: Iterable[Sample]) -> Iterator[list[Refined]]:
        """Invert `samples`; yields the samples that ended, after each evaluation of all in work.

        `samples` is read from as slots become free, so it may read files as it goes.
        """
        queue = iter(samples)
        while True:
            self._fill(queue)
            busy = [i for i, sample in enumerate(self._samples) if sample is not None]
            if not busy:
                return
            self._advance(torch.tensor(busy))
            ended = {i: stop for i in busy if (stop := self._stop(i))}
            results = [self._result(i, stop) for i, stop in ended.items()]
            for i in ended:
                self._samples[i] = None
            yield results

    @property
    def misfits(self) -> np.ndarray:
        """Relative misfits of the samples last worked on, as far as any have been."""
        last = self._curve.gather(1, (self._spent - 1).clamp(min=0)[:, None])[:, 0]
        return last[self._spent > 0].numpy()

    def _fill(self, queue: Iterator[Sample]) -> None:
        """Put the next samples into the free slots, at most one that another method tries first.

        Else all of them would be tried before any could end.
        """
        for i, occupant in enumerate(self._samples):
            if occupant is None and (sample := next(queue, None)) is not None:
                self._samples[i] = sample
                start = self.survey.clip(sample.start.astype(np.float64))
                self._start[i] = torch.from_numpy(start)
                self._record[i] = torch.from_numpy(np.array(sample.record, np.float64))
                self._spent[i] = 0
                self._optimizer.start(torch.tensor([i]), self._start[i].reshape(1, -1))
                if sample.prior in self._guesses:
                    return

    def _advance(self, slots: torch.Tensor) -> None:
        """One evaluation of each of `slots`."""
        velocity = self._maps(self._optimizer.points(slots))
        squared, gradient = self._misfit(velocity, self._record[slots])
        penalty, slope = self._penalty(slots, velocity)
        begun = self._spent[slots] == 0
        first = self._share(slots) * squared / penalty.clamp(min=_SMALLEST)
        weight = torch.where(begun.to(squared.device), first, self._weight[slots])
        self._weight[slots] = weight
        gradient += weight[:, None, None] * slope
        taken = self._optimizer.tell(slots, squared + weight * penalty, gradient.flatten(1)).cpu()
        spent = self._spent[slots]
        before = self._curve[slots, (spent - 1).clamp(min=0)]
        self._curve[slots, spent] = torch.where(taken, squared.sqrt().cpu(), before)
        self._spent[slots] += 1
        self._reweight(slots[self._spent[slots] % self.settings.reweight == 0])
        self._try_guesses(slots[begun])

    def _try_guesses(self, slots: torch.Tensor) -> None:
        """Have the maps that other methods find tried next, where there is one for the kind."""
        for i in slots.tolist():
            sample = self._samples[i]
            self._guess[i] = None
            if method := self._guesses.get(sample.prior):
                try:
                    guess = method(sample.start, sample.record)
                except LINALG_ERRORS as error:  # one sample must not cost the others their time
                    print(f"note: row {sample.row}: no guess for {sample.prior} maps: {error}")
                    continue
                self._guess[i] = guess
                found = torch.from_numpy(guess.velocity).reshape(1, -1)
                self._optimizer.propose(torch.tensor([i]), found)

    def _reweight(self, slots: torch.Tensor) -> None:
        """Lower the penalty's weight to its share of the present misfit."""
        if not len(slots):
            return
        old, x = self._weight[slots], self._maps(self._optimizer.x[slots])
        penalty, slope = self._penalty(slots, x)
        squared = self._optimizer.value[slots] - old * penalty
        new = self._share(slots) * squared / penalty.clamp(min=_SMALLEST)
        self._weight[slots] = new = torch.minimum(old, new.clamp(min=0))
        change = (new - old)[:, None, None] * slope
        gradient = self._optimizer.gradient[slots] + change.flatten(1)
        self._optimizer.revalue(slots, squared + new * penalty, gradient)

    def _penalty(
        self, slots: torch.Tensor, velocity: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The priors' penalties (k,) and gradients (k, ny, nx) at `velocity` of `slots`."""
        value, gradient = velocity.new_zeros(len(velocity)), torch.zeros_like(velocity)
        for name, places in self._kinds(slots):
            value[places], gradient[places] = PRIORS[name].penalty(velocity[places])
        return value, gradient

    def _share(self, slots: torch.Tensor) -> torch.Tensor:
        """(k,) the penalty's share of the squared misfit."""
        shares = [PRIORS[self._samples[i].prior].share for i in slots.tolist()]
        return torch.tensor(shares, dtype=torch.float64, device=self._weight.device)

    def _misfit(
        self, velocity: torch.Tensor, record: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared relative misfit (k,) of trusted rows and its gradient (k, ny, nx), float64."""
        rows = self.survey.trusted_rows
        velocity = velocity.to(self._dtype).requires_grad_()
        modelled = simulate(velocity, self.survey, self.settings.solver)
        observed = record[:, :, :rows]
        squared = energy(modelled[:, :, :rows] - observed) / energy(observed)
        (gradient,) = torch.autograd.grad(squared.sum(), velocity)
        return squared.detach(), gradient.double()

    def _metric(self, vectors: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """The priors' metrics, for the optimiser."""
        vectors, velocity = self._maps(vectors), self._maps(self._optimizer.x[slots])
        out = torch.empty_like(vectors)
        for name, places in self._kinds(slots):
            out[places] = PRIORS[name].metric(vectors[places], velocity[places])
        return out.flatten(1)

    def _kinds(self, slots: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Each prior among `slots` with its places in them."""
        names = [self._samples[i].prior for i in slots.tolist()]
        for name in sorted(set(names)):
            yield name, torch.tensor([i for i, other in enumerate(names) if other == name])

    def _maps(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.view(-1, *self.survey.map_shape)

    def _stop(self, i: int) -> str:
        """Why slot `i` is done; "" if it is not."""
        settings, spent = self.settings, int(self._spent[i])
        curve = self._curve[i, :spent]
        if curve[-1] <= settings.tolerance:
            return "tolerance"
        guess = self._guess[i] if spent == 2 else None
        if guess and (curve[-1] < _FOUND or (guess.final and curve[-1] < curve[0])):
            return "found"
        if self._optimizer.failed[i]:
            return "no descent"
        if spent >= settings.evaluations:
            return "evaluations"
        past = spent - 1 - settings.patience
        if past >= 0 and curve[-1] > (1 - settings.stall) * curve[past]:
            return "stalled"
        return ""

    def _result(self, i: int, stop: str) -> Refined:
        curve = self._curve[i, : self._spent[i]].numpy().astype(np.float32)
        fell = curve[-1] < curve[0]
        velocity = self._optimizer.x[i] if fell else self._start[i]
        velocity = velocity.reshape(self.survey.map_shape).float().cpu().numpy()
        sample, iterations = self._samples[i], int(self._optimizer.iterations[i])
        return Refined(sample.row, sample.prior, velocity, curve, iterations, stop)


def energy(records: torch.Tensor) -> torch.Tensor:
    """(k,) float64 sums of squares of records (k, shots, nt, receivers).

    Axis by axis: a sum over all of a single record would be split among threads, and so would not
    be that of the same record in a batch.
    """
    return records.double().square().sum(3).sum(2).sum(1)
