"""Cutting: balance, groups, order, seeds, and labels that the package would misread."""

import numpy as np
import pandas as pd
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit
from scipy.sparse import csr_array

from comp.core import stratify
from comp.core.balance import balance_table, find_gaps
from comp.core.errors import InputError
from comp.core.stratify import FAST, PACKAGE, cut_by, make_folds, make_split, one_hot

FAMILIES = 4


def samples(n=800, group_size=1, seed=0):
    """Labels (n, 9): family one-hot and five bins of a value; names; ids; a group per few rows."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) // group_size
    family = rng.choice(FAMILIES, n // group_size, p=[0.4, 0.3, 0.2, 0.1])[group]
    value = rng.normal(size=n) + 0.5 * family
    bins = np.searchsorted(np.quantile(value, [0.2, 0.4, 0.6, 0.8]), value)
    labels = np.concatenate([np.eye(FAMILIES)[family], np.eye(5)[bins]], axis=1).astype(np.uint8)
    names = [f"family {i}" for i in range(FAMILIES)] + [f"bin {i}" for i in range(5)]
    ids = np.array([f"s{i:04d}" for i in range(n)])
    return labels, names, ids, np.array([f"g{i}" for i in group])


def worst(folds, labels):
    """Largest distance of a fold's label share from the share in all, in percentage points."""
    return balance_table(folds, labels, [str(i) for i in range(labels.shape[1])])["off", "pp"].max()


def test_every_sample_validates_once_and_labels_keep_their_shares():
    labels, _, ids, _ = samples()
    folds = make_folds(labels, ids, 5, seed=0)
    np.testing.assert_array_equal(np.unique(folds), np.arange(5))
    assert np.ptp(np.bincount(folds)) <= 2
    random = np.random.default_rng(0).permutation(len(ids)) % 5
    assert worst(folds, labels) < 0.7 < 2 < worst(random, labels)


@pytest.mark.parametrize(
    "cut", [lambda *a: make_folds(*a, 4, 7), lambda *a: make_split(*a, 0.2, 7)]
)
@pytest.mark.parametrize("grouped", [False, True])
def test_row_order_does_not_matter(cut, grouped):
    labels, _, ids, groups = samples(group_size=5)
    groups = groups if grouped else ids
    folds = cut(labels, groups)
    order = np.random.default_rng(1).permutation(len(ids))
    np.testing.assert_array_equal(cut(labels[order], groups[order]), folds[order])


@pytest.mark.parametrize("group_size", [1, 5])
def test_seed_decides(group_size):
    labels, _, _, groups = samples(group_size=group_size)
    first = make_folds(labels, groups, 5, seed=1)
    np.testing.assert_array_equal(first, make_folds(labels, groups, 5, seed=1))
    assert (first != make_folds(labels, groups, 5, seed=2)).mean() > 0.5


