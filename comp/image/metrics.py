"""The competitions' metrics on label sets, and average precision on probabilities.

All take (n, C) NumPy arrays, label sets as bool or 0 and 1, and work chunk by chunk.

Where 0/0 arises a metric must say what that counts. In F-beta it is `FBeta.empty`: the value of a
sample (average "samples") or label (average "macro") that has no true and no predicted label. No
scored image of iMet 2019, Planet and Plant Pathology 2021 is without labels, so in these F-beta per
sample is 0 for an empty prediction whatever `empty` is; only own data with empty sets depend on it.
iMet 2020's micro F1 counts all pairs together and meets 0/0 never. In Protein Atlas 2018 (macro F1)
and as scikit-learn's default a label neither true nor predicted anywhere counts 0. Bengali's macro
recall leaves out classes that are neither true nor predicted, and counts 0 for classes that are
predicted but never true, as scikit-learn does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.image.checks import checked_probabilities, checked_sets, chunks
from comp.image.heads import Head, columns
from comp.image.ranking import sort_rows


@dataclass(frozen=True)
class FBeta:
    """F-beta of label sets: (1 + β²)·TP / (β²·true + predicted).

    Attributes:
        average: "samples", F of each sample, averaged (iMet 2019, Planet, Plant Pathology 2021);
            "micro", one F from all counts together (iMet 2020); "macro", F of each label, averaged
            (Protein Atlas 2018).
        beta: weight of recall against precision: 2 for F2.
        empty: value where nothing is true and nothing predicted; 0 as in scikit-learn.
    """

    average: Literal["samples", "micro", "macro"]
    beta: float = 1.0
    empty: float = 0.0

    @property
    def name(self) -> str:
        """E.g. `f2_samples`."""
        return f"f{self.beta:g}_{self.average}"

    def of_counts(self, hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """F-beta of counts, elementwise and broadcast, float64.

        Args:
            hits: number of labels both true and predicted.
            true: number of true labels.
            predicted: number of predicted labels.
        """
        square = self.beta**2
        whole = np.asarray(square * true + predicted, np.float64)
        result = np.full(np.broadcast_shapes(np.shape(hits), whole.shape), self.empty, np.float64)
        np.divide((1 + square) * hits, whole, out=result, where=whole > 0)
        return result

    def score(self, decisions: np.ndarray, truth: np.ndarray) -> float:
        """The metric of predicted label sets (n, C) against the true ones.

        Raises:
            InputError: shapes differ, or entries other than 0 and 1.
        """
        truth = checked_sets(truth, None, "truth")
        decisions = checked_sets(decisions, truth.shape, "decisions")
        axis = 1 if self.average == "samples" else 0
        parts = [_counts(decisions[rows], truth[rows], axis) for rows in chunks(*truth.shape)]
        if self.average == "samples":
            counts = np.concatenate(parts, axis=1)
        else:
            counts = np.sum(parts, axis=0)
        if self.average == "micro":
            counts = counts.sum(axis=1)
        return float(self.of_counts(*counts).mean())


def _counts(decisions: np.ndarray, truth: np.ndarray, axis: int) -> np.ndarray:
    """(3, ...) hits, true and predicted, counted along `axis`."""
    return np.stack(
        [np.count_nonzero(sets, axis=axis) for sets in (decisions & truth, truth, decisions)]
    )


@dataclass(frozen=True)
class MacroRecall:
    """Recall of each class, averaged in each softmax head, then over heads by weight.

    Bengali.AI weighs grapheme root, vowel and consonant diacritic 2 : 1 : 1.

    Attributes:
        heads: the multiclass heads, in the order of the columns.
        weights: one weight a head.
    """

    heads: tuple[Head, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.heads) != len(self.weights):
            raise InputError(f"weights: {len(self.weights)}, expected {len(self.heads)} as heads")
        if not sum(self.weights) > 0 or min(self.weights) < 0:
            raise InputError(f"weights: {self.weights}, expected none negative, not all zero")
        for head in self.heads:
            if head.kind != "multiclass":
                raise InputError(f"head {head.name}: {head.kind}, macro recall takes multiclass")

    @property
    def name(self) -> str:
        """`macro_recall`."""
        return "macro_recall"

    @property
    def width(self) -> int:
        """C, the number of columns of all heads."""
        return sum(len(head.labels) for head in self.heads)

    def score(self, decisions: np.ndarray, truth: np.ndarray) -> float:
        """The weighted recall of (n, C) decisions with exactly one label in each head.

        Raises:
            InputError: as `of_heads`.
        """
        recalls = list(self.of_heads(decisions, truth).values())
        return float(np.average(recalls, weights=self.weights))

    def of_heads(self, decisions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """The macro recall of each head by its name.

        Raises:
            InputError: shapes differ, entries other than 0 and 1, or not one label in a head.
        """
        truth = checked_sets(truth, (len(truth), self.width), "truth")
        decisions = checked_sets(decisions, truth.shape, "decisions")
        result = {}
        for head, part in zip(self.heads, columns(self.heads)):
            true = one_label(truth[:, part], head, "truth")
            predicted = one_label(decisions[:, part], head, "decisions")
            size = len(head.labels)
            support = np.bincount(true, minlength=size)
            hits = np.bincount(true[true == predicted], minlength=size)
            occurs = (support + np.bincount(predicted, minlength=size)) > 0
            result[head.name] = float((hits[occurs] / support[occurs].clip(1)).mean())
        return result


Metric = FBeta | MacroRecall


def one_label(sets: np.ndarray, head: Head, name: str) -> np.ndarray:
    """(n,) int64 class of each row of a multiclass head's columns (n, classes), bool.

    Raises:
        InputError: a row with no label or with several.
    """
    found = np.count_nonzero(sets, axis=1)
    wrong = found != 1
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{name}: {found[row]} labels of head {head.name} in row {row}, expected exactly one"
        )
    return sets.argmax(axis=1)


def average_precision(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision of each label: Σ (Rₖ − Rₖ₋₁)·Pₖ over its distinct probabilities.

    Args:
        probabilities: (n, C).
        truth: (n, C) label sets.

    Returns:
        (C,) float64, equal to scikit-learn's; NaN for a label that no sample has.

    Raises:
        InputError: shapes differ, or values out of range.
    """
    probabilities = checked_probabilities(probabilities)
    truth = checked_sets(truth, probabilities.shape, "truth")
    samples, labels = truth.shape
    result = np.empty(labels)
    for some in chunks(labels, samples):
        values, true = sort_rows(probabilities[:, some].T, truth[:, some].T)
        # Precision counts at the last of equal probabilities; each row ends with such a one.
        last = np.ones(values.shape, bool)
        np.not_equal(values[:, 1:], values[:, :-1], out=last[:, :-1])
        row, place = np.nonzero(last)
        hits = true.cumsum(axis=1, dtype=np.int32)[last]
        gained = np.diff(hits, prepend=0)
        fresh = np.diff(row, prepend=-1) > 0
        gained[fresh] = hits[fresh]
        area = np.bincount(row, weights=gained * (hits / (place + 1)), minlength=len(values))
        with np.errstate(invalid="ignore"):
            result[some] = area / np.count_nonzero(true, axis=1)
    return result


def class_table(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Average precision and support of each label.

    Args:
        probabilities, truth: (n, C).
        names: C label names.

    Returns:
        A row a label in the order of the columns: `support`, the number of samples that have it,
        and `ap`, NaN without any. The mean of `ap`, which leaves NaN out, is the mAP.

    Raises:
        InputError: as `average_precision`, or another number of names.
    """
    ap = average_precision(probabilities, truth)
    if len(names) != len(ap):
        raise InputError(f"names: {len(names)}, expected {len(ap)} as there are labels")
    support = np.count_nonzero(truth, axis=0)
    return pd.DataFrame({"support": support, "ap": ap}, index=pd.Index(names, name="label"))


def mean_average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """mAP: mean average precision over the labels that some sample has; NaN when none has any."""
    ap = average_precision(probabilities, truth)
    return float(ap[~np.isnan(ap)].mean()) if not np.isnan(ap).all() else float("nan")
