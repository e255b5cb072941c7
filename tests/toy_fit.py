"""Fit the toy task under `accelerate launch`, for the tests of several processes.

usage: toy_fit.py ROOT ACCUMULATE
"""

import sys

from toy import ToyTask, toy_config

from comp.core.predict import new_accelerator
from comp.core.trainer import fit

config = toy_config(sys.argv[1], train={"accumulate": int(sys.argv[2])}, samples=95)
print(f"one of {new_accelerator(config).num_processes} processes", flush=True)
for fold in (1, 0):  # two: the processes must still be joined after the first
    fit(ToyTask(config), fold, config.folder)
