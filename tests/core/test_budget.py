"""A prediction with a time limit, on a clock that the networks themselves move."""

import numpy as np
import pytest
import torch
from toy import ToyTask, toy_config

from comp.core.budget import Budget, affordable, ordered_pairs
from comp.core.errors import InputError
from comp.core.predict import new_accelerator, predict
from comp.core.predictions import load_predictions

HOUR = 3600


class Clock:
    """Seconds that pass only when a network computes; from row `slow_from` on, `factor` as fast."""

    def __init__(self):
        self.now, self.rows, self.slow_from, self.factor = 0.0, 0, 10**9, 1.0

    def __call__(self):
        return self.now


class Timed(ToyTask):
    """A sample takes each network 10 s."""

    def __init__(self, config, clock):
        super().__init__(config)
        self.clock = clock

    def predictions(self, output):
        self.clock.rows += len(output)
        late = self.clock.rows > self.clock.slow_from
        self.clock.now += 10.0 * len(output) * (self.clock.factor if late else 1.0)
        return output


class Replaced(Timed):
    def stand_in(self):
        return np.array([7.0], np.float32)


def predicted(tmp_path, hours, clock=None, task=Timed, networks=2):
    """Files of 96 samples by two networks with two views, 3,840 s in all, in chunks of eight."""
    clock = clock or Clock()
    task = task(toy_config(tmp_path), clock)
    torch.manual_seed(0)
    nets = [task.build_model().eval() for _ in range(networks)]
    outs = [tmp_path / f"{i}.npy" for i in range(networks)]
    how = {"tta": True, "batch_size": 4, "chunk": 8, "budget": Budget(hours, clock)}
    accelerator = new_accelerator(task.config)
    made = predict(task, nets, *task.test_data("")[::-1], outs, accelerator, **how)
    nets = [net.cpu() for net in nets]
    with torch.inference_mode():
        views = [(net(task.x).numpy(), -net(-task.x).numpy()) for net in nets]
    return [load_predictions(out) for out in made], views, clock


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_no_time_at_all_is_refused():
    with pytest.raises(InputError, match="--hours: got 0, expected a positive number"):
        Budget(0)


def test_pairs_that_fit():
    assert ordered_pairs(2, 3) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert [affordable([1, 2, 3], 10, s) for s in (5, 10, 29, 30, 60, 1e9)] == [1, 1, 1, 2, 3, 3]


def test_enough_time_or_no_limit_leaves_nothing_out(tmp_path, capsys):
    for hours in (None, 3.0):
        files, views, _ = predicted(tmp_path, hours)
        for file, (plain, negated) in zip(files, views, strict=True):
            same(file.values, (plain + negated) / 2)
            assert list(file.table) == ["id"]
    assert "no time" not in capsys.readouterr().out


def test_views_go_first_and_all_rows_alike(tmp_path, capsys):
    # To measure takes 2 × 4 × 40 s of the 3,600; 3,172 s without the reserve suffice for three.
    files, views, clock = predicted(tmp_path, 1.0)
    same(files[0].values, np.mean(views[0], 0))
    same(files[1].values, views[1][0])
    assert clock.now < HOUR and "pairs" not in files[0].table
    assert "warning: there was no time for 1 negated\n" in capsys.readouterr().out


def test_then_networks_go_and_leave_no_file(tmp_path, capsys):
    predicted(tmp_path, None)
    files, views, clock = predicted(tmp_path, 0.5)
    assert len(files) == 1 and not (tmp_path / "1.npy").exists()  # nor that of the run before
    same(files[0].values, views[0][0])
    assert clock.now < HOUR / 2
    said = capsys.readouterr().out
    assert "warning: there was no time for 1 plain; 0 negated; 1 negated\n" in said


def test_a_network_that_turns_slow_gets_less_for_the_rest(tmp_path, capsys):
    clock = Clock()
    clock.slow_from, clock.factor = 32 + 4 * 48, 3.0  # measuring, then half of the samples
    files, views, _ = predicted(tmp_path, 1.6, clock)
    pairs = files[0].table["pairs"].to_numpy()
    assert pairs[0] == 4 and pairs[-1] < 4 and (np.diff(pairs) <= 0).all()
    assert clock.now < 1.6 * HOUR
    full, last = pairs == 4, pairs == 1
    for file, view in zip(files, views, strict=True):
        same(file.values[full], np.mean(view, 0)[full])
        # The second network's rows are the first's, so the mean of the files is what there is.
        same(file.values[last], views[0][0][last])
    assert "1 negated for " in capsys.readouterr().out


@pytest.mark.parametrize("task", [Timed, Replaced])
def test_when_the_time_is_up_there_is_still_a_prediction_of_every_row(tmp_path, capsys, task):
    files, views, clock = predicted(tmp_path, 0.2, task=task)
    said, values = capsys.readouterr().out, files[0].values[:]
    if task is Timed:  # nothing stands in, so it goes on with one network and view
        same(values, views[0][0])
        assert "any prediction" not in said
    else:
        given_up = values[:, 0] == 7
        assert 0 < given_up.sum() < 96 and clock.now <= 0.2 * HOUR + 80
        same(values[~given_up], views[0][0][~given_up])
        assert f"no time for any prediction of {given_up.sum()} samples, which have the" in said
        assert (files[0].table["pairs"].to_numpy() == ~given_up).all()
