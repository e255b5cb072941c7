"""The search for a recipe on a few generated maps, and what its file makes of other maps."""

import json

import numpy as np
import pandas as pd
import pytest
from cli import run

from comp.core.combining import weighted_mean
from comp.core.predictions import load_predictions, save_predictions
from comp.fwi import blend_fit
from comp.fwi.blend import FwiBlender
from comp.fwi.blend_report import chosen_by_others
from comp.fwi.families import map_features, read_router
from comp.fwi.metrics import competition_mae
from comp.fwi.postprocess import postprocess
from comp.fwi.velocity import generate

NAMES = ("FlatVel_A", "Style_A")
EACH = 24


def save(path, values, **columns):
    ids = [f"s{i}" for i in range(len(values))]
    save_predictions(path, pd.DataFrame({"id": ids, **columns}), values.astype(np.float32))
    return path


@pytest.fixture(scope="module", autouse=True)
def few_cells():
    """A fit of two thousand cells takes hundredths of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blend_fit, "_FITTED", 2000)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Model a is near on level maps, b on photographs, c nowhere; and the same on a test set."""
    folder, rng = tmp_path_factory.mktemp("blend"), np.random.default_rng(0)
    paths = {"oof": [], "test": []}
    families = np.repeat(NAMES, EACH)
    truth = np.concatenate([generate(name, EACH, 0) for name in NAMES])
    for name, sizes in {"a": (0.2, 40), "b": (30, 3), "c": (300, 300)}.items():
        size = np.repeat(sizes, EACH)[:, None, None]
        for kind, columns in {"oof": {"fold": np.arange(2 * EACH) % 3}, "test": {}}.items():
            values = truth + rng.laplace(0, 1, truth.shape) * size
            paths[kind].append(save(folder / f"{name}_{kind}.npy", values, **columns))
    return folder, paths, save(folder / "truth.npy", truth, family=families)


@pytest.fixture(scope="module")
def comparison(made):
    _, paths, truth = made
    return FwiBlender().search(paths["oof"], truth)


def test_the_best_way_is_by_family_and_rounds_layers(comparison):
    table, recipe = comparison.table, comparison.recipe
    assert recipe.method.startswith("weighted") and recipe.settings["post"] == "round"
    assert recipe.weights["FlatVel_A"][0] > 0.9 and recipe.weights["Style_A"][1] > 0.9
    by_family = table.loc["weighted by family"]
    assert by_family["nested"] < table.loc["weighted", "nested"] < table.loc["mean", "nested"]
    assert by_family["searched"] <= by_family["nested"] * 1.05
    assert recipe.figures["nested"] == pytest.approx(table["nested"].min())


def test_the_figure_of_a_single_file_is_its_competition_mae(made, comparison):
    _, paths, truth = made
    expected = competition_mae(*(load_predictions(p).values for p in (paths["oof"][0], truth)))
    row = comparison.table.loc[str(paths["oof"][0])]
    assert row["nested"] == pytest.approx(expected, rel=1e-5) == row["searched"]


