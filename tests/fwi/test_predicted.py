"""Maps from a prediction file: which are taken, their lineage, and what is refused."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comp.core.errors import InputError
from comp.core.files import save_npy
from comp.core.folds import Description, write_folds
from comp.core.lineage import folds_fingerprint
from comp.core.predictions import save_predictions
from comp.fwi.predicted import predicted_maps
from comp.fwi.shots import ShotStore

SCRIPT = Path(__file__).parents[2] / "scripts/simulate.py"
IDS = np.array([f"s{i}" for i in range(7)])


@pytest.fixture
def path(tmp_path):
    """A file of seven predictions, four of one family, with fold.csv beside it."""
    values = np.random.default_rng(0).uniform(1400, 4600, (7, 70, 70)).astype(np.float32)
    table = pd.DataFrame({"id": IDS, "family": ["B", "A", "A", "B", "B", "A", "B"]})
    save_predictions(tmp_path / "test.npy", table, values)
    samples = Description(IDS, pd.DataFrame(index=range(7)), np.ones((7, 1), np.uint8), ("x",))
    write_folds(tmp_path / "folds.csv", np.arange(7) % 2, samples, {})
    return tmp_path / "test.npy"


def predicted(path, network_fold="all", folds=None, families=None, count=None, seed=0):
    return predicted_maps(path, network_fold, folds, families, count, 3, seed)


def test_maps_are_the_predictions_clipped_family_by_family(path):
    maps = predicted(path)
    assert [(m.name, m.rows, m.group) for m in maps] == [
        ("A_0000", 3, "derived"),
        ("B_0000", 3, "derived"),
        ("B_0001", 1, "derived"),
    ]
    values = np.load(path).clip(1500, 4500)
    np.testing.assert_array_equal(maps[1].load(), values[[0, 3, 4]])
    assert maps[1].lineage.table["record"].tolist() == ["s0", "s3", "s4"]
    assert [m.name for m in predicted(path, families=["B"])] == ["B_0000", "B_0001"]


def test_some_are_drawn(path):
    first, other = (predicted(path, count=2, seed=seed) for seed in (0, 3))
    assert [m.rows for m in first] == [2, 2]
    assert first[1].lineage.table["record"].tolist() != other[1].lineage.table["record"].tolist()
    assert first[0].recipe != other[0].recipe


def test_lineage_says_what_the_network_left_out(path):
    lineage = predicted(path, "1", path.with_name("folds.csv"))[0].lineage
    assert set(lineage.table["network_fold"]) == {"1"}
    assert lineage.folds == folds_fingerprint(IDS, np.arange(7) % 2)
    assert set(predicted(path, "ignore")[0].lineage.table["network_fold"]) == {""}


def test_out_of_fold_predictions_name_their_sample_as_parent(path):
    table = pd.read_csv(path.with_suffix(".ids.csv")).assign(fold=0)
    save_predictions(path, table.drop(columns="family"), np.load(path))
    (maps, *_) = predicted(path, None)
    assert maps.family == "predicted"
    assert maps.lineage.table["parent_a"].tolist() == ["s0", "s1", "s2"]
    assert set(maps.lineage.table["network_fold"]) == {"all"}
    with pytest.raises(InputError, match="come from the networks of all folds; --network-fold 0"):
        predicted(path, "0", path.with_name("folds.csv"))


def spoil(path, row, value):
    values = np.load(path)
    values[row, 3, 3] = value
    save_npy(path, values)


BAD = {
    "no network": ({"network_fold": None}, "Give --network-fold <fold>, all or ignore"),
    "no folds": ({"network_fold": "1"}, "--network-fold 1: needs the network's fold file"),
    "no such fold": ({"network_fold": "5", "folds": True}, "fold 5: .*folds.csv has no such fold"),
    "unknown word": ({"network_fold": "any", "folds": True}, "--network-fold any: .*no such fold"),
    "useless folds": ({"folds": True}, "--folds: of use only where --network-fold names one"),
    "family": ({"families": ["C"]}, "family 'C': not in .*ids.csv, expected one of A, B"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(case, path):
    how, message = BAD[case]
    if "folds" in how:
        how = {**how, "folds": path.with_name("folds.csv")}
    with pytest.raises(InputError, match=message) as error:
        predicted(path, **how)
    assert "\n" not in str(error.value)


def test_bad_maps_are_named(path):
    spoil(path, 5, np.nan)
    with pytest.raises(InputError, match=r"test\.npy: row 5: velocity nan"):
        predicted(path)
    spoil(path, 5, 2.5)
    with pytest.raises(InputError, match=r"test\.npy: row 5: velocity 2\.5\.\.4\d+"):
        predicted(path)
    table = pd.DataFrame({"id": ["a"]})
    save_predictions(path, table, np.ones((1, 70, 35), np.float32))
    with pytest.raises(InputError, match=r"float32 maps \(70, 35\), expected floating point \(70"):
        predicted(path)
    save_predictions(path, table[:0], np.ones((0, 70, 70), np.float32))
    with pytest.raises(InputError, match=r"test\.npy: holds no maps"):
        predicted(path)


# --- the script's choice among the sources


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Run scripts/simulate.py with some arguments and `--out tmp_path/out`."""
    main = runpy.run_path(str(SCRIPT))["main"]

    def run(*arguments):
        arguments = [*map(str, arguments), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        main()
        return ShotStore(tmp_path / "out")

    return run


def test_script_simulates_predictions(script, path):
    arguments = ("--network-fold", "0", "--folds", path.with_name("folds.csv"), "--families", "A")
    store = script("--from-predictions", path, *arguments, "--count", 1)
    assert len(store) == 1 and store.shards[0].group == "derived"
    assert store.survey.shots == 5


def test_script_derives_with_the_survey_of_the_data(script, tmp_path, monkeypatch):
    script("--families", "FlatVel_A", "--count", 2, "--shots", 6)
    (tmp_path / "out").rename(tmp_path / "real")
    store = ShotStore(tmp_path / "real")
    samples = Description(store.ids, pd.DataFrame(index=range(2)), np.ones((2, 1)), ("x",))
    write_folds(tmp_path / "folds.csv", np.zeros(2, int), samples, {})
    how = ("--from-data", tmp_path / "real", "--folds", tmp_path / "folds.csv")
    derived = script(*how, "--kinds", "blend", "--count", 1)
    assert derived.survey.shots == 6 and len(derived) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--maps", "x", "--from-data", "y"], "--from-data: not together with --maps"),
        (["--from-data", "x"], "--from-data: needs the data's fold file, --folds"),
        (["--kinds", "crop"], "--kinds: only for --from-data"),
        (["--maps", "x", "--folds", "y"], "--folds: only for --from-data and --from-predictions"),
        (["--network-fold", "0"], "--network-fold: only for --from-predictions"),
        (["--from-data", "x", "--as-test"], "--as-test: only for generated maps and --maps"),
        (["--count", "0"], "--count: expected 1 or more"),
    ],
)
def test_script_refuses_what_makes_no_sense(arguments, message, script):
    with pytest.raises(InputError, match=message):
        script(*arguments)
