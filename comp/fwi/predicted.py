"""Velocity maps that a network predicted, to be simulated and trained on as pairs.

This is the winners' pseudo-label loop: predict the test records, simulate the predicted maps, and
train on the simulated records with the predicted maps as their exact answers. The map need not be
right for its record to be right for the map.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.core.errors import InputError
from comp.core.files import drop_pages, sha256
from comp.core.folds import read_fold_table
from comp.core.lineage import folds_fingerprint, new_lineage
from comp.core.oof import is_out_of_fold
from comp.core.predictions import Predictions, ids_path, load_predictions
from comp.fwi.checks import check_velocity
from comp.fwi.maps import Maps
from comp.fwi.survey import OFFICIAL, Survey

FAMILY = "predicted"  # of maps whose id table has no column `family`
_CHUNK = 512  # maps in memory at a time while they are checked: 10 MB


def predicted_maps(
    path: str | Path,
    network_fold: str | None,
    folds: str | Path | None,
    families: Sequence[str] | None,
    count: int | None,
    shard_size: int,
    seed: int,
    survey: Survey = OFFICIAL,
) -> list[Maps]:
    """Maps of a prediction file, with what decides beside which folds they may train.

    Out-of-fold predictions (an id table with a column `fold`) are never trained on while their own
    record validates. Then, what a network learned from the maps of its training it passes on in its
    predictions; so these train only while the fold validates that the network was not trained on.

    Args:
        path: the prediction file, m/s; values are clipped to the survey's range.
        network_fold: the fold that the network left out; "all" if there is none, as for an average
            over folds: the samples then train only where no fold validates (`folds: [all]`);
            "ignore" to leave the network's training out of account. None is taken for "all" for
            out-of-fold predictions, all of whose networks but one know any fold; other predictions
            need one of these.
        folds: the fold file that the network was trained with, where `network_fold` is a fold.
        families: which to take; None takes all. They stand in the column `family` of the id
            table; without that column all maps are of one family, "predicted".
        count: maps of each family, drawn at random; None takes all.
        shard_size: maps in a shard.
        seed: of the draw.
        survey: gives the shape of a map and the range of velocities.

    Raises:
        InputError: as `load_predictions`; maps of another shape, with NaN or out of range; an
            unknown family; a network fold that is missing, unknown or makes no sense.
    """
    file = load_predictions(path)
    if file.values.shape[1:] != survey.map_shape or file.values.dtype.kind != "f":
        found = f"{file.values.dtype} maps {file.values.shape[1:]}"
        raise InputError(f"{path}: {found}, expected floating point {survey.map_shape}")
    if not len(file):
        raise InputError(f"{path}: holds no maps")
    for start in range(0, len(file), _CHUNK):
        check_velocity(file.values[start : start + _CHUNK], path, start)
        drop_pages(file.values)
    network_fold, cut = _network(file, network_fold, folds)
    recipe = {
        "predictions_sha256": sha256(path),
        "ids_sha256": sha256(ids_path(path)),
        "network_fold": network_fold,
        "folds_sha256": cut,
        "draw": None if count is None else [seed, count],
    }
    named = file.table["family"] if "family" in file.table else np.full(len(file), FAMILY)
    family_of_row = np.asarray(named, str)
    present = sorted(set(family_of_row))
    maps = []
    for family in present if families is None else dict.fromkeys(families):
        if family not in present:
            what = f"family {family!r}: not in {ids_path(path)}"
            raise InputError(f"{what}, expected one of {', '.join(present)}")
        rows = np.flatnonzero(family_of_row == family)
        if count is not None:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
        for number, start in enumerate(range(0, len(rows), shard_size)):
            part = rows[start : start + shard_size]
            maps.append(_shard(file, family, number, part, recipe, survey))
    return maps


def _network(
    file: Predictions, network_fold: str | None, folds: str | Path | None
) -> tuple[str, str]:
    """`network_fold` and the fold file's fingerprint, as `Lineage` wants them."""
    if is_out_of_fold(file):
        if network_fold not in (None, "all", "ignore"):
            what = f"{file.path}: out-of-fold predictions come from the networks of all folds"
            raise InputError(f"{what}; --network-fold {network_fold}: expected all or ignore")
        network_fold = network_fold or "all"
    elif network_fold is None:
        what = "on which fold was its network not trained? Give --network-fold"
        raise InputError(f"{file.path}: {what} <fold>, all or ignore")
    if network_fold in ("all", "ignore"):
        if folds is not None:
            raise InputError("--folds: of use only where --network-fold names one of them")
        return ("all" if network_fold == "all" else ""), ""
    if folds is None:
        raise InputError(f"--network-fold {network_fold}: needs the network's fold file, --folds")
    table = read_fold_table(folds)
    if network_fold not in {str(fold) for fold in table["fold"] if fold >= 0}:
        raise InputError(f"--network-fold {network_fold}: {folds} has no such fold")
    return network_fold, folds_fingerprint(table["id"], table["fold"])


def _shard(
    file: Predictions,
    family: str,
    number: int,
    rows: np.ndarray,
    recipe: dict[str, Any],
    survey: Survey,
) -> Maps:
    def load() -> np.ndarray:
        velocity = np.asarray(file.values[rows], np.float32)
        drop_pages(file.values)
        return survey.clip(velocity)

    recipe = {**recipe, "rows": [int(rows[0]), int(rows[-1])]}
    part = Maps(family, number, len(rows), file.path.name, "derived", recipe, load)
    origin = "parent_a" if is_out_of_fold(file) else "record"
    lineage = new_lineage(
        part.ids,
        "predicted",
        **{origin: file.ids[rows]},
        network_fold=recipe["network_fold"],
        folds=recipe["folds_sha256"],
    )
    return replace(part, lineage=lineage)
