"""The best threshold of each label alone, see `comp.image.threshold_search` for the ways.

Loops run over labels (1,103 at most in iMet 2019), never over pairs of image and label.
"""

from collections.abc import Iterator

import numpy as np

from comp.image.checks import chunks
from comp.image.cuts import Cut, best_cut
from comp.image.metrics import FBeta
from comp.image.ranking import sort_rows

_ROUNDS = 3  # over all labels; the third gains little
_LEAST_GAIN = 1e-6  # of a round, in F


def search_classes(
    probabilities: np.ndarray, truth: np.ndarray, metric: FBeta, common: float
) -> np.ndarray:
    """(C,) float64 thresholds with the best metric.

    Args:
        probabilities: (n, C) float32, 0 to 1.
        truth: (n, C) bool.
        metric: what is to be best.
        common: the best threshold for all labels, where the search starts.
    """
    if metric.average == "macro":
        return _search_macro(probabilities, truth, metric)
    if metric.average == "micro":
        return _search_micro(probabilities, truth, metric, common)
    return _search_samples(probabilities, truth, metric, common)


def _sorted_labels(
    probabilities: np.ndarray, truth: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Column, its (n,) probabilities from the largest down, and their truth."""
    samples, labels = truth.shape
    for some in chunks(labels, samples):
        rows = sort_rows(probabilities[:, some].T, truth[:, some].T)
        yield from zip(range(some.start, some.stop), *rows)


def _search_macro(probabilities: np.ndarray, truth: np.ndarray, metric: FBeta) -> np.ndarray:
    predicted = np.arange(1, len(truth) + 1)
    thresholds = np.ones(truth.shape[1])
    for column, values, hits in _sorted_labels(probabilities, truth):
        true = np.count_nonzero(hits)
        score = metric.of_counts(hits.cumsum(), true, predicted)
        gains = np.diff(score, prepend=metric.of_counts(0, true, 0))
        thresholds[column] = best_cut(values, gains).threshold
    return thresholds


def _search_micro(
    probabilities: np.ndarray, truth: np.ndarray, metric: FBeta, common: float
) -> np.ndarray:
    """Dinkelbach's iteration; `ratio` rises from that of the common threshold to the optimum."""
    square, true = metric.beta**2, np.count_nonzero(truth)
    thresholds = np.full(truth.shape[1], common)
    ratio = metric.score(probabilities > np.float32(common), truth)
    while True:
        cuts = []
        hit = predicted = 0
        for _, values, hits in _sorted_labels(probabilities, truth):
            cut: Cut = best_cut(values, (1 + square) * hits - ratio)
            number = np.searchsorted(-values, -np.float32(cut.threshold))
            predicted += number
            hit += np.count_nonzero(hits[:number])
            cuts.append(cut.threshold)
        better = float(metric.of_counts(hit, true, predicted))
        if better <= ratio + 1e-9:
            return thresholds
        thresholds, ratio = np.array(cuts), better


def _search_samples(
    probabilities: np.ndarray, truth: np.ndarray, metric: FBeta, common: float
) -> np.ndarray:
    """Coordinate ascent over labels: the counts of a sample hold what other labels do to it."""
    samples, labels = truth.shape
    true = np.count_nonzero(truth, axis=1)
    thresholds = np.full(labels, common)
    chosen = probabilities > np.float32(common)
    predicted = np.count_nonzero(chosen, axis=1)
    hits = np.count_nonzero(chosen & truth, axis=1)
    best = metric.of_counts(hits, true, predicted).mean()
    for _ in range(_ROUNDS):
        for some in chunks(labels, samples):
            values, truths = probabilities[:, some].T.copy(), truth[:, some].T.copy()
            for column, value, is_true in zip(range(some.start, some.stop), values, truths):
                now = value > np.float32(thresholds[column])
                predicted -= now
                hits -= now & is_true
                gains = metric.of_counts(hits + is_true, true, predicted + 1)
                gains -= metric.of_counts(hits, true, predicted)
                order = np.argsort(-value)
                thresholds[column] = best_cut(value[order], gains[order]).threshold
                now = value > np.float32(thresholds[column])
                predicted += now
                hits += now & is_true
        score = metric.of_counts(hits, true, predicted).mean()
        if score <= best + _LEAST_GAIN:
            break
        best = score
    return thresholds
