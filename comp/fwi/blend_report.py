"""Which way to combine maps is best, and how good: errors of samples that it was not fitted on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from comp.fwi.postprocess import POSTS

CHOSEN = "chosen on the other folds"


def best_way(errors: np.ndarray) -> tuple[int, int]:
    """Way and postprocessing with the least mean of (ways, posts, n) errors.

    Of equals the first, hence simpler, one.
    """
    means = errors.mean(axis=-1, dtype=np.float64)
    way, post = np.unravel_index(np.argmin(means), means.shape)
    return int(way), int(post)


def chosen_by_others(errors: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(n,) errors of samples combined in the way that was the best on the other folds.

    Each way's errors there are nested ones, so that weights, router and choice are all judged on
    samples which they have not seen; but for the weights by which the choice was made.
    """
    result = np.empty(errors.shape[-1])
    for fold in np.unique(folds):
        held = folds == fold
        result[held] = errors[best_way(errors[..., ~held])][held]
    return result


def compare_table(names: Sequence[str], errors: np.ndarray, folds: np.ndarray) -> pd.DataFrame:
    """A row a way, the best one followed by what postprocessing does to it, and the whole choice.

    Args:
        names: of the ways.
        errors: (2, ways, posts, n) searched and nested MAE of each sample; infinite where a way
            has no such postprocessing.
        folds: (n,) fold of each sample.

    Returns:
        Columns `nested`; `±`, the standard deviation of the folds' own; `searched`, of what was
        fitted on the very samples, NaN for the choice. m/s.
    """
    best, _ = best_way(errors[1])
    rows = {}
    for way, name in enumerate(names):
        for number, post in enumerate(POSTS):
            if number and (way != best or np.isinf(errors[1, way, number]).all()):
                continue
            title = f"{name}, {post}" if number else name
            rows[title] = _row(errors[1, way, number], errors[0, way, number], folds)
    rows[CHOSEN] = _row(chosen_by_others(errors[1], folds), None, folds)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("way")


def _row(nested: np.ndarray, searched: np.ndarray | None, folds: np.ndarray) -> dict[str, float]:
    of_fold = [nested[folds == fold].mean(dtype=np.float64) for fold in np.unique(folds)]
    found = np.nan if searched is None else float(searched.mean(dtype=np.float64))
    mean = float(nested.mean(dtype=np.float64))
    return {"nested": mean, "±": float(np.std(of_fold, ddof=1)), "searched": found}
