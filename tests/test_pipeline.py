"""The scripts as a user runs them, on a few simulated samples, from maps to a scored submission.

What is killed, or compared bit for bit, runs in a process of its own, and so does a first and a
last step; all else runs in this one.
"""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cli import Forked, good, good_apart, run_in
from conftest import ROOT

from comp.core.checkpoint import load_state
from comp.core.predictions import load_predictions
from comp.fwi.shots import ShotStore

FAMILIES = ["FlatVel_A", "CurveVel_A"]
SMALL = ["model.decoder=[16,8,8,8,8]", "model.input_size=[32,64]", "train.epochs=2"]
SMALL += ["train.batch_size=4", "train.log_every=1", "train.eval_every=1", "folds=[0,1,2]"]


def train_args(*overrides):
    return ["--config", ROOT / "configs/fwi/demo.yaml", *SMALL, *overrides]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder with 24 training and 4 test samples, and three folds."""
    place = tmp_path_factory.mktemp("place")
    simulate = ["simulate.py", "--families", *FAMILIES]
    good(place, *simulate, "--count", 12, "--shard-size", 5, "--out", "data/fwi_demo")
    good_apart(place, *simulate, "--count", 2, "--as-test", "--out", "data/test")
    said = good(place, "make_folds.py", "--data", "data/fwi_demo", "--folds", 3)
    assert "24 samples" in said
    return place


@pytest.fixture(scope="module")
def trained(place) -> Path:
    """The run folder of all three folds."""
    good_apart(place, "train.py", *train_args())
    return place / "runs/fwi_demo"


def test_from_maps_to_a_scored_submission(place, trained):
    good(place, "predict.py", "--run", trained, "--oof", "--batch-size", 3)
    good(place, "predict.py", "--run", trained, "--records", "data/test/test", "--tta")
    parts = [trained / f"fold_{k}/predictions/valid.npy" for k in range(3)]
    joined = ["--ids", "data/fwi_demo/folds.csv", "--out", trained / "oof.npy"]
    good(place, "ensemble.py", "--join-folds", *parts, *joined)
    tests = [trained / f"fold_{k}/predictions/test.npy" for k in range(3)]
    good(place, "ensemble.py", "--predictions", *tests, "--out", trained / "test.npy")
    sample = ["--sample", "data/test/sample_submission.csv"]
    out = ["--out", "submissions/s.csv"]
    good(place, "submit.py", "--predictions", trained / "test.npy", *sample, *out)
    truth = ["--truth", "data/test/test_truth.npy", "--train", "data/fwi_demo"]
    picture = ["--picture", "submissions/s.png", "--predictions", trained / "test.npy"]
    picture += ["--records", "data/test/test"]
    said = good_apart(place, "score.py", "--submission", "submissions/s.csv", *truth, *picture)
    truth, mean = (
        load_predictions(place / "data/test/test_truth.npy"),
        load_predictions(trained / "test.npy"),
    )
    assert mean.ids.tolist() == truth.ids.tolist()
    np.testing.assert_allclose(
        mean.values, np.mean([np.load(path) for path in tests], 0), rtol=1e-5
    )
    mae = np.abs(mean.values - truth.values)[..., 1::2].mean()
    printed = float(re.search(r"score of .*: ([\d.]+) m/s", said)[1])
    assert printed == pytest.approx(mae, abs=0.05)
    assert all(family in said for family in FAMILIES)
    assert (place / "submissions/s.png").stat().st_size > 20_000
    csv = pd.read_csv(place / "submissions/s.csv")
    assert csv.shape == (4 * 70, 36)


def test_out_of_fold_covers_every_sample_once_and_gives_the_logged_metric(place, trained):
    good(place, "predict.py", "--run", trained, "--oof")
    store = ShotStore(place / "data/fwi_demo")
    seen = []
    for fold in range(3):
        part = load_predictions(trained / f"fold_{fold}/predictions/valid.npy")
        truth = load_predictions(trained / f"fold_{fold}/predictions/valid_truth.npy").values
        rows = pd.Index(store.ids).get_indexer(part.ids)
        assert (truth == store.velocities(rows)).all()
        mae = np.abs(part.values - truth)[..., 1::2].mean()
        done = json.loads((trained / f"fold_{fold}/done.json").read_text())
        assert mae == pytest.approx(done["best"], rel=1e-4)
        logged = (trained / f"fold_{fold}/log.jsonl").read_text().splitlines()
        scores = [e["valid/mae"] for e in map(json.loads, logged) if "valid/mae" in e]
        assert min(scores) == done["best"] and len(scores) == 2
        assert (part.table["fold"] == fold).all()
        seen += part.ids.tolist()
    assert sorted(seen) == sorted(store.ids)


def test_a_run_killed_again_and_again_ends_with_the_same_weights(place, trained):
    """SIGKILL to the real script at three different moments; fold 0 against the whole run."""
    name = ["name=killed", "folds=[0]", "train.checkpoint_every=1", "loader.workers=1"]
    command = ["train.py", *train_args(*name)]
    log = place / "runs/killed/fold_0/log.jsonl"
    for steps in (1, 3, 6):
        process = Forked(place, *command)
        process.wait(lambda n=steps: log.exists() and len(log.read_text().splitlines()) >= n)
        assert process.kill(signal.SIGKILL) == -signal.SIGKILL
        assert not (place / "runs/killed/fold_0/done.json").exists()
    Forked(place, *command).good()
    for file in ("final", "best"):
        weights = [
            load_state(run / "fold_0" / f"{file}.safetensors")["model"]
            for run in (trained, place / "runs/killed")
        ]
        assert weights[0].keys() == weights[1].keys()
        for key in weights[0]:
            assert torch.equal(weights[0][key], weights[1][key]), (file, key)


def test_sigterm_to_the_whole_group_saves_and_the_same_command_goes_on(place):
    name = ["name=stopped", "folds=[0]", "train.epochs=4", "loader.workers=2"]
    command = ["train.py", *train_args(*name)]
    log = place / "runs/stopped/fold_0/log.jsonl"
    process = Forked(place, *command)
    process.wait(lambda: log.exists() and log.read_text())
    # Also to the loader's workers, as a machine going down.
    assert process.kill(signal.SIGTERM) == 128 + signal.SIGTERM
    said = process.said()
    assert "stopped at step" in said and "Traceback" not in said
    said = good(place, *command)
    assert "goes on at step" in said and "best mae" in said


def test_finished_folds_are_skipped_and_the_saved_config_repeats_the_run(place, trained):
    said = good(place, "train.py", "--config", trained / "config.yaml")
    assert said.count("skipped") == 3
    again = ["--config", trained / "config.yaml", "name=again", "folds=[1]"]
    Forked(place, "train.py", *again).good()
    weights = [
        load_state(run / "fold_1/final.safetensors")["model"]
        for run in (trained, place / "runs/again")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_limit_is_a_quick_look(place):
    said = good(place, "train.py", *train_args("name=look", "folds=[0]"), "--limit", 4)
    assert "at step 2 of 2" in said  # two epochs of one step
    good(place, "predict.py", "--run", "runs/look", "--oof")
    found = load_predictions(place / "runs/look/fold_0/predictions/valid.npy")
    assert len(found) == 4


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["train.py", "--config", "none.yaml"], ["none.yaml"]),
        (["train.py", *train_args("train.epoch=1")], ["train.epoch", "train.epochs"]),
        (["train.py", *train_args("data.folder=nowhere", "name=x")], ["nowhere"]),
        (["train.py", *train_args("data.folds=nowhere.csv", "name=x")], ["nowhere.csv"]),
        (["train.py", *train_args("folds=[9]", "name=x")], ["9"]),
        (["train.py", *train_args("optim.lr=0.5")], ["optim.lr: 0.002 → 0.5", "another name"]),
        (["predict.py", "--run", "runs/none", "--oof"], ["runs/none/config.yaml"]),
        (["predict.py", "--run", "runs/fwi_demo", "--records", "nowhere"], ["nowhere"]),
        (["predict.py", "--run", "runs/fwi_demo", "--oof", "--folds", "7"], ["[0, 1, 2]", "7"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(place, trained, command, parts):
    code, _, said = run_in(place, *command)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1, said[-2000:]
    assert "Traceback" not in said
    for part in parts:
        assert part in errors[0]
