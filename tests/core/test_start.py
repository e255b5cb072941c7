"""Starting from another run's weights: of the same fold, once, and never from what leaks."""

import shutil

import numpy as np
import pytest
import torch
from toy import ToyTask, toy_config

from comp.core.checkpoint import load_state, save_state
from comp.core.errors import InputError
from comp.core.predict import fold_folder
from comp.core.trainer import Trainer, fit


class Refolded(ToyTask):
    """The same samples in other folds."""

    def folds(self):
        return (np.arange(self.config.samples) + 1) % 3


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run whose folds 0 and all are finished."""
    config = toy_config(tmp_path_factory.mktemp("first"), train={"ema": 0.9})
    for fold in (0, "all"):
        fit(ToyTask(config), fold, config.folder)
    return config.folder


def second(root, source, task=ToyTask, fold=0, **values):
    """The trainer of a run that starts from `source`."""
    train = {"start_from": str(source), **values.pop("train", {})}
    config = toy_config(root, train=train, **values)
    return Trainer(task(config), fold, fold_folder(config.folder, fold))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("file", ["", "fold_0/best.safetensors", "fold_0/final.safetensors"])
def test_training_starts_from_the_folds_own_weights(first, tmp_path, file):
    trainer = second(tmp_path, first / file, train={"ema": 0.5})
    expected = load_state(first / (file or "fold_0/best.safetensors"))["model"]
    assert same(trainer.plain.state_dict(), expected)
    assert same(trainer.average.module.state_dict(), expected)
    other = load_state(first / "fold_all/final.safetensors")["model"]
    assert not same(trainer.plain.state_dict(), other)


def test_fold_all_starts_from_any_weights(first, tmp_path):
    for source in (first, first / "fold_0/best.safetensors"):
        name = "fold_all/final" if source == first else "fold_0/best"
        expected = load_state(first / f"{name}.safetensors")["model"]
        assert same(second(tmp_path, source, fold="all").plain.state_dict(), expected)


def test_a_resumed_run_goes_on_where_it_stood(first, tmp_path, monkeypatch):
    source = tmp_path / "source"
    shutil.copytree(first, source)
    whole = second(tmp_path / "whole", source)
    whole.fit()
    trainer = second(tmp_path / "killed", source, train={"checkpoint_every": 1})
    step = Trainer.train_step

    def dies(self, feed):
        if self.step == 5:
            raise KeyboardInterrupt
        return step(self, feed)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    monkeypatch.setattr(Trainer, "train_step", step)
    shutil.rmtree(source)  # not needed any more
    second(tmp_path / "killed", source, train={"checkpoint_every": 1}).fit()
    files = [trainer.folder / "final.safetensors" for trainer in (whole, trainer)]
    assert same(*(load_state(file)["model"] for file in files))


def test_weights_that_saw_the_validation_samples_are_refused(first, tmp_path):
    with pytest.raises(InputError, match="weights of fold all, expected those of fold 0"):
        second(tmp_path, first / "fold_all/final.safetensors")
    with pytest.raises(InputError, match="weights of fold 0, expected those of fold 1"):
        second(tmp_path, first / "fold_0/best.safetensors", fold=1)
    with pytest.raises(InputError, match="fold 0 held out other samples.*the same folds"):
        second(tmp_path, first, Refolded)
    second(tmp_path, first, Refolded, samples=90)  # other data, such as simulated ones


def test_a_limit_does_not_hide_that_folds_differ(first, tmp_path):
    second(tmp_path, first, limit=20)
    with pytest.raises(InputError, match="held out other samples"):
        second(tmp_path, first, Refolded, limit=20)


def test_a_network_of_another_size_says_what_weights_become(first, tmp_path):
    class Resized(ToyTask):
        def build_model(self, fetch=True):
            network = super().build_model(fetch)
            network.resample_weights = lambda weights: {k: 2 * w for k, w in weights.items()}
            return network

    expected = load_state(first / "fold_0/best.safetensors")["model"]
    found = second(tmp_path, first, Resized).plain.state_dict()
    assert same(found, {name: 2 * weight for name, weight in expected.items()})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothere", "nothere: no such file"),
        ("", "fold 1 is not finished"),
        ("fold_0/last.safetensors", "no weights of a fold"),
        ("list.safetensors", "no weights of a fold"),
        ("other.safetensors", "weights of another network"),
    ],
)
def test_what_holds_no_weights_of_the_network_is_refused(first, tmp_path, source, message):
    fold = 1 if not source else 0
    state = load_state(first / "fold_0/best.safetensors")
    save_state(first / "list.safetensors", [1, 2])
    save_state(first / "other.safetensors", {**state, "model": {"0.weight": torch.zeros(2)}})
    with pytest.raises(InputError, match=message) as caught:
        second(tmp_path, first / source, fold=fold)
    assert "\n" not in str(caught.value)
