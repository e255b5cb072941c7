"""L-BFGS on many bounded problems side by side, each with a state and a line search of its own.

The caller evaluates: `points` says where, `tell` takes the values and gradients found there. One
call to `tell` moves every problem by one evaluation, whether it takes a step with it or only
shortens its line search, so that evaluations can be made in one batch. No problem sees another:
its path does not depend, to the last bit on a CPU, on what shares the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

# A step is taken when the value has fallen by this share of what the slope promised (Armijo) …
DECREASE = 1e-4
# … and the slope along the direction is no steeper than this share of the first (Wolfe).
FLATTER = 0.9
# A pair whose curvature is below this share of the step's length times the gradient's is left out.
CURVATURE = 1e-10


@dataclass(frozen=True)
class Search:
    """How the problems are solved.

    Attributes:
        memory: pairs of steps and gradient changes that are kept.
        first_step: largest change of an unknown in the first trial step, in its unit.
        evaluations: of one line search, at most.
    """

    memory: int = 20
    first_step: float = 20.0
    evaluations: int = 6


class BatchedLBFGS:
    """L-BFGS (Nocedal and Wright, *Numerical Optimization*, 2006, ch. 7) with bounds.

    Unknowns at a bound whose gradient points outward are held (Bertsekas' projected Newton, 1982);
    a trial point is cut off at the bounds. A step of 1 is tried first and usually taken, so an
    iteration costs about one evaluation; otherwise cubic interpolation, or extrapolation while the
    value falls as steeply as at first.

    Attributes:
        x: (slots, size) float64, the best point of each problem so far.
        value: (slots,) float64 there.
        gradient: (slots, size) float64 there.
        iterations: (slots,) int64, steps taken.
        failed: (slots,) bool: two line searches on end found no lower value, the second down the
            gradient and in smaller steps.
    """

    def __init__(
        self,
        slots: int,
        size: int,
        lower: float,
        upper: float,
        search: Search | None = None,
        precondition: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`precondition(vectors (k, size), slots (k,))` applies the first inverse Hessian.

        It must be symmetric and positive; None is the identity.
        """
        self.lower, self.upper = lower, upper
        self.search = search or Search()
        self._precondition = precondition or (lambda vectors, _: vectors)

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        self.x, self.value, self.gradient = zeros(size), zeros(), zeros(size)
        self.iterations, self.failed = zeros(dtype=torch.int64), zeros(dtype=torch.bool)
        self._fresh = zeros(dtype=torch.bool)  # waits for the value at its start
        self._proposed = zeros(dtype=torch.bool)  # waits for the value at a point from outside
        self._direction, self._slope, self._step = zeros(size), zeros(), zeros()
        self._tried = zeros(dtype=torch.int64)
        self._stuck = zeros(dtype=torch.bool)  # the last line search found nothing
        # The ends of the line search's bracket, as (step, value, slope); the far one may not exist.
        self._near, self._far = zeros(3), zeros(3)
        memory = self.search.memory
        self._s, self._y, self._rho = zeros(memory, size), zeros(memory, size), zeros(memory)
        self._pairs = zeros(dtype=torch.int64)  # stored so far; the newest is at (pairs − 1) % m

    def start(self, slots: torch.Tensor, x: torch.Tensor) -> None:
        """Put new problems into `slots` (k,), starting at `x` (k, size)."""
        slots = slots.to(self.x.device)
        self.x[slots] = x.to(self.x).clamp(self.lower, self.upper)
        self._fresh[slots] = True
        self._proposed[slots] = self.failed[slots] = self._stuck[slots] = False
        self.iterations[slots] = 0
        self.forget(slots)

    def revalue(self, slots: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> None:
        """The functions of `slots` (k,) have changed a little: their values and gradients at `x`.

        The pairs are kept, and a new line search begins.
        """
        slots = slots.to(self.x.device)
        self.value[slots], self.gradient[slots] = value.to(self.value), gradient.to(self.x)
        self.failed[slots] = False
        self._aim(slots)

    def propose(self, slots: torch.Tensor, x: torch.Tensor) -> None:
        """Have `x` (k, size) evaluated next; it is taken if its value is lower, else forgotten."""
        slots = slots.to(self.x.device)
        self._direction[slots] = self._cut(x.to(self.x)) - self.x[slots]
        self._step[slots] = 1.0
        self._proposed[slots] = True

    def forget(self, slots: torch.Tensor) -> None:
        """Drop the pairs of `slots`: the next direction is down the gradient."""
        self._pairs[slots] = 0
        self._rho[slots] = 0

    def points(self, slots: torch.Tensor) -> torch.Tensor:
        """(k, size) where the functions of `slots` (k,) are to be evaluated next."""
        slots = slots.to(self.x.device)
        moved = self.x[slots] + self._step[slots, None] * self._direction[slots]
        return torch.where(self._fresh[slots, None], self.x[slots], self._cut(moved))

    def tell(
        self, slots: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Take the values (k,) and gradients (k, size) at `points(slots)` and move on.

        Returns:
            (k,) bool: the point has become `x`.
        """
        slots = slots.to(self.x.device)
        value, gradient = value.to(self.value), gradient.to(self.x)
        point, fresh = self.points(slots), self._fresh[slots]
        moved = point - self.x[slots]
        promised = _dot(self.gradient[slots], moved)
        slope = _dot(gradient, self._direction[slots])
        tried = self._tried[slots] + 1
        fell = (value <= self.value[slots] + DECREASE * promised) & (promised < 0)
        flat = slope >= FLATTER * self._slope[slots]
        last = tried >= self.search.evaluations
        proposed = self._proposed[slots]
        better = proposed & (value < self.value[slots])
        taken = fresh | better | (fell & (flat | last) & ~proposed)
        short = fell & ~taken & ~proposed  # could go further
        here = torch.stack([self._step[slots], value, slope], 1)
        near = torch.where(short[:, None], here, self._near[slots])
        far = torch.where((~fell & ~fresh)[:, None], here, self._far[slots])
        self._near[slots], self._far[slots], self._tried[slots] = near, far, tried
        self._step[slots] = _next_step(near, far)

        self.forget(slots[better])
        stuck = ~taken & ~short & last & ~proposed
        self.failed[slots[stuck & self._stuck[slots]]] = True
        self._stuck[slots] = torch.where(taken, False, self._stuck[slots] | stuck)
        self.forget(slots[stuck])
        step = taken & ~fresh & ~proposed
        self._remember(slots[step], moved[step], (gradient - self.gradient[slots])[step])
        self.iterations[slots[step]] += 1
        self.x[slots[taken]], self.value[slots[taken]] = point[taken], value[taken]
        self.gradient[slots[taken]] = gradient[taken]
        self._fresh[slots] = self._proposed[slots] = False
        self._aim(slots[taken | stuck | proposed])
        return taken

    def _remember(self, slots: torch.Tensor, s: torch.Tensor, y: torch.Tensor) -> None:
        """Store pairs of positive curvature."""
        curvature = _dot(s, y)
        good = curvature > CURVATURE * (_dot(s, s) * _dot(y, y)).sqrt()
        slots, place = slots[good], (self._pairs[slots] % self.search.memory)[good]
        self._s[slots, place], self._y[slots, place] = s[good], y[good]
        self._rho[slots, place] = 1 / curvature[good]
        self._pairs[slots] += 1

    def _aim(self, slots: torch.Tensor) -> None:
        """A new direction from `x` for each of `slots`, and a line search along it."""
        if not len(slots):
            return
        x, gradient = self.x[slots], self.gradient[slots]
        held = ((x <= self.lower) & (gradient > 0)) | ((x >= self.upper) & (gradient < 0))
        downhill = torch.where(held, 0, -gradient)
        direction = torch.where(held, 0, self._two_loops(slots, downhill))
        first = self._pairs[slots] == 0
        largest = direction.abs().amax(1).clamp(min=torch.finfo(torch.float64).tiny)
        self._direction[slots] = direction
        self._slope[slots] = slope = _dot(gradient, direction)
        reach = torch.where(self._stuck[slots], 1e-2, 1.0) * self.search.first_step
        self._step[slots] = torch.where(first, reach / largest, 1.0)
        self._tried[slots] = 0
        zero = torch.zeros_like(slope)
        self._near[slots] = torch.stack([zero, self.value[slots], slope], 1)
        self._far[slots] = torch.stack([zero + torch.inf, zero, zero], 1)
        self.failed[slots] |= slope >= 0

    def _two_loops(self, slots: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """The inverse Hessian's estimate times `vector` (k, size)."""
        memory, pairs = self.search.memory, self._pairs[slots]
        order = [(pairs - 1 - i) % memory for i in range(memory)]  # from the newest to the oldest
        weights = []
        for place in order:
            rho = self._rho[slots, place]  # 0 where there is no pair
            weight = rho * _dot(self._s[slots, place], vector)
            vector = vector - weight[:, None] * self._y[slots, place]
            weights.append(weight)
        newest = self._y[slots, order[0]]
        both = self._precondition(torch.cat([vector, newest]), torch.cat([slots, slots]))
        vector, scaled = both[: len(slots)], both[len(slots) :]
        curvature = self._rho[slots, order[0]] * _dot(newest, scaled)
        vector = vector / torch.where(curvature > 0, curvature, 1)[:, None]
        for place, weight in zip(reversed(order), reversed(weights)):
            back = self._rho[slots, place] * _dot(self._y[slots, place], vector)
            vector = vector + (weight - back)[:, None] * self._s[slots, place]
        return vector

    def _cut(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(self.lower, self.upper)


def _next_step(near: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
    """(k,) the next trial step from brackets (k, 3) of step, value and slope.

    Between the two ends the minimum of the cubic through both, kept off the ends; while there is
    no far end, three times as far.
    """
    a, fa, da = near.unbind(1)
    b, fb, db = far.unbind(1)
    width = b - a
    mean = da + db - 3 * (fb - fa) / width
    root = (mean**2 - da * db).clamp(min=0).sqrt()
    share = (root - da - mean) / (db - da + 2 * root)
    share = torch.where(share.isfinite(), share, 0.5).clamp(0.1, 0.9)
    return torch.where(b.isinf(), 3 * a, a + share * width)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(k,) dot products of rows; each sum is made alike whatever k is."""
    return (a * b).sum(1)
