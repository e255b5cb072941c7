"""Submission CSVs: streamed from a prediction file, checked row by row, read back for a score.

A competition describes its CSV once, as a `Layout`; the code here is the same for all of them and
holds one chunk in memory, whatever the number of rows. Messages count lines as an editor does: the
header is line 1.
"""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import atomic_path, drop_pages
from comp.core.layout import BadCell, Layout, check_header, one_line, read_chunks
from comp.core.predictions import Predictions

# CSV rows made at once, and values they are made of: some MB, enough to hide the cost of a step.
_CHUNK_ROWS, _CHUNK_VALUES = 20_000, 1 << 22


def write_submission(
    path: str | Path,
    predictions: Predictions,
    layout: Layout,
    sample: str | Path | None = None,
    decimals: int | None = None,
    clip: bool = False,
) -> np.ndarray:
    """Write `predictions` as a submission CSV, atomically and in constant memory.

    Args:
        path: the CSV.
        predictions: any order; values (n, *layout.value_shape).
        layout: the competition's layout.
        sample: sample submission whose order is followed; it must name the same ids.
        decimals: decimal places, instead of the layout's.
        clip: clip to `layout.clip_range` instead of refusing values out of `layout.valid_range`.

    Returns:
        (n,) ids in the order written.

    Raises:
        InputError: another shape; the ids are not the sample's; a value that is NaN or out of
            range (the id is named); the disk is full. The file is then not written.
    """
    found = predictions.values.shape[1:]
    if found != layout.value_shape:
        raise InputError(f"{predictions.path}: sample shape {found}, expected {layout.value_shape}")
    ids = predictions.ids if sample is None else read_ids(sample, layout)
    order = predictions.rows_of(ids)
    if len(ids) < len(predictions):
        extra = predictions.table["id"][~predictions.table["id"].isin(ids)]
        raise InputError(
            f"{predictions.path}: {len(extra)} ids unknown to {sample}, first {extra.iloc[0]!r}"
        )
    decimals = layout.decimals if decimals is None else decimals
    low, high = layout.clip_range
    outside = 0
    most = _CHUNK_ROWS // layout.rows_per_id, _CHUNK_VALUES // math.prod(layout.value_shape)
    step = max(1, min(most))
    types = [pa.string()] + [layout.column_type] * (len(layout.header) - 1)
    schema = pa.schema(list(zip(layout.header, types)))
    # The header is written by hand because Arrow would put it in quotes.
    options = pacsv.WriteOptions(include_header=False, quoting_style="none")
    with atomic_path(path) as partial, open(partial, "wb") as file:
        file.write((",".join(layout.header) + "\n").encode())
        with pacsv.CSVWriter(file, schema, write_options=options) as writer:
            for start in tqdm(range(0, len(ids), step), desc="writing", unit="chunk"):
                rows = order[start : start + step]
                values = np.asarray(predictions.values[rows], dtype=np.float32)
                drop_pages(predictions.values)
                limits = (-np.inf, np.inf) if clip else layout.valid_range
                _check_predictions(predictions, rows, values, limits)
                outside += int(((values < low) | (values > high)).sum())
                if clip:
                    values = values.clip(low, high)
                if decimals is not None:
                    values = values.round(decimals)
                columns = [layout.row_ids(ids[start : start + step]), *layout.columns(values)]
                try:
                    writer.write(pa.record_batch(columns, schema=schema))
                except pa.ArrowInvalid as error:  # an id with a comma, a quote or a line break
                    raise InputError(f"{predictions.path}: {one_line(error)}") from None
    if outside:
        print(f"note: values outside {low:g}..{high:g} {'clipped' if clip else 'kept'}: {outside}")
    return ids


def read_ids(path: str | Path, layout: Layout) -> np.ndarray:
    """(n,) ids of a submission or a sample submission, in its order.

    Stray spaces in the header pass with a note, as some sample submissions have them.

    Raises:
        InputError: another header, a malformed row id, the rows of an id not together and in
            order, an id twice.
    """
    check_header(path, layout, allow_spaces=True)
    ids: list[str] = []
    start, per_id = 0, layout.rows_per_id
    for row_ids, _ in read_chunks(path, layout, only_ids=True):
        names, _ = layout.split(row_ids)
        malformed = pc.index(names, "").as_py()
        if malformed >= 0:
            raise InputError(
                f"{path}: line {start + malformed + 2}: row id {row_ids[malformed].as_py()!r}, "
                f"expected one like {layout.row_ids(['<id>'])[0].as_py()!r}"
            )
        ids.extend(names[-start % per_id :: per_id].to_pylist())
        different = _first_difference(row_ids, _expected(layout, ids, start, len(row_ids)))
        if different is not None:
            raise InputError(f"{path}: line {start + different[0] + 2}: {different[1]}")
        start += len(row_ids)
    if not ids:
        raise InputError(f"{path}: a header without rows")
    if start % per_id:
        raise InputError(f"{path}: ends within the {per_id} rows of id {ids[-1]!r}")
    doubled = pd.Index(ids).duplicated()
    if doubled.any():
        first = int(np.argmax(doubled))
        raise InputError(f"{path}: line {first * per_id + 2}: id {ids[first]!r} stands there twice")
    return np.array(ids, dtype=object)


