"""The array files of prepared folders, kept open as memmaps while they are in use."""

import resource
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.core.errors import InputError
from comp.core.files import open_npy
from comp.fwi.shards import ArrayEntry, ShardEntry, shard_file


class OpenMaps:
    """The most recently used memmaps of prepared folders in one process; pickles empty.

    Each open map holds a file descriptor, so of a thousand shards only as many stay open as a
    quarter of what the process may have.
    """

    def __init__(self, shards: Sequence[tuple[Path, ShardEntry]], limit: int | None = None) -> None:
        """`shards` are pairs of the prepared folder and one of its entries."""
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.limit = limit or (min(allowed // 4, 1024) if allowed > 0 else 1024)
        self._shards = shards
        self._maps: OrderedDict[tuple[int, str], np.memmap] = OrderedDict()

    def get(self, number: int, kind: str) -> np.memmap:
        """The "shots" or the "velocity" of a shard, opened and checked if it is not open yet."""
        array = self._maps.get((number, kind))
        if array is None:
            folder, shard = self._shards[number]
            entry: ArrayEntry | None = getattr(shard, kind)
            if entry is None:
                raise InputError(f"{folder}: {shard.name} holds maps alone, expected records too")
            path = shard_file(folder, shard.name, f"{kind}.npy")
            array = self._maps[number, kind] = open_npy(path, entry.shape, [entry.dtype])
            if len(self._maps) > self.limit:
                self._maps.popitem(last=False)
        self._maps.move_to_end((number, kind))
        return array

    def __len__(self) -> int:
        return len(self._maps)

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenMaps, (self._shards, self.limit)
