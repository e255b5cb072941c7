"""The cuts of iterative-stratification 0.1.9, bit for bit, without its recounts.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, ECML PKDD) deals out the rows of
one label after another, that with the fewest rows left first. The package recounts every label over
every row left each time, n·m² steps in all, minutes at 100,000 rows and 1,000 labels. Here the
rows of each label and the labels of each row are looked up, and counts go down as rows are dealt
out. What remains is the same in every rounding and every draw, so the parts are the same.
"""

import numpy as np
from scipy.sparse import csr_array


def cut(labels: np.ndarray | csr_array, shares: np.ndarray, seed: int) -> np.ndarray:
    """Cut rows into parts of given shares, each with its share of every label.

    `MultilabelStratifiedKFold(k, shuffle=True, random_state=seed)` makes the folds of
    `shares = np.full(k, 1 / k)`; `MultilabelStratifiedShuffleSplit(1, test_size=…,
    random_state=seed)` the two parts, train and test, of `np.array([n_train, n_test]) / n`.

    Args:
        labels: (n, m) bool or 0 and 1, also sparse.
        shares: (k,) float64 wanted share of each part, adding up to 1.
        seed: of the `RandomState` that shuffles the rows and breaks ties.

    Returns:
        (n,) int64: the part, 0 … k − 1, of each row.
    """
    rng = np.random.RandomState(seed)
    order = np.arange(labels.shape[0])
    rng.shuffle(order)
    rows = csr_array(labels)[order]
    rows.eliminate_zeros()  # a stored False is no label
    parts = np.empty(len(order), np.int64)
    parts[order] = _deal(rows, shares, rng)
    return parts


def _deal(rows: csr_array, shares: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """(n,) int64 part of each of the shuffled `rows`."""
    n, m = rows.shape
    columns = rows.tocsc()  # row numbers ascend in each
    left = np.diff(columns.indptr).astype(np.int64)  # rows of each label yet to deal out
    wanted = (shares * n).tolist()
    wanted_labels = np.outer(shares, left)
    parts = np.full(n, -1, np.int64)
    while left.any():
        rarest = np.flatnonzero(left == left[left > 0].min())
        label = rarest[_draw(len(rarest), rng)]
        members = columns.indices[columns.indptr[label] : columns.indptr[label + 1]]
        members = members[parts[members] < 0]
        wanted_label = wanted_labels[:, label]
        for row in members.tolist():
            tied = _largest(wanted_label.tolist())
            if len(tied) > 1:
                best = _largest([wanted[part] for part in tied])
                part = tied[best[_draw(len(best), rng)]]
            else:
                part = tied[0]
            parts[row] = part
            wanted_labels[part, rows.indices[rows.indptr[row] : rows.indptr[row + 1]]] -= 1
            wanted[part] -= 1
        left -= np.bincount(rows[members].indices, minlength=m)
    for row in np.flatnonzero(parts < 0).tolist():  # rows without any label
        tied = _largest(wanted)
        parts[row] = part = tied[_draw(len(tied), rng)]
        wanted[part] -= 1
    return parts


def _largest(values: list[float]) -> list[int]:
    """Where the largest value stands, ascending."""
    top = max(values)
    return [i for i, value in enumerate(values) if value == top]


def _draw(n: int, rng: np.random.RandomState) -> int:
    """A number below `n`; the package draws only where there is a choice."""
    return rng.choice(n) if n > 1 else 0
