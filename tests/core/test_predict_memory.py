"""Too little GPU memory in prediction: the batch is halved, and the rows are the same."""

import numpy as np
import pytest
import torch
from toy import ToyTask, toy_config

from comp.core.errors import InputError
from comp.core.predict import new_accelerator, predict


class Small(ToyTask):
    """Stands for a GPU that holds so many samples."""

    holds, asked = 5, ()

    def predictions(self, output):
        self.asked = (*self.asked, len(output))
        if len(output) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")
        return output


def predicted(tmp_path, task, name):
    torch.manual_seed(0)
    network, out = task.build_model().eval(), tmp_path / f"{name}.npy"
    table, dataset = task.test_data("")
    how = {"batch_size": 24, "tta": True, "chunk": 50}
    predict(task, [network], dataset, table, [out], new_accelerator(task.config), **how)
    return np.load(out)


def test_half_of_the_batch_goes_on_with_the_same_rows(tmp_path, capsys):
    whole = predicted(tmp_path, ToyTask(toy_config(tmp_path)), "whole")
    assert "memory" not in capsys.readouterr().out
    task = Small(toy_config(tmp_path))
    np.testing.assert_allclose(predicted(tmp_path, task, "small"), whole, rtol=1e-5, atol=1e-6)
    said = capsys.readouterr().out
    assert said.count("note: out of GPU memory with 24 samples at once, 12 from here on") == 1
    assert said.count("out of GPU memory") == 3  # 24, 12, 6
    assert max(task.asked[3:]) == 3 and task.asked[:3] == (24, 12, 6)


def test_one_sample_that_does_not_fit_is_an_error(tmp_path):
    task = Small(toy_config(tmp_path))
    task.holds = 0
    with pytest.raises(InputError, match="out of GPU memory with a single sample"):
        predicted(tmp_path, task, "none")
