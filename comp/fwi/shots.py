"""Shot records for training and prediction: a prepared folder read by memmap, and the datasets.

Records of a prepared folder (its format: `comp.fwi.shards`) stay float16 until they are on the
device, where `batch["shots"].float() / store.amplitude_scale` gives the amplitudes.
"""

import mmap
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp.core.batches import BatchDataset, batch_tensor
from comp.core.errors import InputError
from comp.core.files import drop_pages
from comp.core.task import Batch
from comp.fwi.openmaps import OpenMaps
from comp.fwi.records import RecordFolder
from comp.fwi.shards import ShardEntry, read_index, shard_file


class ShotStore:
    """Prepared folders as one. Costs little to open and to send to workers, which open their own
    files.

    Attributes:
        folder: the prepared folder whose samples train and validate.
        extra: prepared folders whose samples only train, see `comp.fwi.extra`. Their ids begin
            with the folder's own name, `<name>/`; their rows follow those of `folder`.
        survey: the acquisition of all records.
        shards: the shard entries; the store's rows run through them in this order.
        shards_of: the same by folder.
        amplitude_scale: stored amplitude / true amplitude, the same in every shard.
    """

    def __init__(self, folder: str | Path, extra: Sequence[str | Path] = ()) -> None:
        """Raises InputError if an index or a shard's file is missing, cut or of another shape, or
        the folders do not go together.
        """
        self.folder, self.extra = Path(folder), tuple(Path(name) for name in extra)
        self.survey, self.shards = read_index(folder)
        if not self.shards:
            raise InputError(f"{self.folder / 'index.json'}: lists no shards")
        self.amplitude_scale = self.shards[0].amplitude_scale
        self.shards_of = {self.folder: self.shards}
        self.shards_of |= {name: self._read_extra(name) for name in self.extra}
        files = [(name, shard) for name, shards in self.shards_of.items() for shard in shards]
        self.shards = [shard for _, shard in files]
        for where, shard in files:
            self._check_shard(where, shard)
        self._prefixes = ["" if f == self.folder else f"{f.name}/" for f, _ in files]
        self._starts = np.cumsum([0] + [shard.rows for shard in self.shards])
        self._open = OpenMaps(files)

    def _read_extra(self, folder: Path) -> list[ShardEntry]:
        survey, shards = read_index(folder)
        if [f.name for f in (self.folder, *self.extra)].count(folder.name) > 1:
            raise InputError(f"{folder}: another folder is called {folder.name!r} too")
        for key, value in asdict(survey).items():
            if value != getattr(self.survey, key):
                wanted = f"expected {getattr(self.survey, key)!r} as in {self.folder}"
                raise InputError(f"{folder}/index.json: survey: {key} {value!r}, {wanted}")
        return shards

    def _check_shard(self, folder: Path, shard: ShardEntry) -> None:
        if shard.amplitude_scale != self.amplitude_scale:
            what = f"{shard.amplitude_scale}, others {self.amplitude_scale}"
            raise InputError(f"{folder}/index.json: {shard.name}: amplitude_scale {what}")
        shapes = {"shots": self.survey.record_shape, "velocity": self.survey.map_shape}
        for kind, entry in shard.arrays.items():
            shape = shapes[kind]
            path = shard_file(folder, shard.name, f"{kind}.npy")
            if entry.shape != (shard.rows, *shape):
                raise InputError(f"{path}: shape {entry.shape}, expected {(shard.rows, *shape)}")
            size = path.stat().st_size if path.exists() else None
            if size is None:
                raise InputError(f"{path}: no such file, but the index lists it")
            if size != entry.bytes:
                raise InputError(f"{path}: {size} bytes, expected {entry.bytes}; truncated?")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) str: sample ids, `<shard>_<row in the shard, four digits>`."""
        pairs = zip(self._prefixes, self.shards)
        return np.array([f"{prefix}{i}" for prefix, shard in pairs for i in shard.ids])

    @cached_property
    def families(self) -> np.ndarray:
        """(n,) str: velocity family of each sample."""
        return np.repeat([s.family for s in self.shards], [s.rows for s in self.shards])

    @cached_property
    def recorded(self) -> np.ndarray:
        """(n,) bool: samples whose records are stored; the others' are simulated on the device."""
        return np.repeat([s.shots is not None for s in self.shards], [s.rows for s in self.shards])

    @cached_property
    def sources(self) -> np.ndarray:
        """(n,) str: samples with the same one must share a fold; see `ShardEntry.group`."""
        stops = self._starts[1:]
        groups = [
            [shard.source] * shard.rows
            if shard.group == "file"
            else self.ids[stop - shard.rows : stop]
            for shard, stop in zip(self.shards, stops)
        ]
        return np.concatenate(groups)

    def __getstate__(self) -> dict[str, Any]:
        """All but the tables that can be made again, tens of MB at 470k samples."""
        tables = ("ids", "families", "sources", "recorded")
        return {k: v for k, v in vars(self).items() if k not in tables}

    def shots(self, row: int) -> np.ndarray:
        """Read-only (shots, nt, receivers) float16 view of a record, times `amplitude_scale`."""
        array, position = self._locate("shots", row)
        return np.asarray(array)[position]

    def velocity(self, row: int) -> np.ndarray:
        """Read-only (ny, nx) float32 view of a velocity map, m/s."""
        array, position = self._locate("velocity", row)
        return np.asarray(array)[position]

    def velocities(self, rows: Sequence[int]) -> np.ndarray:
        """(len(rows), ny, nx) float32 copy of the maps of `rows`, m/s."""
        out = np.empty((len(rows), *self.survey.map_shape), np.float32)
        self.copy("velocity", rows, out)
        return out

    def mean_map(self, samples: int = 20_000) -> np.ndarray:
        """(ny, nx) float32 mean of the folder's own maps, m/s, or of so many, evenly spread."""
        own = sum(shard.rows for shard in self.shards_of[self.folder])
        rows = np.linspace(0, own - 1, min(own, samples)).round().astype(int)
        total = np.zeros(self.survey.map_shape)
        for start in range(0, len(rows), 500):
            total += self.velocities(rows[start : start + 500]).sum(axis=0, dtype=np.float64)
        return (total / len(rows)).astype(np.float32)

    def copy(self, kind: str, rows: Sequence[int], out: np.ndarray) -> None:
        """Copy the "shots" or the "velocity" of `rows` into `out[0]`, `out[1]`, …

        The rows are visited in file order, and the kernel is told of all before the first is
        read: on a disk that is 2.7 times as fast as waiting for one page after another. Their
        pages are let go at once, or the process would seem to hold all it ever read.
        """
        order = np.argsort(rows, kind="stable")
        places = [self._locate(kind, rows[i]) for i in order]
        for array, position in places:
            size = array.strides[0]
            start = array.offset + position * size
            page = start - start % mmap.PAGESIZE
            array.base.madvise(mmap.MADV_WILLNEED, page, start + size - page)
        for i, (array, position) in zip(order, places):
            out[i] = array[position]
        for array in {id(array): array for array, _ in places}.values():
            drop_pages(array)

    def _locate(self, kind: str, row: int) -> tuple[np.memmap, int]:
        """The open array that holds `row`, and its position there."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} in {self.folder}")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._open.get(number, kind), int(row - self._starts[number])


class ShotDataset(BatchDataset):
    """Training samples.

    A batch: "row" (b,) int64 rows of the store; "shots" (b, shots, nt, receivers) float16, times
    `store.amplitude_scale`; "velocity" (b, 1, ny, nx) float32, m/s.

    Where records of some samples are not stored, "shots" has those of the others alone, or is left
    out; "kept" and "made", int64, are the places in the batch of the former and of the latter.
    """

    def __init__(self, store: ShotStore, rows: Sequence[int] | None = None) -> None:
        """`rows` of the store selects and orders; None takes all."""
        super().__init__(store, rows)
        self.store = store

    def read(self, rows: np.ndarray, epoch: int) -> Batch:
        velocity = batch_tensor((len(rows), 1, *self.store.survey.map_shape), torch.float32)
        self.store.copy("velocity", rows, velocity.numpy()[:, 0])
        return self.with_records(rows, velocity, self.store.recorded[rows])

    def with_records(self, rows: np.ndarray, velocity: torch.Tensor, stored: np.ndarray) -> Batch:
        """The batch of maps (b, 1, ny, nx); records of those that are `stored` (b,) are read."""
        batch = {"row": torch.from_numpy(rows), "velocity": velocity}
        if stored.any():
            shape = (int(stored.sum()), *self.store.survey.record_shape)
            batch["shots"] = batch_tensor(shape, torch.float16)
            self.store.copy("shots", rows[stored], batch["shots"].numpy())
        if not stored.all():
            places = {"kept": stored, "made": ~stored}
            batch |= {key: torch.from_numpy(np.flatnonzero(at)) for key, at in places.items()}
        return batch


class RecordDataset(BatchDataset):
    """Test records.

    A batch: "row" (b,) int64 rows of the folder; "shots" (b, shots, nt, receivers) float32,
    amplitudes as recorded. If lenient also "broken", (b,) bool, true for a record that could not be
    read and is all zeros; else such a record is an error.
    """

    def __init__(
        self, records: RecordFolder, rows: Sequence[int] | None = None, lenient: bool = False
    ) -> None:
        """`rows` of the folder selects and orders; None takes all."""
        super().__init__(records, rows)
        self.records, self.lenient = records, lenient

    def read(self, rows: np.ndarray, epoch: int) -> Batch:
        shots = batch_tensor((len(rows), *self.records.survey.record_shape), torch.float32)
        broken = torch.zeros(len(rows), dtype=torch.bool)
        for i, (row, out) in enumerate(zip(rows.tolist(), shots.numpy())):
            try:
                self.records.read(row, out)
            except InputError:
                if not self.lenient:
                    raise
                broken[i], out[:] = True, 0
        batch = {"row": torch.from_numpy(rows), "shots": shots}
        return {**batch, "broken": broken} if self.lenient else batch
