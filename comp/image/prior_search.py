"""The exponent γ of the prior correction argmax(p · count^−γ), searched exactly.

With ℓ = log p and c = log count, the true class y wins against class j while
γ·(c_j − c_y) ≥ ℓ_j − ℓ_y: a half-line of γ. All classes together leave a sample one interval in
which it is decided rightly, so macro recall is a step function of γ whose steps are the intervals'
ends: one pass over the array and one sort of 2·n ends, no grid.
"""

from collections.abc import Sequence

import numpy as np

from comp.core.errors import InputError
from comp.image.checks import checked_probabilities, checked_sets, chunks
from comp.image.heads import Head, columns
from comp.image.label_groups import Group
from comp.image.metrics import MacroRecall, Metric, one_label
from comp.image.thresholds import (
    PriorCorrection,
    log_counts,
    log_probabilities,
    plain_argmax,
)

_LARGEST = 3.0  # γ is searched in 0..3; 1.2 won on Bengali


def fit_argmax(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
) -> PriorCorrection:
    """The most probable class of each head, for comparison: nothing is searched."""
    _, _, heads = _checked(probabilities, truth, metric, groups)
    return plain_argmax(heads)


def fit_prior(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
) -> PriorCorrection:
    """For each softmax head the γ in 0..3 with the largest macro recall, and the class counts.

    Args:
        probabilities: (n, C), out-of-fold.
        truth: (n, C), one label in each head; its counts stand for the training prior.
        metric: a MacroRecall, whose heads are searched each alone.
        groups: must be None: a softmax head has exactly one label.

    Raises:
        InputError: bad arrays, another metric, or groups.
    """
    probabilities, truth, heads = _checked(probabilities, truth, metric, groups)
    counts, gammas = [], []
    for head, part in zip(heads, columns(heads)):
        classes = one_label(truth[:, part], head, "truth")
        count = np.bincount(classes, minlength=len(head.labels))
        gammas.append(_search_gamma(probabilities[:, part], classes, count))
        counts.append(tuple(count.tolist()))
    names = tuple(head.name for head in heads)
    return PriorCorrection(names=names, counts=tuple(counts), gammas=tuple(gammas))


def _checked(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None,
) -> tuple[np.ndarray, np.ndarray, tuple[Head, ...]]:
    if not isinstance(metric, MacroRecall):
        raise InputError(f"metric: {metric.name}, expected macro recall over softmax heads")
    if groups is not None:
        raise InputError("groups: softmax heads take none, they have exactly one label each")
    probabilities = checked_probabilities(probabilities)
    if probabilities.shape[1] != metric.width:
        raise InputError(
            f"probabilities: {probabilities.shape[1]} columns, expected the heads' {metric.width}"
        )
    truth = checked_sets(truth, probabilities.shape, "truth")
    return probabilities, truth, metric.heads


def _search_gamma(probabilities: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> float:
    """The middle of the widest best interval of γ for one head (n, classes)."""
    low, high = np.empty(len(classes)), np.empty(len(classes))
    prior = log_counts(counts).astype(np.float64)
    for rows in chunks(*probabilities.shape):
        low[rows], high[rows] = _right_between(probabilities[rows], classes[rows], prior)
    low, high = low.clip(0), high.clip(max=_LARGEST)
    some = low < high
    low, high = low[some], high[some]
    weight = 1 / counts[classes[some]]
    ends, place = np.unique(np.concatenate([low, high, [0, _LARGEST]]), return_inverse=True)
    steps = np.bincount(place[:-2], weights=np.concatenate([weight, -weight]), minlength=len(ends))
    recall = steps.cumsum()[:-1]  # between one end and the next
    width = np.diff(ends)
    width[recall < recall.max() - 1e-9] = 0
    best = int(width.argmax())
    return float((ends[best] + ends[best + 1]) / 2)


def _right_between(
    probabilities: np.ndarray, classes: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(r,) smallest and largest γ at which each row's true class wins; none where small > large."""
    own = np.arange(len(classes)), classes
    logs = log_probabilities(probabilities).astype(np.float64)
    ahead = logs - logs[own][:, None]
    commoner = prior - prior[classes][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = ahead / commoner
    low = np.where(commoner > 0, bound, -np.inf).max(axis=1)
    high = np.where(commoner < 0, bound, np.inf).min(axis=1)
    beaten = ((commoner == 0) & (ahead > 0)).any(axis=1)
    return low, np.where(beaten, -np.inf, high)