def test_groups_stay_whole_and_families_keep_their_shares():
    labels, _, _, groups = samples(n=4000, group_size=20)
    folds = make_folds(labels, groups, 5, seed=0)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    assert np.bincount(folds).min() >= 760  # 800 asked
    assert worst(folds, labels) < 3
    random = np.random.default_rng(0).integers(0, 5, 200)[np.arange(4000) // 20]
    assert worst(folds, labels) < worst(random, labels) / 2


def test_groups_that_hold_every_label_are_told_apart_by_its_share():
    # 200 groups of 300; the label occurs in all of them, in every other one three times as often.
    rng = np.random.default_rng(0)
    rich = np.arange(200) % 2 == 0
    labels = rng.random((200, 300)) < np.where(rich, 0.9, 0.3)[:, None]
    folds = make_folds(labels.reshape(-1, 1), np.repeat(np.arange(200), 300), 5, seed=0)
    assert [rich[folds[::300] == fold].sum() for fold in range(5)] == [20] * 5


def test_unequal_groups_give_folds_of_about_equal_size():
    excess = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sizes = 1 + (30 * np.exp(rng.normal(size=1000))).astype(int)
        groups = np.repeat(np.arange(1000), sizes)
        labels = np.eye(4, dtype=int)[rng.integers(0, 4, 1000)][groups]
        counts = np.bincount(make_folds(labels, groups, 5, seed))
        excess.append(counts.max() / counts.min() - 1)
    assert np.mean(excess) < 0.085  # without a look at group sizes: 0.12


@pytest.mark.parametrize("group_size", [1, 4])
def test_single_split(group_size):
    labels, _, _, groups = samples(group_size=group_size)
    folds = make_split(labels, groups, 0.25, seed=0)
    assert set(folds) == {-1, 0}
    assert abs((folds == 0).mean() - 0.25) < 0.01
    assert worst(folds, labels) < 3
    assert not set(groups[folds == 0]) & set(groups[folds == -1])


def test_single_column_is_stratified():
    _, _, ids, _ = samples(n=200)
    label = (np.arange(200) % 10 == 0)[:, None]
    folds = make_folds(label, ids, 4, seed=0)
    np.testing.assert_array_equal(np.bincount(folds, label[:, 0]), [5] * 4)


def test_samples_without_any_label_are_spread():
    _, _, ids, _ = samples(n=40)
    folds = make_folds(np.zeros((40, 3), bool), ids, 4, seed=0)
    np.testing.assert_array_equal(np.bincount(folds), [10] * 4)


def test_ungrouped_samples_get_the_folds_of_the_package_on_sorted_rows():
    labels, _, ids, _ = samples()
    order = np.random.default_rng(2).permutation(len(ids))
    splitter = MultilabelStratifiedKFold(5, shuffle=True, random_state=3)
    expected = np.empty(len(ids), int)
    for fold, (_, rows) in enumerate(splitter.split(labels, labels)):
        expected[rows] = fold
    found = make_folds(labels[order], ids[order], 5, seed=3)
    np.testing.assert_array_equal(found, expected[order])
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=0.3, random_state=3)
    _, valid = next(splitter.split(labels, labels))
    found = make_split(labels[order], ids[order], 0.3, seed=3)
    np.testing.assert_array_equal(np.sort(order[found == 0]), valid)


@pytest.mark.parametrize(
    "cut", [lambda *a: make_folds(*a, 4, 7), lambda *a: make_split(*a, 0.2, 7)]
)
@pytest.mark.parametrize("group_size", [1, 5])
def test_large_tables_are_cut_fast_into_the_same_folds(monkeypatch, cut, group_size):
    labels, _, _, groups = samples(group_size=group_size)
    folds = cut(labels, groups)
    assert cut_by(labels, groups) == PACKAGE
    monkeypatch.setattr(stratify, "MAX_RECOUNTS", 0)
    monkeypatch.delattr(stratify, "MultilabelStratifiedKFold")
    monkeypatch.delattr(stratify, "MultilabelStratifiedShuffleSplit")
    np.testing.assert_array_equal(cut(labels, groups), folds)
    assert cut_by(labels, groups) == FAST


@pytest.mark.parametrize(
    "rows, columns, groups, by",
    [
        (65_818, 20, 65_818, PACKAGE),
        (3_000, 1103, 3_000, FAST),
        (109_237, 1103, 109_237, FAST),
        (20_000, 283, 1_900, FAST),  # cut ten times: 1.5e9 counts
        (20_000, 283, 1_000, PACKAGE),
    ],
)
def test_size_decides_who_cuts(rows, columns, groups, by):
    labels = np.lib.stride_tricks.as_strided(np.zeros(1, bool), (rows, columns), (0, 0))
    assert cut_by(labels, np.arange(rows) % groups) == by


def test_cutting_neither_reads_nor_moves_the_global_random_state():
    labels, _, ids, _ = samples(n=100)
    np.random.seed(1)
    folds = make_folds(labels, ids, 5, seed=0)
    after = np.random.random()
    np.random.seed(1)
    assert after == np.random.random()
    np.testing.assert_array_equal(make_folds(labels, ids, 5, seed=0), folds)


def test_classes_keep_their_shares_as_columns_of_their_own():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "root": rng.choice(12, 900, p=np.arange(1, 13) / 78) * 10,
            "vowel": rng.choice(["a", "i", "u"], 900, p=[0.7, 0.2, 0.1]),
        }
    )
    labels, names = one_hot(table)
    assert names == (*(f"root {10 * i}" for i in range(12)), "vowel a", "vowel i", "vowel u")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[:, 3], table["root"] == 30)
    np.testing.assert_array_equal(labels[:, 13], table["vowel"] == "i")
    bare = MultilabelStratifiedKFold(5, shuffle=True, random_state=0)
    codes = np.stack([table["root"], pd.factorize(table["vowel"])[0]], axis=1)
    misread = np.empty(900, int)
    for fold, (_, rows) in enumerate(bare.split(codes, codes)):
        misread[rows] = fold
    ids = np.array([f"{i:03d}" for i in range(900)])
    assert 3 * worst(make_folds(labels, ids, 5, seed=0), labels) < worst(misread, labels)


