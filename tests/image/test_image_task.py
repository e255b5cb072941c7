"""The image task: pixels in, probabilities out, what validation says, exact resume."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from image_layouts import write_layout
from sklearn.metrics import log_loss
from timm.models import get_pretrained_cfg

from comp.core.checkpoint import load_state
from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.core.folds import write_folds
from comp.core.predict import fold_folder
from comp.core.runs import read_log
from comp.core.stratify import make_folds
from comp.core.trainer import Trainer, fit
from comp.image.competitions import competition
from comp.image.config import ImageConfig
from comp.image.heads import Head
from comp.image.models import build_model
from comp.image.prepare import prepare_images
from comp.image.store import ImageStore
from comp.image.task import ImageTask
from comp.image.validation import log_losses, to_probabilities
from comp.tasks import load_config

CONFIGS = ROOT / "configs/image"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Prepared folders with their fold files, by competition."""
    made = {}
    for name in ("plant_pathology", "protein_atlas"):
        folder = tmp_path_factory.mktemp(name)
        layout = write_layout(folder / "raw", competition(name), train=40)
        prepare_images(layout.raw, folder / "out", layout.competition)
        samples = ImageStore(folder / "out").description()
        folds = make_folds(samples.labels, samples.groups, 2, 0)
        write_folds(folder / "out/folds.csv", folds, samples, {})
        made[name] = folder / "out"
    return made


def image_task(folder, root, **values):
    plain = {
        "name": "x",
        "root": str(root),
        "data": {"folder": str(folder), "folds": str(folder / "folds.csv"), "size": [32, 32]},
        "model": {"backbone": "test_resnet", "dropout": 0.2},
        "loader": {"workers": 0},
        "train": {"epochs": 2, "batch_size": 8, "log_every": 1} | values.pop("train", {}),
    }
    return ImageTask(parse_config(ImageConfig, {**plain, **values}, "test"))


def first_batch(task, rows=(0, 1, 2)):
    dataset = task.dataset(np.array(rows))
    return dataset.collate(dataset.__getitems__(range(len(rows))))


def test_pixels_are_scaled_as_the_backbone_was_pretrained(folders, tmp_path):
    task = image_task(folders["plant_pathology"], tmp_path)
    batch = first_batch(task)
    assert batch["image"].dtype == torch.uint8
    image = task.plain_batch(batch)["image"]
    config = task.build_model().backbone.pretrained_cfg
    for channel, (mean, std) in enumerate(zip(config["mean"], config["std"])):
        expected = (batch["image"][:, channel].float() / 255 - mean) / std
        torch.testing.assert_close(image[:, channel], expected, rtol=1e-5, atol=1e-5)
    four = image_task(folders["protein_atlas"], tmp_path)
    image = four.plain_batch(first_batch(four))["image"]
    assert image.shape == (3, 4, 32, 32) and four.build_model()(image).shape == (3, 28)


def test_predictions_are_probabilities_of_each_head():
    heads = (Head("a", ("x", "y", "z"), "multiclass"), Head("b", ("u", "v"), "multilabel"))
    logits = 5 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = to_probabilities(logits.half(), heads)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, :3].sum(1), torch.ones(4))
    torch.testing.assert_close(found[:, 3:], logits[:, 3:].sigmoid(), rtol=1e-2, atol=1e-3)


def test_log_loss_is_that_of_scikit_learn():
    heads = (Head("a", ("x", "y", "z"), "multiclass"), Head("b", ("u", "v"), "multilabel"))
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    p = to_probabilities(logits, heads)
    classes, sets = [0, 2, 1, 1, 0, 2], np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [0, 0]])
    target = torch.cat([torch.eye(3)[classes], torch.tensor(sets).float()], 1)
    q = p.double()
    expected = [log_loss(classes, q[:, :3] / q[:, :3].sum(1, keepdim=True))]
    expected.append(np.mean([log_loss(sets[:, k], q[:, 3 + k]) for k in range(2)]))
    assert float(log_losses(p, target, heads).mean()) == pytest.approx(np.mean(expected), rel=1e-5)


