"""Velocity maps made from given ones: blends, crops, affine warps, mirror images.

Everything random about a shard is in a `Draw`; `derive` makes the maps from it. Every map has its
parents in one fold, so it can train beside all the others. The transforms are those of the
competition's winners; records are simulated afterwards, by the exact scheme, so that map and
record fit however the map was made.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

from comp.core.errors import InputError
from comp.core.folds import fingerprint, read_folds
from comp.core.lineage import new_lineage
from comp.fwi.extra import refuse_derived
from comp.fwi.maps import Maps
from comp.fwi.shots import ShotStore

KINDS = ("blend", "crop", "warp", "mirror")

BLEND_WEIGHTS = (0.3, 0.7)
CROP_SIDE = 4 / 7  # least side of the window that is enlarged to the whole map: 40 of 70 cells
# Of a warp, each drawn evenly between ± these.
ROTATION, SHEAR = math.radians(10), 0.15
SCALE = 1.2  # between 1/this and this, evenly in its logarithm, alike on both axes
SHIFT = 7.0  # cells
# A map in which more than this share of neighbouring cells are equal is made of layers. Of real
# maps of five families the least layered has 0.77; smooth ones have less than 0.05.
LAYERED = 0.5
_PLAIN = np.array([[1.0, 0, 0], [0, 1, 0]])  # a sampling that takes each cell from its own place


@dataclass(frozen=True)
class Draw:
    """Everything random about n derived maps.

    Attributes:
        kind: (n,) str of KINDS.
        parents: (n, 2) rows of the parents; a map with one parent has it twice.
        sampling: (n, 2, 2, 3) float64, for each parent the affine map from (row, column, 1) of a
            cell to the place (row, column) where its value is taken from.
        weight: (n,) float64 share of the first parent.
    """

    kind: np.ndarray
    parents: np.ndarray
    sampling: np.ndarray
    weight: np.ndarray


class Parents:
    """Maps that others may be made from, put in order so that pairs of one group are found at once.

    Attributes:
        count: of the maps.
        pairable: (k,) places in `order` of those that do not stand alone in their group.
    """

    def __init__(self, groups: np.ndarray) -> None:
        """`groups` (m,) are such as the fold of each map: both parents of a blend are of one."""
        self.count = len(groups)
        self._order = np.argsort(groups, kind="stable")
        _, start, size = np.unique(groups[self._order], return_index=True, return_counts=True)
        # Of the group of each in order.
        self._start, self._size = np.repeat(start, size), np.repeat(size, size)
        self.pairable = np.flatnonzero(self._size > 1)

    def pairs(self, count: int, random: np.random.Generator) -> np.ndarray:
        """(count, 2) maps, two different ones of one group."""
        if not len(self.pairable):
            raise InputError("no fold holds two maps to blend")
        first = self.pairable[random.integers(len(self.pairable), size=count)]
        start, size = self._start[first], self._size[first]
        second = start + (first - start + 1 + random.integers(size - 1)) % size
        return self._order[np.stack([first, second], axis=1)]


def draw(
    count: int,
    kinds: Sequence[str],
    among: Parents,
    shape: tuple[int, int],
    random: np.random.Generator,
) -> Draw:
    """Draw `count` derived maps, each of a kind drawn from `kinds`, each parent mirrored or not.

    Args:
        count: maps to draw.
        kinds: of KINDS.
        among: the maps that may be parents.
        shape: cells of a map, depth × distance.
        random: where all of it comes from.

    Raises:
        InputError: a blend is wanted, but no fold holds two maps.
    """
    kind = np.array(kinds)[random.integers(len(kinds), size=count)]
    parents = np.repeat(random.integers(among.count, size=count)[:, None], 2, axis=1)
    blends = kind == "blend"
    if "blend" in kinds:
        parents[blends] = among.pairs(int(blends.sum()), random)
    sampling = np.tile(_PLAIN, (count, 2, 1, 1))
    for i in np.flatnonzero((kind == "crop") | (kind == "warp")):
        one = _draw_crop(shape, random) if kind[i] == "crop" else _draw_warp(shape, random)
        sampling[i] = one
    mirrored = (random.random((count, 2)) < 0.5) | (kind == "mirror")[:, None]
    sampling[mirrored] = _after(sampling[mirrored], _mirror(shape))
    weight = np.where(blends, random.uniform(*BLEND_WEIGHTS, size=count), 1.0)
    return Draw(kind, parents, sampling, weight)


def _draw_crop(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """(2, 3) that enlarges a square window, smaller than the map, to the whole of it."""
    side = random.integers(round(CROP_SIDE * min(shape)), min(shape))
    corner = random.integers(0, np.array(shape) - side + 1)
    scale = side / np.array(shape)
    return np.column_stack([np.diag(scale), corner + (scale - 1) / 2])  # of cell centres


def _draw_warp(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """(2, 3) that turns, shears, scales and shifts a map about its middle."""
    turn, shear = random.uniform(-1, 1, 2) * (ROTATION, SHEAR)
    scale = SCALE ** random.uniform(-1, 1)
    shift = random.uniform(-SHIFT, SHIFT, 2)
    cos, sin = math.cos(turn), math.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]]) @ [[1, shear], [0, 1]] / scale
    middle = (np.array(shape) - 1) / 2
    return np.column_stack([linear, middle + shift - linear @ middle])


def _mirror(shape: tuple[int, int]) -> np.ndarray:
    return np.array([[1.0, 0, 0], [0, -1, shape[1] - 1]])


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(..., 2, 3) affine map that does `first` (2, 3), then `second` (..., 2, 3)."""
    return second @ np.vstack([first, [0, 0, 1]])


