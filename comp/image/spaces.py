"""What is averaged of several models' probabilities: themselves, their logits or their ranks."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit, softmax
from scipy.stats import rankdata

from comp.image.heads import Head, columns

SPACES = ("probability", "logit", "rank")
_SURE = 1e-6  # nearer to 0 or 1 no probability is taken for known


def to_space(values: np.ndarray, space: str, head: Head) -> np.ndarray:
    """Probabilities (..., classes of a head) as they are averaged, float32.

    Logits are log p − log(1 − p) in a multilabel head, log p in a multiclass one, where they are
    logits up to a constant of each sample.
    """
    if space != "logit":
        return values
    sure = np.clip(values.astype(np.float64), _SURE, 1 - _SURE)
    return (np.log(sure) if head.kind == "multiclass" else logit(sure)).astype(np.float32)


def from_space(values: np.ndarray, space: str, head: Head) -> np.ndarray:
    """Averages (k, classes of a head) as probabilities again, 0 to 1; of a multiclass head sum 1.

    Ranks stay what they are, shares of the images that a label is less likely for.
    """
    if space == "logit":
        return softmax(values, axis=-1) if head.kind == "multiclass" else expit(values)
    if head.kind == "multiclass":
        values = values / np.maximum(values.sum(axis=-1, keepdims=True), _SURE)
    return values.clip(0, 1)


def column_ranks(values: np.ndarray) -> np.ndarray:
    """(n, c) rank of each value in its column, from 1/n to 1; equal ones share their mean rank."""
    return (rankdata(values, axis=0) / len(values)).astype(np.float32)


def head_columns(heads: Sequence[Head]) -> list[tuple[Head, slice]]:
    """Each head with its columns."""
    return list(zip(heads, columns(heads)))