@pytest.mark.parametrize(
    "column, words",
    [
        ([1.0, 2.5], "column 'x' of dtype float64, expected whole numbers, words or bool"),
        ([1.0, np.nan], "no value in row 1, column 'x'"),
        (["a", None], "no value in row 1, column 'x'"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), "column 'x' of dtype datetime64"),
    ],
)
def test_columns_that_are_no_classes(column, words):
    with pytest.raises(InputError, match=words):
        one_hot(pd.DataFrame({"x": column}))


@pytest.mark.parametrize(
    "labels, words",
    [
        (np.zeros(10, int), r"shape \(10,\), expected \(samples, labels\)"),
        (np.zeros((10, 0), int), "shape"),
        (np.full((10, 2), 0.01), "dtype float64, expected bool or integers 0 and 1"),
        (np.full((10, 2), np.nan), "dtype float64"),
        (np.full((10, 2), 3), "labels: 3 in row 0, column 0, expected 0 or 1"),
        (np.full((10, 2), -1), "labels: -1 in row 0"),
        ([["a", "b"]] * 10, "dtype <U1"),
        (csr_array(np.eye(10, dtype=int)), "a sparse array, expected an array of 0 and 1"),
        (pd.DataFrame({"a": [1, None] * 5}).astype("Int64"), "dtype (object|float64)"),
    ],
)
def test_labels_that_are_not_multi_hot(labels, words):
    with pytest.raises(InputError, match=words):
        make_folds(labels, np.arange(10).astype(str), 2, 0)


@pytest.mark.parametrize(
    "k, seed, n_groups, words",
    [
        (1, 0, 10, "folds: 1, expected at least 2"),
        (11, 0, 10, "folds: 11 cannot be cut from 10 samples or groups"),
        (4, 0, 3, "folds: 4 cannot be cut from 3 samples or groups"),
        (2, -1, 10, "seed: -1"),
        (2, 2**32, 10, "seed: 4294967296"),
    ],
)
def test_folds_that_cannot_be_cut(k, seed, n_groups, words):
    groups = np.array([f"g{i % n_groups}" for i in range(10)])
    with pytest.raises(InputError, match=words):
        make_folds(np.eye(10, dtype=int), groups, k, seed)


def test_groups_of_another_length():
    with pytest.raises(InputError, match="groups: 3 for 10 rows"):
        make_folds(np.eye(10, dtype=int), np.array(["a", "b", "c"]), 2, 0)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_samples_without_a_group(missing):
    groups = np.array(["a", "b", missing, "c", missing], object)
    with pytest.raises(InputError, match="groups: none in row 2, expected one a sample"):
        make_folds(np.eye(5, dtype=int), groups, 2, 0)


@pytest.mark.parametrize(
    "fraction, words",
    [
        (0.0, "valid fraction: 0.0, expected between 0 and 1"),
        (1.0, "valid fraction: 1.0"),
        (5, "valid fraction: 5"),
        (0.95, "valid fraction: 0.95 of 10 samples or groups leaves none to train on"),
        (0.01, "of the shares 0.99, 0.01 of 10 samples or groups one comes out empty"),
    ],
)
def test_splits_that_cannot_be_cut(fraction, words):
    labels = np.repeat(np.eye(5, dtype=int), 2, axis=0)
    with pytest.raises(InputError, match=words):
        make_split(labels, np.arange(10).astype(str), fraction, 0)


def test_two_files_a_family_and_five_folds_are_reported():
    labels = np.repeat(np.eye(10, dtype=np.uint8), 20, axis=0)
    files = np.repeat([f"file{i}" for i in range(20)], 10)
    names = [f"family {i}" for i in range(10)]
    folds = make_folds(labels, files, 5, seed=0)
    gaps = find_gaps(folds, labels, names, files)
    assert "10 labels have fewer groups than the 5 folds" in gaps[0]
    assert all("20 samples in 2 groups: never validated in fold" in gap for gap in gaps[1:])
    assert not any("never trained" in gap for gap in gaps)  # a family's files are kept apart
