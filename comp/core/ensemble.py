"""Several prediction files into one: mean, median, weighted mean or weighted median."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from comp.core.aligned import Aligned, in_chunks, load_aligned, read_stack
from comp.core.combining import weighted_mean, weighted_median
from comp.core.errors import InputError
from comp.core.files import drop_pages, new_npy
from comp.core.predictions import write_ids

Method = Literal["mean", "median", "weighted", "weighted-median"]
METHODS: tuple[Method, ...] = get_args(Method)
WEIGHTED: tuple[Method, ...] = ("weighted", "weighted-median")


def combine(
    paths: Sequence[str | Path],
    out: str | Path,
    method: Method = "mean",
    weights: Sequence[float] | None = None,
) -> None:
    """Combine prediction files of the same ids into one at `out`, in constant memory.

    Args:
        paths: prediction files; the result follows the first one's order and id table.
        out: the new prediction file, float32.
        method: across the files, value by value.
        weights: one for each file, for "weighted", a mean, and "weighted-median": not negative,
            summing to one.

    Raises:
        InputError: other ids, another sample shape, out-of-fold files among others, bad weights, a
            value that is NaN or infinite; nothing is written then.
    """
    files = load_aligned(paths)
    shares = None
    if method in WEIGHTED:
        shares = check_weights(weights, len(files))
    write_combined(files, out, lambda stack, _: reduce_stack(stack, method, shares), method)


def write_combined(
    files: Sequence[Aligned],
    out: str | Path,
    reduce: Callable[[np.ndarray, slice], np.ndarray],
    title: str,
) -> None:
    """Write what `reduce` makes of (files, k, ...) values of the samples of a slice: (k, ...)."""
    first = files[0].file
    with new_npy(out, first.values.shape, np.float32) as result:

        def work(chunk: slice) -> None:
            result[chunk] = reduce(read_stack(files, chunk), chunk)
            drop_pages(result)

        in_chunks(files, work, title)
    write_ids(out, first.table)


def reduce_stack(
    stack: np.ndarray, method: Method, weights: np.ndarray | None = None
) -> np.ndarray:
    """(files, k, ...) float32 to (k, ...), with weights (files,) or (k, files) where they count."""
    if weights is None or method not in WEIGHTED:
        weights = np.full(len(stack), 1 / len(stack))
    return (weighted_median if "median" in method else weighted_mean)(stack, weights)


def check_weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """(count,) float64 weights that sum to one, so that no combined value leaves the files' range.

    Raises:
        InputError: another number of them, a negative one, or a sum that is not one up to rounding.
    """
    if weights is None or len(weights) != count:
        raise InputError(f"{0 if weights is None else len(weights)} weights for {count} files")
    shares = np.asarray(weights, dtype=np.float64)
    if not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"weights {list(weights)}: expected none negative and a sum of 1")
    return shares / shares.sum()
