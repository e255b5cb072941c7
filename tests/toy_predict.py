"""Predict the toy task's test samples, for the tests of kills and of several processes.

usage: toy_predict.py OUT_FOLDER PAUSE
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from toy import ToyTask, toy_config

from comp.core.errors import run_script
from comp.core.predict import new_accelerator, predict


class Slow(ToyTask):
    """That takes its time, with some samples that cannot be read."""

    def inputs(self, batch):
        time.sleep(float(sys.argv[2]))
        return super().inputs(batch)

    def test_data(self, folder, sample=None):
        table, data = super().test_data(folder)
        plain = type(data).__getitem__

        class Fragile(type(data)):
            def __getitem__(self, i):
                return {**plain(self, i), "broken": torch.tensor(i in (3, 40, 41))}

        return table, Fragile(self.x, self.y, data.rows)

    def stand_in(self):
        return np.array([7.0], np.float32)


def main():
    out = Path(sys.argv[1])
    config = toy_config(out)
    task, accelerator = Slow(config), new_accelerator(config)
    print(f"one of {accelerator.num_processes} processes", flush=True)
    torch.manual_seed(0)
    networks = [task.build_model().eval() for _ in range(2)]
    table, dataset = task.test_data("")
    outs = [out / "a.npy", out / "b.npy"]
    how = {"batch_size": 4, "tta": True, "half": True, "chunk": 10}
    predict(task, networks, dataset, table, outs, accelerator, **how)
    accelerator.end_training()


if __name__ == "__main__":
    run_script(main)
