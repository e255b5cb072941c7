"""Prediction files of the same samples, read side by side in the first one's order."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import drop_pages
from comp.core.oof import is_out_of_fold
from comp.core.predictions import Predictions, load_predictions

_CHUNK_VALUES = 1 << 20  # values worked on at once, those of all files together: 4 MB in float32


@dataclass(frozen=True)
class Aligned:
    """A prediction file in the order of another.

    Attributes:
        file: the file.
        rows: (n,) its row for each sample of the other.
        straight: whether that is its own order.
    """

    file: Predictions
    rows: np.ndarray
    straight: bool

    def read(self, chunk: slice) -> np.ndarray:
        """(k, ...) float32 values of the other file's samples `chunk`."""
        return self.file.read(chunk if self.straight else self.rows[chunk])


def align(file: Predictions, first: Predictions) -> Aligned:
    """`file` in the order of `first`, of which it may have more samples.

    Raises:
        InputError: an id missing, another sample shape.
    """
    file.check_shape(first)
    try:
        rows = file.rows_of(first.ids)
    except InputError as error:
        raise InputError(f"{error}; expected those of {first.path}") from None
    return Aligned(file, rows, bool((rows == np.arange(len(rows))).all()))


def load_aligned(paths: Sequence[str | Path]) -> list[Aligned]:
    """Open prediction files of the same samples.

    Raises:
        InputError: no files; other ids (one is named); another sample shape; out-of-fold files
            mixed with others, of which the result could not say what it is.
    """
    if not paths:
        raise InputError("no prediction files given")
    files = [load_predictions(path) for path in paths]
    first = files[0]
    aligned = []
    for file in files:
        found = align(file, first)
        if is_out_of_fold(file) != is_out_of_fold(first):
            raise InputError(
                f"{file.path} and {first.path}: one is out-of-fold and the other is not"
            )
        if len(file) > len(first):
            extra = file.table["id"][~file.table["id"].isin(first.ids)].iloc[0]
            raise InputError(f"{file.path}: id {extra!r} is unknown to {first.path}")
        if not found.straight:
            print(f"note: {file.path}: another order of ids, aligned to {first.path}")
        aligned.append(found)
    return aligned


def read_stack(files: Sequence[Aligned], chunk: slice) -> np.ndarray:
    """(files, k, ...) float32 values of the first file's samples `chunk`.

    Raises:
        InputError: a value that is NaN or infinite; file, row and id are named.
    """
    shape = files[0].file.values.shape
    samples = len(range(*chunk.indices(shape[0])))
    stack = np.empty((len(files), samples, *shape[1:]), np.float32)
    for values, aligned in zip(stack, files):
        values[:] = aligned.read(chunk)
        drop_pages(aligned.file.values)
    finite = np.isfinite(stack)
    if not finite.all():
        number, sample = np.argwhere(~finite)[0][:2]
        bad = files[number]
        row = bad.rows[chunk.start + sample]
        name = f"{bad.file.path}: id {bad.file.ids[row]!r}"
        raise InputError(f"{name} holds NaN or infinite values (row {row}), expected numbers")
    return stack


def in_chunks(files: Sequence[Aligned], work: Callable[[slice], None], title: str) -> None:
    """Call `work` on every chunk of the first file's samples, on all cores, in constant memory.

    Args:
        files: read side by side.
        work: should let go of the interpreter lock, as NumPy and compiled loops do.
        title: stands before the bar.
    """
    first = files[0].file
    step = max(1, _CHUNK_VALUES // max(1, len(files) * first.values[:1].size))
    chunks = [slice(i, min(i + step, len(first))) for i in range(0, len(first), step)]
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for _ in tqdm(pool.map(work, chunks), total=len(chunks), desc=title, unit="chunk"):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # else an error would wait for all that is queued
