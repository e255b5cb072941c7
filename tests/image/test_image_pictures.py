"""Pictures of images and predictions, through scripts/plot.py: what is drawn, what is refused."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from cli import run
from image_layouts import SMALL_BENGALI, write_layout
from sklearn.metrics import average_precision_score, precision_recall_curve

from comp.core.loading import derive_seed
from comp.core.predictions import save_predictions
from comp.image.augment import AugmentConfig, plain_transform, training_transform
from comp.image.competitions import competition
from comp.image.data import ImageDataset
from comp.image.plots import as_colour
from comp.image.plots_labels import ap_bars
from comp.image.plots_rules import GAMMAS, THRESHOLDS
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore


def make(folder, entry):
    """A prepared folder with out-of-fold predictions in an order of their own."""
    made = write_layout(folder / "raw", entry)
    prepare_images(made.raw, folder / "data", entry)
    store, rng = ImageStore(folder / "data"), np.random.default_rng(0)
    rows = rng.permutation(len(store))
    guess = store.targets(rows) + rng.normal(0, 0.7, (len(rows), len(store.labels)))
    probabilities = (1 / (1 + np.exp(1 - 2 * guess))).astype(np.float32).round(2)
    table = store.table(rows)
    table.insert(1, "fold", np.arange(len(rows)) % 3)
    save_predictions(folder / "oof.npy", table, probabilities)
    save_predictions(folder / "one.npy", table[::3], probabilities[::3])  # fold 0
    return store, rows, probabilities


@pytest.fixture(scope="module")
def plants(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plants")
    return folder, *make(folder, competition("plant_pathology"))


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    return folder, *make(folder, SMALL_BENGALI)


@pytest.fixture
def plot(tmp_path, capsys, saved_figures):
    """Run scripts/plot.py: (exit code, figure or None, output, last line of errors)."""

    def call(kind, *arguments):
        out = tmp_path / "out.png"
        out.unlink(missing_ok=True)
        code = run("plot.py", kind, *arguments, "--out", out)
        said = capsys.readouterr()
        assert (code == 0) == out.exists()
        figure = saved_figures[-1] if saved_figures else None
        return code, figure, said.out, ([""] + said.err.splitlines())[-1]

    return call


def inputs(folder, oof="oof.npy"):
    return "--data", folder / "data", "--oof", folder / oof


def test_classes_are_sorted_bars_of_average_precision(plot, plants):
    folder, store, rows, probabilities = plants
    code, figure, said, _ = plot("classes", *inputs(folder))
    truth = store.targets(rows) > 0
    has = truth.any(0)
    ap = average_precision_score(truth[:, has], probabilities[:, has], average=None)
    assert code == 0 and f"mAP {ap.mean():.4f} over {has.sum()} labels" in said
    left, right = figure.axes
    widths = [bar.get_width() for bar in left.containers[0]]
    np.testing.assert_allclose(widths, np.sort(ap)[::-1])
    names = [label.get_text() for label in left.get_yticklabels()]
    best = np.flatnonzero(has)[ap.argmax()]
    assert names[0] == f"{store.labels[best]}, n = {truth[:, best].sum()}"
    np.testing.assert_allclose(np.sort(right.lines[0].get_ydata()), np.sort(ap))


def test_of_many_labels_the_best_and_the_worst_have_bars(tmp_path, saved_figures):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"support": rng.integers(0, 50, 90), "ap": rng.random(90)})
    ap_bars(tmp_path / "out.png", table, samples=60)
    left, right = saved_figures[-1].axes
    known = np.sort(table["ap"][table["support"] > 0])[::-1]
    assert len(known) < 90  # a label without images has nothing to show
    widths = [bar.get_width() for bar in left.containers[0]]
    np.testing.assert_array_equal(widths, np.r_[known[:20], known[-20:]])
    assert len(right.lines[0].get_xdata()) == len(known)
    between = f"{len(known)} labels, 60 images; {len(known) - 40} between the bars"
    assert saved_figures[-1].get_suptitle() == between


def test_precision_curves_are_those_of_scikit_learn(plot, plants):
    folder, store, rows, probabilities = plants
    code, figure, _, _ = plot("precision", *inputs(folder))
    truth = store.targets(rows) > 0
    assert code == 0
    named = {line.get_label(): line for line in figure.axes[0].lines}
    column = int(truth.sum(0).argmax())
    label = next(name for name in named if name.startswith(f"{store.labels[column]}, n = "))
    ap = average_precision_score(truth[:, column], probabilities[:, column])
    assert label.endswith(f"n = {truth[:, column].sum()}, AP {ap:.3f}")
    for line, true, p in [
        (named[label], truth[:, column], probabilities[:, column]),
        (named["all labels together"], truth.ravel(), probabilities.ravel()),
    ]:
        precision, recall, _ = precision_recall_curve(true, p)
        expected = set(zip(recall[:-1].round(9), precision[:-1].round(9)))
        drawn = set(zip(line.get_xdata().round(9), line.get_ydata().round(9)))
        assert expected <= drawn


@pytest.mark.parametrize("oof, step, lines", [("oof.npy", 1, 4), ("one.npy", 3, 1)])
def test_sweep_is_the_metric_at_each_threshold(plot, plants, oof, step, lines):
    folder, store, rows, probabilities = plants
    code, figure, said, _ = plot("sweep", *inputs(folder, oof))
    axes, counts = figure.axes
    scores = next(line for line in axes.lines if line.get_label() == "all images")
    at = int(np.argmin(np.abs(THRESHOLDS - 0.5)))
    mine, truth = probabilities[::step], store.targets(rows[::step]) > 0
    chosen = (mine > 0.5) | (mine == mine.max(axis=1, keepdims=True))  # at least one
    assert code == 0
    assert scores.get_ydata()[at] == pytest.approx(store.metric.score(chosen, truth))
    assert counts.lines[0].get_ydata()[at] == pytest.approx(chosen.sum(1).mean())
    assert len([line for line in axes.lines if len(line.get_xdata()) > 1]) == lines
    assert f"best threshold {THRESHOLDS[scores.get_ydata().argmax()]:g}" in said


def test_sweep_of_softmax_heads_is_over_gamma(plot, glyphs):
    folder, store, rows, probabilities = glyphs
    code, figure, said, _ = plot("sweep", *inputs(folder))
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    truth, start, recalls = store.targets(rows) > 0, 0, {}
    for head in store.heads:
        part = slice(start, start := start + len(head.labels))
        chosen, true = probabilities[:, part].argmax(1), truth[:, part].argmax(1)
        classes = np.union1d(chosen, true)
        hit = [(chosen[true == k] == k).mean() if (true == k).any() else 0 for k in classes]
        recalls[head.name] = np.mean(hit)
    assert code == 0 and "best γ" in said and GAMMAS[0] == 0
    for name, recall in recalls.items():
        assert lines[name][0] == pytest.approx(recall)
    assert lines["all images"][0] == pytest.approx(
        np.average(list(recalls.values()), weights=store.metric.weights)
    )


def test_worst_images_come_first_with_what_they_are(plot, plants):
    folder, store, rows, probabilities = plants
    code, figure, _, _ = plot("worst", *inputs(folder), "--images", "4")
    truth = store.targets(rows) > 0
    losses = -np.log(np.where(truth, probabilities, 1 - probabilities)).mean(1)
    worst = np.argsort(-losses, kind="stable")[:4]
    assert code == 0
    captions = [panel.get_xlabel() for panel in figure.axes if panel.get_images()]
    assert [caption.splitlines()[0] for caption in captions] == store.ids[rows[worst]].tolist()
    first = captions[0].replace("\u00a0", " ").replace("\n", " ")
    for column in np.flatnonzero(truth[worst[0]]):
        p = probabilities[worst[0], column]
        assert f"{store.labels[column]} ({100 * p:.0f} %)" in first.partition("is not")[0]
    shown = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, store.read(int(rows[worst[0]])))


def write_config(folder, **more):
    values = {
        "task": "image",
        "name": "x",
        "data": {"folder": str(folder / "data"), "folds": "folds.csv", "size": [24, 32]},
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_batch_is_what_fold_0_trains_on(plot, plants):
    folder, store, _, _ = plants
    path = write_config(folder)
    code, figure, _, _ = plot(
        "batch", "--config", path, "augment.rotate=30", "augment.affine=1", "--images", "3"
    )
    assert code == 0
    panels = np.array([panel for panel in figure.axes if panel.get_images()]).reshape(3, 5)
    titles = [panel.get_title() for panel in panels[0]]
    assert titles == ["validation", *(f"epoch {i}" for i in range(4))]
    config = AugmentConfig(rotate=30, affine=1)
    plain = ImageDataset(store, None, plain_transform(config, (24, 32)))
    training = ImageDataset(store, None, training_transform(config, (24, 32), 3), derive_seed(0, 0))
    for cells in panels:
        name, *labels = cells[0].get_xlabel().splitlines()
        row = np.flatnonzero(store.ids == name)
        for label in np.flatnonzero(store.targets(row)[0]):
            assert store.labels[label] in " ".join(labels)
        expected = [plain.read(row, 0), *(training.read(row, epoch) for epoch in range(4))]
        for panel, batch in zip(cells, expected):
            image = batch["image"][0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(panel.get_images()[0].get_array(), image)


def test_batch_shows_mixtures(plot, plants):
    folder, *_ = plants
    path = write_config(folder, mix={"kind": "cutmix", "probability": 0.01})
    _, figure, _, _ = plot("batch", "--config", path, "--images", "4", "--epochs", "1")
    panels = np.array([panel for panel in figure.axes if panel.get_images()]).reshape(4, 3)
    assert panels[0, 2].get_title() == "epoch 0, cutmix"
    before, after = (
        [panel.get_images()[0].get_array() for panel in column] for column in panels.T[1:]
    )
    assert any(not np.array_equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize("channels, expected", [(1, [9, 9, 9]), (2, [9, 8, 0]), (3, [9, 8, 7])])
def test_images_of_few_channels_have_colours(channels, expected):
    image = np.full((2, 2, channels), [9, 8, 7][:channels], np.uint8)
    np.testing.assert_array_equal(as_colour(image)[0, 0], expected)


def test_a_fourth_channel_is_yellow():
    image = np.full((2, 2, 4), [200, 8, 7, 100], np.uint8)
    np.testing.assert_array_equal(as_colour(image)[0, 0], [255, 108, 7])


BAD = {
    "not out-of-fold": ("plain.npy", "no column 'fold' in its id table"),
    "other images": ("other.npy", "id 'z.jpg' is unknown to"),
    "other labels": ("labels.npy", "sample shape (5,), expected (6,)"),
    "missing": ("no.npy", "no.npy: no such file"),
}


@pytest.mark.parametrize("kind", ["classes", "precision", "sweep", "worst"])
@pytest.mark.parametrize("case", BAD)
def test_bad_predictions_end_with_one_line(kind, case, plot, plants):
    folder, store, rows, probabilities = plants
    table = store.table(rows)
    save_predictions(folder / "plain.npy", table, probabilities)
    table.insert(1, "fold", 0)
    save_predictions(folder / "labels.npy", table, probabilities[:, :5])
    table.loc[3, "id"] = "z.jpg"
    save_predictions(folder / "other.npy", table, probabilities)
    oof, message = BAD[case]
    code, _, _, error = plot(kind, *inputs(folder, oof))
    assert code == 2 and error.startswith("error: ") and message in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--images", "0"], "images: 0, expected 1 or more"),
        (["--epochs", "-1"], "epochs: -1, expected 1 or more"),
        (["augment.flips=1"], "augment.flips"),
        (["data.folder=nowhere"], "nowhere"),
    ],
)
def test_bad_batches_end_with_one_line(arguments, message, plot, plants):
    code, _, _, error = plot("batch", "--config", write_config(plants[0]), *arguments)
    assert code == 2 and error.startswith("error: ") and message in error


def test_pictures_of_images_do_without_the_wave_solver(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "comp.fwi.pictures", None)  # importing it fails
    assert run("plot.py", "classes", "--help") == 0
    assert "average precision of each label" in capsys.readouterr().out
    with pytest.raises(ImportError):
        run("plot.py", "maps", "--help")


def test_nothing_is_left_behind(plot, plants, tmp_path):
    plot("classes", *inputs(plants[0]))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["out.png"]
