"""Online samples: made of what may train, the same however the work is cut, resumed exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cli import run

from comp.core.checkpoint import load_state
from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.core.folds import write_folds
from comp.core.loading import Positions, to_device
from comp.core.predict import fold_folder, new_accelerator, predict_oof
from comp.core.runs import read_log
from comp.core.trainer import Trainer, fit
from comp.core.watch import NonFiniteLoss
from comp.fwi import online
from comp.fwi.config import FwiConfig
from comp.fwi.describe import describe_folder
from comp.fwi.maps import generated_maps, given_maps
from comp.fwi.shots import ShotStore
from comp.fwi.simulated import write_training
from comp.fwi.survey import OFFICIAL
from comp.fwi.task import FwiTask
from comp.fwi.wave import simulate

SHORT = replace(OFFICIAL, nt=24, pad=20).with_six_shots()
FOLDS, EACH = 3, 4
EVERY = {"blend": 1, "crop": 1, "warp": 1, "mirror": 1, "real": 1}
NONE = dict.fromkeys([*EVERY, "generated"], 0)


def band(fold):
    """Velocities that only the maps of `fold` have."""
    return 1500 + 900 * fold, 1500 + 900 * fold + 800


def fold_of(velocity):
    """The fold of the maps that a map was made from, read off its velocities."""
    (found,) = [
        f for f in range(FOLDS) if ((velocity - band(f)[0]) * (velocity - band(f)[1]) <= 0).all()
    ]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same maps, which show their fold, with records in one folder and without in another."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    (folder / "maps").mkdir()
    for family in ("FlatVel_A", "Style_A"):
        maps = [random.integers(*band(f), (EACH, 70, 70)) for f in range(FOLDS)]
        np.savez(folder / "maps" / f"{family}.npz", velocity=np.concatenate(maps).astype(np.int16))
    for name, records in (("real", True), ("bare", False)):
        maps = given_maps(folder / "maps", None, 99, 10, seed=0)
        write_training(folder / name, maps, SHORT, records=records)
        store = ShotStore(folder / name)
        folds = np.array([fold_of(store.velocity(row)) for row in range(len(store))])
        write_folds(folder / name / "folds.csv", folds, describe_folder(folder / name), {})
    return folder


def config_of(folder, root, **values):
    train = {"epochs": 2, "batch_size": 4, "log_every": 1, **values.pop("train", {})}
    model = {"encoder": "tu-mobilenetv3_small_100", "decoder": (8,) * 5, "input_size": (32, 64)}
    plain = {"task": "fwi", "name": "run", "root": str(root), "loader": {"workers": 0}}
    data = {"folder": str(folder), "folds": str(folder / "folds.csv"), **values.pop("data", {})}
    values = {**plain, "data": data, "train": train, "model": model, **values}
    return parse_config(FwiConfig, values, "test")


def task_of(folder, root="x", **values):
    return FwiTask(config_of(folder, root, **values))


def all_batches(dataset, epochs=1):
    every = range(len(dataset))
    return [dataset.__getitems__(Positions(every, epoch)) for epoch in range(epochs)]


@pytest.mark.parametrize("name", ["real", "bare"])
def test_no_map_has_a_parent_that_validates(data, name, tmp_path):
    task = task_of(data / name, online={**EVERY, "samples": 60})
    for fold in range(FOLDS):
        trainer = Trainer(task, fold, tmp_path)
        assert len(trainer.data) == len(trainer.train_rows) + 60
        batches = all_batches(trainer.data, epochs=2)
        found = {fold_of(m.numpy()) for batch in batches for m in batch["velocity"]}
        assert found == set(range(FOLDS)) - {fold}  # and both parents of a blend of one fold
        parents = np.concatenate([batch["row"] for batch in batches])
        assert set(parents) <= set(trainer.train_rows)
        kinds = [trainer.data.names([p], 1)[0].partition("(")[2].split()[0] for p in range(16, 76)]
        assert set(kinds) == set(EVERY)
    assert set(Trainer(task, "all", tmp_path).train_rows) == set(range(24))


def test_generated_maps_share_no_seed_with_data_on_disk(data, monkeypatch):
    seeds = []

    def record(family, count, seed):
        seeds.append(tuple(seed))
        return np.full((count, 70, 70), 2000, np.float32)

    monkeypatch.setattr(online, "generate", record)
    task = task_of(data / "real", online={**NONE, "generated": 1, "samples": 50})
    batch = all_batches(task.training_dataset(np.arange(12), 3))[0]
    assert (batch["row"][12:] == -1).all() and (batch["velocity"][12:] == 2000).all()
    on_disk = [
        m.recipe["seeds"] for t in (True, False) for m in generated_maps(["Style_A"], 9, 3, 0, t)
    ]
    assert len(set(seeds)) == 50
    # Seeds are cut into 32-bit words, and a family's number follows: test data have at most six
    # words with a 1 before it, those made here six with a 2.
    assert {(len(s), s[-1]) for s in seeds} == {(5, 2)}
    assert {(len(s), s[-1]) for s in on_disk if len(s) == 4} == {(4, 1)}
    assert max(max(s) for s in seeds) < 2**32


def test_a_sample_depends_on_seed_epoch_and_number_alone(data):
    values = {**EVERY, "generated": 1, "families": ["CurveVel_B"], "samples": 30}
    task = task_of(data / "real", online=values)
    rows = np.arange(0, 24, 2)
    dataset = task.training_dataset(rows, 7)
    whole = all_batches(dataset, 2)
    assert len(dataset) == 42
    few = task.training_dataset(rows, 7).__getitems__(Positions([35, 3, 20], 1))
    for at, position in enumerate([35, 3, 20]):
        assert torch.equal(few["velocity"][at], whole[1]["velocity"][position])
    assert few["kept"].tolist() == [1] and few["made"].tolist() == [0, 2]
    new = slice(12, None)
    assert torch.equal(whole[0]["velocity"][:12], whole[1]["velocity"][:12])
    others = all_batches(task.training_dataset(rows, 8))
    for other in (whole[1], others[0]):
        same = (other["velocity"][new] == whole[0]["velocity"][new]).flatten(1).all(1)
        assert same.sum() < 5  # a real map may come again


def test_records_are_those_of_the_maps_in_the_order_of_the_batch(data):
    task = task_of(data / "real", augment={"mirror": 0.5}, online={**EVERY, "samples": 12})
    batch = task.training_dataset(np.arange(24), 0).__getitems__(Positions([30, 2, 25, 9], 0))
    exact = simulate(batch["velocity"][:, 0], SHORT)[:, [0, 1, 2, 4, 5]]
    mirrored = simulate(batch["velocity"][:, 0].flip(-1), SHORT)[:, [0, 1, 2, 4, 5]]
    for seed in range(3):
        made = task.training_batch(to_device(batch, "cpu"), torch.Generator().manual_seed(seed))
        for i, velocity in enumerate(made["velocity"]):
            flipped = not torch.equal(velocity, batch["velocity"][i])
            expected = (mirrored if flipped else exact)[i]
            torch.testing.assert_close(made["shots"][i], expected, rtol=1e-3, atol=1e-4)
    plain = task.plain_batch(to_device(batch, "cpu"))
    assert torch.equal(plain["shots"][0], exact[0]) and torch.equal(plain["shots"][2], exact[2])


@pytest.mark.skipif(torch.cuda.is_available(), reason="bit for bit on a CPU only")
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    data, tmp_path, monkeypatch
):
    values = {
        "online": {**EVERY, "generated": 1, "samples": 6},
        "augment": {"mirror": 0.5, "noise": 0.1, "amplitude": 0.1, "mixup": 0.4},
        "train": {"checkpoint_every": 1, "ema": 0.9},
        "limit": 8,
    }

    def task(name, accumulate=1):
        train = {**values["train"], "accumulate": accumulate}
        return task_of(data / "real", tmp_path / name, **{**values, "train": train})

    step = Trainer.train_step

    def dies(self, feed):
        if self.step == 4:
            raise KeyboardInterrupt
        return step(self, feed)

    fit(task("whole"), 0, tmp_path / "whole")
    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(task("killed"), 0, tmp_path / "killed")
    monkeypatch.setattr(Trainer, "train_step", step)
    fit(task("killed"), 0, tmp_path / "killed")
    folders = [fold_folder(tmp_path / name, 0) for name in ("whole", "killed")]
    whole, killed = (load_state(folder / "final.safetensors")["model"] for folder in folders)
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    logs = [[{**e, "samples_per_s": 0} for e in read_log(f / "log.jsonl")] for f in folders]
    assert logs[0] == logs[1] and logs[0][-1]["step"] == 2 * (8 + 6) // 4 - 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_same_samples_however_a_step_is_cut(data, tmp_path, accumulate):
    train = {"accumulate": accumulate, "epochs": 1}
    physics = {"weight": 0.1, "shots": 1, "samples": 0.5}
    values = {"online": {**EVERY, "samples": 4}, "train": train, "physics": physics}
    config = config_of(data / "real", tmp_path, augment={"mirror": 0}, **values)
    seen = []

    class Watched(FwiTask):
        def training_batch(self, batch, generator):
            made = super().training_batch(batch, generator)
            seen.append(made["velocity"])
            return made

    fit(Watched(config), 0, config.folder)
    found = torch.cat(seen).cpu()
    assert len(seen) == 5 * accumulate and len(found) == 20
    trainer = Trainer(FwiTask(config), 0, tmp_path / "again")
    every = all_batches(trainer.data)[0]["velocity"]
    assert {m.numpy().tobytes() for m in found} == {m.numpy().tobytes() for m in every}


def test_training_and_validation_without_any_record_on_disk(data, tmp_path):
    """Of the same maps, so only half precision tells the two folders apart."""
    scores = {}
    for name in ("real", "bare"):
        task = task_of(data / name, tmp_path / name, online={**EVERY, "samples": 8})
        assert task.store.recorded.all() == (name == "real")
        scores[name] = fit(task, 1, task.config.folder)["best"]
        out = predict_oof(task, task.config.folder, 1, new_accelerator(task.config))
        assert np.load(out).shape == (8, 70, 70)
    assert not list((data / "bare").rglob("*.shots.npy"))
    assert scores["bare"] == pytest.approx(scores["real"], rel=0.02)
    with pytest.raises(InputError, match="FlatVel_A_0000 holds maps alone, expected records"):
        ShotStore(data / "bare").shots(0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="bit for bit on a CPU only")
def test_workers_change_nothing(data, tmp_path):
    found = []
    for workers in (0, 2):
        values = {"online": {**EVERY, "generated": 1, "samples": 16}, "limit": 8}
        values |= {"train": {"epochs": 1}, "loader": {"workers": workers}}
        task = task_of(data / "real", tmp_path / str(workers), **values)
        fit(task, 0, task.config.folder)
        path = fold_folder(task.config.folder, 0) / "final.safetensors"
        found.append(load_state(path)["model"])
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_online_samples_alone_and_beside_extra_folders(data, tmp_path):
    maps = generated_maps(["FlatVel_B"], 2, 2, 5)
    write_training(tmp_path / "more", maps, SHORT, records=False)
    extra = {"extra": [str(tmp_path / "more")]}
    online = {**NONE, "real": 1, "samples": 40, "stored": False}
    trainer = Trainer(task_of(data / "real", data=extra, online=online), 2, tmp_path)
    assert len(trainer.data) == 40 and trainer.epoch_steps == 10
    batch = all_batches(trainer.data)[0]
    assert "shots" not in batch and set(batch["row"].tolist()) & {24, 25}
    beside = Trainer(task_of(data / "real", data=extra), 2, tmp_path)
    assert all_batches(beside.data.__class__(beside.task.store, [24, 3]))[0]["made"].tolist() == [0]


def test_a_broken_step_names_the_parents(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        FwiTask, "loss", lambda self, output, batch, done: {"loss": output.mean() * torch.nan}
    )
    task = task_of(data / "real", tmp_path, online={**NONE, "blend": 1, "samples": 30})
    with pytest.raises(NonFiniteLoss) as caught:
        fit(task, 0, tmp_path / "run")
    message = str(caught.value)
    assert "online sample" in message and "of epoch 0 (blend of " in message
    assert " and " in message and "\n" not in message


def test_the_script_writes_maps_alone(tmp_path):
    where = ["--out", tmp_path / "bare", "--families", "FlatVel_A", "--count", 3, "--shots", 6]
    assert run("simulate.py", *where, "--maps-only") == 0
    store = ShotStore(tmp_path / "bare")
    assert len(store) == 3 and not store.recorded.any() and store.survey.shots == 6
    assert run("simulate.py", *where, "--maps-only") == 0
    assert run("simulate.py", *where) == 2  # other data than the folder's
    assert run("simulate.py", "--out", tmp_path / "test", "--as-test", "--maps-only") == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**NONE, "samples": 4}, "'online.samples': got 4; takes 0 where every kind"),
        ({"stored": False}, "'online.stored'.*takes true where online.samples is 0"),
        ({"families": ["FlatVel"]}, "'online.families'.*'FlatVel' is unknown, takes some of Flat"),
        ({"blend": -1}, "'online.blend'.*greater than or equal to 0"),
        ({"zoom": 1}, "unknown key 'online.zoom'"),
    ],
)
def test_bad_settings_are_named(data, values, message):
    with pytest.raises(InputError, match=message) as caught:
        config_of(data / "real", "x", online=values)
    assert "\n" not in str(caught.value)


def test_kinds_that_the_data_cannot_give_are_named(data):
    task = task_of(data / "real", online={"samples": 4})
    with pytest.raises(InputError, match="'online.blend': got 1, but no two training maps of one"):
        task.training_dataset(np.array([0, 12]), 0)
    task = task_of(data / "real", online={**NONE, "generated": 1, "samples": 4})
    task.store.families[:] = "Salt"
    with pytest.raises(InputError, match=r"'online.families': got none, and the data's \(Salt\)"):
        task.training_dataset(np.arange(24), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_second_stream_changes_no_number(data, tmp_path):
    found = []
    for ahead in (True, False):
        values = {"online": {**EVERY, "samples": 20}, "train": {"accumulate": 2, "epochs": 3}}
        loader = {"workers": 1, "ahead": ahead}
        task = task_of(data / "real", tmp_path / str(ahead), loader=loader, **values)
        seen = []
        plain = task.training_batch

        def watched(batch, generator, plain=plain, seen=seen):
            seen.append(plain(batch, generator))
            return seen[-1]

        task.training_batch = watched
        fit(task, 0, task.config.folder)
        found.append([batch["shots"].cpu() for batch in seen])
    count = min(map(len, found))  # one ahead may have been made in vain
    assert all(torch.equal(a, b) for a, b in zip(found[0][:count], found[1][:count]))
