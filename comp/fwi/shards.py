"""The prepared folder: its format. `comp.fwi.shard_writer` writes it, `comp.fwi.shots` reads it.

    index.json                    format version, survey, sample count, one entry per shard
    shards/<shard>.shots.npy      float16 (n, shots, nt, receivers), amplitude × amplitude_scale;
                                  none where maps alone were written: training simulates them
    shards/<shard>.velocity.npy   float32 (n, ny, nx), m/s
    shards/<shard>.json           the shard's own entry and the recipe it was made by; written last
    lineage.csv                   of derived samples: what they were made from, `comp.core.lineage`

A shard whose .json is there is whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.core.errors import InputError
from comp.core.files import open_index
from comp.fwi.survey import Survey

FORMAT_VERSION = 1

# A power of two, so multiplying is exact. It moves the start of float16's subnormals from 6e-5 down
# to 2.4e-7, for the sake of weak arrivals, and leaves room up to 255; official records reach 57.
AMPLITUDE_SCALE = 256.0


@dataclass(frozen=True)
class ArrayEntry:
    """One array file as the index describes it."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the index describes it.

    Attributes:
        name: of the shard's files, and the prefix of its sample ids.
        family: velocity family of all its samples.
        source: where the samples came from: a file of the raw data, or the shard itself.
        group: "file" when its samples must stay in one fold, "sample" when each stands alone,
            "derived" when they were made from other samples and only train (`comp.fwi.extra`).
        rows: number of samples.
        amplitude_scale: what the amplitudes were multiplied by.
        shots, velocity: its two array files; `shots` is None where maps alone were written.
    """

    name: str
    family: str
    source: str
    group: str
    rows: int
    amplitude_scale: float
    shots: ArrayEntry | None
    velocity: ArrayEntry

    @property
    def ids(self) -> list[str]:
        """The ids of its samples, in row order."""
        return sample_ids(self.name, self.rows)

    @property
    def arrays(self) -> dict[str, ArrayEntry]:
        """Its array files by kind, "shots" and "velocity"; the former only where there are any."""
        both = {"shots": self.shots, "velocity": self.velocity}
        return {kind: entry for kind, entry in both.items() if entry is not None}


def sample_ids(name: str, rows: int) -> list[str]:
    """The ids of the samples of shard `name`, in row order."""
    return [f"{name}_{row:04d}" for row in range(rows)]


def shard_file(folder: str | Path, name: str, kind: str) -> Path:
    """A file of shard `name`; `kind` is "shots.npy", "velocity.npy" or "json"."""
    return Path(folder) / "shards" / f"{name}.{kind}"


def read_index(folder: str | Path) -> tuple[Survey, list[ShardEntry]]:
    """The survey and the shard entries of a prepared folder; raises InputError if it is not one."""
    path, index = open_index(folder, FORMAT_VERSION)
    try:
        return _from_json(Survey, index["survey"]), [_entry(e) for e in index["shards"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an index of shards: {error!r}") from None


def _entry(value: dict[str, Any]) -> ShardEntry:
    arrays = {k: value[k] and _from_json(ArrayEntry, value[k]) for k in ("shots", "velocity")}
    return ShardEntry(**{**value, **arrays})


def _from_json(kind: Callable[..., Any], value: dict[str, Any]) -> Any:
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
