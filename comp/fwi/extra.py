"""Samples that only train, and beside which folds: the extra folders of a store."""

from pathlib import Path

import numpy as np

from comp.core.errors import InputError
from comp.core.folds import read_folds
from comp.core.lineage import derived_folds, read_lineage
from comp.fwi.shards import ShardEntry
from comp.fwi.shots import ShotStore


def training_folds(store: ShotStore, path: str | Path) -> np.ndarray:
    """Folds of every row of a store: of its folder by the fold file, of its extras by lineage.

    Extra samples never validate. Derived ones (shards of group "derived") are barred while what
    they derive from validates, see `comp.core.lineage`; others always train.

    Args:
        store: of a folder with or without extras.
        path: the fold file of the folder.

    Returns:
        (len(store),) int64 for `comp.core.folds.fold_rows`.

    Raises:
        InputError: as `read_folds`, `read_lineage` and `derived_folds`; derived samples in the
            folder that validates; an extra shard with the very maps of one of that folder.
    """
    originals = store.shards_of[store.folder]
    refuse_derived(store.folder, originals)
    ids = [name for shard in originals for name in shard.ids]
    folds = read_folds(path, ids)
    maps = {shard.velocity.sha256: shard.name for shard in originals}
    parts = [folds]
    for folder in store.extra:
        shards = store.shards_of[folder]
        for shard in shards:
            if shard.group != "derived" and shard.velocity.sha256 in maps:
                twin = f"{maps[shard.velocity.sha256]} of {store.folder}"
                raise InputError(f"{folder}: {shard.name} holds the maps of {twin}, which validate")
        parts.append(_extra_folds(folder, shards, ids, folds))
    return np.concatenate(parts)


def _extra_folds(
    folder: Path, shards: list[ShardEntry], ids: list[str], folds: np.ndarray
) -> np.ndarray:
    if not any(shard.group == "derived" for shard in shards):
        return np.full(sum(shard.rows for shard in shards), -1)
    lineage = read_lineage(folder, [name for shard in shards for name in shard.ids])
    return derived_folds(lineage, ids, folds)


def refuse_derived(folder: str | Path, shards: list[ShardEntry]) -> None:
    """Raise InputError if shards of a folder that is to validate hold derived samples."""
    for shard in shards:
        if shard.group == "derived":
            what = f"{shard.name} holds derived samples, which never validate"
            raise InputError(f"{folder}: {what}; name the folder in data.extra")