def derive(drawn: Draw, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Make the maps of a draw.

    Values are taken from the nearest cell of a layered map and interpolated linearly in a smooth
    one, so that interfaces stay sharp and smooth maps smooth; outside the map its edge goes on. A
    map from parents in whole m/s is rounded to whole m/s. No value leaves its parents' range.

    Args:
        drawn: from `draw`.
        first, second: (n, ny, nx) float32, m/s, the maps at `drawn.parents`.

    Returns:
        (n, ny, nx) float32, m/s.
    """
    out = np.empty_like(first)
    for i, weight in enumerate(drawn.weight):
        out[i] = _resample(first[i], drawn.sampling[i, 0])
        whole = _is_whole(first[i])
        if weight < 1:
            other = _resample(second[i], drawn.sampling[i, 1])
            out[i] = other + weight * (out[i] - other)
            whole = whole and _is_whole(second[i])
        if whole:
            np.rint(out[i], out=out[i])
    return out


def _resample(velocity: np.ndarray, sampling: np.ndarray) -> np.ndarray:
    # What follows would give the same, at ten times the cost; blends need no more than this.
    if (sampling == _PLAIN).all():
        return velocity
    if (sampling == _mirror(velocity.shape)).all():
        return velocity[:, ::-1]
    order = 0 if _is_layered(velocity) else 1
    return affine_transform(
        velocity, sampling[:, :2], sampling[:, 2], order=order, mode="nearest", prefilter=False
    )


def _is_layered(velocity: np.ndarray) -> bool:
    equal = [np.mean(np.diff(velocity, axis=axis) == 0) for axis in (0, 1)]
    return float(np.mean(equal)) > LAYERED


def _is_whole(velocity: np.ndarray) -> bool:
    return bool((velocity == np.rint(velocity)).all())


def derived_maps(
    folder: str | Path,
    folds: str | Path,
    families: Sequence[str] | None,
    kinds: Sequence[str],
    count: int,
    shard_size: int,
    seed: int,
) -> list[Maps]:
    """Maps derived from those of a prepared folder, `count` for each family.

    Args:
        folder: the prepared folder.
        folds: its fold file.
        families: which to derive from; None takes all. Parents of one map are of one family.
        kinds: of KINDS.
        count: maps of each family.
        shard_size: maps in a shard.
        seed: of the draw.

    Raises:
        InputError: as `ShotStore` and `read_folds`; derived samples in the folder; an unknown kind
            or family; no two maps of a family in one fold, where blends are wanted.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"kind {kind!r}: unknown, expected one of {', '.join(KINDS)}")
    store = ShotStore(folder)
    refuse_derived(folder, store.shards)
    fold_of_row = read_folds(folds, store.ids)
    present = sorted(set(store.families))
    maps = []
    for family in present if families is None else dict.fromkeys(families):
        if family not in present:
            what = f"family {family!r}: not in {folder}, expected one of {', '.join(present)}"
            raise InputError(what)
        pool = np.flatnonzero(store.families == family)
        shards = [shard for shard in store.shards if shard.family == family]
        recipe = {
            "kinds": list(dict.fromkeys(kinds)),
            "maps_sha256": fingerprint(f"{s.name} {s.velocity.sha256}" for s in shards),
            "folds_sha256": fingerprint(f"{i} {fold_of_row[i]}" for i in pool),
        }
        for number, start in enumerate(range(0, count, shard_size)):
            seeds = [seed, zlib.crc32(family.encode()), number]
            try:
                drawn = draw(
                    min(shard_size, count - start),
                    recipe["kinds"],
                    Parents(fold_of_row[pool]),
                    store.survey.map_shape,
                    np.random.default_rng(seeds),
                )
            except InputError as error:
                raise InputError(f"{folds}: {family}: {error}") from None
            drawn = replace(drawn, parents=pool[drawn.parents])
            maps.append(_shard(store, family, number, drawn, {**recipe, "seeds": seeds}))
    return maps


def _shard(store: ShotStore, family: str, number: int, drawn: Draw, recipe: dict[str, Any]) -> Maps:
    def load() -> np.ndarray:
        return derive(drawn, *(store.velocities(rows) for rows in drawn.parents.T))

    rows, source = len(drawn.kind), store.folder.resolve().name
    part = Maps(family, number, rows, source, "derived", recipe, load)
    first, second = store.ids[drawn.parents].T
    second = np.where(drawn.kind == "blend", second, "")
    return replace(part, lineage=new_lineage(part.ids, drawn.kind, first, second))
