"""Velocity maps to simulate, shard by shard: from the generators or from files."""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.core.errors import InputError
from comp.core.files import sha256
from comp.core.lineage import Lineage
from comp.fwi.checks import check_velocity
from comp.fwi.shards import sample_ids
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.velocity import FAMILIES, generate


@dataclass(frozen=True)
class Maps:
    """The velocity maps of one shard, made when they are needed.

    Attributes:
        family: velocity family.
        number: of the shard within its family.
        rows: number of maps.
        source: where they come from, for messages and for the index.
        group: "file", "sample" or "derived", as in `comp.fwi.shards.ShardEntry`.
        recipe: what decides their values, as JSON values.
        load: returns them, (rows, ny, nx) float32, m/s.
        lineage: what derived maps were made from; None for others.
    """

    family: str
    number: int
    rows: int
    source: str
    group: str
    recipe: dict[str, Any]
    load: Callable[[], np.ndarray]
    lineage: Lineage | None = None

    @property
    def name(self) -> str:
        """Of the shard."""
        return f"{self.family}_{self.number:04d}"

    @property
    def ids(self) -> list[str]:
        """The ids of the samples made of them."""
        return sample_ids(self.name, self.rows)


def generated_maps(
    families: Sequence[str], count: int, shard_size: int, seed: int, test: bool = False
) -> list[Maps]:
    """Maps of the generators, `count` for each family.

    Every shard has a seed of its own, (seed, family, shard number), so none depends on another.
    `test` adds a fourth number, so that test data share no map with training data of that seed.

    Raises:
        InputError: an unknown family.
    """
    maps = []
    for family in dict.fromkeys(families):
        if family not in FAMILIES:
            raise InputError(f"family {family!r}: unknown, expected one of {', '.join(FAMILIES)}")
        for number, start in enumerate(range(0, count, shard_size)):
            rows = min(shard_size, count - start)
            seeds = [seed, FAMILIES.index(family), number] + [1] * test

            def load(
                family: str = family, rows: int = rows, seeds: list[int] = seeds
            ) -> np.ndarray:
                return generate(family, rows, seeds)

            source = f"{family}_{number:04d}"
            maps.append(Maps(family, number, rows, source, "file", {"seeds": seeds}, load))
    return maps


def given_maps(
    folder: str | Path,
    families: Sequence[str] | None,
    count: int,
    shard_size: int,
    seed: int,
    skip: int = 0,
    survey: Survey = OFFICIAL,
) -> list[Maps]:
    """Maps of `<Family>.npz` files, at most `count` of each, drawn at random without repetition.

    Each map counts as a sample of its own when folds are made.

    Args:
        folder: holds one file a family, key `velocity`, (n, ny, nx) int16 or float32, m/s.
        families: which files; None takes all.
        count: maps of each family.
        shard_size: maps in a shard.
        seed: of the draw.
        skip: maps to leave out at the start of the draw; with the training data's `count` and seed
            it makes test data that share no map with them.
        survey: gives the shape of a map.

    Raises:
        InputError: a file is missing, broken, of wrong shape or dtype, holds a velocity out of
            range, or is left with no map.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    names = sorted(path.stem for path in folder.glob("*.npz")) if families is None else families
    if not names:
        raise InputError(f"{folder}: holds no <Family>.npz files")
    maps = []
    for family in dict.fromkeys(names):
        path = folder / f"{family}.npz"
        total = len(_read_npz(path, survey))
        drawn = np.random.default_rng(seed).permutation(total)[skip : skip + count]
        if not len(drawn):
            raise InputError(f"{path}: no map is left after skipping {skip} of {total}")
        common = {"maps_sha256": sha256(path), "seed": seed}
        for number, start in enumerate(range(0, len(drawn), shard_size)):
            part = drawn[start : start + shard_size]

            def load(path: Path = path, part: np.ndarray = part) -> np.ndarray:
                return _read_npz(path, survey)[part].astype(np.float32)

            recipe = {**common, "draw": [skip + start, skip + start + len(part)]}
            maps.append(Maps(family, number, len(part), path.name, "sample", recipe, load))
    return maps


def _read_npz(path: Path, survey: Survey) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            velocity = archive["velocity"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except KeyError:
        raise InputError(f"{path}: no array 'velocity'") from None
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path}: not a readable .npz archive of plain numbers") from None
    if velocity.dtype not in (np.int16, np.float32):
        raise InputError(f"{path}: dtype {velocity.dtype}, expected int16 or float32")
    if velocity.shape[1:] != survey.map_shape:
        raise InputError(f"{path}: shape {velocity.shape}, expected (n, {survey.ny}, {survey.nx})")
    check_velocity(velocity, path, 0)
    return velocity
