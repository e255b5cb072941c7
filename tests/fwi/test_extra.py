"""Extra folders: nothing that derives from a validation map trains, nothing derived validates."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from comp.core.errors import InputError
from comp.core.folds import fold_rows, write_folds
from comp.core.lineage import FILE
from comp.core.predictions import save_predictions
from comp.core.trainer import Trainer
from comp.fwi.derived import KINDS, derived_maps
from comp.fwi.describe import describe_folder
from comp.fwi.extra import training_folds
from comp.fwi.maps import generated_maps, given_maps
from comp.fwi.predicted import predicted_maps
from comp.fwi.shots import ShotDataset, ShotStore
from comp.fwi.simulated import write_training
from comp.fwi.survey import OFFICIAL
from comp.tasks import build_task, load_config

SHORT = replace(OFFICIAL, nt=20, pad=40, source_columns=(0, 69))
FOLDS, EACH = 3, 6


def band(fold):
    """Velocities that only the maps of `fold` have; 3 is for maps that always train."""
    return 1500 + 700 * fold, 1500 + 700 * fold + 600


def fold_of(velocity):
    """The fold of the map that a map was made from, read off its velocities."""
    low, high = velocity.min(), velocity.max()
    (found,) = [f for f in range(FOLDS + 1) if band(f)[0] <= low <= high <= band(f)[1]]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared folder whose maps show their fold, and its fold file."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for family in ("FlatVel_A", "Style_A"):
        maps = [random.integers(*band(f), (EACH, 70, 70)) for f in range(FOLDS + 1)]
        (folder / "maps").mkdir(exist_ok=True)
        velocity = np.concatenate(maps).astype(np.int16)
        np.savez(folder / "maps" / f"{family}.npz", velocity=velocity)
    write_training(folder / "real", given_maps(folder / "maps", None, 99, 10, seed=0), SHORT)
    cut(folder / "real", folder / "folds.csv", lambda fold: -1 if fold == FOLDS else fold)
    return folder


def cut(folder, path, rename):
    store = ShotStore(folder)
    folds = [rename(fold_of(store.velocity(row))) for row in range(len(store))]
    write_folds(path, np.array(folds), describe_folder(folder), {})


def derived(data, count=40, seed=0, kinds=KINDS, folds="folds.csv"):
    return derived_maps(data / "real", data / folds, None, kinds, count, 25, seed)


@pytest.fixture(scope="module")
def extra(data):
    write_training(data / "derived", derived(data), SHORT)
    return data / "derived"


def test_nothing_derived_from_a_validation_map_trains(data, extra):
    store = ShotStore(data / "real", [extra])
    folds = training_folds(store, data / "folds.csv")
    originals = len(ShotStore(data / "real"))
    origin = np.array([fold_of(store.velocity(row)) for row in range(len(store))])
    assert set(origin[originals:]) == {0, 1, 2, 3} and len(store) == originals + 80
    for fold in range(FOLDS):
        train, valid = fold_rows(folds, fold)
        assert set(valid) == set(np.flatnonzero(origin[:originals] == fold))
        assert set(train) == set(np.flatnonzero(origin != fold))
    assert len(fold_rows(folds, "all")[0]) == len(store)


def test_folds_cut_anew_are_followed_or_refused(data, extra):
    store = ShotStore(data / "real", [extra])
    cut(data / "real", data / "other.csv", lambda fold: (fold + 1) % FOLDS)
    folds = training_folds(store, data / "other.csv")
    for fold in range(FOLDS):
        train, _ = fold_rows(folds, fold)
        assert not any((fold_of(store.velocity(row)) + 1) % FOLDS == fold for row in train)


def test_predictions_train_only_where_neither_record_nor_network_knows_the_fold(data):
    real = ShotStore(data / "real")
    folds = training_folds(real, data / "folds.csv")
    oof = np.flatnonzero(folds >= 0)
    table = pd.DataFrame({"id": real.ids[oof], "fold": folds[oof], "family": real.families[oof]})
    save_predictions(data / "oof.npy", table, real.velocities(oof))
    tests = pd.DataFrame({"id": [f"test{i}" for i in range(12)]})
    save_predictions(data / "test.npy", tests, real.velocities(range(12)))
    cases = {
        ("oof", None): [[], [], []],
        ("oof", "ignore"): [[1, 2], [0, 2], [0, 1]],  # origins that train beside folds 0, 1, 2
        ("test", "all"): [[], [], []],
        ("test", "ignore"): [["test"]] * 3,
        ("test", "1"): [[], ["test"], []],
    }
    for (name, network_fold), beside in cases.items():
        cut_file = data / "folds.csv" if network_fold == "1" else None
        maps = predicted_maps(data / f"{name}.npy", network_fold, cut_file, None, None, 5, 0)
        out = data / f"{name}_{network_fold}"
        write_training(out, maps, SHORT)
        store = ShotStore(real.folder, [out])
        codes = training_folds(store, data / "folds.csv")
        for fold in range(FOLDS):
            train, valid = fold_rows(codes, fold)
            assert valid.max() < len(real)
            rows = train[train >= len(real)]
            found = {"test" if name == "test" else fold_of(store.velocity(r)) for r in rows}
            assert found == set(beside[fold]), (name, network_fold, fold)
            assert name == "oof" or len(rows) in (0, 12)


def test_a_network_of_another_cut_is_refused(data):
    tests = pd.DataFrame({"id": ["t"]})
    save_predictions(data / "one.npy", tests, ShotStore(data / "real").velocities([0]))
    write_training(
        data / "one",
        predicted_maps(data / "one.npy", "1", data / "folds.csv", None, None, 5, 0),
        SHORT,
    )
    cut(data / "real", data / "anew.csv", lambda fold: (fold + 1) % FOLDS)
    with pytest.raises(InputError, match="of another fold file than this training's"):
        training_folds(ShotStore(data / "real", [data / "one"]), data / "anew.csv")


def test_extra_samples_have_ids_of_their_own_and_are_read_like_others(data, extra):
    write_training(data / "more", generated_maps(["FlatVel_A"], 3, 9, 0), SHORT)
    store = ShotStore(data / "real", [extra, data / "more"])
    real, alone = ShotStore(data / "real"), ShotStore(extra)
    assert len(set(store.ids)) == len(store) == len(real) + 80 + 3
    first, last = len(real), len(store) - 1
    assert store.ids[[0, first, last]].tolist() == [
        real.ids[0],
        "derived/FlatVel_A_0000_0000",
        "more/FlatVel_A_0000_0002",
    ]
    assert store.sources[first] == store.ids[first]
    assert (store.families[first : first + 80] == alone.families).all()
    both = ShotDataset(store).__getitems__([first + 7, 3])
    np.testing.assert_array_equal(both["velocity"][0, 0], alone.velocity(7))
    np.testing.assert_array_equal(both["shots"][0], alone.shots(7))
    np.testing.assert_array_equal(both["shots"][1], real.shots(3))
    # Generated maps have no part in any fold.
    assert (training_folds(store, data / "folds.csv")[-3:] == -1).all()


def test_the_trainer_gets_them_by_data_extra(data, extra, tmp_path):
    where = [f"data.folder={data / 'real'}", f"data.folds={data / 'folds.csv'}"]
    config = ROOT / "configs/fwi/demo.yaml"
    task = build_task(load_config(config, [*where, f"data.extra=[{extra}]", f"root={tmp_path}"]))
    originals = len(ShotStore(data / "real"))
    for fold in range(FOLDS):
        trainer = Trainer(task, fold, tmp_path)
        assert (trainer.train_rows >= originals).any()
        batch = task.dataset(trainer.train_rows).__getitems__(range(len(trainer.train_rows)))
        assert fold not in {fold_of(velocity) for velocity in batch["velocity"]}
        assert trainer.valid_rows.max() < originals
        assert {fold_of(v) for v in task.truth(trainer.valid_rows)} == {fold}


# --- bad input


def test_derived_samples_are_never_cut_into_folds(data, extra):
    with pytest.raises(InputError, match="FlatVel_A_0000 holds derived samples, which never vali"):
        describe_folder(extra)
    with pytest.raises(InputError, match="name the folder in data.extra"):
        training_folds(ShotStore(extra), data / "folds.csv")
    with pytest.raises(InputError, match="holds derived samples"):
        derived_maps(extra, data / "folds.csv", None, KINDS, 1, 1, 0)


def test_maps_that_validate_are_refused_as_extra(data):
    write_training(data / "again", given_maps(data / "maps", ["Style_A"], 10, 10, seed=0), SHORT)
    with pytest.raises(InputError, match="again: Style_A_0000 holds the maps of Style_A_0000 of"):
        training_folds(ShotStore(data / "real", [data / "again"]), data / "folds.csv")


def test_folders_that_do_not_go_together(data, extra, tmp_path):
    with pytest.raises(InputError, match="another folder is called 'derived' too"):
        ShotStore(data / "real", [extra, extra])
    long = replace(SHORT, nt=21)
    write_training(tmp_path / "long", generated_maps(["FlatVel_A"], 1, 1, 0), long)
    with pytest.raises(InputError, match=r"long/index.json: survey: nt 21, expected 20 as in"):
        ShotStore(data / "real", [tmp_path / "long"])


def test_lost_lineage_is_an_error(data, tmp_path):
    write_training(tmp_path / "new", derived(data, count=2), SHORT)
    (tmp_path / "new" / FILE).unlink()
    with pytest.raises(InputError, match=r"lineage\.csv: no such file"):
        training_folds(ShotStore(data / "real", [tmp_path / "new"]), data / "folds.csv")


def test_the_same_command_writes_the_same_and_another_is_refused(data, tmp_path):
    write_training(tmp_path / "a", derived(data, 3), SHORT)
    write_training(tmp_path / "b", derived(data, 3), SHORT)
    (tmp_path / "b" / "shards" / "Style_A_0000.json").unlink()
    write_training(tmp_path / "b", derived(data, 3), SHORT)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    with pytest.raises(InputError, match=r"FlatVel_A_0000\.json: made from other .*seeds was"):
        write_training(tmp_path / "a", derived(data, 3, seed=1), SHORT)
    cut(data / "real", data / "third.csv", lambda fold: fold % 2)
    with pytest.raises(InputError, match=r"FlatVel_A_0000\.json: made from other .*folds_sha256"):
        write_training(tmp_path / "a", derived(data, 3, folds="third.csv"), SHORT)


def test_bad_kinds_and_families_are_named(data):
    with pytest.raises(InputError, match="kind 'zoom': unknown, expected one of blend, crop, warp"):
        derived(data, kinds=["zoom"])
    with pytest.raises(InputError, match="'FlatVel_B': not in .*expected one of FlatVel_A, Style"):
        derived_maps(data / "real", data / "folds.csv", ["FlatVel_B"], KINDS, 1, 1, 0)
    lonely = pd.read_csv(data / "folds.csv", comment="#")
    lonely["fold"] = np.arange(len(lonely))
    lonely.to_csv(data / "lonely.csv", index=False)
    with pytest.raises(InputError, match="lonely.csv: FlatVel_A: no fold holds two maps to blend"):
        derived(data, folds="lonely.csv")
