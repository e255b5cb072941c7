"""Writes prepared folders, see `comp.fwi.shards`; a writer that can be killed and started again.

A killed run is started again with the same command: it keeps whole shards, makes the others, and
leaves what an uninterrupted run leaves, byte for byte.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from comp.core.claims import exclusive, refuse_other_recipe
from comp.core.errors import InputError
from comp.core.files import growing_npy, read_json, sha256, write_json
from comp.core.lineage import Lineage, write_lineage
from comp.core.progress import sample_bar
from comp.core.share import Share
from comp.fwi.checks import check_records, check_velocity
from comp.fwi.shards import AMPLITUDE_SCALE, FORMAT_VERSION, ArrayEntry, ShardEntry, shard_file
from comp.fwi.survey import OFFICIAL, Survey

# Says that the first process has made the folder ready for the others.
_OPEN = "writing.json"
_POLL = 0.5  # seconds between looks at what the other processes have done
_HALF_MAX = float(np.finfo(np.float16).max)
_SEALERS = 2  # one takes checksums of 1,400 samples a second, fewer than a GPU simulates

ItemT = TypeVar("ItemT")
Chunk = dict[str, np.ndarray]  # rows of each kind of array, as they are stored


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        name, family, source, group, rows: as in `ShardEntry`.
        recipe: what else decides its contents, as JSON values. A shard on disk that was made by
            another recipe is refused rather than mixed in.
        files: names of the records' and of the maps' file, for messages.
        chunks: yields (records float32 (k, shots, nt, receivers), maps float32 (k, ny, nx)) in
            order, `rows` in all; records may be a tensor on a GPU.
        records: whether records are written beside the maps; if not, those of `chunks` are None.
    """

    name: str
    family: str
    source: str
    group: str
    rows: int
    recipe: dict[str, Any]
    files: tuple[str, str]
    chunks: Callable[[], Iterable[tuple[np.ndarray | torch.Tensor | None, np.ndarray]]]
    records: bool = True


def write_shards(
    folder: str | Path,
    survey: Survey,
    shards: Sequence[Shard],
    lineage: Lineage | None = None,
    share: Share | None = None,
) -> None:
    """Write or finish a prepared folder, one shard after the other, in constant memory.

    Args:
        folder: the prepared folder.
        survey: the acquisition of all records.
        shards: what it is to hold.
        lineage: of all its samples, where they were made from others.
        share: which of the processes that write it together this is (the only one). They take
            shards in turn; the first returns when all are there.

    Raises:
        InputError: a record or map unfit for use (its file and row are named); the folder holds
            shards of other data or settings; another process is writing to it; the disk is full.
            Shards already finished stay, and the next run goes on from them.
    """
    folder, share = Path(folder), share or Share()
    rows = sum(shard.rows for shard in shards)
    recipes = {shard.name: full_recipe(survey, shard) for shard in shards}
    if not share.first:
        # The first may have finished and closed the folder before this process came to it.
        share.wait_for_first(
            folder / _OPEN, lambda: all(_finished(folder, name, r) for name, r in recipes.items())
        )
        _write_missing(folder, survey, shards, recipes, share)
        return
    with exclusive(folder):
        _check_names(folder, {shard.name for shard in shards})
        _write_missing(folder, survey, shards, recipes, share)
        (folder / _OPEN).unlink(missing_ok=True)
        entries = [read_json(shard_file(folder, shard.name, "json")) for shard in shards]
        for entry in entries:
            del entry["recipe"]  # file times and such, which say nothing about the data
        if lineage is not None:  # before the index, which says that the folder is whole
            write_lineage(folder, lineage)
        index = {"version": FORMAT_VERSION, "survey": asdict(survey), "rows": rows}
        write_json(folder / "index.json", {**index, "shards": entries})


def _write_missing(
    folder: Path,
    survey: Survey,
    shards: Sequence[Shard],
    recipes: dict[str, dict[str, Any]],
    share: Share,
) -> None:
    """Write a process's share of what is not on disk; the first waits for the others."""
    missing = [s for s in shards if not _finished(folder, s.name, recipes[s.name])]
    # Who looks later sees fewer missing, so shares are of all shards, not of those.
    mine = {shard.name for shard in shards[share.index :: share.count]}
    others = [shard for shard in missing if shard.name not in mine]
    rows, still = (sum(shard.rows for shard in some) for some in (shards, missing))
    if share.first:  # what is left of a broken shard must not look finished
        for shard in missing:
            shard_file(folder, shard.name, "json").unlink(missing_ok=True)
    bar = sample_bar(rows, rows - still, hidden=not share.first)
    with bar as advance, ThreadPoolExecutor(_SEALERS) as sealer:
        share.open_for_others(folder / _OPEN)
        sealed = []
        ours = [shard for shard in missing if shard.name in mine]
        # Over the ends of shards, so that the next one's first maps are made meanwhile.
        chunks = _ahead(chunk for shard in ours for chunk in _encoded(shard))
        for shard in ours:
            _write_arrays(folder, survey, shard, chunks, advance)
            # Checksums are taken while the next shard is in the making.
            sealed.append(sealer.submit(_seal, folder, survey, shard, recipes[shard.name]))
            if share.first:
                others = _still_missing(folder, others, advance)
        next(chunks, None)  # where nothing must come any more
        for each in sealed:
            each.result()
        while share.first and others:
            time.sleep(_POLL)
            others = _still_missing(folder, others, advance)


