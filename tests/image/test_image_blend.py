"""Averages of probabilities, logits and ranks head by head, and the search among them."""

import numpy as np
import pandas as pd
import pytest
from cli import run
from image_layouts import SMALL_BENGALI, write_layout
from scipy.stats import rankdata

from comp.core.predictions import load_predictions, save_predictions
from comp.core.recipe import Recipe, read_recipe
from comp.image import blend
from comp.image.blend import ImageBlender
from comp.image.competitions import competition
from comp.image.heads import columns
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore


def save(path, ids, values, **columns):
    save_predictions(path, pd.DataFrame({"id": ids, **columns}), np.asarray(values, np.float32))
    return path


@pytest.fixture(scope="module")
def imet(tmp_path_factory):
    """A prepared folder, out-of-fold files of two models, good and useless, and their truth."""
    folder = tmp_path_factory.mktemp("imet")
    made = write_layout(folder / "raw", competition("imet2019"), train=60)
    prepare_images(made.raw, folder / "out", made.competition)
    store, rng = ImageStore(folder / "out"), np.random.default_rng(0)
    truth, fold = store.targets(np.arange(len(store))), np.arange(len(store)) % 3
    noise = rng.uniform(0, 1, (2, *truth.shape))
    paths = [
        save(folder / "good.npy", store.ids, 0.5 * truth + 0.5 * noise[0], fold=fold),
        save(folder / "bad.npy", store.ids, noise[1], fold=fold),
    ]
    return store, paths, save(folder / "truth.npy", store.ids, truth)


@pytest.fixture(scope="module")
def bengali(tmp_path_factory):
    """A store with three softmax heads, and probabilities of two models for five images."""
    folder = tmp_path_factory.mktemp("bengali")
    made = write_layout(folder / "raw", SMALL_BENGALI)
    prepare_images(made.raw, folder / "out", made.competition)
    store, rng = ImageStore(folder / "out"), np.random.default_rng(0)
    values = rng.uniform(0.01, 1, (2, 5, len(store.labels)))
    for part in columns(store.heads):
        values[..., part] /= values[..., part].sum(axis=-1, keepdims=True)
    paths = [save(folder / f"{i}.npy", list("abcde"), v) for i, v in enumerate(values)]
    return store, paths, values


@pytest.mark.parametrize("space", ["probability", "logit", "rank"])
@pytest.mark.parametrize("method", ["mean", "median", "weighted"])
def test_softmax_heads_sum_to_one(bengali, tmp_path, space, method):
    store, paths, values = bengali
    heads = [head.name for head in store.heads]
    weights = {heads[0]: [0.25, 0.75], "all": [1.0, 0.0]} if method == "weighted" else {}
    recipe = Recipe("image", method, 2, weights, {"space": space})
    ImageBlender(store).apply(recipe, paths, tmp_path / "out.npy")
    found = load_predictions(tmp_path / "out.npy").values
    for part in columns(store.heads):
        np.testing.assert_allclose(found[:, part].sum(axis=1), 1, rtol=1e-5)
    first, last = columns(store.heads)[0], columns(store.heads)[-1]
    if method == "weighted" and space != "rank":
        np.testing.assert_allclose(found[:, last], values[0][:, last], rtol=1e-4)
    if method == "weighted" and space == "logit":
        expected = values[0][:, first] ** 0.25 * values[1][:, first] ** 0.75
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found[:, first], expected, rtol=1e-4)


def test_ranks_are_those_of_scipy_whatever_the_block(imet, tmp_path, monkeypatch):
    store, paths, _ = imet
    monkeypatch.setattr(blend, "_COLUMN_VALUES", 2 * 60)  # a column at a time
    ImageBlender(store).apply(
        Recipe("image", "mean", 2, {}, {"space": "rank"}), paths, tmp_path / "o.npy"
    )
    values = [load_predictions(path).values for path in paths]
    expected = np.mean([rankdata(v, axis=0) / len(v) for v in values], axis=0)
    np.testing.assert_allclose(load_predictions(tmp_path / "o.npy").values, expected, rtol=1e-5)


def test_script_averages_logits(imet, tmp_path):
    store, paths, _ = imet
    command = ["--task", "image", "--data", store.folder, "--space", "logit"]
    out = tmp_path / "out.npy"
    assert run("ensemble.py", *command, "--predictions", *paths, "--out", out) == 0
    odds = [v / (1 - v) for v in (load_predictions(p).values.astype(np.float64) for p in paths)]
    expected = np.sqrt(odds[0] * odds[1])
    expected /= 1 + expected
    np.testing.assert_allclose(load_predictions(out).values, expected, rtol=1e-4, atol=2e-6)


def test_script_finds_a_recipe_that_leaves_the_useless_model_out(imet, tmp_path, capsys):
    store, paths, truth = imet
    task, recipe = ["--task", "image", "--data", store.folder], tmp_path / "recipe.json"
    assert run("recipe.py", *task, "--oof", *paths, "--truth", truth, "--out", recipe) == 0
    assert store.metric.name in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "recipe.csv", index_col="way")
    assert table.loc[str(paths[0]), "nested"] > table.loc[str(paths[1]), "nested"]
    assert len(table) == 2 + 6 and (table["nested"] <= table["searched"] + 0.1).all()
    found = read_recipe(recipe, "image")
    assert found.figures["nested"] == pytest.approx(table["nested"].max(), abs=1e-5)
    weights = ImageBlender(store)._weights
    files, target = blend.load_out_of_fold(paths, truth)
    fitted = weights(files, target.read(slice(0, 60)) > 0, np.ones(60, bool))
    assert all(shares[0] > 0.8 for shares in fitted.values())
    applied = ["--recipe", recipe, "--predictions", *paths, "--out", tmp_path / "out.npy"]
    assert run("ensemble.py", *task, *applied) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "image", "--space", "logit"], "--data: not given"),
        (["--task", "image", "--space", "odds", "--data"], "'odds', expected probability"),
        (["--space", "logit"], "key settings.space: of no use here"),
    ],
)
def test_bad_options_are_refused(imet, tmp_path, capsys, options, message):
    store, paths, _ = imet
    options = [*options, store.folder] if options[-1] == "--data" else options
    out = tmp_path / "out.npy"
    assert run("ensemble.py", *options, "--predictions", *paths, "--out", out) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
