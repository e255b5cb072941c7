"""The fold file: what is written is read back in any order, and a wrong file is refused."""

import numpy as np
import pandas as pd
import pytest

from comp.core.errors import InputError
from comp.core.folds import Description, fingerprint, fold_rows, read_folds, write_folds

IDS = np.array([f"a_{i:04d}" for i in range(6)])
FOLDS = np.array([0, 0, 1, 1, 2, -1])


def description(group="source"):
    table = pd.DataFrame({"family": ["F"] * 6, "source": ["x", "x", "y", "y", "z", "#w, 1"]})
    return Description(IDS, table, np.ones((6, 1), np.uint8), ("F",), group)


@pytest.fixture
def path(tmp_path):
    """A good fold file, to be spoilt."""
    path = tmp_path / "folds.csv"
    write_folds(path, FOLDS, description(), {"seed": 3, "command": "make_folds.py \n--seed 3"})
    return path


def test_round_trip_in_any_order(path):
    folds = read_folds(path, IDS)
    assert folds.dtype == np.int64
    np.testing.assert_array_equal(folds, FOLDS)
    order = [5, 3, 1, 0, 2, 4]
    np.testing.assert_array_equal(read_folds(path, list(IDS[order])), FOLDS[order])


def test_file_says_how_it_was_made(path):
    assert path.read_text().splitlines()[:7] == [
        "# seed: 3",
        "# command: make_folds.py --seed 3",
        "# group: source",
        "# samples: 6",
        f"# ids sha256: {fingerprint(IDS)}",
        "id,fold,group,family",
        "a_0000,0,x,F",
    ]


def test_same_samples_same_file(path, tmp_path):
    again = tmp_path / "again.csv"
    write_folds(again, FOLDS, description(), {"seed": 3, "command": "make_folds.py --seed 3"})
    assert again.read_bytes() == path.read_bytes()


def test_fingerprint_knows_the_samples_and_not_their_order():
    assert fingerprint(IDS) == fingerprint(IDS[::-1])
    assert fingerprint(IDS) != fingerprint(IDS[1:])


def test_without_groups_each_sample_is_its_own(tmp_path):
    path = tmp_path / "folds.csv"
    write_folds(path, FOLDS, description(group=None), {})
    assert "# group: none" in path.read_text()
    table = pd.read_csv(path, comment="#")
    assert list(table["group"]) == list(IDS)
    assert list(table.columns) == ["id", "fold", "group", "family", "source"]
    np.testing.assert_array_equal(read_folds(path, IDS), FOLDS)


@pytest.mark.parametrize("missing", [None, np.nan, ""])
def test_sample_without_a_group_is_named(missing):
    table = pd.DataFrame({"source": ["x", "x", missing, "y", "y", missing]})
    with pytest.raises(InputError, match="group: sample 'a_0002' has no 'source'"):
        Description(IDS, table, np.ones((6, 1), np.uint8), ("F",), "source")
    assert Description(IDS, table, np.ones((6, 1), np.uint8), ("F",)).groups[2] == "a_0002"


def test_no_half_file_when_writing_fails(path):
    good = path.read_bytes()

    class Broken:
        def __str__(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="not written: No space left on device"):
        write_folds(path, FOLDS, description(), {"seed": Broken()})
    assert path.read_bytes() == good
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("id,fold,group", "id,part,group", "no column 'fold', expected id, fold, group"),
        ("id,fold,group", "id,fold,source", "no column 'group'"),
        ("a_0001,0", "a_0000,0", "id 'a_0000' in row 1 stands there twice"),
        ("a_0001,0", "a_0001,0.5", "fold '0.5' of id 'a_0001', expected a whole number from -1"),
        ("a_0001,0", "a_0001,", "fold '' of id 'a_0001'"),
        ("a_0001,0", "a_0001,-2", "fold '-2' of id 'a_0001'"),
        ("a_0001,0", "a_0001,1", "group 'x' lies in folds 0, 1, expected one fold"),
        ("a_0004,2,z", "a_0004,2,x", "group 'x' lies in folds 0, 2"),
        ("a_0004,2", "b_0004,2", "names unknown samples: 1 of its 6 ids .* first 'b_0004'"),
        ("a_0004,2,z,F\n", "", "1 of 6 samples of the data have no fold, first 'a_0004'"),
        ("a_0004,2,z,F\n", "a_0004\n", "fold '' of id 'a_0004'"),
        ("a_0004,2,z,F\n", 'a_0004,"2,z,F\n', r"fold '2,z,F\\na_0005,-1,#w' of id 'a_0004'"),
        ('"#w, 1"', '"#w, 1', "not a CSV table: .* EOF inside string"),
    ],
)
def test_spoilt_file(path, old, new, words):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=words) as error:
        read_folds(path, IDS)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"# only: a header\n", b"\xff\xfe\x00binary"])
def test_not_a_table(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a CSV table"):
        read_folds(path, IDS)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"folds.csv: no such file; scripts/make_folds.py"):
        read_folds(tmp_path / "folds.csv", IDS)


def test_description_refuses_doubled_ids():
    with pytest.raises(InputError, match="the data's ids: id 'a' in row 1 stands there twice"):
        Description(np.array(["a", "a"]), pd.DataFrame(), np.ones((2, 1)), ("x",))


def test_description_refuses_an_unknown_group():
    with pytest.raises(InputError, match="no column 'site', expected one of family, source, none"):
        description().grouped_by("site")


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_fold_rows_part_the_rows(fold):
    train, valid = fold_rows(FOLDS, fold)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(6))
    np.testing.assert_array_equal(valid, [row for row in range(6) if FOLDS[row] == fold])
    assert 5 in train  # fold -1 trains whatever validates


def test_all_trains_on_everything():
    train, valid = fold_rows(FOLDS, "all")
    np.testing.assert_array_equal(train, np.arange(6))
    assert len(valid) == 0
    assert valid.dtype == train.dtype == np.int64


@pytest.mark.parametrize("fold", [3, -1, "0", "ALL"])
def test_unknown_fold(fold):
    with pytest.raises(InputError, match=f"fold: {fold!r}, expected one of 0, 1, 2 or 'all'"):
        fold_rows(FOLDS, fold)


def test_nothing_left_to_train_on():
    with pytest.raises(InputError, match="every sample is in fold 0, none is left to train on"):
        fold_rows(np.zeros(4, int), 0)
