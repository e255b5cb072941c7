"""The way of `scripts/openfwi.sh` on a few real maps and the genuine test record."""

import re

import numpy as np
import pandas as pd
from conftest import ROOT
from test_pipeline import good

from comp.core.predictions import load_predictions

CONFIG = ROOT / "configs/fwi/openfwi.yaml"
SMALL = ["folds=[0,1]", "train.epochs=6", "train.batch_size=8", "train.eval_every=6"]


def test_real_maps_and_the_genuine_record(sample_data, tmp_path):
    maps = ["--maps", sample_data / "openfwi_velocity"]
    good("simulate.py", *maps, "--count", 24, "--out", "data/openfwi", cwd=tmp_path)
    good("make_folds.py", "--data", "data/openfwi", "--folds", 2, cwd=tmp_path)
    good("train.py", "--config", CONFIG, *SMALL, cwd=tmp_path)
    run = tmp_path / "runs/openfwi"
    good("predict.py", "--run", run, "--oof", "--tta", cwd=tmp_path)
    for name, out in (("valid", "oof"), ("valid_truth", "truth")):
        parts = [run / f"fold_{fold}/predictions/{name}.npy" for fold in (0, 1)]
        joined = ["--ids", "data/openfwi/folds.csv", "--out", run / f"{out}.npy"]
        good("ensemble.py", "--join-folds", *parts, *joined, cwd=tmp_path)
    good("submit.py", "--predictions", run / "oof.npy", "--out", "oof.csv", cwd=tmp_path)
    truth = ["--truth", run / "truth.npy", "--train", "data/openfwi"]
    said = good("score.py", "--submission", "oof.csv", *truth, cwd=tmp_path)
    mae, constant = re.search(r"^all +\d+ +([\d.]+) +([\d.]+)", said, re.M).groups()
    assert float(mae) < float(constant)  # six epochs on 41 maps beat the best constant at least
    records = ["--records", sample_data / "kaggle_waveform_test"]
    good("predict.py", "--run", run, *records, "--tta", cwd=tmp_path)
    tests = [run / f"fold_{fold}/predictions/test.npy" for fold in (0, 1)]
    good("ensemble.py", "--predictions", *tests, "--out", run / "test.npy", cwd=tmp_path)
    good("submit.py", "--predictions", run / "test.npy", "--out", "s.csv", cwd=tmp_path)
    rows = pd.read_csv(tmp_path / "s.csv")
    assert rows["oid_ypos"].tolist() == [f"000039dca2_y_{k}" for k in range(70)]
    predicted = load_predictions(run / "test.npy").values[0, :, 1::2]
    np.testing.assert_allclose(rows.iloc[:, 1:], predicted, atol=0.006)
