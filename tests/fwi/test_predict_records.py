"""scripts/predict.py with nothing but a run folder and test records, some of which are broken."""

import numpy as np
import pandas as pd
import pytest
import torch
from cli import run
from conftest import ROOT

from comp.core.checkpoint import save_state
from comp.core.config import write_config
from comp.core.files import save_npy, write_json
from comp.core.predictions import Predictions, load_predictions
from comp.core.submission import write_submission
from comp.fwi.submission import LAYOUT
from comp.fwi.survey import OFFICIAL
from comp.tasks import build_task, load_config

IDS = ["00000000c3", "00000000a1", "00000000ff", "00000000b2", "00000000d4", "00000000e5"]
SMALL = ["model.decoder=[16,8,8,8,8]", "model.input_size=[32,64]", "loader.workers=0"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run of two untrained folds, six records, a sample submission that knows one more."""
    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / "configs/fwi/demo.yaml", SMALL)
    write_config("run/config.yaml", config)
    for fold in range(2):
        torch.manual_seed(fold)
        folder = tmp_path / f"run/fold_{fold}"
        weights = build_task(config).build_model(fetch=False).state_dict()
        save_state(folder / "final.safetensors", {"model": weights})
        save_npy(folder / "stand_in.npy", np.full(OFFICIAL.map_shape, 2000.0 + fold, np.float32))
        write_json(folder / "done.json", {"fold": fold})
    random = np.random.default_rng(0)
    for name in IDS:
        record = 10 * random.standard_normal(OFFICIAL.record_shape, np.float32)
        save_npy(tmp_path / f"test/{name}.npy", record)
    ids = [*IDS, "0000000fff"]
    values = np.broadcast_to(np.float32(3000), (len(ids), *OFFICIAL.map_shape))
    sample = Predictions(pd.DataFrame({"id": ids}), values, tmp_path / "sample.csv")
    write_submission("sample.csv", sample, LAYOUT)
    return tmp_path


def spoil(place):
    """One truncated, one with NaN, one of another shape."""
    whole = (place / f"test/{IDS[0]}.npy").read_bytes()
    (place / f"test/{IDS[0]}.npy").write_bytes(whole[:5000])
    record = np.load(place / f"test/{IDS[2]}.npy")
    record[3, 10, 10] = np.nan
    save_npy(place / f"test/{IDS[2]}.npy", record)
    save_npy(place / f"test/{IDS[4]}.npy", record[:4])


PLAIN = ["predict.py", "--run", "run", "--test", "test", "--batch-size", 4]


def test_broken_and_absent_records_get_the_saved_mean_map(place, capsys):
    assert run(*PLAIN, "--out", "whole", "--tta") == 0
    assert "could not" not in capsys.readouterr().out
    whole = [load_predictions(f"whole/fold_{fold}.npy") for fold in range(2)]
    assert whole[0].ids.tolist() == sorted(IDS) and whole[0].values.std() > 0
    spoil(place)
    how = ["--out", "out", "--tta", "--half", "--sample", "sample.csv", "--hours", 1]
    assert run(*PLAIN, *how, "loader.workers=1", "train.channels_last=true") == 0
    said = capsys.readouterr().out
    lost = [IDS[0], IDS[2], IDS[4], "0000000fff"]
    assert f"warning: 4 of 7 samples could not be read or predicted: {', '.join(lost)}\n" in said
    for fold, full in enumerate(whole):
        file = load_predictions(f"out/fold_{fold}.npy")
        assert np.load(file.path).dtype == np.uint16
        assert file.ids.tolist() == [*IDS, "0000000fff"]  # as in the sample
        assert (file.table["broken"] == np.isin(file.ids, lost)).all()
        np.testing.assert_allclose(file.values[file.rows_of(lost)], 2000 + fold, atol=1e-3)
        sound = [name for name in IDS if name not in lost]
        expected = full.values[full.rows_of(sound)]
        np.testing.assert_allclose(file.values[file.rows_of(sound)], expected, atol=0.06)
    assert sorted(p.name for p in (place / "out").iterdir()) == sorted(
        f"fold_{fold}.{end}" for fold in range(2) for end in ("npy", "ids.csv", "scale.json")
    )
    assert not list((place / "run").rglob("*predictions*"))
    files = ["out/fold_0.npy", "out/fold_1.npy"]
    assert run("ensemble.py", "--predictions", *files, "--out", "test.npy") == 0
    submit = ["--predictions", "test.npy", "--sample", "sample.csv", "--out", "s.csv"]
    assert run("submit.py", *submit) == 0
    first = pd.read_csv("s.csv").iloc[0]
    assert first["oid_ypos"] == f"{IDS[0]}_y_0" and first["x_1"] == 2000.5


def test_without_a_stand_in_the_error_says_what_is_missing(place, capsys):
    spoil(place)
    (place / "run/fold_0/stand_in.npy").unlink()
    assert run(*PLAIN, "--out", "out") == 2
    error = capsys.readouterr().err
    assert "run/fold_0/stand_in.npy: no such file, and no training data to make it from" in error


def test_a_quick_look_and_overrides_behind_the_folds(place, capsys):
    assert run(*PLAIN, "--limit", 3, "--out", "out", "--folds", 1, "loader.workers=1") == 0
    assert len(load_predictions("out/fold_1.npy")) == 3
    assert not (place / "out/fold_0.npy").exists()


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["optim.lr=0.5"], ["run/config.yaml", "optim.lr", "0.5", "train.precision"]),
        (["model.gain=3"], ["model.gain", "prediction takes"]),
        (["loader.worker=3"], ["loader.worker", "loader.workers"]),
        (["--sample", "none.csv"], ["none.csv: no such file"]),
    ],
)
def test_bad_input_is_one_line(place, capsys, more, parts):
    assert run(*PLAIN, *more) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1 and all(part in errors[0] for part in parts)


def test_unfinished_work_of_another_kind_is_refused(place, capsys):
    folder = place / "out/fold_0.predicting"
    write_json(folder / "recipe.json", {"views": ["plain"]})
    assert run(*PLAIN, "--tta", "--out", "out") == 2
    error = capsys.readouterr().err
    assert "recipe.json: made from other data or settings" in error and "same command" in error


def test_a_folder_without_a_single_record_is_an_error(place, capsys):
    for name in IDS:
        (place / f"test/{name}.npy").write_text("oid_ypos,x_1")
    assert run(*PLAIN, "--out", "out") == 2
    assert "not a .npy file" in capsys.readouterr().err