def test_validation_is_at_the_best_common_threshold(folders, tmp_path):
    task = image_task(folders["plant_pathology"], tmp_path)
    rows = np.arange(40)
    truth = task.truth(rows) > 0
    noise = np.random.default_rng(0).uniform(0, 0.4, truth.shape).astype(np.float32)
    scores = {"probabilities": 0.2 * truth + noise, "log_loss": np.ones(40)}
    found = task.metrics(scores, rows)
    assert task.metric == "tuned_f1_samples" and not task.lower_is_better
    grid = np.linspace(0, 1, 401, dtype=np.float32)
    most = scores["probabilities"] == scores["probabilities"].max(axis=1, keepdims=True)
    sets = [(scores["probabilities"] > threshold) | most for threshold in grid]  # at least one
    best = max(task.store.metric.score(each, truth) for each in sets)
    assert best <= found["tuned_f1_samples"] <= best + 0.01
    # Shifted and scaled alike, nothing changes but the threshold.
    moved = task.metrics({**scores, "probabilities": 0.5 * scores["probabilities"] + 0.1}, rows)
    assert moved["tuned_f1_samples"] == found["tuned_f1_samples"]
    assert moved["map"] == pytest.approx(found["map"])
    assert moved["threshold"] == pytest.approx(0.5 * found["threshold"] + 0.1, abs=1e-3)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_network_of_a_shipped_config_can_be_built(path):
    config = load_config(path)
    known = get_pretrained_cfg(config.model.backbone)
    assert known is not None and known.has_weights
    heads = (Head("tags", tuple("abc"), "multilabel"),)
    network = build_model(config.model, heads, fetch=False).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, *config.data.size)).shape == (1, 3)


MIXES = {
    "mixup": {"mix": {"kind": "mixup"}},
    "cutmix": {"mix": {"kind": "cutmix", "alpha": 1.0, "probability": 0.5}},
    "feature": {
        "mix": {"kind": "feature", "images": 3},
        "model": {"backbone": "test_resnet", "mix_stage": 1},
    },
}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kind", MIXES)
def test_a_killed_run_ends_with_the_same_weights_whatever_is_drawn(
    folders, tmp_path, monkeypatch, kind
):
    how = {**MIXES[kind], "augment": {"noise": 1.0, "affine": 1.0}}
    train = {"checkpoint_every": 1, "accumulate": 2, "ema": 0.9}
    whole, cut = (
        image_task(folders["plant_pathology"], tmp_path / name, train=train, **how)
        for name in ("whole", "cut")
    )
    fit(whole, 0, whole.config.folder)
    step = Trainer.train_step

    def dies(self, feed):
        if self.step == 3:
            raise Killed
        return step(self, feed)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(Killed):
        fit(cut, 0, cut.config.folder)
    monkeypatch.setattr(Trainer, "train_step", step)
    workers = cut.config.model_copy(
        update={"loader": cut.config.loader.model_copy(update={"workers": 1})}
    )
    fit(ImageTask(workers), 0, workers.folder)  # moved to a worker in the middle of an epoch
    one, other = (
        load_state(fold_folder(task.config.folder, 0) / "final.safetensors")["model"]
        for task in (whole, cut)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = read_log(fold_folder(whole.config.folder, 0) / "log.jsonl")
    assert "train/tuned_f1_samples" in lines[-1] and "valid/map" in lines[-1]


@pytest.mark.parametrize(
    ("kind", "eval_train", "number"),
    [("none", None, 0), ("none", 5, 5), ("mixup", None, 1000), ("mixup", 0, 0)],
)
def test_with_mixing_on_plain_training_images_are_scored(
    folders, tmp_path, kind, eval_train, number
):
    how = {"mix": {"kind": kind}, "train": {"eval_train": eval_train, "batch_size": 8}}
    task = image_task(folders["plant_pathology"], tmp_path, **how)
    trainer = Trainer(task, 0, tmp_path / "x")
    assert len(trainer.probe_rows) == min(number, len(trainer.train_rows))


def test_training_learns_the_blocks(folders, tmp_path):
    train = {"epochs": 40, "batch_size": 10, "eval_every": 20}
    augment = {"window": None, "flip": 0.0, "colour": 0.0}
    task = image_task(
        folders["plant_pathology"], tmp_path, train=train, augment=augment, optim={"lr": 3e-3}
    )
    summary = fit(task, 0, task.config.folder)
    assert summary["best"] > 0.9


def test_an_image_of_the_sample_submission_that_is_absent_is_marked(folders, tmp_path):
    task = image_task(folders["plant_pathology"], tmp_path)
    raw = folders["plant_pathology"].parent / "raw"
    table, _ = task.test_data(raw)
    ids = ["absent", *table["id"][::-1]]
    layout = task.layout(folders["plant_pathology"])
    sample = tmp_path / "sample.csv"
    rows = [f"{name},healthy" for name in ids]
    sample.write_text("\n".join([",".join(layout.header), *rows]) + "\n")
    table, dataset = task.test_data(raw, sample)
    assert table["id"].tolist() == ids
    batch = dataset.__getitems__(range(len(ids)))
    assert batch["broken"].tolist() == [True] + [False] * (len(ids) - 1)


def test_weights_of_a_head_that_there_is_not_are_refused(folders, tmp_path):
    task = image_task(folders["plant_pathology"], tmp_path, loss={"heads": {"root": 2.0}})
    with pytest.raises(InputError, match="'loss.heads': got 'root'; the heads are labels"):
        fit(task, 0, task.config.folder)
