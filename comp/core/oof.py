"""Out-of-fold files: every training sample, predicted by the network that has not seen it.

A prediction file is out-of-fold when its id table has a `fold` column, which says the fold that was
held out when the sample was predicted.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import drop_pages, new_npy, read_table
from comp.core.predictions import Predictions, check_unique, load_predictions, write_ids

_CHUNK_VALUES = 1 << 20  # values worked on at once: 4 MB


def is_out_of_fold(predictions: Predictions) -> bool:
    """Whether the id table says which fold was held out for each sample."""
    return "fold" in predictions.table


def expected_ids(path: str | Path) -> np.ndarray:
    """(n,) ids that out-of-fold predictions have to cover.

    Args:
        path: a fold file, of which the samples that always train (fold −1) are left out, or any
            other CSV with a column `id`, such as the id table of the truth.

    Raises:
        InputError: no such file, not a table, no column `id`, an id twice.
    """
    table = read_table(path)
    if "id" not in table:
        raise InputError(f"{path}: columns {', '.join(table.columns)}, expected one called 'id'")
    check_unique(table["id"], path)
    held_out = table["fold"] != "-1" if "fold" in table else slice(None)
    return table["id"][held_out].to_numpy()


def join_folds(paths: Sequence[str | Path], out: str | Path, ids: Sequence[str]) -> None:
    """Join the validation predictions of all folds into one out-of-fold file, in constant memory.

    Args:
        paths: prediction files, one or more a fold, each with a `fold` column.
        out: the new prediction file, float32, in the order of `ids`.
        ids: every sample that is to be covered exactly once.

    Raises:
        InputError: an id missing, not expected or in two files; no `fold` column; another sample
            shape. Nothing is written then.
    """
    if not paths:
        raise InputError("no prediction files given")
    files = [load_predictions(path) for path in paths]
    shape = files[0].values.shape[1:]
    places = _places(files, pd.Index(ids))
    step = max(1, _CHUNK_VALUES // max(1, int(np.prod(shape))))
    with new_npy(out, (len(ids), *shape), np.float32) as result:
        for file, place in zip(files, places):
            for start in tqdm(range(0, len(file), step), desc=file.path.name, unit="chunk"):
                chunk = slice(start, start + step)
                result[place[chunk]] = file.values[chunk]
                drop_pages(file.values)
                drop_pages(result)
    table = pd.concat([file.table for file in files])
    write_ids(out, table.iloc[np.argsort(np.concatenate(places))])


def _places(files: Sequence[Predictions], ids: pd.Index) -> list[np.ndarray]:
    """Where the rows of each file go; raises InputError unless together they cover all `ids`."""
    first = files[0]
    owner = np.full(len(ids), -1)
    places = []
    for number, file in enumerate(files):
        if not is_out_of_fold(file):
            raise InputError(f"{file.path}: its id table has no column 'fold', so not out-of-fold")
        file.check_shape(first)
        place = ids.get_indexer(file.ids)
        if (place < 0).any():
            raise InputError(f"{file.path}: id {file.ids[np.argmin(place)]!r} is not expected")
        taken = owner[place] >= 0
        if taken.any():
            at = int(np.argmax(taken))
            other = files[owner[place[at]]].path
            raise InputError(f"{file.path}: id {file.ids[at]!r} stands in {other} as well")
        owner[place] = number
        places.append(place)
    missing = ids[owner < 0]
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(ids)} ids in none of {len(files)} files, first {missing[0]!r}"
        )
    return places
