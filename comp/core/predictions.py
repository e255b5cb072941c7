"""A prediction file: an array `<stem>.npy` with the table `<stem>.ids.csv` beside it.

Row i of the array belongs to row i of the table. The table's first column is `id`; further columns
(`fold`, `family`) are carried along. Truth is kept in the same form, so a score needs only files.
The array may be float32 or stored in two bytes a value, see `comp.core.halves`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.files import atomic_path, open_npy, save_npy
from comp.core.halves import FULL, HalfArray, decoded, write_scale

_NAMED = 20  # unreadable samples named one by one


def ids_path(path: str | Path) -> Path:
    """The table of ids that belongs to the array at `path` (`a/test.npy` → `a/test.ids.csv`)."""
    return Path(path).with_suffix(".ids.csv")


def write_ids(path: str | Path, table: pd.DataFrame) -> None:
    """Write the id table of the array at `path` atomically; the first column must be `id`."""
    with atomic_path(ids_path(path)) as partial:
        table.to_csv(partial, index=False)


@dataclass(frozen=True)
class Predictions:
    """Predicted (or true) arrays with their ids.

    Attributes:
        table: one row a sample, first column `id` (str, unique).
        values: (n, ...) array, a read-only memmap or a `HalfArray`, which reads as float32;
            for velocity (n, 70, 70) in m/s.
        path: the array's file, for messages.
    """

    table: pd.DataFrame
    values: np.ndarray | HalfArray
    path: Path

    @property
    def ids(self) -> np.ndarray:
        """(n,) array of id strings."""
        return self.table["id"].to_numpy()

    def __len__(self) -> int:
        return len(self.table)

    def read(self, rows: slice | np.ndarray, *part: slice) -> np.ndarray:
        """(k, ...) float32 values of the samples at `rows`, whatever the file stores them in.

        `part` cuts the further axes.
        """
        return np.asarray(self.values[(rows, *part)], dtype=np.float32)

    def cells(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """(k,) float32 values, one of each of `rows`, at `places` of its flattened sample."""
        return np.asarray(self.values.reshape(len(self), -1)[rows, places], dtype=np.float32)

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """Row numbers of `ids` in this file; raises InputError naming the first unknown id."""
        rows = pd.Index(self.ids).get_indexer(pd.Index(ids))
        if (rows < 0).any():
            first = list(ids)[int(np.argmax(rows < 0))]
            missing = int((rows < 0).sum())
            raise InputError(f"{self.path}: {missing} of {len(rows)} ids missing, first {first!r}")
        return rows

    def check_shape(self, other: "Predictions") -> None:
        """Raise InputError unless a sample has the same shape here as in `other`."""
        found, expected = self.values.shape[1:], other.values.shape[1:]
        if found != expected:
            raise InputError(
                f"{self.path}: sample shape {found}, expected {expected} as in {other.path}"
            )


def load_predictions(path: str | Path) -> Predictions:
    """Open a prediction file lazily.

    Raises:
        InputError: array or table missing or broken, lengths differ, an id doubled or blank.
    """
    path = Path(path)
    values = decoded(open_npy(path), path)
    table_path = ids_path(path)
    try:
        table = pd.read_csv(table_path, dtype={"id": str}, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{table_path}: no such file; it names the rows of {path.name}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{table_path}: not a CSV table: {error}") from None
    if list(table.columns[:1]) != ["id"]:
        raise InputError(f"{table_path}: first column {list(table.columns[:1])}, expected 'id'")
    if len(table) != len(values):
        raise InputError(f"{table_path}: {len(table)} ids for {len(values)} rows of {path.name}")
    check_unique(table["id"], table_path)
    return Predictions(table, values, path)


def save_predictions(path: str | Path, table: pd.DataFrame, values: np.ndarray) -> None:
    """Write array and id table, each atomically; the table last, so it never stands alone."""
    check_unique(table["id"], ids_path(path))
    save_npy(path, values)
    write_scale(path, FULL)
    write_ids(path, table)


def note_broken(table: pd.DataFrame) -> None:
    """Name the samples that an id table marks as lost, with a 1 in its column `broken`."""
    if "broken" not in table:
        return
    lost = table["id"][table["broken"].astype(str) == "1"]
    names = ", ".join(lost[:_NAMED]) + (", …" if len(lost) > _NAMED else "")
    print(f"warning: {len(lost)} of {len(table)} samples could not be read or predicted: {names}")


def check_unique(ids: pd.Series, source: str | Path) -> None:
    """Raise InputError naming the first doubled or blank id of `ids`."""
    doubled = ids.duplicated()
    if doubled.any():
        row = int(np.argmax(doubled.to_numpy()))
        raise InputError(f"{source}: id {ids.iloc[row]!r} in row {row} stands there twice")
    blank = ids == ""
    if blank.any():
        raise InputError(f"{source}: blank id in row {int(np.argmax(blank.to_numpy()))}")
