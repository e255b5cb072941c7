"""Cut samples into folds that are each a small copy of the whole, with no group in two folds.

The cutting is iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, ECML PKDD) from the
package iterative-stratification. Used bare, it takes any number and NaN for a label, lets the order
of the rows decide, and knows no groups; the functions here close those gaps.
"""

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
import pandas as pd
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit

from comp.core.errors import InputError

PACKAGE = f"iterative-stratification {version('iterative-stratification')}"
# Groups can only be cut roughly, and one cut differs from the next, so the best of several is kept:
# ten halve the deviation of one, and few groups, where luck weighs most, cost little to cut again.
GROUP_CUTS = 10
GROUPS_TO_CUT = 4000
# A group counts as big at these quantiles of group size, so that folds come out equally large.
SIZE_QUANTILES = (0.5, 0.75, 0.9, 0.97)


def make_folds(labels: np.ndarray, groups: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Cut samples into `k` stratified folds.

    The order of the rows does not matter: groups are cut in the order of their names.

    Args:
        labels: (n, m) multi-hot description of each sample, bool or integers 0 and 1.
        groups: (n,) what must not straddle folds; the samples' ids where there is no such thing.
        k: number of folds, from 2 to the number of groups.
        seed: 0 … 2³² − 1; another seed gives other folds.

    Returns:
        (n,) int64: the fold, 0 … k − 1, that validates on each sample.

    Raises:
        InputError: labels that are not multi-hot, too few groups, `k` or `seed` out of range.
    """
    if k < 2:
        raise InputError(f"folds: {k}, expected at least 2")

    def cut(units: np.ndarray, seed: int) -> np.ndarray:
        splitter = MultilabelStratifiedKFold(k, shuffle=True, random_state=seed)
        folds = np.empty(len(units), np.int64)
        for fold, (_, rows) in enumerate(splitter.split(units, units)):
            folds[rows] = fold
        return folds

    return _best_cut(labels, groups, np.full(k, 1 / k), seed, cut)


def make_split(
    labels: np.ndarray, groups: np.ndarray, valid_fraction: float, seed: int
) -> np.ndarray:
    """Set one stratified share of the samples aside for validation.

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
    shares = np.array([valid_fraction, 1 - valid_fraction])

    def cut(units: np.ndarray, seed: int) -> np.ndarray:
        if math.ceil(valid_fraction * len(units)) >= len(units):
            raise InputError(
                f"valid fraction: {valid_fraction} of {len(units)} samples or groups leaves none "
                "to train on"
            )
        splitter = MultilabelStratifiedShuffleSplit(
            1, test_size=float(valid_fraction), random_state=seed
        )
        folds = np.zeros(len(units), np.int64)
        train_rows, _ = next(splitter.split(units, units))
        folds[train_rows] = 1
        return folds

    return -_best_cut(labels, groups, shares, seed, cut)  # part 1, the rest, is fold -1


def _best_cut(
    labels: np.ndarray,
    groups: np.ndarray,
    shares: np.ndarray,
    seed: int,
    cut: Callable[[np.ndarray, int], np.ndarray],
) -> np.ndarray:
    """Cut the groups, in sorted order, by `cut(labels of groups, seed)` → part of each group.

    `shares` is the wanted share of the samples in each part. Of several cuts of true groups the
    one is kept in which the fewest parts lack a label, then the one nearest to those shares.
    """
    labels = _checked(labels)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed: {seed}, expected 0 to 2**32 - 1")
    if len(groups) != len(labels):
        raise InputError(f"groups: {len(groups)} for {len(labels)} rows of labels")
    names, group_of_row = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) < len(shares):
        raise InputError(f"folds: {len(shares)} cannot be cut from {len(names)} samples or groups")
    order = np.argsort(group_of_row, kind="stable")
    if len(names) == len(labels):
        parts = cut(labels[order], seed)
    else:
        starts = np.searchsorted(group_of_row[order], np.arange(len(names)))
        counts = np.add.reduceat(labels[order], starts, axis=0, dtype=np.int64)
        sizes = np.bincount(group_of_row)[:, None]
        units = _describe_groups(counts, sizes)
        counts = np.concatenate([counts, sizes], axis=1)
        number = max(GROUP_CUTS, GROUPS_TO_CUT // len(names))
        seeds = np.random.SeedSequence(seed).generate_state(number)
        cuts = [cut(units, int(seed)) for seed in seeds]
        parts = min(cuts, key=lambda parts: _deviation(counts, parts, shares))
    if len(np.unique(parts)) < len(shares):
        wanted = ", ".join(f"{share:.3g}" for share in shares)
        raise InputError(
            f"folds: of the shares {wanted} of {len(names)} samples or groups one comes out empty"
        )
    return parts[group_of_row]


def _checked(labels: np.ndarray) -> np.ndarray:
    """(n, ≥ 2) bool labels; InputError unless they are a multi-hot array."""
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


def _describe_groups(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(groups, labels + size steps) bool from label counts (groups, labels), sizes (groups, 1).

    A group has a label when the label's share in the group is above its share in all samples. Mere
    presence would say nothing: among 500 samples nearly every label occurs.
    """
    rich = counts * sizes.sum() > counts.sum(axis=0) * sizes
    return np.concatenate([rich, sizes > np.quantile(sizes, SIZE_QUANTILES)], axis=1)


def _deviation(counts: np.ndarray, parts: np.ndarray, shares: np.ndarray) -> tuple[int, float]:
    """How bad a cut is: labels that parts lack; largest distance of a count from what is wanted.

    `counts` (groups, labels + 1) ends with the sizes; the distance is in sizes of the wanted part.
    """
    wanted = shares[:, None] * counts.sum(axis=0)
    found = np.stack([counts[parts == part].sum(axis=0) for part in range(len(shares))])
    return int((found == 0).sum()), float((np.abs(found - wanted) / wanted[:, -1:]).max())


def balance_table(folds: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Count every label in every fold.

    Args:
        folds: (n,) fold of each sample, −1 for one that always trains.
        labels: (n, m) of 0 and 1.
        names: m label names.

    Returns:
        One row "samples" and one a label. Columns in two levels: for "all", and for each fold, `n`
        samples with the label and `%` of that fold's samples; then ("off", "pp"), the largest
        distance of a fold's percentage from that of all, in percentage points.
    """
    parts = {"all": np.ones(len(folds), bool)}
    for fold in np.unique(folds):
        parts["train only" if fold < 0 else f"fold {fold}"] = folds == fold
    columns = {}
    for name, rows in parts.items():
        size = int(rows.sum())
        columns[name, "n"] = np.array([size, *labels[rows].sum(axis=0, dtype=np.int64)])
        columns[name, "%"] = 100 * columns[name, "n"] / size
    table = pd.DataFrame(columns, index=["samples", *names])
    percent = table.xs("%", axis=1, level=1)
    table["off", "pp"] = percent.sub(percent["all"], axis=0).abs().max(axis=1)
    return table


def find_gaps(
    folds: np.ndarray, labels: np.ndarray, names: Sequence[str], groups: np.ndarray
) -> list[str]:
    """Say in one line each what a fold cannot validate or cannot learn.

    Args:
        folds, labels, names: as in `balance_table`.
        groups: (n,) the groups that were kept together.

    Returns:
        Labels with fewer groups than there are folds, counted; folds that differ in size by more
        than a tenth; then each label that no sample has, that is missing from a fold's validation,
        or all of whose samples validate in one fold. Empty when there is nothing to say.
    """
    known = np.unique(folds[folds >= 0])
    sizes = [int((folds == fold).sum()) for fold in known]
    group_of_row, _ = pd.factorize(groups)
    gaps, scarce = [], 0
    if max(sizes) > 1.1 * min(sizes):
        gaps.append(f"folds hold {min(sizes)} to {max(sizes)} samples: groups are few or unequal")
    for name, label in zip(names, labels.T):
        rows = label == 1
        if not rows.any():
            gaps.append(f"{name}: no samples")
            continue
        inside, held = np.unique(folds[rows]), len(np.unique(group_of_row[rows]))
        scarce += held < len(known)
        problems = []
        if absent := sorted(set(known) - set(inside)):
            problems.append(f"never validated in fold {', '.join(map(str, absent))}")
        if len(inside) == 1 and inside[0] >= 0:
            problems.append(f"never trained while fold {inside[0]} validates")
        if problems:
            gaps.append(f"{name}: {rows.sum()} samples in {held} groups: {'; '.join(problems)}")
    if scarce:
        what = f"{scarce} labels have fewer groups than the {len(known)} folds"
        gaps.insert(0, f"{what}, so no cut can balance them: make fewer folds or smaller groups")
    return gaps
