"""Between host and device without waiting: the next batch on its way in, results on theirs out."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import Dataset

from comp.core.config import LoaderConfig
from comp.core.loading import Positions, StepBatches, derive_seed, make_loader, to_device
from comp.core.task import Batch, Task

Item = tuple[int, Batch]


def made_batches(
    task: Task, loader: Iterator[Batch], batches: StepBatches, device: torch.device
) -> Iterator[Item]:
    """This process's micro-batches, made on the device, each with the seed of all that it draws."""
    for step in range(batches.start, batches.stop):
        for micro in range(batches.accumulate):
            batch = to_device(next(loader), device)
            seed = derive_seed(batches.seed, step, batches.slot(micro))
            yield seed, task.training_batch(batch, torch.Generator().manual_seed(seed))


def one_batch(task: Task, data: Dataset, size: int, device: torch.device) -> Batch:
    """The first so many samples as a micro-batch of training, to see what one takes."""
    (batch,) = make_loader(data, [Positions(range(size), 0)], LoaderConfig(workers=0), device)
    return task.training_batch(to_device(batch, device), torch.Generator().manual_seed(0))


class Feed(Iterator[Item]):
    """Takes (seed, batch) off an iterator that makes them on the device.

    With `ahead`, on a CUDA device, they are made on a stream of their own, and after `prefetch` the
    next one is under way beside whatever the current stream does. The numbers are the same, as what
    is made depends on its seed alone.
    """

    def __init__(self, items: Iterator[Item], device: torch.device, ahead: bool) -> None:
        self._items, self._device = items, device
        cuda = ahead and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._waiting: tuple[Item | None, torch.cuda.Event] | None = None

    def prefetch(self) -> None:
        """Begin the next item; call it when the work on this one has been queued."""
        if self._stream is not None and self._waiting is None:
            with torch.cuda.stream(self._stream):
                item = next(self._items, None)
                self._waiting = item, self._stream.record_event()

    def __next__(self) -> Item:
        if self._stream is None:
            return next(self._items)
        self.prefetch()
        (item, made), self._waiting = self._waiting, None
        if item is None:
            raise StopIteration
        current = torch.cuda.current_stream(self._device)
        current.wait_event(made)
        for tensor in item[1].values():
            if tensor.is_cuda:  # its memory must not be taken again before this stream is done
                tensor.record_stream(current)
        return item


def to_host(values: torch.Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy a tensor from the device; the function returned waits for that copy alone.

    `values.cpu()` later would wait for all that was queued since, the next step or batch with it.
    """
    if not values.is_cuda:
        return values.detach().numpy
    host = torch.empty_like(values, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.current_stream(values.device).record_event()

    def wait() -> np.ndarray:
        copied.synchronize()
        return host.numpy()

    return wait
