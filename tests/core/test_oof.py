"""Joining the validation predictions of folds: every sample exactly once."""

import numpy as np
import pandas as pd
import pytest
from cli import run

from comp.core import oof
from comp.core.errors import InputError
from comp.core.oof import expected_ids, join_folds
from comp.core.predictions import load_predictions, save_predictions

IDS = [f"s{i}" for i in range(8)]
FOLD = np.array([1, 0, 2, 2, 0, 1, 1, 0])


def save_fold(folder, fold, ids, shape=(2, 2), columns=("fold", "family")):
    """Predictions whose every value says the sample's number."""
    numbers = [float(i[1:]) for i in ids]
    values = np.broadcast_to(np.reshape(numbers, (-1, 1, 1)), (len(ids), *shape))
    table = pd.DataFrame({"id": ids, "fold": fold, "family": [f"family {i}" for i in ids]})
    path = folder / f"fold{fold}.npy"
    save_predictions(path, table[["id", *columns]], values.astype(np.float32))
    return path


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(oof, "_CHUNK_VALUES", 2 * 4)  # two samples
    rng = np.random.default_rng(0)
    return [save_fold(tmp_path, k, rng.permutation(np.array(IDS)[k == FOLD])) for k in range(3)]


def test_joined_in_the_order_of_the_expected_ids(tmp_path, paths):
    join_folds(paths, tmp_path / "oof.npy", IDS)
    joined = load_predictions(tmp_path / "oof.npy")
    assert joined.ids.tolist() == IDS
    assert joined.table["fold"].tolist() == FOLD.tolist()
    assert joined.table["family"].tolist() == [f"family {i}" for i in IDS]
    assert (joined.values == np.arange(8)[:, None, None]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, p: p[:2], "2 of 8 ids in none of 2 files, first 's2'"),
        (lambda d, p: [*p[:2], save_fold(d, 2, ["s2", "s4"])], "fold2.npy: id 's4' stands in .*0"),
        (lambda d, p: [*p, save_fold(d, 3, ["s8"])], "fold3.npy: id 's8' is not expected"),
        (lambda d, p: [*p[:2], save_fold(d, 2, ["s2", "s3"], (4, 1))], r"sample shape \(4, 1\)"),
        (lambda d, p: [*p[:2], save_fold(d, 2, ["s2", "s3"], columns=[])], "no column 'fold'"),
        (lambda d, p: [], "no prediction files"),
    ],
)
def test_anything_but_exactly_once_is_refused(tmp_path, paths, change, message):
    with pytest.raises(InputError, match=message):
        join_folds(change(tmp_path, paths), tmp_path / "oof.npy", IDS)
    assert not list(tmp_path.glob("oof*"))


def test_expected_ids_of_a_fold_file_and_of_an_id_table(tmp_path, paths):
    folds = tmp_path / "folds.csv"
    folds.write_text("# seed: 0\n# command: make\nid,fold,group\na,0,g\nb,-1,h\n007,1,i\n")
    assert expected_ids(folds).tolist() == ["a", "007"]
    join_folds(paths, tmp_path / "oof.npy", IDS)
    assert expected_ids(tmp_path / "oof.ids.csv").tolist() == IDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,fold\na,0\n", "columns name, fold, expected one called 'id'"),
        ("id\na\na\n", "id 'a' in row 1 stands there twice"),
        ("", "not a CSV table"),
        (None, "no such file"),
    ],
)
def test_a_bad_list_of_ids_is_refused(tmp_path, text, message):
    path = tmp_path / "ids.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        expected_ids(path)


def test_script_joins(tmp_path, paths, capsys):
    folds = tmp_path / "folds.csv"
    pd.DataFrame({"id": IDS, "fold": FOLD}).to_csv(folds, index=False)
    join = ["--join-folds", *paths, "--out", tmp_path / "oof.npy"]
    assert run("ensemble.py", *join) == 2
    assert "give the fold file as --ids" in capsys.readouterr().err
    assert run("ensemble.py", *join, "--ids", folds) == 0
    assert (load_predictions(tmp_path / "oof.npy").values[:, 0, 0] == np.arange(8)).all()
