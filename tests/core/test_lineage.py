"""Lineage: which fold a derived sample may train beside, whatever becomes of the fold file."""

import numpy as np
import pytest

from comp.core.errors import InputError
from comp.core.folds import MAX_FOLDS, fold_bits, fold_rows, train_only
from comp.core.lineage import (
    FILE,
    derived_folds,
    folds_fingerprint,
    join_lineages,
    new_lineage,
    read_lineage,
    write_lineage,
)

IDS = np.array(["a", "b", "c", "d", "always"])
FOLDS = np.array([0, 0, 1, 2, -1])
CUT = folds_fingerprint(IDS, FOLDS)


def trains_beside(lineage, folds=FOLDS):
    """For each derived sample, the folds beside whose validation it trains."""
    both = np.concatenate([folds, derived_folds(lineage, IDS, folds)])
    numbers = sorted(set(folds[folds >= 0]))
    for fold in numbers:
        train, valid = fold_rows(both, fold)
        assert valid.tolist() == np.flatnonzero(folds == fold).tolist()  # never a derived one
        assert set(range(len(folds))) == set(train[train < len(folds)]) | set(valid)
    rows = range(len(folds), len(both))
    return [[int(f) for f in numbers if row in fold_rows(both, f)[0]] for row in rows]


def test_a_sample_trains_unless_a_parent_validates():
    parents = (np.array(["a", "a", "d", "always", "always"]), np.array(["b", "", "", "c", ""]))
    blends = new_lineage(list("vwxyz"), "blend", *parents)
    assert trains_beside(blends) == [[1, 2], [1, 2], [0, 1], [0, 2], [0, 1, 2]]
    everything, none = fold_rows(np.array([0, *derived_folds(blends, IDS, FOLDS)]), "all")
    assert len(everything) == 6 and len(none) == 0


def test_folds_cut_anew_are_followed():
    blend = new_lineage(["x"], "blend", "a", "b")
    assert trains_beside(blend) == [[1, 2]]
    assert trains_beside(blend, np.array([2, 1, 0, 1, 0])) == [[0]]  # its parents part company


def test_a_network_passes_on_what_it_was_trained_on():
    ids = ["x", "y"]
    records = np.array(["c", "of the test"])  # c's record is known to the data, in fold 1
    beside = {
        "": [[0, 2], [0, 1, 2]],
        "all": [[], []],
        "2": [[2], [2]],
        "1": [[], [1]],
    }
    for network_fold, expected in beside.items():
        lineage = new_lineage(
            ids, "predicted", record=records, network_fold=network_fold, folds=CUT
        )
        assert trains_beside(lineage) == expected, network_fold


def test_a_network_of_another_cut_is_refused():
    lineage = new_lineage(["x"], "predicted", record="r", network_fold="1", folds=CUT)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_array_equal(
        derived_folds(lineage, IDS[order], FOLDS[order]), derived_folds(lineage, IDS, FOLDS)
    )
    with pytest.raises(InputError, match="left out fold 1 of another fold file than this training"):
        derived_folds(lineage, IDS, np.array([0, 0, 2, 1, -1]))
    absent = new_lineage(["x"], "predicted", record="r", network_fold="7", folds=CUT)
    with pytest.raises(InputError, match="network_fold 7, expected one of 0, 1, 2"):
        derived_folds(absent, IDS, FOLDS)


def test_unknown_parent_is_named():
    lineage = new_lineage(["x", "y"], "blend", np.array(["a", "b"]), np.array(["", "gone"]))
    with pytest.raises(InputError, match=r"parent 'gone' of id 'y' is not in the training data"):
        derived_folds(lineage, IDS, FOLDS)


def test_as_many_folds_as_bits():
    folds = np.arange(MAX_FOLDS)
    derived = train_only(fold_bits(folds))
    assert (derived < 0).all()
    for fold in (0, MAX_FOLDS - 1):
        train, valid = fold_rows(np.concatenate([folds, derived]), fold)
        assert valid.tolist() == [fold]
        assert set(range(2 * MAX_FOLDS)) - set(train) == {fold, MAX_FOLDS + fold}
    with pytest.raises(InputError, match=f"fold {MAX_FOLDS}: .* allow {MAX_FOLDS} folds"):
        fold_bits([MAX_FOLDS])


def test_nothing_left_but_what_derives_from_the_fold():
    folds = np.array([0, 0, *train_only(fold_bits([0]))])
    with pytest.raises(InputError, match="every sample is in fold 0 or derives from it"):
        fold_rows(folds, 0)


# --- the file


def test_round_trip(tmp_path):
    first = new_lineage(["x,1", "NA"], "blend", np.array(["a", "b"]), "c", folds=CUT)
    second = new_lineage(["z"], "predicted", record="#r", network_fold="0", folds=CUT)
    write_lineage(tmp_path, join_lineages([first, second]))
    found = read_lineage(tmp_path, ["x,1", "NA", "z"])
    assert found.folds == CUT and found.path == tmp_path / FILE
    assert found.table.to_numpy().tolist() == [
        ["x,1", "blend", "a", "c", "", ""],
        ["NA", "blend", "b", "c", "", ""],
        ["z", "predicted", "", "", "#r", "0"],
    ]
    write_lineage(tmp_path, new_lineage(["x"], "crop", "a"))
    assert (tmp_path / FILE).read_text().splitlines()[1] == "x,crop,a,,,"
    assert read_lineage(tmp_path, ["x"]).folds == ""


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("parent_b", "other", "no column 'parent_b', expected id, kind, parent_a, parent_b, rec"),
        ("y,", "v,", "id 'v' in row 1, but the samples have 'y'"),
        ("y,crop,b,,,\n", "", "id None in row 1, but the samples have 'y'"),
        ("y,crop,b,,,", "y,crop,b,,,one", "network_fold 'one' of id 'y', expected a fold, 'all'"),
        ("y,crop,b,,,", 'y,crop,"b,,,', "not a CSV table"),
    ],
)
def test_spoilt_file(tmp_path, old, new, words):
    write_lineage(tmp_path, new_lineage(["x", "y"], "crop", np.array(["a", "b"])))
    text = (tmp_path / FILE).read_text()
    assert text.count(old) == 1
    (tmp_path / FILE).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=rf"lineage\.csv: {words}") as error:
        read_lineage(tmp_path, ["x", "y"])
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"lineage\.csv: no such file; without it nobody knows"):
        read_lineage(tmp_path, ["x"])
