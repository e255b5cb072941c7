"""The best threshold that labels share: all of them, or each group of them.

How the search goes is told in `comp.image.threshold_search`. Arrays may be "limited": FORCED where
a label is in at any threshold, 0 where it is out at any.
"""

from collections.abc import Sequence

import numpy as np

from comp.image.checks import chunks
from comp.image.cuts import Cut, Histogram, best_bin_cut
from comp.image.label_groups import Group
from comp.image.metrics import FBeta
from comp.image.ranking import sort_rows

_ROUNDS = 10
_LEAST_GAIN = 1e-6  # of a round, in F


def best_common(probabilities: np.ndarray, truth: np.ndarray, metric: FBeta) -> Cut:
    """The best threshold for all of (n, g), which may be limited."""
    if metric.average == "micro":
        predicted, hits = _count_histograms(probabilities, truth)
        bins, letting = predicted.steps()
        hitting = hits.at(bins)
        true = np.count_nonzero(truth)
        score = metric.of_counts(
            hits.forced + hitting.cumsum(), true, predicted.forced + letting.cumsum()
        )
        return best_bin_cut(bins, score - metric.of_counts(hits.forced, true, predicted.forced))
    if metric.average == "samples":
        return _best_of_rows(probabilities, truth, np.count_nonzero(truth, axis=1), metric)
    return _best_of_rows(probabilities.T, truth.T, np.count_nonzero(truth, axis=0), metric)


def _best_of_rows(
    probabilities: np.ndarray,
    truth: np.ndarray,
    true: np.ndarray,
    metric: FBeta,
    others: tuple[np.ndarray, np.ndarray] | None = None,
) -> Cut:
    """The common threshold of (r, g) with the largest sum of the rows' F-beta.

    Args:
        probabilities, truth: (r, g); rows may be samples or, transposed, labels.
        true: (r,) number of true labels of the whole row.
        others: (r,) hits and (r,) predicted that the row has besides these g; None for none.
    """
    if others is None:
        others = np.zeros((2, len(truth)), np.int64)
    histogram = Histogram()
    for rows in chunks(*truth.shape):
        values, hits = sort_rows(probabilities[rows], truth[rows])
        hit, predicted = (count[rows, None] for count in others)
        score = metric.of_counts(
            hit + hits.cumsum(axis=1, dtype=np.int32),
            true[rows, None],
            predicted + np.arange(1, truth.shape[1] + 1),
        )
        score[:, 1:] -= score[:, :-1].copy()
        score[:, :1] -= metric.of_counts(hit, true[rows, None], predicted)
        histogram.add(values, score)
    bins, gains = histogram.steps()
    return best_bin_cut(bins, gains.cumsum())


def _count_histograms(probabilities: np.ndarray, truth: np.ndarray) -> tuple[Histogram, Histogram]:
    """All values of (n, g) counted, and the true ones."""
    predicted, hits = Histogram(), Histogram()
    for rows in chunks(*truth.shape):
        predicted.add(probabilities[rows])
        hits.add(probabilities[rows][truth[rows]])
    return predicted, hits


def search_groups(
    limited: np.ndarray, truth: np.ndarray, metric: FBeta, groups: Sequence[Group]
) -> list[float]:
    """The thresholds of the groups that together make the metric best on (n, C)."""
    if metric.average == "micro":
        return _groups_micro(limited, truth, metric, groups)
    if metric.average == "samples":
        return _groups_samples(limited, truth, metric, groups)
    parts = [(limited[:, group.where], truth[:, group.where]) for group in groups]
    return [best_common(*part, metric).threshold for part in parts]


def _groups_micro(
    limited: np.ndarray, truth: np.ndarray, metric: FBeta, groups: Sequence[Group]
) -> list[float]:
    """Thresholds of the groups with the best micro F-beta (Dinkelbach)."""
    square, true = metric.beta**2, np.count_nonzero(truth)
    curves, forced = [], np.zeros(2)
    for group in groups:
        predicted, hits = _count_histograms(limited[:, group.where], truth[:, group.where])
        bins, letting = predicted.steps()
        curves.append((bins, hits.at(bins).cumsum(), letting.cumsum()))
        forced += hits.forced, predicted.forced
    ratio = float(metric.of_counts(forced[0], true, forced[1]))
    while True:
        cuts = [best_bin_cut(b, (1 + square) * hit - ratio * let) for b, hit, let in curves]
        gain = sum(cut.gain for cut in cuts)
        excess = (1 + square) * forced[0] + gain - ratio * (square * true + forced[1])
        if excess <= 1e-9 * max(true, 1):
            return [cut.threshold for cut in cuts]
        hits, predicted = sum(
            _row_counts(limited, truth, group, cut.threshold).sum(axis=1)
            for group, cut in zip(groups, cuts)
        )
        ratio = float(metric.of_counts(hits, true, predicted))


def _groups_samples(
    limited: np.ndarray, truth: np.ndarray, metric: FBeta, groups: Sequence[Group]
) -> list[float]:
    """Thresholds of the groups with the best F-beta per sample, by coordinate ascent."""
    true = np.count_nonzero(truth, axis=1)
    common = best_common(limited, truth, metric).threshold
    thresholds = [common] * len(groups)
    counts = np.stack([_row_counts(limited, truth, group, common) for group in groups])
    best = metric.of_counts(counts[:, 0].sum(0), true, counts[:, 1].sum(0)).mean()
    for _ in range(_ROUNDS if len(groups) > 1 else 0):
        for place, group in enumerate(groups):
            others = counts.sum(axis=0) - counts[place]
            part = limited[:, group.where], truth[:, group.where]
            thresholds[place] = _best_of_rows(*part, true, metric, others).threshold
            counts[place] = _row_counts(limited, truth, group, thresholds[place])
        score = metric.of_counts(counts[:, 0].sum(0), true, counts[:, 1].sum(0)).mean()
        if score <= best + _LEAST_GAIN:
            break
        best = score
    return thresholds


def _row_counts(
    limited: np.ndarray, truth: np.ndarray, group: Group, threshold: float
) -> np.ndarray:
    """(2, n) hits and predicted of each sample in the group."""
    chosen = limited[:, group.where] > np.float32(threshold)
    predicted = np.count_nonzero(chosen, axis=1)
    chosen &= truth[:, group.where]
    return np.stack([np.count_nonzero(chosen, axis=1), predicted])