def check_submission(path: str | Path, layout: Layout, ids: Sequence[str]) -> int:
    """Check header, ids, their order, the row count, range and NaN; return the row count.

    Args:
        path: the CSV.
        layout: the competition's layout.
        ids: the expected ids in order: those of the sample submission, see `read_ids`.

    Raises:
        InputError: the first difference with its line.
    """
    check_header(path, layout)
    start, total = 0, len(ids) * layout.rows_per_id
    for row_ids, columns in read_chunks(path, layout):
        different = _first_difference(row_ids, _expected(layout, ids, start, len(row_ids)))
        if different is not None:
            name = layout.split(row_ids[different[0] :][:1])[0][0].as_py()
            why = "the order differs" if name in set(ids) else "that id is unknown"
            raise InputError(f"{path}: line {start + different[0] + 2}: {different[1]}; {why}")
        numbers = np.arange(start, start + len(row_ids)) % layout.rows_per_id
        _read_rows(path, start, row_ids, columns, numbers, layout)
        start += len(row_ids)
    if start < total:
        raise InputError(f"{path}: ends after {start} rows, expected {total}")
    return start


def read_submission(path: str | Path, layout: Layout, ids: Sequence[str]) -> np.ndarray:
    """The values of a submission, ordered as `ids` whatever the order of its rows.

    Returns:
        (len(ids), rows_per_id, *row_shape) float32, in a temporary file that is mapped, not loaded.

    Raises:
        InputError: another header; a row id malformed, unknown, doubled or missing; a value that is
            NaN or out of range.
    """
    check_header(path, layout)
    return _read_values(path, layout, ids)


def read_truth(path: str | Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Ids and values of a truth in the submission's layout, as `read_ids` and `read_submission`.

    Unlike a submission, which has to pass elsewhere too, it may have stray spaces in its header.
    """
    ids = read_ids(path, layout)
    return ids, _read_values(path, layout, ids)


def _read_values(path: str | Path, layout: Layout, ids: Sequence[str]) -> np.ndarray:
    """What `read_submission` returns and raises, but for the header."""
    per_id = layout.rows_per_id
    index = pd.Index(ids)
    values = _temporary((len(ids) * per_id, *layout.row_shape))
    seen = np.zeros(len(values), dtype=bool)
    start = 0
    for row_ids, columns in read_chunks(path, layout):
        names, numbers = layout.split(row_ids)
        codes = names.dictionary_encode()
        samples = index.get_indexer(codes.dictionary.to_pylist())[codes.indices.to_numpy()]
        rows = samples * per_id + numbers
        unknown = (samples < 0) | (numbers < 0)
        doubled = seen[np.where(unknown, 0, rows)] | pd.Index(rows).duplicated()
        if (unknown | doubled).any():
            first = int(np.argmax(unknown | doubled))
            what = "is unknown" if unknown[first] else "stands there twice"
            raise InputError(
                f"{path}: line {start + first + 2}: row id {row_ids[first].as_py()!r} {what}"
            )
        values[rows] = _read_rows(path, start, row_ids, columns, numbers, layout)
        seen[rows] = True
        drop_pages(values)
        start += len(rows)
    if not seen.all():
        first = int(np.argmin(seen))
        row_id = layout.row_ids(ids[first // per_id :][:1])[first % per_id].as_py()
        raise InputError(
            f"{path}: {int((~seen).sum())} of {len(seen)} rows missing, first {row_id!r}"
        )
    return values.reshape(len(ids), per_id, *layout.row_shape)


def _temporary(shape: Sequence[int]) -> np.ndarray:
    """A float32 memmap in a nameless file; its space is reserved, so a full disk is an OSError."""
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))
        return np.memmap(file, np.float32, "r+", shape=tuple(shape))


def _expected(layout: Layout, ids: Sequence[str], start: int, count: int) -> pa.Array:
    """Row ids of rows start … start + count − 1, fewer where `ids` end before."""
    per_id = layout.rows_per_id
    block = ids[start // per_id : -(-(start + count) // per_id)]
    return layout.row_ids(block)[start % per_id :][:count]


def _first_difference(found: pa.Array, expected: pa.Array) -> tuple[int, str] | None:
    """Position and description of the first difference; `expected` may end early."""
    if found.equals(expected):
        return None
    count = min(len(found), len(expected))
    position = pc.index(pc.equal(found[:count], expected[:count]), False).as_py()
    if position < 0:
        return count, f"row id {found[count].as_py()!r}, expected the end of the file"
    return position, f"row id {found[position].as_py()!r}, expected {expected[position].as_py()!r}"


def _first_bad(values: np.ndarray, limits: tuple[float, float]) -> tuple[int, str] | None:
    """Row and description of the first value that is not finite or not within `limits`."""
    low, high = limits
    bad = ~((values >= low) & (values <= high) & np.isfinite(values))
    if not bad.any():
        return None
    place = tuple(np.argwhere(bad)[0])
    expected = f"{low:g}..{high:g}" if np.isfinite(high) else "a finite number"
    return int(place[0]), f"value {values[place]:g}, expected {expected}"


def _check_predictions(
    predictions: Predictions, rows: np.ndarray, values: np.ndarray, limits: tuple[float, float]
) -> None:
    bad = _first_bad(values, limits)
    if bad is not None:
        raise InputError(f"{predictions.path}: id {predictions.ids[rows[bad[0]]]!r}: {bad[1]}")


def _read_rows(
    path: str | Path,
    start: int,
    row_ids: pa.Array,
    columns: Sequence[pa.Array],
    numbers: np.ndarray,
    layout: Layout,
) -> np.ndarray:
    """(rows, *row_shape) values of a chunk that begins with row `start`, all of them good."""
    try:
        values = layout.rows(columns, numbers)
        bad = _first_bad(values, layout.valid_range)
    except BadCell as error:
        bad = error.row, str(error)
    if bad is not None:
        row_id = row_ids[bad[0]].as_py()
        raise InputError(f"{path}: line {start + bad[0] + 2} ({row_id}): {bad[1]}")
    return values
