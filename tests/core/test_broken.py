"""Test samples that cannot be read: the stand-in, the mark in the id table, their names."""

import numpy as np
import pytest
import torch
from toy import ToyData, ToyTask, toy_config

from comp.core.errors import InputError
from comp.core.predict import fold_folder, new_accelerator, predict
from comp.core.predictions import load_predictions, note_broken
from comp.core.trainer import fit

LOST = (3, 40, 41)


class Fragile(ToyTask):
    """Of whose test samples some are broken."""

    def dataset(self, rows):
        class Data(ToyData):
            def __getitem__(self, i):
                lost = torch.tensor(self.rows[i] in LOST)
                return {**super().__getitem__(i), "broken": lost}

        return Data(self.x, self.y, rows)

    def stand_in(self):
        return np.array([7.0], np.float32)


def predicted(tmp_path, task):
    table, dataset = task.test_data("")
    torch.manual_seed(0)
    networks = [task.build_model().eval() for _ in range(2)]
    outs = [tmp_path / f"{i}.npy" for i in range(2)]
    how = {"batch_size": 20, "tta": True}
    predict(task, networks, dataset, table, outs, new_accelerator(task.config), **how)
    return [load_predictions(out) for out in outs]


def test_broken_samples_get_the_stand_in_and_are_named(tmp_path, capsys):
    config = toy_config(tmp_path)
    whole = predicted(tmp_path, ToyTask(config))
    assert "could not" not in capsys.readouterr().out
    assert "broken" not in whole[0].table
    lost = np.isin(np.arange(96), LOST)
    for file, plain in zip(predicted(tmp_path, Fragile(config)), whole):
        assert (file.values[lost] == 7).all()
        assert (file.values[~lost] == plain.values[~lost]).all()
        assert file.table["broken"].tolist() == lost.astype(int).tolist()
    said = capsys.readouterr().out
    names = "s003, s040, s041"
    line = f"warning: 3 of 96 samples could not be read or predicted: {names}\n"
    assert said.count(line) == 1


def test_of_many_broken_samples_the_first_are_named(tmp_path, capsys):
    table = ToyTask(toy_config(tmp_path)).table(np.arange(96)).assign(broken="1")
    note_broken(table)
    said = capsys.readouterr().out
    assert said.startswith("warning: 96 of 96") and said.endswith("s019, …\n")


def test_without_a_stand_in_a_broken_sample_is_an_error(tmp_path):
    task = Fragile(toy_config(tmp_path))
    task.stand_in = lambda: ToyTask.stand_in(task)
    with pytest.raises(NotImplementedError, match="Fragile has nothing for a broken sample"):
        predicted(tmp_path, task)


def test_training_leaves_the_stand_in_where_there_is_one(tmp_path):
    for task, left in ((ToyTask, False), (Fragile, True)):
        config = toy_config(tmp_path / task.__name__, train={"epochs": 1})
        fit(task(config), 0, config.folder)
        path = fold_folder(config.folder, 0) / "stand_in.npy"
        assert path.exists() == left
    assert np.load(path).tolist() == [7.0]


def with_nan(task, rows):
    """`task` whose networks answer the test samples `rows` with NaN."""
    rows, plain = torch.tensor(rows), task.build_model

    def broken():
        network = plain()

        def spoil(_, given, output):
            known = task.x[rows]
            same = (given[0][:, None] == known).all(2).any(1)
            return torch.where(same[:, None], torch.nan, output)

        network.register_forward_hook(spoil)
        return network

    task.build_model = broken
    return task


def test_a_prediction_that_is_not_finite_gets_the_stand_in_too(tmp_path, capsys):
    task = with_nan(Fragile(toy_config(tmp_path)), [50, 51])
    lost = np.isin(np.arange(96), [*LOST, 50, 51])
    for file in predicted(tmp_path, task):
        assert (file.values[lost] == 7).all() and np.isfinite(file.values).all()
        assert file.table["broken"].tolist() == lost.astype(int).tolist()
    assert "5 of 96 samples could not be read or predicted" in capsys.readouterr().out


def test_a_network_that_predicts_nothing_is_an_error(tmp_path):
    task = with_nan(Fragile(toy_config(tmp_path)), list(range(96)))
    with pytest.raises(InputError, match="prediction of s000 is not finite"):
        predicted(tmp_path, task)
