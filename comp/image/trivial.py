"""Labels without a look at the image: the best for all images alike, and for one not seen."""

import numpy as np

from comp.image.checks import chunks
from comp.image.heads import columns
from comp.image.metrics import FBeta
from comp.image.store import ImageStore


def trivial_labels(store: ImageStore) -> np.ndarray:
    """(C,) bool: the label set that scores best if every image of the training data is given it.

    For an F-beta the k most frequent labels, k by the metric itself; for macro recall the most
    frequent class of each head, though any other would do as well.
    """
    counts, metric = store.label_counts, store.metric
    chosen = np.zeros(len(counts), bool)
    if not isinstance(metric, FBeta):
        for part in columns(store.heads):
            chosen[part.start + int(counts[part].argmax())] = True
        return chosen
    order = np.argsort(-counts, kind="stable")
    chosen[order[: int(_scores(store, metric, order).argmax()) + 1]] = True
    return chosen


def stand_in_labels(store: ImageStore) -> np.ndarray:
    """(C,) bool: the label set of one image that cannot be read.

    That of `trivial_labels`, but for macro F-beta: what is best there for all images alike is every
    label. One image then gets the most frequent labels, as many as images have in the mean, and at
    least one.
    """
    metric, counts = store.metric, store.label_counts
    if not (isinstance(metric, FBeta) and metric.average == "macro"):
        return trivial_labels(store)
    chosen = np.zeros(len(counts), bool)
    number = max(1, round(counts.sum() / len(store)))
    chosen[np.argsort(-counts, kind="stable")[:number]] = True
    return chosen


def _scores(store: ImageStore, metric: FBeta, order: np.ndarray) -> np.ndarray:
    """(C,) score of the first 1, 2, … labels of `order` as everyone's prediction."""
    counts, samples = store.label_counts[order], len(store)
    number = np.arange(1, len(order) + 1)
    if metric.average == "micro":
        return metric.of_counts(counts.cumsum(), counts.sum(), number * samples)
    if metric.average == "macro":
        return metric.of_counts(counts, counts, samples).cumsum() / len(order)
    total = np.zeros(len(order))
    for rows in chunks(samples, len(order)):
        truth = store.targets(range(samples)[rows])[:, order] > 0
        hits, true = truth.cumsum(axis=1, dtype=np.int32), np.count_nonzero(truth, axis=1)
        total += metric.of_counts(hits, true[:, None], number).sum(axis=0)
    return total / samples
