"""What derived samples were made from, so that none trains while what it came from validates.

    # folds sha256: 5f2c…
    id,kind,parent_a,parent_b,record,network_fold
    FlatVel_A_0000_0000,blend,FlatVel_A_data1_0017,FlatVel_A_data1_0301,,
    test_0000_0000,predicted,,,000039dca2,2

The table names samples, not folds: where they validate is looked up in the fold file of the very
training that uses them, so that cutting folds anew cannot let a derived sample slip through.

A sample is barred from training while a fold validates that holds one of its parents or the record
that it was predicted from, and, where a network predicted it, while a fold validates on which that
network was trained: such a network knows the answers, and passes some of them on.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.files import atomic_path, read_table
from comp.core.folds import fingerprint, fold_bits, train_only

PARENTS = ("parent_a", "parent_b")
COLUMNS = ("id", "kind", *PARENTS, "record", "network_fold")
FILE = "lineage.csv"
_NOTE = "# folds sha256: "


@dataclass(frozen=True)
class Lineage:
    """The origin of each of n derived samples.

    Attributes:
        table: n rows of str, columns COLUMNS, "" where there is nothing to say.
            kind: how it was made, for people.
            parent_a, parent_b: ids of training samples that it was made from.
            record: id of the record that a network predicted it from. Unlike a parent it may be
                unknown to the training data: a test record is.
            network_fold: the fold on which that network was not trained, "all" where there is no
                such fold.
        folds: `folds_fingerprint` of the folds that `network_fold` speaks of; "" where it never
            names one.
        path: the file it was read from, for messages.
    """

    table: pd.DataFrame
    folds: str = ""
    path: Path = Path(FILE)


def new_lineage(
    ids: Sequence[str],
    kind: str | np.ndarray,
    parent_a: str | np.ndarray = "",
    parent_b: str | np.ndarray = "",
    record: str | np.ndarray = "",
    network_fold: str = "",
    folds: str = "",
) -> Lineage:
    """The lineage of the samples `ids`; a single string stands for all of them."""
    origin = (kind, parent_a, parent_b, record, network_fold)
    columns = [np.broadcast_to(np.asarray(values, str), len(ids)) for values in (ids, *origin)]
    return Lineage(pd.DataFrame(dict(zip(COLUMNS, columns))), folds)


def join_lineages(parts: Sequence[Lineage]) -> Lineage:
    """The lineage of all samples of the parts, which speak of the same folds, in their order."""
    return Lineage(pd.concat([part.table for part in parts]), parts[0].folds)


def folds_fingerprint(ids: Sequence[str], folds: np.ndarray) -> str:
    """SHA-256 of which sample is in which fold, whatever the order."""
    return fingerprint(f"{name},{fold}" for name, fold in zip(ids, folds))


def write_lineage(folder: str | Path, lineage: Lineage) -> None:
    """Write `lineage.csv` into a folder of derived samples, atomically."""
    with (
        atomic_path(Path(folder) / FILE) as partial,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        if lineage.folds:
            file.write(f"{_NOTE}{lineage.folds}\n")
        lineage.table.to_csv(file, index=False, columns=list(COLUMNS), lineterminator="\n")


def read_lineage(folder: str | Path, ids: Sequence[str]) -> Lineage:
    """Read the lineage of a folder of derived samples.

    Args:
        folder: holds `lineage.csv`.
        ids: the folder's n sample ids; the table must name these, in this order.

    Raises:
        InputError: no such file, not a table, a column missing, other ids, a network fold that is
            neither a number nor "all".
    """
    path = Path(folder) / FILE
    table = read_table(path, COLUMNS, "; without it nobody knows beside which fold these may train")
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}, expected {', '.join(COLUMNS)}")
    if table["id"].tolist() != list(ids):
        pairs = itertools.zip_longest(table["id"], ids)
        row, (found, wanted) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        raise InputError(f"{path}: id {found!r} in row {row}, but the samples have {wanted!r}")
    wrong = ~table["network_fold"].str.fullmatch(r"(all|[0-9]{1,9})?")
    if wrong.any():
        row = table[wrong].iloc[0]
        what = f"network_fold {row['network_fold']!r} of id {row['id']!r}"
        raise InputError(f"{path}: {what}, expected a fold, 'all' or nothing")
    with open(path, encoding="utf-8") as file:
        first = file.readline()
    folds = first.removeprefix(_NOTE).strip() if first.startswith(_NOTE) else ""
    return Lineage(table, folds, path)


def derived_folds(lineage: Lineage, ids: Sequence[str], folds: np.ndarray) -> np.ndarray:
    """Where derived samples may train.

    Args:
        lineage: of n derived samples.
        ids: of the training data.
        folds: the fold of each of these, −1 for always training.

    Returns:
        (n,) int64 as `comp.core.folds.train_only` gives them, for `fold_rows`.

    Raises:
        InputError: a parent that the training data does not have; a network of another cut.
    """
    known, bits, barred = pd.Index(ids), fold_bits(folds), np.zeros(len(lineage.table), np.int64)
    for column in (*PARENTS, "record"):
        names = lineage.table[column]
        rows = known.get_indexer(names)
        unknown = (names != "").to_numpy() & (rows < 0)
        if column in PARENTS and unknown.any():
            row = lineage.table[unknown].iloc[0]
            what = f"parent {row[column]!r} of id {row['id']!r}"
            raise InputError(f"{lineage.path}: {what} is not in the training data")
        barred |= np.where(rows < 0, 0, bits[rows])
    return train_only(barred | _seen_by_network(lineage, ids, folds))


def _seen_by_network(lineage: Lineage, ids: Sequence[str], folds: np.ndarray) -> np.ndarray:
    """(n,) int64: the sets of folds on which each sample's network was trained."""
    numbers = np.unique(folds[folds >= 0])
    everything = int(np.bitwise_or.reduce(fold_bits(numbers)))
    seen = {"": 0, "all": everything}
    named = sorted(set(lineage.table["network_fold"]) - seen.keys())
    if named and lineage.folds != folds_fingerprint(ids, folds):
        what = f"speaks of a network that left out fold {named[0]}"
        raise InputError(f"{lineage.path}: {what} of another fold file than this training's")
    for name in named:
        if int(name) not in numbers:
            have = ", ".join(map(str, numbers))
            raise InputError(f"{lineage.path}: network_fold {name}, expected one of {have}")
        seen[name] = everything & ~(1 << int(name))
    return lineage.table["network_fold"].map(seen).to_numpy(np.int64)
