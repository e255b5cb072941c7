"""The trainer on a toy task: resume, accumulation, early stop, non-finite loss."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.utils import ModelEmaV3
from toy import ToyTask, toy_config

from comp.core.checkpoint import load_state
from comp.core.config import apply_overrides, dump_config, parse_config
from comp.core.errors import InputError
from comp.core.folds import fold_rows
from comp.core.graphs import record
from comp.core.predict import fold_folder, load_network, new_accelerator, predict, predict_oof
from comp.core.predictions import load_predictions
from comp.core.runs import read_log
from comp.core.signals import Stopped
from comp.core.trainer import Trainer, fit
from comp.core.watch import NonFiniteLoss


def weights(folder, name="final"):
    return load_state(folder / f"{name}.safetensors")["model"]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Killed(BaseException):
    """Stands for SIGKILL inside one process: nothing after it runs but `finally`."""


@pytest.mark.parametrize(
    ("kill_at", "optim"),
    [*((step, "adamw") for step in (1, 3, 4, 7, 11)), (5, "muon"), (5, "lamb")],
)
def test_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, monkeypatch, kill_at, optim
):
    values = {"dropout": 0.2, "batch_norm": True, "jitter": 0.1}
    values["optim"] = {"name": optim, "layer_decay": None if optim == "adamw" else 0.7}
    train = {"checkpoint_every": 2, "ema": 0.9, "accumulate": 2}
    whole = toy_config(tmp_path / "whole", train=train, **values)
    fit(ToyTask(whole), 0, whole.folder)
    config = toy_config(tmp_path / "killed", train=train, **values)
    step = Trainer.train_step

    def dies(self, feed):
        if self.step == kill_at:
            raise Killed
        return step(self, feed)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(Killed):
        fit(ToyTask(config), 0, config.folder)
    monkeypatch.setattr(Trainer, "train_step", step)
    torch.manual_seed(99)  # what a fresh process would have there must not matter
    fit(ToyTask(config), 0, config.folder)
    a, b = fold_folder(whole.folder, 0), fold_folder(config.folder, 0)
    for name in ("final", "best"):
        assert_same_weights(weights(a, name), weights(b, name))
    one, other = (read_log(folder / "log.jsonl") for folder in (a, b))
    strip = [{k: v for k, v in e.items() if k != "samples_per_s"} for e in one]
    assert strip == [{k: v for k, v in e.items() if k != "samples_per_s"} for e in other]


def test_accumulation_equals_the_large_batch(tmp_path):
    found = []
    for accumulate in (1, 4):
        config = toy_config(tmp_path / str(accumulate), train={"accumulate": accumulate})
        fit(ToyTask(config), 0, config.folder)
        found.append(weights(fold_folder(config.folder, 0)))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-5, atol=1e-6)


def test_step_count_and_learning_rate_are_logged(tmp_path):
    config = toy_config(tmp_path)
    summary = fit(ToyTask(config), 1, config.folder)
    log = read_log(fold_folder(config.folder, 1) / "log.jsonl")
    steps = [e["step"] for e in log if "lr" in e]
    assert steps == list(range(1, 13))  # 64 training rows, 16 a step, 3 epochs
    assert summary["steps"] == 12
    assert len([e for e in log if "valid/mae" in e]) == 3
    assert summary["best"] == min(e["valid/mae"] for e in log if "valid/mae" in e)


def test_training_learns(tmp_path):
    config = toy_config(tmp_path, train={"epochs": 60})
    summary = fit(ToyTask(config), 0, config.folder)
    y = ToyTask(config).y
    constant = float((y - y.median()).abs().mean())
    assert summary["best"] < 0.5 * constant


def test_early_stop(tmp_path):
    config = toy_config(tmp_path, train={"epochs": 400, "early_stop": 2})
    summary = fit(ToyTask(config), 0, config.folder)
    assert summary["best_step"] < summary["steps"] < 1600
    assert summary["steps"] - summary["best_step"] == 2 * 4


def test_fold_all_trains_on_everything_without_validation(tmp_path):
    config = toy_config(tmp_path, folds=("all",))
    summary = fit(ToyTask(config), "all", config.folder)
    folder = fold_folder(config.folder, "all")
    assert summary["best"] is None and summary["steps"] == 3 * 6
    assert not (folder / "best.safetensors").exists() and (folder / "final.safetensors").exists()
    assert not any("valid/mae" in event for event in read_log(folder / "log.jsonl"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_non_finite_loss_names_step_samples_and_checkpoint(tmp_path, accumulate):
    train = {"epochs": 2, "checkpoint_every": 1, "accumulate": accumulate}
    config = toy_config(tmp_path, poison=1, train=train)
    with pytest.raises(NonFiniteLoss) as caught:
        fit(ToyTask(config), 0, config.folder)
    message = str(caught.value)
    assert "s001" in message and "step " in message and "\n" not in message
    step = int(message.split("step ")[1].split(":")[0])
    last = fold_folder(config.folder, 0) / "last.safetensors"
    if step:
        assert str(last) in message
        state = load_state(last)
        assert state["progress"][0] == step  # the checkpoint is from before the broken step
        assert all(torch.isfinite(t).all() for t in state["model"].values())
    else:
        assert "none yet" in message


def test_stop_request_saves_and_resumes(tmp_path, monkeypatch):
    whole = toy_config(tmp_path / "whole")
    fit(ToyTask(whole), 0, whole.folder)
    config = toy_config(tmp_path / "stopped")
    step = Trainer.train_step

    def interrupted(self, feed):
        if self.step == 5:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, feed)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    with pytest.raises(Stopped, match="saved") as caught:
        fit(ToyTask(config), 0, config.folder)
    assert caught.value.signum == 15
    assert load_state(fold_folder(config.folder, 0) / "last.safetensors")["progress"][0] in (6, 7)
    monkeypatch.setattr(Trainer, "train_step", step)
    fit(ToyTask(config), 0, config.folder)
    assert_same_weights(
        weights(fold_folder(whole.folder, 0)), weights(fold_folder(config.folder, 0))
    )


def test_checkpoint_of_another_config_is_refused(tmp_path):
    config = toy_config(tmp_path)
    fit(ToyTask(config), 0, config.folder)
    other = parse_config(
        type(config), apply_overrides(dump_config(config), ["optim.lr=0.02", "seed=3"]), "test"
    )
    with pytest.raises(InputError, match=r"optim.lr: 0.01 → 0.02; seed: 0 → 3"):
        fit(ToyTask(other), 0, other.folder)
    # What only moves the work about may change.
    moved = parse_config(
        type(config), apply_overrides(dump_config(config), ["loader.workers=1"]), ""
    )
    fit(ToyTask(moved), 0, moved.folder)


def test_checkpoint_of_other_samples_is_refused(tmp_path):
    config = toy_config(tmp_path)
    fit(ToyTask(config), 0, config.folder)

    class Other(ToyTask):
        def folds(self):
            return (np.arange(self.config.samples) + 1) % 3

    with pytest.raises(InputError, match="other samples"):
        fit(Other(config), 0, config.folder)


def test_batch_size_that_does_not_fit_is_refused(tmp_path):
    config = toy_config(tmp_path, train={"batch_size": 100})
    with pytest.raises(InputError, match=r"train.batch_size.*only 64 training samples"):
        fit(ToyTask(config), 0, config.folder)
    config = toy_config(tmp_path, train={"batch_size": 10, "accumulate": 4})
    with pytest.raises(InputError, match=r"train.batch_size.*multiple of 4"):
        fit(ToyTask(config), 0, config.folder)


def test_limit_takes_so_many_rows_of_each_split(tmp_path):
    trainer = Trainer(ToyTask(toy_config(tmp_path, limit=20)), 0, tmp_path / "x")
    assert len(trainer.train_rows) == len(trainer.valid_rows) == 20
    train, valid = fold_rows(trainer.task.folds(), 0)
    assert set(trainer.train_rows) <= set(train) and set(trainer.valid_rows) <= set(valid)


def test_oof_predictions_reproduce_the_logged_metric(tmp_path):
    config = toy_config(tmp_path, train={"ema": 0.9})
    task = ToyTask(config)
    summary = fit(task, 2, config.folder)
    out = predict_oof(task, config.folder, 2, new_accelerator(config), batch_size=7)
    found = load_predictions(out)
    valid = np.flatnonzero(task.folds() == 2)
    assert found.ids.tolist() == task.ids[valid].tolist()
    truth = load_predictions(out.with_name("valid_truth.npy"))
    assert truth.ids.tolist() == found.ids.tolist()
    assert (truth.values == task.y.numpy()[valid]).all()
    mae = np.abs(found.values - truth.values).mean()
    assert mae == pytest.approx(summary["best"], rel=1e-5)


def test_tta_is_the_mean_of_the_views(tmp_path):
    config = toy_config(tmp_path)
    task = ToyTask(config)
    fit(task, 0, config.folder)
    network = load_network(task, fold_folder(config.folder, 0) / "best.safetensors")
    table, dataset = task.test_data("")
    outs = {tta: tmp_path / f"{tta}.npy" for tta in (False, True)}
    for tta, out in outs.items():
        predict(task, [network], dataset, table, [out], new_accelerator(config), tta=tta)
    network = network.cpu()
    with torch.inference_mode():
        plain, negated = network(task.x), -network(-task.x)
    np.testing.assert_allclose(load_predictions(outs[False]).values, plain, rtol=1e-5, atol=1e-6)
    mean = ((plain + negated) / 2).numpy()
    np.testing.assert_allclose(load_predictions(outs[True]).values, mean, rtol=1e-5, atol=1e-6)


def test_averaged_weights_are_timms(tmp_path):
    config = toy_config(tmp_path, train={"ema": 0.9}, batch_norm=True)
    trainer = Trainer(ToyTask(config), 0, tmp_path / "x")
    expected = ModelEmaV3(trainer.plain, decay=0.9, use_warmup=True)
    step = trainer.train_step

    def both(feed):
        found = step(feed)
        expected.update(trainer.plain, step=trainer.step)
        return found

    trainer.train_step = both
    trainer.fit()
    averaged, plain = trainer.network.state_dict(), trainer.plain.state_dict()
    assert any("num_batches_tracked" in name for name in averaged)
    for name, value in expected.module.state_dict().items():
        assert torch.equal(averaged[name], value), name
    assert any(not torch.equal(averaged[name], value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("train", "processes", "fixed"),
    [({"accumulate": 2}, 1, True), ({"compile": True}, 1, True), ({}, 2, True), ({}, 1, False)],
)
def test_graphs_step_aside_where_they_cannot_be(tmp_path, capsys, train, processes, fixed):
    settings = toy_config(tmp_path, train={"graph": True, **train}).train
    accelerator = SimpleNamespace(
        device=torch.device("cuda"), num_processes=processes, print=lambda text: print(text)
    )
    task = SimpleNamespace(fixed_inputs=fixed)  # anything else that it were asked would fail
    record(SimpleNamespace(plain=None, settings=settings, accelerator=accelerator, task=task))
    assert "note: train.graph: off, it takes one process" in capsys.readouterr().out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_graphs_train_as_launches_do(tmp_path):
    def fitted(graph):
        train = {"ema": 0.9, "graph": graph}
        config = toy_config(tmp_path / str(graph), train=train, batch_norm=True, dropout=0.3)
        fit(ToyTask(config), 1, config.folder)  # whose graphs must not be in the way of the next
        trainer = Trainer(ToyTask(config), 0, config.folder)
        trainer.fit()
        assert (trainer.plain.forward == trainer.first_forward) == (not graph)
        return trainer.network.state_dict()

    graphs, launches = fitted(True), fitted(False)
    for name, value in launches.items():
        torch.testing.assert_close(graphs[name], value, rtol=1e-4, atol=1e-5)


def test_log_lines_are_json(tmp_path):
    config = toy_config(tmp_path, train={"tensorboard": True})
    fit(ToyTask(config), 0, config.folder)
    folder = fold_folder(config.folder, 0)
    for line in (folder / "log.jsonl").read_text().splitlines():
        assert {"step", "epoch"} <= json.loads(line).keys()
    assert list(folder.glob("events/**/events.out.tfevents*"))


def test_training_samples_are_scored_beside_validation(tmp_path):
    plain = toy_config(tmp_path / "plain", dropout=0.2, jitter=0.5)
    config = toy_config(tmp_path / "probed", dropout=0.2, jitter=0.5, train={"eval_train": 20})
    for each in (plain, config):
        fit(ToyTask(each), 0, each.folder)
    folders = [fold_folder(each.folder, 0) for each in (plain, config)]
    assert_same_weights(*(weights(folder) for folder in folders))  # it only looks
    lines = [e for e in read_log(folders[1] / "log.jsonl") if "valid/mae" in e]
    assert len(lines) == 3 and all("train/mae" in line for line in lines)
    assert not any("train/mae" in e for e in read_log(folders[0] / "log.jsonl"))
    # The last figure is that of the final weights on a fixed draw of training rows, undisturbed.
    trainer = Trainer(ToyTask(config), 0, folders[1])
    rows = trainer.probe_rows
    assert len(rows) == len(set(rows)) == 20 and set(rows) <= set(trainer.train_rows)
    network = load_network(trainer.task, folders[1] / "final.safetensors")
    with torch.inference_mode():
        error = (network(trainer.task.x[rows]) - trainer.task.y[rows]).abs().mean()
    assert float(error) == pytest.approx(lines[-1]["train/mae"], rel=1e-5)


def test_without_validation_training_samples_are_scored_all_the_same(tmp_path):
    config = toy_config(tmp_path, folds=("all",), train={"eval_train": 200})
    assert fit(ToyTask(config), "all", config.folder)["best"] is None
    lines = read_log(fold_folder(config.folder, "all") / "log.jsonl")
    assert len([e for e in lines if "train/mae" in e]) == 3
    assert not any("valid/mae" in e for e in lines)


class SmallMemory(ToyTask):
    """Stands for a GPU that holds so many samples in training."""

    holds, asked = 3, ()

    def loss(self, output, batch, done):
        self.asked = (*self.asked, len(output))
        if len(output) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")
        return super().loss(output, batch, done)


def test_out_of_memory_says_which_micro_batch_fits(tmp_path):
    config = toy_config(tmp_path, train={"batch_size": 24, "accumulate": 2})
    task = SmallMemory(config)
    with pytest.raises(InputError) as caught:
        fit(task, 0, config.folder)
    assert str(caught.value) == (
        "fold 0, out of GPU memory with micro-batches of 12; 3 fit: train.accumulate=8 keeps the "
        "batch of 24"
    )
    assert task.asked == (12, 8, 6, 4, 3)
    moved = toy_config(tmp_path, train={"batch_size": 24, "accumulate": 8})
    assert fit(SmallMemory(moved), 0, moved.folder)["steps"] == 6


def test_out_of_memory_where_nothing_fits_says_so(tmp_path):
    config = toy_config(tmp_path, train={"batch_size": 4})
    task = SmallMemory(config)
    task.holds = 0
    with pytest.raises(InputError, match=r"micro-batches of 4, and no smaller one fits"):
        fit(task, 0, config.folder)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_run_on_a_gpu_updates_all_weights_at_once_where_that_is_known(tmp_path, optimizer):
    config = toy_config(tmp_path)
    config = config.model_copy(
        update={"optim": config.optim.model_copy(update={"name": optimizer})}
    )
    trainer = Trainer(ToyTask(config), 0, fold_folder(config.folder, 0))
    assert trainer.optimizer.param_groups[0].get("fused", False) == (optimizer == "adamw")
    trainer.fit()