def test_script_writes_a_recipe_and_applies_it(made, tmp_path, capsys):
    _, paths, truth = made
    recipe, out = tmp_path / "recipe.json", tmp_path / "out.npy"
    assert run("recipe.py", "--oof", *paths["oof"], "--truth", truth, "--out", recipe) == 0
    assert "chosen on the other folds" in capsys.readouterr().out
    assert (
        run("ensemble.py", "--recipe", recipe, "--predictions", *paths["test"], "--out", out) == 0
    )
    known, found = load_predictions(truth), load_predictions(out)
    best = min(competition_mae(load_predictions(p).values, known.values) for p in paths["test"])
    assert competition_mae(found.values, known.values) < best / 3
    layers = known.table["family"] == "FlatVel_A"
    assert (found.values[layers] == np.rint(found.values[layers])).mean() > 0.99
    assert (tmp_path / "recipe.csv").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "version 7, expected a recipe of version 1"),
        ({"task": "image"}, "made for task 'image', expected 'fwi'"),
        ({"weights": {"all": [0.5, 0.6, 0.1]}}, "key weights.all: weights"),
        ({"method": "best"}, "method 'best', expected one of mean"),
        ({"colour": 1}, "not a recipe"),
        ({"weights": [1.0]}, "key weights: [1.0], expected dict"),
        ({"weights": {"all": ["a", "b", "c"]}}, "key weights.all: could not convert"),
        ({"settings": {"space": "rank"}}, "key settings.space: of no use here"),
        ({"files": 2, "weights": {}}, "3 prediction files, expected the recipe's 2"),
        ({"settings": {"post": "sharpen"}}, "key settings.post: 'sharpen'"),
        ({"settings": {"post": "round"}}, "key settings.router: not a router"),
    ],
)
def test_a_bad_recipe_is_refused(made, tmp_path, capsys, change, message):
    _, paths, _ = made
    plain = {"version": 1, "task": "fwi", "method": "mean", "files": 3}
    (tmp_path / "r.json").write_text(json.dumps(plain | change))
    command = ["--recipe", tmp_path / "r.json", "--predictions", *paths["test"]]
    assert run("ensemble.py", *command, "--out", tmp_path / "out.npy") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()


def test_a_recipe_stands_alone(made, tmp_path, capsys):
    _, paths, _ = made
    command = ["--recipe", "r.json", "--method", "mean", "--predictions", *paths["test"]]
    assert run("ensemble.py", *command, "--out", tmp_path / "out.npy") == 2
    assert "--method: given beside --recipe" in capsys.readouterr().err


def test_one_fold_and_files_of_other_samples_are_refused(made, tmp_path, capsys):
    _, _, truth = made
    values = load_predictions(truth).values
    one = save(tmp_path / "one.npy", values, fold=0)
    more = save(tmp_path / "more.npy", np.concatenate([values, values[:1]]), fold=0)
    for path, message in {one: "only fold 0", more: "1 of 49 ids missing, first 's48'"}.items():
        out = ["--truth", truth, "--out", tmp_path / "r.json"]
        assert run("recipe.py", "--oof", path, *out) == 2
        assert message in capsys.readouterr().err


def test_without_families_nothing_goes_by_them(made, tmp_path):
    _, paths, truth = made
    bare = save(tmp_path / "bare.npy", load_predictions(truth).values)
    found = FwiBlender().search(paths["oof"], bare)
    assert not any("family" in name for name in found.table.index)
    assert found.recipe.settings["router"] is None and set(found.recipe.weights) <= {"all"}
    FwiBlender().apply(found.recipe, paths["test"], tmp_path / "out.npy")


def test_the_choice_of_a_fold_is_made_on_the_others():
    errors = np.full((2, 3, 4), np.inf)
    errors[0, 0] = [1, 1, 9, 9]  # the first way is better on fold 0, the second on fold 1
    errors[1, 0] = [5, 5, 2, 2]
    np.testing.assert_array_equal(chosen_by_others(errors, np.array([0, 0, 1, 1])), [5, 5, 9, 9])


def test_postprocessing_clips_and_rounds_layers_alone():
    maps = np.full((2, 3, 3), 1600.4, np.float32)
    maps[:, 0, 0] = 4999
    done = postprocess(maps, "round", np.array(NAMES))
    assert done.max() == 4500 and done[0, 1, 1] == 1600 and done[1, 1, 1] == maps[1, 1, 1]
    assert postprocess(maps, "none", None) is maps


def test_applied_weights_are_those_of_the_routed_family(made, comparison, tmp_path):
    _, paths, _ = made
    recipe = comparison.recipe
    FwiBlender().apply(recipe, paths["test"], tmp_path / "out.npy")
    stack = np.stack([load_predictions(path).values for path in paths["test"]])
    router = read_router(recipe.settings["router"])
    families = router.route(map_features(np.median(stack, axis=0)))
    shares = recipe.shares(families)
    if recipe.method == "weighted":
        expected = postprocess(weighted_mean(stack, shares), recipe.settings["post"], families)
        np.testing.assert_allclose(load_predictions(tmp_path / "out.npy").values, expected)
