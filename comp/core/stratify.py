"""Cut samples into folds that are each a small copy of the whole, with no group in two folds.

The cutting is iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, ECML PKDD) from the
package iterative-stratification. Used bare, it takes any number and NaN for a label, lets the order
of the rows decide, and knows no groups; the functions here close those gaps. Where the package
would take long, comp.core.iterative makes the same cut.
"""

import math
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pandas as pd
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_string_dtype
from scipy.sparse import csr_array, hstack, issparse

from comp.core import iterative
from comp.core.errors import InputError

PACKAGE = f"iterative-stratification {version('iterative-stratification')}"
FAST = "comp.core.iterative, the cut of iterative-stratification 0.1.9"
# The package recounts m labels of n rows in up to m rounds, about 1 ns a count. It cuts up to so
# many counts, a second's work, as of 6,000 rows of 400 labels; the rest is cut by its fast twin.
MAX_RECOUNTS = 10**9
# Groups can only be cut roughly, and one cut differs from the next, so the best of several is kept:
# ten halve the deviation of one, and few groups, where luck weighs most, cost little to cut again.
# Beyond 40,000 groups there are fewer cuts, so that these take seconds at any number.
GROUP_CUTS = 10
LEAST_GROUPS, MOST_GROUPS = 4000, 400_000  # in all cuts together
# A group counts as big at these quantiles of group size, so that folds come out equally large.
SIZE_QUANTILES = (0.5, 0.75, 0.9, 0.97)

# (labels of the units, seed, whether to cut fast) → part of each unit
Cut = Callable[[csr_array, int, bool], np.ndarray]


