"""Every known competition from its raw folder to a scored submission, by the scripts themselves."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from cli import run
from image_layouts import SMALL_BENGALI, write_layout
from sklearn.metrics import f1_score, fbeta_score, recall_score

from comp.core.predictions import load_predictions
from comp.core.runs import read_log
from comp.image.competitions import COMPETITIONS
from comp.image.entry import Competition, ImageFiles, LabelColumn, Submission
from comp.image.store import ImageStore
from comp.image.trivial import stand_in_labels

CONFIG = """
task: image
name: run
folds: [0, 1]
data: {folder: data, folds: data/folds.csv, size: [32, 32]}
model: {backbone: test_resnet}
mix: {kind: mixup}
loader: {workers: 0}
optim: {lr: 3.0e-3}
train: {epochs: 2, batch_size: 6, log_every: 2}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def good(capsys, *command):
    """What a script printed that ended well."""
    capsys.readouterr()
    code = run(*command)
    said = capsys.readouterr()
    assert code == 0, said.err[-2000:]
    return said.out


def way(capsys, made, *overrides):
    """Run all steps; returns what rules.py, submit.py and score.py said."""
    image, known = ["--task", "image"], made.competition.name
    if made.competition != COMPETITIONS.get(known):  # as a user's own, in a file
        known = "entry.yaml"
        Path(known).write_text(yaml.safe_dump(made.competition.model_dump(mode="json")))
    prepare = ["--competition", known, "--raw", made.raw, "--out", "data"]
    good(capsys, "prepare.py", *image, *prepare)
    good(capsys, "make_folds.py", *image, "--data", "data", "--folds", 2)
    good(capsys, "train.py", "--config", "config.yaml", *overrides)
    good(capsys, "predict.py", "--run", "runs/run", "--oof")
    said = [good(capsys, "predict.py", "--run", "runs/run", "--test", made.raw, "--tta")]
    parts = [f"runs/run/fold_{fold}/predictions" for fold in (0, 1)]
    joined = ["--ids", "data/folds.csv", "--out", "oof.npy"]
    good(capsys, "ensemble.py", "--join-folds", *(f"{p}/valid.npy" for p in parts), *joined)
    tests = [f"{p}/test.npy" for p in parts]
    good(capsys, "ensemble.py", "--predictions", *tests, "--out", "test.npy")
    known = ["--data", "data"]
    said.append(good(capsys, "rules.py", *known, "--oof", "oof.npy", "--out", "rule.json"))
    to = ["--rule", "rule.json", "--sample", made.sample, "--out", "s.csv"]
    said.append(good(capsys, "submit.py", *image, *known, "--predictions", "test.npy", *to))
    good(capsys, "submit.py", *image, *known, "--check", "s.csv", "--sample", made.sample)
    files = ["--submission", "s.csv", "--truth", made.truth, "--train", "data"]
    said.append(good(capsys, "score.py", *image, *files))
    return said


def read_sets(path, store, ids):
    """(n, C) label sets of a submission, read without the package's own reader."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    key, cell = table.columns
    cells = dict(zip(table[key], table[cell]))
    heads, several = store.heads, store.competition.submission.rows
    separator = store.competition.separator
    sets = [
        [
            word in cells[f"{name}_{head.name}" if several else name].split(separator)
            for head in heads
            for word in head.labels
        ]
        for name in ids
    ]
    return np.array(sets)


def expected_score(store, sets, truth):
    """The competition's metric by scikit-learn."""
    metric = store.competition.metric
    if metric == "macro_recall":
        recalls, start = [], 0
        for head in store.heads:
            part = slice(start, start := start + len(head.labels))
            true, mine = truth[:, part].argmax(1), sets[:, part].argmax(1)
            recalls.append(recall_score(true, mine, average="macro", zero_division=0))
        return np.average(recalls, weights=(2, 1, 1))
    beta, average = metric[1:].split("_")
    how = {"average": average, "zero_division": 0}
    if beta == "1":
        return f1_score(truth, sets, **how)
    return fbeta_score(truth, sets, beta=float(beta), **how)


OWN = Competition(
    name="cells",
    id="image_id",
    labels=(LabelColumn(column="tags", vocabulary=("round", "flat", "dark", "bright")),),
    separator="|",
    images=ImageFiles(files=("{id}_dna.tif", "{id}_actin.tif"), channels=2),
    metric="f1_macro",
    submission=Submission(header=("image_id", "tags"), blank=False),
)
# The set of graphemes has Bengali's layout, too.
NARROW = {**COMPETITIONS, "bengali": SMALL_BENGALI}
ENTRIES = [*(entry for name, entry in NARROW.items() if name != "graphemes"), OWN]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_raw_folder_to_scored_submission(place, capsys, entry):
    made = write_layout(place / "raw", entry)
    predicted, rules, _, scored = way(capsys, made)
    store, truth = ImageStore("data"), load_predictions(made.truth)
    found = float(re.search(r"score of s.csv: ([\d.]+)", scored)[1])
    sets = read_sets("s.csv", store, truth.ids)
    assert found == pytest.approx(expected_score(store, sets, truth.values > 0), abs=6e-5)
    assert "the same for all" in scored and "nested" in rules and "could not" not in predicted
    header = list(pd.read_csv("s.csv", nrows=0).columns)
    assert header == list(store.competition.submission.header)
    sample = pd.read_csv(made.sample, dtype=str)[header[0]]
    assert pd.read_csv("s.csv", dtype=str)[header[0]].tolist() == sample.tolist()
    # Out-of-fold predictions cover the training images, and match what validation logged.
    oof = load_predictions("oof.npy")
    assert sorted(oof.ids) == sorted(store.ids)
    assert oof.values.shape == (24, len(store.labels))
    log = read_log(Path("runs/run/fold_0/log.jsonl"))
    validated = [line for line in log if any(key.startswith("valid/") for key in line)]
    assert len(validated) == 2
    metric = next(key for key in validated[0] if key.startswith("valid/"))
    assert metric.replace("valid/", "train/") in validated[0]


@pytest.mark.parametrize("name", ["plant_pathology", "protein_atlas"])
def test_a_test_image_that_cannot_be_decoded_gets_the_labels_of_the_prior(place, capsys, name):
    made = write_layout(place / "raw", COMPETITIONS[name])
    ids = load_predictions(made.truth).ids
    images = made.competition.images
    file = made.raw / images.test[0] / images.files[-1].replace("{id}", ids[2])
    file.write_bytes(file.read_bytes()[:40])
    predicted, _, submitted, scored = way(capsys, made, "train.epochs=1")
    store = ImageStore("data")
    for said in (predicted, submitted):
        assert f"1 of 6 samples could not be read or predicted: {ids[2]}" in said
    sets = read_sets("s.csv", store, ids)
    assert (sets[2] == stand_in_labels(store)).all() and sets[2].any()
    assert "score of s.csv" in scored


def test_a_training_image_that_breaks_later_is_an_error_with_its_name(place, capsys):
    made = write_layout(place / "raw", COMPETITIONS["planet"])
    image = ["--task", "image"]
    prepare = ["--competition", "planet", "--raw", made.raw, "--out", "data"]
    good(capsys, "prepare.py", *image, *prepare)
    good(capsys, "make_folds.py", *image, "--data", "data", "--folds", 2)
    broken = made.raw / "train-jpg/train_003.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    for workers in (0, 1):
        command = ["train.py", "--config", "config.yaml", f"loader.workers={workers}"]
        assert run(*command, f"name=workers{workers}") == 2
        errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert len(errors) == 1 and "train_003.jpg" in errors[0]
