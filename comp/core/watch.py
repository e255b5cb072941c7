"""Watches the loss without making the device wait: a step's values are read one step later."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from comp.core.errors import InputError
from comp.core.feed import to_host


class NonFiniteLoss(InputError):
    """The loss or the gradient is no longer a number."""


@dataclass
class Seen:
    """What was read of one step.

    Attributes:
        step: the step's number; −1 before anything was read.
        values: loss terms and `grad_norm`; loss and norm are means over the processes.
        signum: the signal that any process received, or 0.
        broken_processes: (processes,) bool, where loss or gradient is not finite.
    """

    step: int = -1
    values: dict[str, float] = field(default_factory=dict)
    signum: int = 0
    broken_processes: np.ndarray = field(default_factory=lambda: np.zeros(1, bool))

    @property
    def broken(self) -> bool:
        """Whether the loss or the gradient of any process is not finite."""
        return bool(self.broken_processes.any())


def describe_break(seen: Seen, ids: np.ndarray, accumulate: int) -> str:
    """What broke in a step, in one line.

    Args:
        seen: the broken step.
        ids: (batch_size,) str, the samples of that step in the order of its slots.
        accumulate: micro-batches per step and process.
    """
    slots = ids.reshape(accumulate, len(seen.broken_processes), -1)
    if not seen.broken_processes.all():  # some processes are sound: name the others' samples
        slots = slots[:, seen.broken_processes]
    return (
        f"step {seen.step}: loss {seen.values['loss']:g}, gradient norm "
        f"{seen.values['grad_norm']:g}, expected finite numbers; samples {', '.join(slots.ravel())}"
    )


class LossWatch:
    """Keeps the last steps' values until they are read.

    Args:
        gather: concatenates a tensor over the processes, as `Accelerator.gather` does.
        strict: watch the gradient too. Not under fp16, where an infinite gradient is routine and
            the loss scaler skips that step.
    """

    def __init__(self, gather: Callable[[torch.Tensor], torch.Tensor], strict: bool = True) -> None:
        self._gather, self._strict = gather, strict
        self._pending: list[tuple[int, tuple[str, ...], Callable[[], np.ndarray]]] = []
        self._seen = Seen()

    def push(
        self, step: int, terms: dict[str, torch.Tensor], norm: torch.Tensor, signum: int
    ) -> None:
        """Take in a step's loss terms, gradient norm and the signal received so far (0: none)."""
        loss = terms["loss"]
        row = torch.stack([loss, norm.to(loss), loss.new_full((), signum)])
        own = torch.stack([term.to(loss) for term in terms.values()])
        found = to_host(torch.cat([self._gather(row[None]).flatten(), own]))
        self._pending.append((step, tuple(terms), found))

    def read(self, everything: bool) -> Seen:
        """Read all steps but the newest, or all; stops at the first broken one and returns it."""
        while len(self._pending) > (0 if everything else 1) and not self._seen.broken:
            step, names, found = self._pending.pop(0)
            numbers = found()
            table = numbers[: -len(names)].reshape(-1, 3)
            values = {name: float(x) for name, x in zip(names, numbers[-len(names) :])}
            values |= {"loss": float(table[:, 0].mean()), "grad_norm": float(table[:, 1].mean())}
            finite = np.isfinite(table[:, : 2 if self._strict else 1]).all(1)
            self._seen = Seen(step, values, int(table[:, 2].max()), ~finite)
        return self._seen
