"""Batches through networks and views, whatever the device's memory, and what that costs."""

from collections.abc import Callable, Sequence
from traceback import clear_frames

import torch
from torch import nn

from comp.core.budget import Budget, Pair
from comp.core.errors import InputError
from comp.core.task import Batch, Task

Forward = Callable[[nn.Module, Batch], torch.Tensor]


class Passes:
    """Batches through networks and views; cut smaller where the device's memory does not suffice.

    Attributes:
        views: names of the task's views, the plain one first.
        size: samples that go through a network at once; it only ever falls.
    """

    def __init__(
        self, task: Task, networks: Sequence[nn.Module], views: Sequence[str], forward: Forward
    ) -> None:
        """`forward` gives (b, ...) predictions of one network for a batch as its view leaves it."""
        self.views, self.size = tuple(views), 1 << 30
        self._task, self._networks, self._forward = task, list(networks), forward

    def __call__(self, batch: Batch, pairs: Sequence[Pair]) -> dict[int, torch.Tensor]:
        """Each network's (b, ...) mean over its views of `pairs`, from a batch on the device.

        Raises:
            InputError: not even one sample fits into the device's memory.
        """
        count = len(next(iter(batch.values())))
        while (parts := self._try(batch, count, pairs)) is None:
            at_once = min(self.size, count)
            if at_once == 1:
                raise InputError(
                    "out of GPU memory with a single sample; expected a smaller network"
                )
            self.size = at_once // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(
                f"note: out of GPU memory with {at_once} samples at once, {self.size} from here on"
            )
        return {n: torch.cat([part[n] for part in parts]) for n in parts[0]}

    def _try(
        self, batch: Batch, count: int, pairs: Sequence[Pair]
    ) -> list[dict[int, torch.Tensor]] | None:
        """The results part by part; None if there is too little memory."""
        try:
            return [
                self._part({k: v[i : i + self.size] for k, v in batch.items()}, pairs)
                for i in range(0, count, self.size)
            ]
        except torch.OutOfMemoryError as error:
            clear_frames(error.__traceback__)  # they hold what filled the memory
            return None

    def _part(self, batch: Batch, pairs: Sequence[Pair]) -> dict[int, torch.Tensor]:
        batch, seen = self._task.plain_batch(batch), {}
        for number, view in enumerate(self.views):
            mine = [network for network, v in pairs if v == number]
            viewed = self._task.view(batch, view) if mine else batch
            for network in mine:
                output = self._forward(self._networks[network], viewed)
                seen.setdefault(network, []).append(self._task.unview(output, view))
        return {network: torch.stack(each).mean(0) for network, each in seen.items()}


def measure(passes: Passes, batch: Batch, pairs: Sequence[Pair], budget: Budget) -> list[float]:
    """Seconds a row that each pair takes on this batch, which lies on the device."""
    rows, costs = next(iter(batch.values())), []
    for timed in (False, True):  # once before, because the first pass of a network costs more
        for pair in pairs:
            start = budget.clock()
            passes(batch, [pair])
            if rows.is_cuda:
                torch.cuda.synchronize(rows.device)
            if timed:
                costs.append((budget.clock() - start) / len(rows))
    return costs
