"""Weights of an ensemble, fitted on out-of-fold predictions.

On these only (see comp.core.oof), because any other prediction of a training sample comes from a
network that has seen its answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.optimize import linprog, nnls

from comp.core.aligned import Aligned, align, load_aligned
from comp.core.errors import InputError
from comp.core.files import drop_pages
from comp.core.oof import is_out_of_fold
from comp.core.predictions import load_predictions

Error = Literal["absolute", "squared"]
ERRORS: tuple[Error, ...] = get_args(Error)
# Values drawn to fit weights on: as many as take some seconds.
_FITTED = {"absolute": 100_000, "squared": 2_000_000}


def load_out_of_fold(oof: Sequence[str | Path], truth: str | Path) -> tuple[list[Aligned], Aligned]:
    """Out-of-fold files of the same samples, and their truth, which may have more.

    Raises:
        InputError: a file that is not out-of-fold; ids or shapes that do not agree.
    """
    files = load_aligned(oof)
    for aligned in files:
        if not is_out_of_fold(aligned.file):
            raise InputError(
                f"{aligned.file.path}: no column 'fold' in its id table; weights are fitted on "
                "out-of-fold predictions only (see --join-folds)"
            )
        folds = aligned.file.table["fold"].to_numpy()[aligned.rows]
        if (folds != files[0].file.table["fold"].to_numpy()).any():
            name = files[0].file.path
            print(f"note: {aligned.file.path}: other folds than {name}, whose folds are taken")
    return files, align(load_predictions(truth), files[0].file)


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

    Args:
        oof: out-of-fold prediction files of the same samples.
        truth: file in the same form; may have more samples.
        error: whose mean over the values is to be least.
        values: how many are drawn for the fit, without replacement, from all samples; None for
            what takes some seconds. The fit is exact for the values drawn.
        seed: of the draw.

    Returns:
        (files,) float64.

    Raises:
        InputError: a file that is not out-of-fold; ids or shapes that do not agree; NaN.
    """
    files, target = load_out_of_fold(oof, truth)
    samples = np.arange(len(files[0].file))
    drawn = draw_values(files, target, samples, values or _FITTED[error], seed)
    return (least_absolute if error == "absolute" else least_squares)(*drawn)


def draw_values(
    files: Sequence[Aligned], target: Aligned, samples: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values of some samples, drawn without replacement: those of each file, and the truth's.

    Args:
        files, target: as `load_out_of_fold` returns them.
        samples: (s,) ascending rows of the first file.
        count: values drawn, at most; fewer where there are fewer.
        seed: of the draw.

    Returns:
        (count, files) and (count,) float64.

    Raises:
        InputError: a value that is NaN or infinite; file and id are named.
    """
    size = files[0].file.values[:1].size
    total = size * len(samples)
    drawn = np.random.default_rng(seed).choice(total, size=min(count, total), replace=False)
    sample, place = np.divmod(np.sort(drawn), size)
    sample = samples[sample]
    columns = []
    for aligned in (*files, target):
        column = aligned.file.cells(aligned.rows[sample], place).astype(np.float64)
        drop_pages(aligned.file.values)
        if not np.isfinite(column).all():
            bad = files[0].file.ids[sample[int(np.argmin(np.isfinite(column)))]]
            raise InputError(f"{aligned.file.path}: id {bad!r} holds NaN or infinite values")
        columns.append(column)
    return np.stack(columns[:-1], axis=1), columns[-1]


def least_absolute(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (files,) for predictions (values, files) and truth (values,), by their distances.

    Least absolute deviations as a linear programme, solved by HiGHS in its dual form
    (Koenker and Bassett, Econometrica 46, 1978), which has a row for each file instead of one for
    each value: with predictions P and truth t, maximise t·y − m over −1 ≤ y ≤ 1 and m, subject to
    (Pᵀy)ₖ ≤ m; the multipliers of these constraints are the weights. It is exact.
    """
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


def least_squares(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (files,) for predictions (values, files) and truth (values,), by their squares.

    With weights that sum to one the error is the weighted sum of the files' own errors, so the sum
    can be a further equation of the least squares, so heavy that the others cannot bend it.
    """
    errors = np.linalg.qr(predictions - truth[:, None], mode="r")
    heavy = 1e4 * max(np.abs(errors).max(), 1e-12)
    left = np.vstack([errors, np.full(errors.shape[1], heavy)])
    weights, _ = nnls(left, np.append(np.zeros(len(errors)), heavy))
    return weights / weights.sum()
