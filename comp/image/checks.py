"""Checked (n, C) arrays of probabilities, label sets and folds, and the chunks they are worked in.

The largest competition has 109,237 images × 1,103 labels, 480 MB in float32: checks make no copy of
what is already in order, and what needs room beside it goes chunk by chunk.
"""

from collections.abc import Iterator

import numpy as np

from comp.core.errors import InputError

_CHUNK_VALUES = 1 << 21  # values worked on at once; a dozen temporaries of that stay below 200 MB


def chunks(length: int, width: int) -> Iterator[slice]:
    """Cut `length` rows of `width` values into consecutive slices of bounded size."""
    step = max(1, _CHUNK_VALUES // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def checked_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """(n, C) float32 probabilities, the array itself where it is that already.

    Raises:
        InputError: not two-dimensional, no rows or columns, not floating, NaN or outside 0..1.
    """
    array = np.asarray(probabilities)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"probabilities: shape {array.shape}, expected (samples, labels)")
    if array.dtype.kind != "f":
        raise InputError(f"probabilities: dtype {array.dtype}, expected floating point")
    if not (array.min() >= 0 and array.max() <= 1):  # NaN fails too
        row, column = next(_outside(array))
        raise InputError(
            f"probabilities: {array[row, column]} in row {row}, column {column}, expected 0 to 1"
        )
    return array.astype(np.float32, copy=False)


def _outside(array: np.ndarray) -> Iterator[tuple[int, int]]:
    """Row and column of each entry that is NaN or outside 0..1."""
    for rows in chunks(*array.shape):
        for row, column in np.argwhere(~((array[rows] >= 0) & (array[rows] <= 1))):
            yield rows.start + int(row), int(column)


def checked_sets(sets: np.ndarray, shape: tuple[int, int] | None, name: str) -> np.ndarray:
    """(n, C) bool label sets, the array itself where it is that already.

    Args:
        sets: bool or numbers 0 and 1.
        shape: the shape it must have; None for any two dimensions.
        name: what it is called in messages, e.g. "truth".

    Raises:
        InputError: another shape, or an entry that is neither 0 nor 1.
    """
    array = np.asarray(sets)
    if array.ndim != 2 or 0 in array.shape or (shape is not None and array.shape != shape):
        expected = "(samples, labels)" if shape is None else f"{shape}"
        raise InputError(f"{name}: shape {array.shape}, expected {expected}")
    if array.dtype == bool:
        return array
    result = np.empty(array.shape, bool)
    for rows in chunks(*array.shape):
        result[rows] = array[rows] == 1
        wrong = np.argwhere(~result[rows] & (array[rows] != 0))
        if len(wrong):
            row, column = rows.start + wrong[0][0], wrong[0][1]
            raise InputError(
                f"{name}: {array[row, column]} in row {row}, column {column}, expected 0 or 1"
            )
    return result


def checked_folds(folds: np.ndarray, samples: int, several: bool = True) -> np.ndarray:
    """(n,) int64 held-out folds of out-of-fold predictions.

    Args:
        folds: of each sample.
        samples: n.
        several: whether there must be two folds or more.

    Raises:
        InputError: another length, not whole numbers from 0, or too few folds.
    """
    array = np.asarray(folds)
    if array.shape != (samples,):
        raise InputError(f"folds: shape {array.shape}, expected ({samples},) as there are samples")
    if array.dtype.kind not in "iu":
        raise InputError(f"folds: dtype {array.dtype}, expected whole numbers")
    if array.min() < 0:
        row = int(np.argmin(array))
        raise InputError(
            f"folds: {array[row]} in row {row}, expected 0 or more: only samples that were held "
            "out have out-of-fold predictions"
        )
    if several and (array == array[0]).all():
        raise InputError(f"folds: only fold {array[0]}, expected two or more to search and score")
    return array.astype(np.int64)
