"""Predictions of training images beside their truth, aligned by id."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.oof import is_out_of_fold
from comp.core.predictions import load_predictions
from comp.image.store import ImageStore


@dataclass(frozen=True)
class Judged:
    """Out-of-fold predictions and what is true.

    Attributes:
        rows: (n,) int64 rows of the store.
        folds: (n,) int64, the fold that was held out when the image was predicted.
        probabilities: (n, C), usually a memmap.
        truth: (n, C) bool.
    """

    rows: np.ndarray
    folds: np.ndarray
    probabilities: np.ndarray
    truth: np.ndarray


def load_judged(store: ImageStore, path: str | Path) -> Judged:
    """Read out-of-fold predictions of the images of `store`, of all folds or of some.

    Raises:
        InputError: a file missing or broken, not out-of-fold, of other images or labels.
    """
    predictions = load_predictions(path)
    if not is_out_of_fold(predictions):
        raise InputError(
            f"{path}: no column 'fold' in its id table, expected out-of-fold predictions "
            "(see scripts/ensemble.py --join-folds)"
        )
    rows = pd.Index(store.ids).get_indexer(pd.Index(predictions.ids))
    if (rows < 0).any():
        first = predictions.ids[int((rows < 0).argmax())]
        raise InputError(f"{path}: id {first!r} is unknown to {store.folder}")
    shape, expected = predictions.values.shape[1:], (len(store.labels),)
    if shape != expected:
        raise InputError(
            f"{path}: sample shape {shape}, expected {expected} as {store.folder} has labels"
        )
    folds = predictions.table["fold"].to_numpy()
    return Judged(rows, folds, np.asarray(predictions.values), store.targets(rows) > 0)
