"""Which samples a step sees, with which seed, and the loader that brings them.

Order and seeds are pure functions of (seed, step).
Nothing here has state, so a resumed run needs no sampler position or generator state to go on
exactly where it stood. Accelerate's samplers keep such state and lose it in mid-epoch
(huggingface/accelerate #2016, #4195), so batches are dealt here instead.
"""

from collections.abc import Iterable, Iterator
from traceback import clear_frames
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from comp.core.config import LoaderConfig, TrainConfig
from comp.core.errors import InputError
from comp.core.signals import outlive_signals

_RAISED = f"{InputError.__module__}.{InputError.__qualname__}: "  # how a traceback ends


def derive_seed(*parts: int) -> int:
    """A 63-bit seed that depends on every part and on their order."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class Positions(list[int]):
    """A batch's positions in the dataset, with the epoch that they are visited in.

    Workers get it as it is, so a dataset whose samples differ from epoch to epoch needs no state
    of its own (see `comp.core.batches`). To all others it is a list.
    """

    def __init__(self, positions: Iterable[int], epoch: int) -> None:
        super().__init__(positions)
        self.epoch = epoch


class StepBatches(Sampler[Positions]):
    """Deals the samples of each optimizer step to micro-batches and processes.

    A step takes `batch_size` samples off the epoch's permutation. They fall into
    `accumulate × processes` slots, and slot `micro × processes + process` goes to that process's
    micro-batch. Two processes and one micro-batch therefore see what one process sees in two.
    The samples left over at the end of an epoch are dropped; the next permutation has them again.

    Iterating yields the positions of this process's micro-batches, from `start` to `stop`.

    Attributes:
        size: number of samples.
        batch_size: samples per optimizer step over all processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        accumulate: int = 1,
        process: int = 0,
        processes: int = 1,
        start: int = 0,
        stop: int,
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.accumulate, self.process, self.processes = accumulate, process, processes
        self.start, self.stop = start, stop
        self._epoch, self._order = -1, np.empty(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return self.size // self.batch_size

    def positions(self, step: int) -> np.ndarray:
        """(batch_size,) positions of the samples that step `step` sees, all processes together."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(self.size, generator=generator).numpy()
        return self._order[within * self.batch_size : (within + 1) * self.batch_size]

    def slot(self, micro: int) -> int:
        """Slot of this process's micro-batch number `micro`."""
        return micro * self.processes + self.process

    def __iter__(self) -> Iterator[Positions]:
        for step in range(self.start, self.stop):
            slots = self.positions(step).reshape(self.accumulate * self.processes, -1)
            for micro in range(self.accumulate):
                yield Positions(slots[self.slot(micro)].tolist(), step // self.steps_per_epoch)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate


def sample_names(dataset: Dataset, ids: np.ndarray, batches: StepBatches, step: int) -> np.ndarray:
    """(batch_size,) str: what the samples of a step are called, for messages.

    A dataset says it by its `names`, if it has them; else position i is that of `ids[i]`.
    """
    positions = batches.positions(step)
    if hasattr(dataset, "names"):
        return dataset.names(positions, step // batches.steps_per_epoch)
    return ids[positions]


def due(step: int, total: int, epoch_steps: int, config: TrainConfig) -> tuple[bool, bool, bool]:
    """Whether to log, to save and to validate now that `step` steps of `total` are done."""
    end, every = step == total, config.checkpoint_every
    epoch, within = divmod(step, epoch_steps)
    logs = end or step % config.log_every == 0
    saves = end or bool(every and step % every == 0)
    return logs, saves, end or (within == 0 and epoch % config.eval_every == 0)


def micro_batch_size(config: TrainConfig, processes: int, available: int) -> int:
    """Samples of one slot, see `StepBatches`, on so many processes and training samples.

    Raises:
        InputError: `train.batch_size` does not divide, or exceeds what is available.
    """
    slots = processes * config.accumulate
    if config.batch_size % slots:
        raise InputError(
            f"key 'train.batch_size': got {config.batch_size}; takes a multiple of {slots}, "
            "processes × train.accumulate"
        )
    if config.batch_size > available:
        raise InputError(
            f"key 'train.batch_size': got {config.batch_size}; the fold has only {available} "
            "training samples"
        )
    return config.batch_size // slots


class Loader(DataLoader):
    """Ends its workers at once when one fails, and hands on an InputError in its one line."""

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        except Exception as error:
            # torch's frames hold the error that holds them, and the workers: left to the garbage
            # collector, which ends them in the wrong order, they would keep the process for a
            # minute.
            clear_frames(error.__traceback__)
            last = str(error).rstrip().rpartition("\n")[2]
            if last.startswith(_RAISED):  # where torch has added the worker's traceback
                raise InputError(last.removeprefix(_RAISED)) from error
            raise


def make_loader(
    dataset: Dataset, batches: Iterable[list[int]], config: LoaderConfig, device: torch.device
) -> Loader:
    """A loader over given batches of positions; a dataset's own `collate` is used if it has one."""
    workers = config.workers
    return Loader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=config.prefetch if workers else None,
        pin_memory=device.type == "cuda",
        collate_fn=getattr(dataset, "collate", None),
        worker_init_fn=outlive_signals,
    )


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move every tensor of a batch, without waiting for the copy."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def chunks(positions: np.ndarray, size: int) -> list[list[int]]:
    """Cut positions into batches of `size`, the last one shorter."""
    return [positions[i : i + size].tolist() for i in range(0, len(positions), size)]


def limit_rows(rows: np.ndarray, limit: int | None) -> np.ndarray:
    """At most `limit` rows, spread evenly, so that a quick look still sees every family."""
    if limit is None or len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def draw_rows(rows: np.ndarray, number: int, seed: int) -> np.ndarray:
    """At most `number` rows, drawn without replacement by `seed` alone, ascending."""
    generator = np.random.default_rng(derive_seed(seed, number))
    return np.sort(generator.choice(rows, min(number, len(rows)), replace=False))
