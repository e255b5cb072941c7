"""Rules fitted on out-of-fold predictions; never on predictions that a rule is then scored on.

All take probabilities (n, C), truth (n, C), a metric, and groups of labels with limits, and raise
InputError for arrays that do not fit. How the search goes, with n·C pairs of image and label:

- One threshold: every distinct threshold is tried by letting pairs in from the most probable down
  and summing what each adds (`comp.image.cuts`), with F-beta per sample after one sort of each row,
  micro F-beta without a sort, macro F-beta after one sort of each column. Limits are part of it:
  what a limit forces in or keeps out does so at any threshold.
- Micro F-beta with several thresholds: the best F is the λ at which the largest
  Σ (1 + β²)·hit − λ·predicted equals λ·β²·true (Dinkelbach 1967). For a given λ each threshold is
  found alone, and λ goes up until it stays: the global optimum.
- Macro F-beta with several: each label enters one term, so each is searched alone: the optimum.
- F-beta per sample with several: one after another the best with the others held, from the best
  common threshold, until a round gains nothing: a local optimum, not below one threshold.
"""

from collections.abc import Callable, Sequence

import numpy as np

from comp.core.errors import InputError
from comp.image.checks import checked_probabilities, checked_sets, chunks
from comp.image.class_search import search_classes
from comp.image.common_search import best_common, search_groups
from comp.image.cuts import FORCED, Histogram, best_bin_cut
from comp.image.label_groups import Group, checked_groups
from comp.image.metrics import FBeta, MacroRecall, Metric
from comp.image.ranking import top_labels
from comp.image.thresholds import (
    ClassThresholds,
    GroupThresholds,
    RelativeThreshold,
    Rule,
    relative_to_largest,
)

Fit = Callable[[np.ndarray, np.ndarray, Metric, Sequence[Group] | None], Rule]

_SHRINKAGE = 20.0


def fit_fixed(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
    threshold: float = 0.5,
) -> GroupThresholds:
    """A threshold that is given, for comparison: nothing is searched.

    Raises:
        InputError: a threshold outside 0..1, or bad arrays.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold: {threshold}, expected 0 to 1")
    probabilities, _, _, groups = _checked(probabilities, truth, metric, groups)
    return GroupThresholds(groups=groups, thresholds=(threshold,) * len(groups))


def fit_global(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
) -> GroupThresholds:
    """The one threshold for all labels that makes the metric best; limits by group hold."""
    probabilities, truth, metric, groups = _checked(probabilities, truth, metric, groups)
    cut = best_common(_limited(probabilities, groups), truth, metric)
    return GroupThresholds(groups=groups, thresholds=(cut.threshold,) * len(groups))


def fit_relative(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
) -> RelativeThreshold:
    """The share of the image's largest probability that makes the metric best."""
    probabilities, truth, metric, groups = _checked(probabilities, truth, metric, groups)
    shares = np.empty_like(probabilities)
    for rows in chunks(*probabilities.shape):
        shares[rows] = relative_to_largest(probabilities[rows])
    cut = best_common(_limited(shares, groups), truth, metric)
    return RelativeThreshold(groups=groups, share=cut.threshold)


def fit_matched(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
) -> GroupThresholds:
    """For each group the threshold at which images have as many labels, in the mean, as in truth.

    It looks at counts alone, so the metric does not matter and there is little to overfit.
    """
    probabilities, truth, _, groups = _checked(probabilities, truth, metric, groups)
    thresholds = []
    limited = _limited(probabilities, groups)
    for group in groups:
        wanted = np.count_nonzero(truth[:, group.where])
        histogram = Histogram()
        part = limited[:, group.where]
        for rows in chunks(*part.shape):
            histogram.add(part[rows])
        bins, numbers = histogram.steps()
        number = histogram.forced + numbers.cumsum()
        nearer = np.abs(histogram.forced - wanted) - np.abs(number - wanted)
        thresholds.append(best_bin_cut(bins, nearer).threshold)
    return GroupThresholds(groups=groups, thresholds=tuple(thresholds))


def fit_groups(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
) -> GroupThresholds:
    """A threshold for each group; with limits, as the winners of iMet 2019 had them."""
    probabilities, truth, metric, groups = _checked(probabilities, truth, metric, groups)
    limited = _limited(probabilities, groups)
    thresholds = search_groups(limited, truth, metric, groups)
    return GroupThresholds(groups=groups, thresholds=tuple(thresholds))


def fit_classes(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
    shrinkage: float = _SHRINKAGE,
) -> ClassThresholds:
    """A threshold for each label, drawn towards the best common one where the label is rare.

    With s positives a label's own best threshold t becomes (s·t + shrinkage·common) / (s +
    shrinkage). Own thresholds are searched without the groups' limits, which hold in `decide`.

    Args:
        shrinkage: number of positives at which own and common threshold weigh the same.

    Raises:
        InputError: shrinkage below zero, or bad arrays.
    """
    if not shrinkage >= 0:
        raise InputError(f"shrinkage: {shrinkage}, expected 0 or more")
    probabilities, truth, metric, groups = _checked(probabilities, truth, metric, groups)
    common = best_common(probabilities, truth, metric).threshold
    own = search_classes(probabilities, truth, metric, common)
    support = np.count_nonzero(truth, axis=0)
    weight = support / np.maximum(support + shrinkage, 1)
    weight[support == 0] = 0
    thresholds = weight * own + (1 - weight) * common
    return ClassThresholds(groups=groups, thresholds=tuple(thresholds.tolist()))


def _checked(
    probabilities: np.ndarray,
    truth: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None,
) -> tuple[np.ndarray, np.ndarray, FBeta, tuple[Group, ...]]:
    if isinstance(metric, MacroRecall):
        raise InputError(f"metric: {metric.name}, expected an F-beta; softmax heads have fit_prior")
    probabilities = checked_probabilities(probabilities)
    truth = checked_sets(truth, probabilities.shape, "truth")
    return probabilities, truth, metric, checked_groups(groups, truth.shape[1])


def _limited(probabilities: np.ndarray, groups: Sequence[Group]) -> np.ndarray:
    """(n, C) in which limits are no more needed: what they force in is FORCED, what out 0.

    A copy only where there are limits.
    """
    bound = [group for group in groups if group.bound]
    if not bound:
        return probabilities
    result = probabilities.copy()
    for rows in chunks(*result.shape):
        for group in bound:
            part = probabilities[rows, group.where]
            if group.maximum is not None:
                part = np.where(top_labels(part, group.maximum), part, np.float32(0))
            if group.minimum:
                part = np.where(top_labels(part, group.minimum), FORCED, part)
            result[rows, group.where] = part
    return result
