"""Predictions in two bytes a value: what is lost, and that every reader takes them."""

import numpy as np
import pandas as pd
import pytest

from comp.core.ensemble import combine
from comp.core.errors import InputError
from comp.core.files import drop_pages, save_npy
from comp.core.halves import HalfArray, Storage, scale_path, write_scale
from comp.core.oof import join_folds
from comp.core.predictions import load_predictions, save_predictions, write_ids
from comp.fwi.task import FwiTask

VELOCITY = FwiTask.half


def stored(path, values, storage):
    """A prediction file of `values`, ids "0", "1", … of fold 0."""
    save_npy(path, storage.encode(values))
    write_scale(path, storage)
    write_ids(path, pd.DataFrame({"id": np.arange(len(values)).astype(str), "fold": 0}))
    return path


@pytest.fixture
def maps():
    random = np.random.default_rng(0)
    return random.uniform(1500, 4500, (40, 7, 7)).astype(np.float32)


def test_velocities_come_back_within_half_a_decimetre_a_second(tmp_path, maps):
    file = load_predictions(stored(tmp_path / "a.npy", maps, VELOCITY))
    assert np.load(tmp_path / "a.npy").dtype == np.uint16
    assert file.values.dtype == np.float32 and file.values.shape == maps.shape
    error = np.abs(file.values[:] - maps)
    assert error.max() < 0.0505 and error.mean() < 0.03
    assert np.abs(maps.astype(np.float16).astype(np.float32) - maps).mean() > 0.4
    again = VELOCITY.encode(file.values[:])
    assert (again == np.load(tmp_path / "a.npy")).all()
    ends = np.array([1500, 4500, -7, 9000], np.float32)
    assert VELOCITY.encode(ends).tolist() == [15000, 45000, 0, 65535]


def test_probabilities_are_float16(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (30, 4)).astype(np.float32)
    file = load_predictions(stored(tmp_path / "p.npy", values, Storage("float16")))
    assert np.load(tmp_path / "p.npy").dtype == np.float16 and not scale_path(file.path).exists()
    assert file.values[3].dtype == np.float32
    np.testing.assert_allclose(file.values, values, atol=2.5e-4)


def test_it_is_used_like_an_array(maps):
    lazy = HalfArray(VELOCITY.encode(maps), VELOCITY.scale)
    plain = lazy[:]
    rows = np.array([3, 1])
    assert (lazy.reshape(40, -1)[rows, 5] == plain.reshape(40, -1)[rows, 5]).all()
    assert (np.stack([lazy[rows], lazy[rows]])[0] == plain[rows]).all()
    assert ((lazy > 3000) == (plain > 3000)).all() and (2 * lazy - plain == plain).all()
    assert np.mean(lazy) == plain.mean() and len(lazy) == 40 and lazy.size == plain.size
    assert (lazy[..., 1::2] == plain[..., 1::2]).all() and lazy.ndim == 3


@pytest.mark.parametrize("method", ["mean", "median"])
def test_files_of_either_kind_are_combined(tmp_path, maps, method):
    full = tmp_path / "full.npy"
    table = pd.DataFrame({"id": np.arange(40).astype(str), "fold": 0})
    save_predictions(full, table, maps)
    half = stored(tmp_path / "half.npy", maps + 10, VELOCITY)
    combine([full, half], tmp_path / "out.npy", method)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), maps + 5, atol=0.03)
    join_folds([half], tmp_path / "oof.npy", table["id"].to_numpy())
    np.testing.assert_allclose(np.load(tmp_path / "oof.npy"), maps + 10, atol=0.0505)
    drop_pages(load_predictions(half).values)


def test_without_its_unit_a_file_is_refused(tmp_path, maps):
    path = stored(tmp_path / "a.npy", maps, VELOCITY)
    for text in ("{}", '{"scale": 0}', "[1]"):
        scale_path(path).write_text(text)
        with pytest.raises(InputError, match=r"a\.scale\.json: key 'scale'.*positive number"):
            load_predictions(path)
    scale_path(path).unlink()
    with pytest.raises(InputError, match=r"uint16 values, expected their unit in .*a\.scale"):
        load_predictions(path)
    save_predictions(path, load_predictions_table(path), maps)  # full precision needs none
    assert (load_predictions(path).values == maps).all()


def load_predictions_table(path):
    return pd.read_csv(path.with_suffix(".ids.csv"), dtype={"id": str})
