"""The competition's raw training files into a prepared folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import drop_pages, open_npy, sha256
from comp.fwi.shard_writer import Shard, write_shards
from comp.fwi.shards import read_index, shard_file
from comp.fwi.survey import OFFICIAL, Survey

# The raw data name their files in two ways; in both, a record file `<shots>KEY.npy` belongs to the
# map file `<velocity>KEY.npy`. The first is used by the Vel and Style families, the second by the
# Fault families.
NAMINGS = (("data/data", "model/model"), ("seis", "vel"))

_CHUNK_ROWS = 16  # 22 MB of records mapped at a time


def prepare(raw: str | Path, out: str | Path, survey: Survey = OFFICIAL) -> None:
    """Convert a folder `<Family>/...` of raw files; every source file becomes one shard.

    A source file is recognised by its size and its time of last change, because reading 660 GB
    again to compare contents would cost more than converting them.

    Args:
        raw: the competition's train_samples folder.
        out: the prepared folder; finished if an earlier run was killed.
        survey: what the records must look like.

    Raises:
        InputError: as `find_sources` and `write_shards`; a source file that has
            changed since its shard was made.
    """
    write_shards(out, survey, find_sources(raw, survey))


def find_sources(raw: str | Path, survey: Survey = OFFICIAL) -> list[Shard]:
    """Find every pair of raw files and check their headers; nothing is read yet.

    Raises:
        InputError: no family folder; a family folder without data; a file without its partner,
            truncated, of wrong shape or dtype, or with another number of rows than its partner.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder")
    families = sorted(p for p in raw.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not families:
        raise InputError(f"{raw}: holds no family folders such as FlatVel_A")
    return [shard for family in families for shard in _family_sources(raw, family, survey)]


def _family_sources(raw: Path, folder: Path, survey: Survey) -> list[Shard]:
    shards = []
    for shots_prefix, velocity_prefix in NAMINGS:
        shots, maps = _by_key(folder, shots_prefix), _by_key(folder, velocity_prefix)
        for key in sorted(shots.keys() | maps.keys()):
            if key not in maps:
                raise InputError(f"{folder / velocity_prefix}{key}.npy: missing, for {shots[key]}")
            if key not in shots:
                raise InputError(f"{folder / shots_prefix}{key}.npy: missing, for {maps[key]}")
            shards.append(_source(raw, shots[key], maps[key], survey))
    if not shards:
        names = " or ".join(f"{prefix}*.npy" for prefix, _ in NAMINGS)
        raise InputError(f"{folder}: no raw data here, expected {names}")
    return shards


def _by_key(folder: Path, prefix: str) -> dict[str, Path]:
    start = len(str(folder / prefix))
    return {str(path)[start : -len(".npy")]: path for path in folder.glob(f"{prefix}*.npy")}


def _source(raw: Path, shots_path: Path, velocity_path: Path, survey: Survey) -> Shard:
    def open_both() -> tuple[np.ndarray, np.ndarray]:
        shots = open_npy(shots_path, (None, *survey.record_shape), [np.float32])
        return shots, open_npy(velocity_path, (len(shots), 1, *survey.map_shape), [np.float32])

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        shots, velocity = open_both()
        for start in range(0, len(shots), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            yield shots[part], velocity[part, 0]
            drop_pages(shots)

    rows = len(open_both()[0])
    if not rows:
        raise InputError(f"{shots_path}: holds no records")
    family = shots_path.relative_to(raw).parts[0]
    recipe = {}
    for kind, path in (("shots", shots_path), ("velocity", velocity_path)):
        status = path.stat()
        recipe[f"{kind}_bytes"], recipe[f"{kind}_mtime_ns"] = status.st_size, status.st_mtime_ns
    return Shard(
        name=f"{family}_{shots_path.stem}",
        family=family,
        source=shots_path.relative_to(raw).as_posix(),
        group="file",
        rows=rows,
        recipe=recipe,
        files=(str(shots_path), str(velocity_path)),
        chunks=chunks,
    )


def verify(folder: str | Path) -> None:
    """Compare every file of a prepared folder with the checksum in its index.

    Raises:
        InputError: names the first file that is missing or differs.
    """
    _, shards = read_index(folder)
    arrays = [(shard, kind) for shard in shards for kind in shard.arrays]
    total = sum(getattr(shard, kind).bytes for shard, kind in arrays)
    with tqdm(total=total, unit="B", unit_scale=True) as bar:
        for shard, kind in arrays:
            path = shard_file(folder, shard.name, f"{kind}.npy")
            if not path.exists():
                raise InputError(f"{path}: no such file, but the index lists it")
            found, wanted = sha256(path), getattr(shard, kind).sha256
            if found != wanted:
                raise InputError(f"{path}: sha256 {found[:12]}…, expected {wanted[:12]}…")
            bar.update(getattr(shard, kind).bytes)
