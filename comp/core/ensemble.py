"""Several prediction files into one: mean, median, or weights fitted on out-of-fold predictions.

Weights are fitted on out-of-fold files only (see comp.core.oof), because any other prediction of a
training sample comes from a network that has seen its answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.optimize import linprog, nnls
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import drop_pages, new_npy
from comp.core.oof import is_out_of_fold
from comp.core.predictions import Predictions, load_predictions, write_ids

Method = Literal["mean", "median", "weighted"]
METHODS: tuple[Method, ...] = ("mean", "median", "weighted")
Error = Literal["absolute", "squared"]
ERRORS: tuple[Error, ...] = ("absolute", "squared")
_CHUNK_VALUES = 1 << 20  # values of one file worked on at once: 4 MB
# Values drawn to fit weights on: as many as take some seconds.
_FITTED = {"absolute": 100_000, "squared": 2_000_000}


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
        weights: one for each file, for "weighted": not negative, summing to one.

    Raises:
        InputError: other ids, another sample shape, out-of-fold files among others, bad weights, a
            value that is NaN or infinite; nothing is written then.
    """
    files = load_aligned(paths)
    shares = check_weights(weights, len(files)) if method == "weighted" else None
    first, _ = files[0]
    step = max(1, _CHUNK_VALUES // max(1, first.values[:1].size))
    with new_npy(out, first.values.shape, np.float32) as result:
        for start in tqdm(range(0, len(first), step), desc=method, unit="chunk"):
            chunk = slice(start, start + step)
            stack = np.stack([file.values[rows[chunk]] for file, rows in files])
            for array in (result, *(file.values for file, _ in files)):
                drop_pages(array)
            _check_finite(stack, files, start)
            result[chunk] = _reduce(stack, method, shares)
    write_ids(out, first.table)


def _reduce(stack: np.ndarray, method: Method, weights: np.ndarray | None) -> np.ndarray:
    """(files, k, ...) to (k, ...)."""
    if method == "mean":
        return stack.mean(axis=0, dtype=np.float64)
    if method == "weighted":
        return np.tensordot(weights, stack, axes=1)
    stack.sort(axis=0)  # three times faster than np.median along the first axis of ten files
    count = len(stack)
    return (stack[(count - 1) // 2] + stack[count // 2]) / 2


def load_aligned(paths: Sequence[str | Path]) -> list[tuple[Predictions, np.ndarray]]:
    """Open prediction files of the same samples, each with its rows in the first one's order.

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
        file.check_shape(first)
        if is_out_of_fold(file) != is_out_of_fold(first):
            raise InputError(
                f"{file.path} and {first.path}: one is out-of-fold and the other is not"
            )
        rows = file.rows_of(first.ids)
        if len(file) > len(first):
            extra = file.table["id"][~file.table["id"].isin(first.ids)].iloc[0]
            raise InputError(f"{file.path}: id {extra!r} is unknown to {first.path}")
        if (rows != np.arange(len(rows))).any():
            print(f"note: {file.path}: another order of ids, aligned to {first.path}")
        aligned.append((file, rows))
    return aligned


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


def fit_weights(
    oof: Sequence[str | Path],
    truth: str | Path,
    error: Error = "absolute",
    values: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Weights of the files, not negative and summing to one, with the least error.

    The absolute error is the seismic competition's. Of probabilities against 0 and 1 it is least
    where all are driven to the nearer end; their squared error is least where they are true.

    Least absolute deviations as a linear programme, solved by HiGHS in its dual form
    (Koenker and Bassett, Econometrica 46, 1978), which has a row for each file instead of one for
    each value: with predictions P and truth t, maximise t·y − m over −1 ≤ y ≤ 1 and m, subject to
    (Pᵀy)ₖ ≤ m; the multipliers of these constraints are the weights.

    Args:
        oof: out-of-fold prediction files of the same samples.
        truth: file in the same form; may have more samples.
        error: whose mean over the values is to be least.
        values: how many are drawn for the fit, without replacement, from all samples; None for
            what takes some seconds.
        seed: of the draw.

    Returns:
        (files,) float64.

    Raises:
        InputError: a file that is not out-of-fold; ids or shapes that do not agree.
    """
    files = load_aligned(oof)
    for file, _ in files:
        if not is_out_of_fold(file):
            raise InputError(
                f"{file.path}: no column 'fold' in its id table; weights are fitted on "
                "out-of-fold predictions only (see --join-folds)"
            )
    first, _ = files[0]
    target = load_predictions(truth)
    target.check_shape(first)
    files.append((target, target.rows_of(first.ids)))
    total = first.values.size
    drawn = np.random.default_rng(seed).choice(
        total, size=min(values or _FITTED[error], total), replace=False
    )
    sample, value = np.divmod(np.sort(drawn), total // len(first))
    columns = []
    for file, rows in files:
        column = file.values.reshape(len(file), -1)[rows[sample], value].astype(np.float64)
        drop_pages(file.values)
        if not np.isfinite(column).all():
            bad = first.ids[sample[int(np.argmin(np.isfinite(column)))]]
            raise InputError(f"{file.path}: id {bad!r} holds NaN or infinite values")
        columns.append(column)
    fit = _least_absolute if error == "absolute" else _least_squares
    return fit(np.stack(columns[:-1], axis=1), columns[-1])


def _least_absolute(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (files,) for predictions (values, files) and truth (values,); see `fit_weights`."""
    values, files = predictions.shape
    solution = linprog(
        c=np.append(-truth, 1.0),
        A_ub=np.column_stack([predictions.T, -np.ones(files)]),
        b_ub=np.zeros(files),
        bounds=[(-1.0, 1.0)] * values + [(None, None)],
        method="highs",
    )
    if solution.status != 0:
        raise RuntimeError(f"weights not found: {solution.message}")
    weights = np.clip(-solution.ineqlin.marginals, 0.0, None)
    return weights / weights.sum()


def _least_squares(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (files,) for predictions (values, files) and truth (values,), by their squares.

    With weights that sum to one the error is the weighted sum of the files' own errors, so the sum
    can be a further equation of the least squares, so heavy that the others cannot bend it.
    """
    errors = np.linalg.qr(predictions - truth[:, None], mode="r")
    heavy = 1e4 * max(np.abs(errors).max(), 1e-12)
    left = np.vstack([errors, np.full(errors.shape[1], heavy)])
    weights, _ = nnls(left, np.append(np.zeros(len(errors)), heavy))
    return weights / weights.sum()


def _check_finite(
    stack: np.ndarray, files: Sequence[tuple[Predictions, np.ndarray]], start: int
) -> None:
    finite = np.isfinite(stack)
    if not finite.all():
        file, sample = np.argwhere(~finite)[0][:2]
        name = files[0][0].ids[start + sample]
        raise InputError(f"{files[file][0].path}: id {name!r} holds NaN or infinite values")
