"""Folds as a file: a CSV that says which fold validates on which sample, and how it was made.

    # method: MultilabelStratifiedKFold
    # seed: 0
    # ids sha256: 3b1f…
    id,fold,group,family
    data1_0000,2,data1.npy,FlatVel_A

The file is an input to training, so every run on it, and every score, speaks of the same samples.
Fold −1 marks samples that always train.

In memory further negative numbers mark samples that only train, and not beside every fold:
`train_only` makes them, `fold_rows` understands them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.files import atomic_path, read_table
from comp.core.predictions import check_unique

COLUMNS = ("id", "fold", "group")
MAX_FOLDS = 62  # bits of a set of folds in an int64


@dataclass(frozen=True)
class Description:
    """What is known of each sample when folds are cut.

    Attributes:
        ids: (n,) sample ids, unique.
        table: n rows of what a person wants to see beside the fold, e.g. the family.
        labels: (n, m) uint8 of 0 and 1, whose shares the folds are to keep.
        names: m label names.
        group: the column of `table` whose values must not straddle folds; None for no such thing.
    """

    ids: np.ndarray
    table: pd.DataFrame
    labels: np.ndarray
    names: tuple[str, ...]
    group: str | None = None

    def __post_init__(self) -> None:
        check_unique(pd.Series(self.ids), "the data's ids")
        if self.group is not None and self.group not in self.table:
            known = ", ".join([*map(str, self.table.columns), "none"])
            raise InputError(f"group: no column {self.group!r}, expected one of {known}")
        if self.group is not None:
            values = self.table[self.group]
            nameless = np.flatnonzero(values.isna() | (values.astype(str) == ""))
            if len(nameless):  # all of them would be one group
                raise InputError(f"group: sample '{self.ids[nameless[0]]}' has no {self.group!r}")

    @property
    def groups(self) -> np.ndarray:
        """(n,) group of each sample; its own id where samples are not grouped."""
        if self.group is None:
            return np.asarray(self.ids)
        return self.table[self.group].astype(str).to_numpy()

    def grouped_by(self, group: str | None) -> "Description":
        """The same samples with other groups; InputError when there is no such column."""
        return replace(self, group=group)


def fingerprint(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids, one a line: the same for the same samples in any order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def write_folds(
    path: str | Path, folds: np.ndarray, description: Description, made: Mapping[str, object]
) -> None:
    """Write a fold file atomically.

    Args:
        path: the CSV.
        folds: (n,) int fold of each sample of `description`.
        description: the samples.
        made: how the folds were made, e.g. method, seed, command; one header line each. The
            group column, the number of samples and the ids' fingerprint are added.
    """
    made = {
        **made,
        "group": description.group or "none",
        "samples": len(description.ids),
        "ids sha256": fingerprint(description.ids),
    }
    table = description.table.drop(columns=description.group or [])
    for column, values in zip(COLUMNS, (description.ids, folds, description.groups)):
        table.insert(COLUMNS.index(column), column, values)
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        for key, value in made.items():
            one_line = " ".join(str(value).split())
            file.write(f"# {key}: {one_line}\n")
        table.to_csv(file, index=False, lineterminator="\n")


def read_folds(path: str | Path, ids: Iterable[str]) -> np.ndarray:
    """Read the fold of each sample of the data.

    Args:
        path: a fold file.
        ids: the data's n sample ids, unique.

    Returns:
        (n,) int64 folds in the order of `ids`; −1 for samples that always train.

    Raises:
        InputError: no such file, no table or a column missing; a doubled id; a fold that is not a
            whole number from −1; a group in two folds; samples that the data does not have, or
            samples of the data without a fold.
    """
    table = read_fold_table(path)
    named, ids = pd.Index(table["id"]), pd.Index(ids)
    unknown = ids.get_indexer(named) < 0
    if unknown.any():
        raise InputError(
            f"{path}: names unknown samples: {unknown.sum()} of its {len(table)} ids are not in "
            f"the data, first {named[unknown][0]!r}"
        )
    rows = named.get_indexer(ids)
    if (rows < 0).any():
        raise InputError(
            f"{path}: {(rows < 0).sum()} of {len(ids)} samples of the data have no fold, "
            f"first {ids[rows < 0][0]!r}"
        )
    return table["fold"].to_numpy()[rows]


def read_fold_table(path: str | Path) -> pd.DataFrame:
    """The id (str), fold (int64) and group (str) columns of a fold file, in its order.

    Raises:
        InputError: as `read_folds`, but for what concerns the data.
    """
    table = read_table(path, COLUMNS, "; scripts/make_folds.py writes it")
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}, expected {', '.join(COLUMNS)}")
    check_unique(table["id"], path)
    wrong = ~table["fold"].str.fullmatch(r"-1|[0-9]{1,9}")
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(
            f"{path}: fold {row['fold']!r} of id {row['id']!r}, expected a whole number from -1"
        )
    folds = table["fold"].astype("int64")
    of_group = folds.groupby(table["group"])
    torn = of_group.min() != of_group.max()
    if torn.any():
        group = torn.index[torn][0]
        found = ", ".join(map(str, sorted(set(folds[table["group"] == group]))))
        raise InputError(f"{path}: group {group!r} lies in folds {found}, expected one fold")
    return table.assign(fold=folds)


def fold_bits(folds: np.ndarray | Sequence[int]) -> np.ndarray:
    """(n,) int64: the set of folds {k} of a sample that validates in fold k, empty for fold −1.

    Raises:
        InputError: a fold beyond MAX_FOLDS.
    """
    folds = np.asarray(folds, np.int64)
    if len(folds) and folds.max() >= MAX_FOLDS:
        raise InputError(f"fold {folds.max()}: samples that only train allow {MAX_FOLDS} folds")
    return np.where(folds < 0, 0, np.int64(1) << folds.clip(0))


def train_only(barred: np.ndarray) -> np.ndarray:
    """Folds of samples that never validate, nor train while a fold that they derive from does.

    Args:
        barred: (n,) int64 sets of folds; bit k is set for a sample that must not train while
            fold k validates.

    Returns:
        (n,) int64 for `fold_rows`, all negative: the complement of each set. That of the empty
        set is −1, the mark of samples that always train.
    """
    return ~np.asarray(barred, np.int64)


def fold_rows(folds: np.ndarray, fold: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation.

    Args:
        folds: (n,) fold of each sample, as `read_folds` or `train_only` gives it.
        fold: the fold to validate on, or "all" to train on every sample and validate on none.

    Returns:
        (train rows, validation rows), both int64 and ascending; together every row once, but for
        those that `train_only` bars from training while this fold validates.

    Raises:
        InputError: no such fold, or nothing left to train on.
    """
    if fold == "all":
        return np.arange(len(folds)), np.arange(0)
    folds = np.asarray(folds, np.int64)
    known = [int(number) for number in np.unique(folds) if number >= 0]
    if fold not in known:
        raise InputError(f"fold: {fold!r}, expected one of {', '.join(map(str, known))} or 'all'")
    valid = folds == fold
    barred = (folds < 0) & (~folds >> min(fold, MAX_FOLDS) & 1 == 1)
    train = np.flatnonzero(~valid & ~barred)
    if not len(train):
        derived = " or derives from it" if barred.any() else ""
        raise InputError(f"fold: every sample is in fold {fold}{derived}, none is left to train on")
    return train, np.flatnonzero(valid)