def _still_missing(
    folder: Path, shards: Sequence[Shard], advance: Callable[[int, int], None]
) -> list[Shard]:
    """Those that other processes have not finished; the others are told to `advance`."""
    missing = []
    for shard in shards:
        path = shard_file(folder, shard.name, "json")
        if not path.exists():
            missing.append(shard)
            continue
        entry = read_json(path)
        advance(
            shard.rows, sum(entry[kind]["bytes"] for kind in ("shots", "velocity") if entry[kind])
        )
    return missing


def full_recipe(survey: Survey, shard: Shard) -> dict[str, Any]:
    """Everything that decides a shard's contents, as it reads back from JSON."""
    official = asdict(OFFICIAL)
    unlike = {key: value for key, value in asdict(survey).items() if value != official[key]}
    given = {"family": shard.family, "source": shard.source, "group": shard.group}
    common = {"version": FORMAT_VERSION, "amplitude_scale": AMPLITUDE_SCALE, "survey": unlike}
    common |= {} if shard.records else {"records": False}
    return json.loads(json.dumps({**common, **given, "rows": shard.rows, **shard.recipe}))


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
    (folder / _OPEN).unlink(missing_ok=True)


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


def _kinds(survey: Survey, shard: Shard) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape of each array of a shard."""
    kinds = {"velocity": (np.dtype(np.float32), (shard.rows, *survey.map_shape))}
    if shard.records:
        kinds["shots"] = (np.dtype(np.float16), (shard.rows, *survey.record_shape))
    return kinds


def _write_arrays(
    folder: Path,
    survey: Survey,
    shard: Shard,
    chunks: Iterator[Chunk],
    advance: Callable[[int, int], None],
) -> None:
    """Write a shard's arrays from the chunks that come next."""
    with contextlib.ExitStack() as stack:
        files = {
            kind: stack.enter_context(
                growing_npy(shard_file(folder, shard.name, f"{kind}.npy"), shape, dtype)
            )
            for kind, (dtype, shape) in _kinds(survey, shard).items()
        }
        row = 0
        while row < shard.rows:
            chunk, size = next(chunks), 0
            for kind, file in files.items():
                size += file.write(chunk[kind].data)
            row += len(chunk["velocity"])
            advance(len(chunk["velocity"]), size)


def _ahead(items: Iterable[ItemT]) -> Iterator[ItemT]:
    """`items`, the next one in the making on a thread while the last one is used."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


def _seal(folder: Path, survey: Survey, shard: Shard, recipe: dict[str, Any]) -> None:
    """Write the entry by which a shard on disk counts as finished."""
    entries: dict[str, ArrayEntry | None] = {"shots": None}
    for kind, (dtype, shape) in _kinds(survey, shard).items():
        path = shard_file(folder, shard.name, f"{kind}.npy")
        entries[kind] = ArrayEntry(str(dtype), shape, path.stat().st_size, sha256(path))
    about = (shard.name, shard.family, shard.source, shard.group, shard.rows, AMPLITUDE_SCALE)
    sidecar = {**asdict(ShardEntry(*about, **entries)), "recipe": recipe}
    write_json(shard_file(folder, shard.name, "json"), sidecar)


def _encoded(shard: Shard) -> Iterator[Chunk]:
    """A shard's chunks, checked and as they are stored; raises InputError if they lack rows."""
    row = 0
    try:
        for records, maps in shard.chunks():
            check_velocity(maps, shard.files[1], row)
            row += len(maps)
            if row > shard.rows:  # of a file that has changed since its rows were counted
                break
            chunk = {"velocity": np.ascontiguousarray(maps, np.float32)}
            if shard.records:
                chunk["shots"] = _encode(records, shard.files[0], row - len(maps))
            yield chunk
    except OSError as error:  # or it would be taken for one of writing
        raise InputError(f"{shard.files[0]}: {error.strerror or error}") from error
    if row != shard.rows:
        found = f"{row} or more" if row > shard.rows else row
        raise InputError(f"{shard.files[1]}: {found} maps, expected {shard.rows}")


def _encode(records: np.ndarray | torch.Tensor, path: str, first_row: int) -> np.ndarray:
    """Checked records as scaled float16 on the host, rounded where they are."""
    if isinstance(records, np.ndarray):
        records = torch.from_numpy(records if records.flags.writeable else records.copy())
    peak = check_records(records, path, first_row)
    if (peak * AMPLITUDE_SCALE > _HALF_MAX).any():
        row = int(np.argmax(peak))
        what = f"amplitude {peak[row]:g}, expected at most {_HALF_MAX / AMPLITUDE_SCALE:g}"
        raise InputError(f"{path}: row {first_row + row}: {what} to fit into float16")
    half = (records * AMPLITUDE_SCALE).half()
    if half.is_cuda:
        half = torch.empty_like(half, device="cpu", pin_memory=True).copy_(half)
    return half.contiguous().numpy()
