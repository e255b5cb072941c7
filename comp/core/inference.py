"""One process's part of a prediction: batches in, networks and views, results to disk.

The loader's workers read ahead, the next batch is copied to the device beside the networks' work,
and results are written while the next batch is computed, so that nothing waits for anything else.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from comp.core.budget import Budget, Pace, Pair
from comp.core.chunks import Chunks
from comp.core.errors import InputError
from comp.core.feed import Feed, to_host
from comp.core.files import open_npy
from comp.core.loading import make_loader, to_device
from comp.core.passes import Passes
from comp.core.task import Task

_SEVERAL = 4  # samples: if so many in a batch have no finite prediction, it is the network

Host = Callable[[], np.ndarray]


class StandIns:
    """The prediction of a sample that could not be read, by network; read when it is needed."""

    def __init__(self, task: Task, paths: Sequence[Path]) -> None:
        self._task, self._paths, self._known = task, list(paths), {}

    def __call__(self, network: int) -> np.ndarray:
        """Raises InputError or NotImplementedError where there is none."""
        if network not in self._known:
            self._known[network] = self._read(network)
        return self._known[network]

    def _read(self, network: int) -> np.ndarray:
        path = self._paths[network] if network < len(self._paths) else None
        if path is not None and path.exists():
            return open_npy(path, self._task.prediction_shape, [np.float32], mmap=False)
        try:
            return self._task.stand_in()
        except InputError as error:
            what = "no such file, and no training data to make it from"
            raise InputError(f"{path}: {what} ({error})") from None


class Waits:
    """How long the device waited for data, on a GPU by its own clock.

    Attributes:
        began: when the first batch was there, `time.perf_counter`; None before.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda, self._spans, self.began = device.type == "cuda", [], None

    def now(self) -> float | torch.cuda.Event:
        """A point in the device's time: when all is done that was asked of it so far."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def waited(self, since: float | torch.cuda.Event) -> None:
        """The device has waited from `since` to now; the wait for the first batch is left out."""
        if self.began is None:
            self.began = time.perf_counter()
        else:
            self._spans.append((since, self.now()))

    def seconds(self) -> float:
        """All of it."""
        if not self._cuda:
            return sum(end - start for start, end in self._spans)
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in self._spans) / 1e3


class Inference:
    """A process's work on its chunks.

    Args:
        task: what is predicted.
        passes: networks and views.
        pairs: all of them, in the order of `comp.core.budget`.
        chunks: where results go.
        stand_in: the prediction by network (0, 1, …) of a sample that could not be read.
        names: (n,) ids, for messages.
        device: of the networks.
    """

    def __init__(
        self,
        task: Task,
        passes: Passes,
        pairs: Sequence[Pair],
        chunks: Chunks,
        stand_in: Callable[[int], np.ndarray],
        names: np.ndarray,
        device: torch.device,
    ) -> None:
        self._task, self._passes, self._pairs, self._chunks = task, passes, pairs, chunks
        self._stand_in, self._names, self._device = stand_in, names, device
        self.waits = Waits(device)

    def run(
        self,
        own: Sequence[int],
        dataset: Dataset,
        positions: np.ndarray,
        batch_size: int,
        networks: int,
        pace: Pace,
        budget: Budget,
        heed: Callable[[int], None],
    ) -> None:
        """Predict chunks, one after another, each in batches of its own.

        Args:
            own: the chunks.
            dataset: the samples.
            positions: (n,) position in the dataset of each row.
            batch_size: samples of a batch.
            networks: so many, the first, have a file.
            pace: how many pairs the next chunk gets.
            budget: when the time is up, the chunks left get the stand-in, if there is one.
            heed: told of rows that are done; may raise to end the work.
        """
        parts = [(c, part) for c in own for part in _cut(self._chunks.rows(c), batch_size)]
        batches = [positions[part].tolist() for _, part in parts]
        how, lost = self._task.config.loader, []
        loader = iter(make_loader(dataset, batches, how, self._device))

        def items():  # noqa: ANN202
            for batch in loader:
                broken = batch.pop("broken", None)  # wanted on the host, where it is
                lost.append(None if broken is None else broken.numpy())
                yield 0, to_device(batch, self._device)

        feed = Feed(items(), self._device, how.ahead)
        pending, pairs, broken, left = None, pace.pairs, [], []

        def write(chunk: int, rows: np.ndarray, used: int, found: list[Host]) -> None:
            broken.extend(self._write(rows, found, lost.pop(0), networks))
            heed(len(rows))
            if rows[-1] == self._chunks.rows(chunk)[-1]:
                self._chunks.finish(chunk, pairs=used, broken=list(map(int, broken)))
                broken.clear()
                pace.advance(len(self._chunks.rows(chunk)), used)

        for chunk, rows in parts:
            heed(0)
            if rows[0] == self._chunks.rows(chunk)[0]:
                pairs = pace.pairs
                if budget.over and self._has_stand_in():
                    left = [c for c in own if c >= chunk]
                    break
            since = self.waits.now()
            _, batch = next(feed)
            self.waits.waited(since)
            means = self._passes(batch, self._pairs[:pairs])
            feed.prefetch()
            found = [to_host(mean) for mean in _filled(means, networks)]
            if pending is not None:
                write(*pending)
            pending = chunk, rows, pairs, found
        if pending is not None:
            write(*pending)
        self._give_up(left, networks, heed)

    def _write(
        self, rows: np.ndarray, found: list[Host], lost: np.ndarray | None, networks: int
    ) -> np.ndarray:
        """Write a batch; the rows that got a stand-in, from one network at least.

        Where none of several samples that could be read has finite values, the network is broken.
        """
        broken = np.zeros(len(rows), bool) if lost is None else lost.copy()
        for network in range(networks):
            values = found[network]()
            bad = ~np.isfinite(values).reshape(len(rows), -1).all(1)
            read = np.ones(len(rows), bool) if lost is None else ~lost
            hopeless = read.sum() >= _SEVERAL and bad[read].all()
            if bad[read].any() and (hopeless or not self._has_stand_in()):
                name = self._names[rows[int(np.argmax(bad & read))]]
                raise InputError(f"prediction of {name} is not finite")
            bad |= ~read
            if bad.any():
                values = values.copy()
                values[bad] = self._stand_in(network)
                broken |= bad
            self._chunks.write(network, rows, values)
        return rows[broken]

    def _has_stand_in(self) -> bool:
        try:
            self._stand_in(0)
        except (InputError, NotImplementedError):
            return False
        return True

    def _give_up(self, left: Sequence[int], networks: int, heed: Callable[[int], None]) -> None:
        for chunk in left:
            rows = self._chunks.rows(chunk)
            for network in range(networks):
                self._chunks.write(network, rows, self._stand_in(network)[None])
            self._chunks.finish(chunk, pairs=0, broken=[])
            heed(len(rows))


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _filled(means: dict[int, torch.Tensor], networks: int) -> list[torch.Tensor]:
    """The means of `networks` networks; one that had no time gets the others' mean, so that the
    mean over all files is that of the networks that had.
    """
    if len(means) == networks:
        return [means[n] for n in range(networks)]
    mean = torch.stack(list(means.values())).mean(0)
    return [means.get(n, mean) for n in range(networks)]
