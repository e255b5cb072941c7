"""Datasets that read a whole batch at a time, straight into the memory it travels in."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from comp.core.task import Batch


class Source(Protocol):
    """Samples in a folder, addressed by row.

    Attributes:
        folder: where they lie, for messages.
    """

    folder: Path

    def __len__(self) -> int: ...


def batch_tensor(shape: Iterable[int], dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor for a batch.

    A loader's worker hands its batches over in shared memory; a tensor that lies there from the
    start is not copied again.
    """
    tensor = torch.empty(tuple(shape), dtype=dtype)
    return tensor if get_worker_info() is None else tensor.share_memory_()


class BatchDataset(Dataset, ABC):
    """Rows of a store or folder, read a whole batch at a time.

    A DataLoader needs `collate_fn=dataset.collate`, as nothing is left to put together.

    Attributes:
        rows: (n,) int64 rows of the source, in the order of the dataset.
    """

    def __init__(self, source: Source, rows: Sequence[int] | None = None) -> None:
        """`rows` selects and orders; None takes all."""
        self.rows = np.arange(len(source)) if rows is None else np.asarray(rows, np.int64)
        if len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < len(source):
            what = f"rows {self.rows.min()}..{self.rows.max()}"
            raise IndexError(f"{what} of {len(source)} in {source.folder}")

    @abstractmethod
    def read(self, rows: np.ndarray, epoch: int) -> Batch:
        """The batch of these rows of the source, in the given pass over the training data."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """The batch at `positions`; of their epoch if they are a `comp.core.loading.Positions`."""
        return self.read(self.rows[np.asarray(positions)], getattr(positions, "epoch", 0))

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """The batch as it is."""
        return batch
