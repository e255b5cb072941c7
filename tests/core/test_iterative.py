"""The fast cut equals the package's, bit for bit."""

import math

import numpy as np
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit
from scipy.sparse import csr_array

from comp.core.iterative import cut

ROWS = 5000


def table(labels, per_row, seed, zipf=1.0):
    """(ROWS, labels) bool with about `per_row` labels a row; the i-th is i^-zipf as frequent."""
    rng = np.random.default_rng(seed)
    share = np.arange(1.0, labels + 1) ** -zipf
    return rng.random((ROWS, labels)) < np.minimum(per_row * share / share.sum(), 0.9)


# Labels, labels a row, frequencies: few and many, hardly any and half of them, long-tailed and even
# (ties at every step), with rows that have none.
TABLES = {
    "tags": (300, 4, 1.0),
    "rare": (300, 0.3, 1.0),
    "dense": (60, 30, 0.0),
    "even": (80, 2, 0.0),
    "two": (2, 0.5, 1.0),
}


def package_folds(labels, k, seed):
    splitter = MultilabelStratifiedKFold(k, shuffle=True, random_state=seed)
    folds = np.full(len(labels), -1)
    for fold, (_, rows) in enumerate(splitter.split(labels, labels)):
        folds[rows] = fold
    return folds


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("k, seed", [(2, 0), (5, 1), (5, 2**32 - 1), (10, 3)])
def test_equals_stratified_k_fold(name, k, seed):
    n_labels, per_row, zipf = TABLES[name]
    labels = table(n_labels, per_row, seed % 97, zipf)
    found = cut(labels, np.full(k, 1 / k), seed)
    np.testing.assert_array_equal(found, package_folds(labels, k, seed))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("fraction, seed", [(0.1, 0), (0.25, 1), (0.5, 2)])
def test_equals_stratified_shuffle_split(name, fraction, seed):
    n_labels, per_row, zipf = TABLES[name]
    labels = table(n_labels, per_row, seed, zipf)[: ROWS - seed]  # not always a round number
    n_test = math.ceil(fraction * len(labels))
    shares = np.array([len(labels) - n_test, n_test]) / len(labels)
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=fraction, random_state=seed)
    train, test = next(splitter.split(labels, labels))
    parts = cut(labels, shares, seed)
    np.testing.assert_array_equal(np.flatnonzero(parts == 0), train)
    np.testing.assert_array_equal(np.flatnonzero(parts == 1), test)


def test_equals_the_package_at_the_labels_of_a_competition():
    labels = table(1103, 3.5, 0)
    assert labels.sum(axis=0).min() < 5  # fewer than folds
    np.testing.assert_array_equal(cut(labels, np.full(5, 0.2), 0), package_folds(labels, 5, 0))


def test_labels_and_rows_without_any():
    labels = np.zeros((50, 4), bool)
    np.testing.assert_array_equal(cut(labels, np.full(4, 1 / 4), 5), package_folds(labels, 4, 5))
    labels[7, 2] = True
    np.testing.assert_array_equal(cut(labels, np.full(4, 1 / 4), 5), package_folds(labels, 4, 5))


def test_sparse_labels_with_stored_zeros():
    labels = table(30, 2, 0)
    rows, columns = np.indices(labels.shape).reshape(2, -1)
    stored = csr_array((labels.ravel(), (rows, columns)), shape=labels.shape)
    assert stored.nnz == labels.size
    shares = np.full(3, 1 / 3)
    np.testing.assert_array_equal(cut(stored, shares, 0), cut(labels, shares, 0))
    assert stored.nnz == labels.size  # the caller's array is left alone
