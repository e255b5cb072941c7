"""The way of `scripts/openfwi.sh` on a few real maps and the genuine test record."""

import re

import numpy as np
import pandas as pd
from cli import good
from conftest import ROOT

from comp.core.predictions import load_predictions

CONFIG = ROOT / "configs/fwi/openfwi.yaml"
SMALL = ["folds=[0,1]", "train.epochs=4", "train.batch_size=4", "train.eval_every=4"]


def test_real_maps_and_the_genuine_record(sample_data, tmp_path):
    maps = ["--maps", sample_data / "openfwi_velocity"]
    good(tmp_path, "simulate.py", *maps, "--count", 12, "--out", "data/openfwi")
    good(tmp_path, "make_folds.py", "--data", "data/openfwi", "--folds", 2)
    good(tmp_path, "train.py", "--config", CONFIG, *SMALL)
    run = tmp_path / "runs/openfwi"
    good(tmp_path, "predict.py", "--run", run, "--oof", "--tta")
    for name, out in (("valid", "oof"), ("valid_truth", "truth")):
        parts = [run / f"fold_{fold}/predictions/{name}.npy" for fold in (0, 1)]
        joined = ["--ids", "data/openfwi/folds.csv", "--out", run / f"{out}.npy"]
        good(tmp_path, "ensemble.py", "--join-folds", *parts, *joined)
    good(tmp_path, "submit.py", "--predictions", run / "oof.npy", "--out", "oof.csv")
    truth = ["--truth", run / "truth.npy", "--train", "data/openfwi"]
    said = good(tmp_path, "score.py", "--submission", "oof.csv", *truth)
    mae, constant = re.search(r"^all +\d+ +([\d.]+) +([\d.]+)", said, re.M).groups()
    assert float(mae) < float(constant)  # four epochs on 23 maps beat the best constant at least
    records = ["--records", sample_data / "kaggle_waveform_test"]
    good(tmp_path, "predict.py", "--run", run, *records, "--tta")
    tests = [run / f"fold_{fold}/predictions/test.npy" for fold in (0, 1)]
    good(tmp_path, "ensemble.py", "--predictions", *tests, "--out", run / "test.npy")
    good(tmp_path, "submit.py", "--predictions", run / "test.npy", "--out", "s.csv")
    rows = pd.read_csv(tmp_path / "s.csv")
    assert rows["oid_ypos"].tolist() == [f"000039dca2_y_{k}" for k in range(70)]
    predicted = load_predictions(run / "test.npy").values[0, :, 1::2]
    np.testing.assert_allclose(rows.iloc[:, 1:], predicted, atol=0.006)
