"""What a competition says about its submission CSV, and the CSV read by that, chunk by chunk."""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from tqdm import tqdm

from comp.core.errors import InputError

_READ_BYTES = 1 << 22
_READ_VALUES = 1 << 22  # 16 MB, where one cell stands for thousands of values


class BadCell(ValueError):
    """A cell that cannot be read; the message says what was found and what is expected.

    Attributes:
        row: its row among those that were given.
    """

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


class Layout(Protocol):
    """How a competition lays out its submission: `rows_per_id` rows a sample, each with a row id.

    Attributes:
        header: column names; the first is that of the row id.
        rows_per_id: CSV rows of one sample.
        value_shape: shape of one sample's prediction.
        row_shape: shape of the values that one CSV row is read back as.
        column_type: Arrow type of every column after the first.
        decimals: decimal places written; None where the columns are not numbers.
        valid_range: predicted values outside are refused, in the competition's unit.
        clip_range: the range that the truth is known to keep.
    """

    @property
    def header(self) -> tuple[str, ...]: ...
    @property
    def rows_per_id(self) -> int: ...
    @property
    def value_shape(self) -> tuple[int, ...]: ...
    @property
    def row_shape(self) -> tuple[int, ...]: ...
    @property
    def column_type(self) -> pa.DataType: ...
    @property
    def decimals(self) -> int | None: ...
    @property
    def valid_range(self) -> tuple[float, float]: ...
    @property
    def clip_range(self) -> tuple[float, float]: ...

    def row_ids(self, ids: Sequence[str]) -> pa.Array:
        """(len(ids)·rows_per_id,) row ids as strings, those of one sample together, in order."""
        ...

    def split(self, row_ids: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """Sample id of each row id, and its number within the sample; "" and −1 if malformed."""
        ...

    def columns(self, values: np.ndarray) -> list[pa.Array]:
        """The columns after the row id for predictions (k, *value_shape), k·rows_per_id long."""
        ...

    def rows(self, columns: Sequence[pa.Array], numbers: np.ndarray) -> np.ndarray:
        """The reverse of `columns`: (rows, *row_shape) float32, NaN for a number that is missing.

        Args:
            columns: those after the row id.
            numbers: (rows,) int64 number of each row within its sample.

        Raises:
            BadCell: text that does not stand for values.
        """
        ...


def read_chunks(
    path: str | Path, layout: Layout, only_ids: bool = False
) -> Iterator[tuple[pa.Array, list[pa.Array]]]:
    """Yield (row ids, other columns) of a CSV chunk by chunk, under one progress bar.

    With `only_ids` the other columns are left out. The header is skipped, see `check_header`.

    Raises:
        InputError: a row or a cell that does not parse.
    """
    first, *others = layout.header
    # One thread, because only then does Arrow's message about a bad cell say the line.
    read = pacsv.ReadOptions(
        use_threads=False, block_size=_READ_BYTES, column_names=layout.header, skip_rows=1
    )
    convert = pacsv.ConvertOptions(
        column_types={first: pa.string(), **dict.fromkeys(others, layout.column_type)},
        include_columns=[first] if only_ids else list(layout.header),
    )
    step = max(1, _READ_VALUES // math.prod(layout.row_shape))
    size = os.path.getsize(path)
    with tqdm(total=size, desc=f"reading {Path(path).name}", unit="B", unit_scale=True) as bar:
        try:
            with pa.OSFile(str(path)) as file:
                for batch in pacsv.open_csv(file, read_options=read, convert_options=convert):
                    bar.update(file.tell() - bar.n)
                    for start in range(0, len(batch), step):
                        part = batch.slice(start, step)
                        yield part.column(0), part.columns[1:]
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: {one_line(error)}") from None


def check_header(path: str | Path, layout: Layout, allow_spaces: bool = False) -> None:
    """Raise InputError unless there is such a file and its header is the layout's.

    With `allow_spaces` stray spaces in the header pass with a note.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            found = next(csv.reader([file.readline()]), [])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
    expected = list(layout.header)
    if found == expected:
        return
    if allow_spaces and [name.strip() for name in found] == expected:
        print(f"note: {path}: the header has stray spaces; {','.join(expected[:2])},… expected")
        return
    pairs = zip(found + ["nothing"] * len(expected), expected + ["nothing"] * len(found))
    number, (got, want) = next((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1])
    raise InputError(f"{path}: column {number} of the header is {got!r}, expected {want!r}")


def one_line(error: pa.ArrowInvalid) -> str:
    """Arrow's message without its excerpt of the data, which may run over many lines."""
    return str(error).splitlines()[0][:200]
