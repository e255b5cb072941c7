"""The prepared folder: its format, and a writer that can be killed and started again.

    index.json                    format version, survey, sample count, one entry per shard
    shards/<shard>.shots.npy      float16 (n, shots, nt, receivers), amplitude × amplitude_scale;
                                  none where maps alone were written: training simulates them
    shards/<shard>.velocity.npy   float32 (n, ny, nx), m/s
    shards/<shard>.json           the shard's own entry and the recipe it was made by; written last
    lineage.csv                   of derived samples: what they were made from, `comp.core.lineage`

A shard whose .json is there is whole. A killed run is started again with the same command: it keeps
whole shards, makes the others, and leaves what an uninterrupted run leaves, byte for byte.
`comp.fwi.shots` reads the format.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import drop_pages, new_npy, open_index, read_json, sha256, write_json
from comp.core.lineage import Lineage, write_lineage
from comp.fwi.checks import check_records, check_velocity
from comp.fwi.survey import OFFICIAL, Survey

FORMAT_VERSION = 1

# A power of two, so multiplying is exact. It moves the start of float16's subnormals from 6e-5 down
# to 2.4e-7, for the sake of weak arrivals, and leaves room up to 255; official records reach 57.
AMPLITUDE_SCALE = 256.0
_HALF_MAX = float(np.finfo(np.float16).max)


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


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        name, family, source, group, rows: as in `ShardEntry`.
        recipe: what else decides its contents, as JSON values. A shard on disk that was made by
            another recipe is refused rather than mixed in.
        files: names of the records' and of the maps' file, for messages.
        chunks: yields (records float32 (k, shots, nt, receivers), maps float32 (k, ny, nx)) in
            order, `rows` in all.
        records: whether records are written beside the maps; if not, those of `chunks` are None.
    """

    name: str
    family: str
    source: str
    group: str
    rows: int
    recipe: dict[str, Any]
    files: tuple[str, str]
    chunks: Callable[[], Iterable[tuple[np.ndarray | None, np.ndarray]]]
    records: bool = True


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