def one_hot(table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn columns of classes into the multi-hot labels that `make_folds` takes.

    Args:
        table: n rows, each column whole numbers, words or bool. Numbers on a scale are binned
            before, as a class of its own each value would say nothing.

    Returns:
        (n, m) uint8, a column for each class that occurs, and the m names, `<column> <class>`.

    Raises:
        InputError: a column of another dtype, or with a missing value.
    """
    codes, names, ends = [], [], [0]
    for column, values in table.items():
        if values.isna().any():
            row = int(np.flatnonzero(values.isna())[0])
            raise InputError(f"labels: no value in row {row}, column {column!r}")
        if not any(check(values) for check in (is_integer_dtype, is_bool_dtype, is_string_dtype)):
            raise InputError(
                f"labels: column {column!r} of dtype {values.dtype}, "
                "expected whole numbers, words or bool"
            )
        code, classes = pd.factorize(values, sort=True)
        codes.append(code + ends[-1])
        names += [f"{column} {value}" for value in classes]
        ends.append(len(names))
    labels = np.zeros((len(table), len(names)), np.uint8)
    for code in codes:
        labels[np.arange(len(table)), code] = 1
    return labels, tuple(names)


def make_folds(labels: np.ndarray, groups: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Cut samples into `k` stratified folds.

    The order of the rows does not matter: groups are cut in the order of their names. Samples that
    are not grouped get the folds of `MultilabelStratifiedKFold(k, shuffle=True, random_state=seed)`
    on rows in that order.

    Args:
        labels: (n, m) multi-hot description of each sample, bool or integers 0 and 1.
        groups: (n,) what must not straddle folds; the samples' ids where there is no such thing.
        k: number of folds, from 2 to the number of groups.
        seed: 0 … 2³² − 1; another seed gives other folds.

    Returns:
        (n,) int64: the fold, 0 … k − 1, that validates on each sample.

    Raises:
        InputError: labels that are not multi-hot, a sample without a group, too few groups, `k` or
            `seed` out of range.
    """
    if k < 2:
        raise InputError(f"folds: {k}, expected at least 2")
    shares = np.full(k, 1 / k)

    def cut(units: csr_array, seed: int, fast: bool) -> np.ndarray:
        if fast:
            return iterative.cut(units, shares, seed)
        splitter = MultilabelStratifiedKFold(k, shuffle=True, random_state=seed)
        dense = units.toarray()
        folds = np.empty(len(dense), np.int64)
        for fold, (_, rows) in enumerate(splitter.split(dense, dense)):
            folds[rows] = fold
        return folds

    return _best_cut(labels, groups, shares, seed, cut)


def make_split(
    labels: np.ndarray, groups: np.ndarray, valid_fraction: float, seed: int
) -> np.ndarray:
    """Set one stratified share of the samples aside for validation.

    As in `make_folds` the order of the rows does not matter; samples that are not grouped get the
    test rows of `MultilabelStratifiedShuffleSplit(1, test_size=valid_fraction, random_state=seed)`.

    Args:
        labels, groups, seed: as in `make_folds`.
        valid_fraction: share of the groups to validate on, between 0 and 1.

    Returns:
        (n,) int64: 0 where a sample validates, −1 where it always trains.

    Raises:
        InputError: as in `make_folds`; a fraction that leaves either side empty.
    """
    if not 0 < valid_fraction < 1:
        raise InputError(f"valid fraction: {valid_fraction}, expected between 0 and 1")

    def cut(units: csr_array, seed: int, fast: bool) -> np.ndarray:
        n = units.shape[0]
        n_valid = math.ceil(valid_fraction * n)
        if n_valid >= n:
            raise InputError(
                f"valid fraction: {valid_fraction} of {n} samples or groups leaves none to train on"
            )
        if fast:
            return iterative.cut(units, np.array([n - n_valid, n_valid]) / n, seed)
        splitter = MultilabelStratifiedShuffleSplit(
            1, test_size=float(valid_fraction), random_state=seed
        )
        dense = units.toarray()
        parts = np.zeros(n, np.int64)
        _, valid_rows = next(splitter.split(dense, dense))
        parts[valid_rows] = 1
        return parts

    shares = np.array([1 - valid_fraction, valid_fraction])
    return _best_cut(labels, groups, shares, seed, cut) - 1  # part 0, the rest, is fold -1


def cut_by(labels: np.ndarray, groups: np.ndarray) -> str:
    """Who cuts these samples, the package or its fast twin, for the fold file."""
    return FAST if _plan(labels, pd.unique(groups))[1] else PACKAGE


def _plan(labels: np.ndarray, names: np.ndarray) -> tuple[int, bool]:
    """How often to cut samples in groups of these `names`, and whether to cut fast."""
    n, m = len(names), labels.shape[1]
    number = max(1, min(max(GROUP_CUTS, LEAST_GROUPS // n), MOST_GROUPS // n))
    if n == len(labels):
        number = 1
    return number, number * n * m**2 > MAX_RECOUNTS


def _best_cut(
    labels: np.ndarray, groups: np.ndarray, shares: np.ndarray, seed: int, cut: Cut
) -> np.ndarray:
    """Cut the groups, in sorted order, into parts that hold about these `shares` of the samples.

    Of several cuts of true groups the one is kept in which the fewest parts lack a label, then the
    one nearest to those shares.
    """
    labels = _checked(labels)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed: {seed}, expected 0 to 2**32 - 1")
    if len(groups) != len(labels):
        raise InputError(f"groups: {len(groups)} for {len(labels)} rows of labels")
    if (missing := pd.isna(groups)).any():  # as text they would all be of one group, "nan"
        raise InputError(f"groups: none in row {np.flatnonzero(missing)[0]}, expected one a sample")
    names, group_of_row = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) < len(shares):
        raise InputError(f"folds: {len(shares)} cannot be cut from {len(names)} samples or groups")
    number, fast = _plan(labels, names)
    # (groups, n) of 0 and 1: times an array, it adds up the rows of each group.
    members = csr_array((np.ones(len(labels), np.int64), (group_of_row, np.arange(len(labels)))))
    counts = members @ csr_array(labels, dtype=np.int64)
    if len(names) == len(labels):
        parts = cut(counts.astype(bool), seed, fast)
    else:
        sizes = np.bincount(group_of_row)
        units = _describe_groups(counts, sizes)
        seeds = np.random.SeedSequence(seed).generate_state(number)
        cuts = [cut(units, int(seed), fast) for seed in seeds]
        parts = min(cuts, key=lambda parts: _deviation(counts, sizes, parts, shares))
    if len(np.unique(parts)) < len(shares):
        wanted = ", ".join(f"{share:.3g}" for share in shares)
        raise InputError(
            f"folds: of the shares {wanted} of {len(names)} samples or groups one comes out empty"
        )
    return parts[group_of_row]


def _checked(labels: np.ndarray) -> np.ndarray:
    """(n, ≥ 2) bool labels; InputError unless they are a multi-hot array."""
    if issparse(labels):
        raise InputError("labels: a sparse array, expected an array of 0 and 1; see its toarray()")
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] == 0:
        raise InputError(f"labels: shape {labels.shape}, expected (samples, labels)")
    if labels.dtype.kind not in "bui":
        raise InputError(f"labels: dtype {labels.dtype}, expected bool or integers 0 and 1")
    wrong = np.argwhere((labels != 0) & (labels != 1))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"labels: {labels[row, column]} in row {row}, column {column}, expected 0 or 1; "
            "give each class a column of its own"
        )
    labels = labels.astype(bool)
    # The package takes one column for a class number; with its complement it is multi-hot again.
    return labels if labels.shape[1] > 1 else np.concatenate([labels, ~labels], axis=1)


def _describe_groups(counts: csr_array, sizes: np.ndarray) -> csr_array:
    """(groups, labels + size steps) bool from label counts (groups, labels), sizes (groups,).

    A group has a label when the label's share in the group is above its share in all samples. Mere
    presence would say nothing: among 500 samples nearly every label occurs.
    """
    held = counts.tocoo()
    group, label = held.coords
    rich = held.data * sizes.sum() > counts.sum(axis=0)[label] * sizes[group]
    labels = csr_array((rich, (group, label)), shape=counts.shape)
    steps = csr_array(sizes[:, None] > np.quantile(sizes, SIZE_QUANTILES))
    return csr_array(hstack([labels, steps]))


def _deviation(
    counts: csr_array, sizes: np.ndarray, parts: np.ndarray, shares: np.ndarray
) -> tuple[int, float]:
    """How bad a cut is: labels that parts lack; largest distance of a count from what is wanted.

    The distance, also that of the parts' sizes, is in sizes of the wanted part.
    """
    of_part = csr_array(parts == np.arange(len(shares))[:, None], dtype=np.int64)
    found = np.column_stack([(of_part @ counts).toarray(), of_part @ sizes])
    wanted = shares[:, None] * found.sum(axis=0)
    return int((found == 0).sum()), float((np.abs(found - wanted) / wanted[:, -1:]).max())