def write_shards(
    folder: str | Path, survey: Survey, shards: Sequence[Shard], lineage: Lineage | None = None
) -> None:
    """Write or finish a prepared folder, one shard after the other, in constant memory.

    Args:
        folder: the prepared folder.
        survey: the acquisition of all records.
        shards: what it is to hold.
        lineage: of all its samples, where they were made from others.

    Raises:
        InputError: a record or map unfit for use (its file and row are named); the folder holds
            shards of other data or settings; another process is writing to it; the disk is full.
            Shards already finished stay, and the next run goes on from them.
    """
    folder = Path(folder)
    rows = sum(shard.rows for shard in shards)
    with exclusive(folder):
        _check_names(folder, {shard.name for shard in shards})
        recipes = {shard.name: full_recipe(survey, shard) for shard in shards}
        missing = [s for s in shards if not _finished(folder, s.name, recipes[s.name])]
        with progress(rows, rows - sum(shard.rows for shard in missing)) as advance:
            for shard in missing:
                entry = _write_shard(folder, survey, shard, advance)
                sidecar = {**asdict(entry), "recipe": recipes[shard.name]}
                write_json(shard_file(folder, shard.name, "json"), sidecar)
        entries = [read_json(shard_file(folder, shard.name, "json")) for shard in shards]
        for entry in entries:
            del entry["recipe"]  # file times and such, which say nothing about the data
        if lineage is not None:  # before the index, which says that the folder is whole
            write_lineage(folder, lineage)
        index = {"version": FORMAT_VERSION, "survey": asdict(survey), "rows": rows}
        write_json(folder / "index.json", {**index, "shards": entries})


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other writers out; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is writing to it") from None
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def progress(total: int, initial: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A bar over samples with MB/s; tell the yielded function (samples, bytes) as they are done."""
    start, size = time.monotonic(), 0
    with tqdm(total=total, initial=initial, unit=" samples") as bar:

        def advance(samples: int, nbytes: int) -> None:
            nonlocal size
            size += nbytes
            rate = size / 1e6 / max(time.monotonic() - start, 1e-3)
            bar.set_postfix_str(f"{rate:.0f} MB/s", refresh=False)
            bar.update(samples)

        yield advance


def full_recipe(survey: Survey, shard: Shard) -> dict[str, Any]:
    """Everything that decides a shard's contents, as it reads back from JSON."""
    official = asdict(OFFICIAL)
    unlike = {key: value for key, value in asdict(survey).items() if value != official[key]}
    given = {"family": shard.family, "source": shard.source, "group": shard.group}
    common = {"version": FORMAT_VERSION, "amplitude_scale": AMPLITUDE_SCALE, "survey": unlike}
    common |= {} if shard.records else {"records": False}
    return json.loads(json.dumps({**common, **given, "rows": shard.rows, **shard.recipe}))


def refuse_other_recipe(
    path: Path, found: dict[str, Any], wanted: dict[str, Any], advice: str
) -> None:
    """Raise InputError naming the first setting in which what is on disk differs from this run."""
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            what = f"{key} was {found.get(key)!r}, is now {wanted.get(key)!r}"
            raise InputError(f"{path}: made from other data or settings: {what}; {advice}")


def _check_names(folder: Path, names: set[str]) -> None:
    """Refuse files that are no part of this run; remove what a killed run left half written."""
    paths = sorted((folder / "shards").glob("*"))
    for path in paths:
        if path.name.split(".")[0] not in names:
            raise InputError(
                f"{path}: no part of this run, made from other data?; write to another folder"
            )
    for path in paths:
        if path.suffix == ".partial":
            path.unlink()


def _finished(folder: Path, name: str, recipe: dict[str, Any]) -> bool:
    """Whether the shard on disk is whole: one whose files were cut or lost since is not."""
    path = shard_file(folder, name, "json")
    if not path.exists():
        return False
    entry = read_json(path)
    advice = "write to another folder, or delete this file to make the shard again"
    refuse_other_recipe(path, entry["recipe"], recipe, advice)
    kinds = [kind for kind in ("shots", "velocity") if entry[kind]]
    files = {kind: shard_file(folder, name, f"{kind}.npy") for kind in kinds}
    return all(f.exists() and f.stat().st_size == entry[k]["bytes"] for k, f in files.items())


def _write_shard(
    folder: Path, survey: Survey, shard: Shard, advance: Callable[[int, int], None]
) -> ShardEntry:
    kinds = {"velocity": (np.float32, survey.map_shape)}
    if shard.records:
        kinds["shots"] = (np.float16, survey.record_shape)
    paths = {kind: shard_file(folder, shard.name, f"{kind}.npy") for kind in kinds}
    with contextlib.ExitStack() as stack:
        arrays = {
            kind: stack.enter_context(new_npy(paths[kind], (shard.rows, *shape), dtype))
            for kind, (dtype, shape) in kinds.items()
        }
        row = 0
        for records, maps in shard.chunks():
            part = slice(row, row + len(maps))
            if shard.records:
                _encode(records, arrays["shots"][part], shard.files[0], row)
                drop_pages(arrays["shots"])
            check_velocity(maps, shard.files[1], row)
            arrays["velocity"][part] = maps
            row = part.stop
            advance(len(maps), sum(array[part].nbytes for array in arrays.values()))
    entries = {
        kind: ArrayEntry(str(a.dtype), a.shape, paths[kind].stat().st_size, sha256(paths[kind]))
        for kind, a in arrays.items()
    }
    about = (shard.name, shard.family, shard.source, shard.group, shard.rows, AMPLITUDE_SCALE)
    return ShardEntry(*about, **{"shots": None, **entries})


def _encode(records: np.ndarray, out: np.ndarray, path: str, first_row: int) -> None:
    """Check `records` and write them to `out` as scaled float16."""
    peak = check_records(records, path, first_row)
    if (peak * AMPLITUDE_SCALE > _HALF_MAX).any():
        row = int(np.argmax(peak))
        what = f"amplitude {peak[row]:g}, expected at most {_HALF_MAX / AMPLITUDE_SCALE:g}"
        raise InputError(f"{path}: row {first_row + row}: {what} to fit into float16")
    np.multiply(records, np.float32(AMPLITUDE_SCALE), out=out, casting="same_kind")
