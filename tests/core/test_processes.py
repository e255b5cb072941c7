"""Two processes do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli import Forked

from comp.core.checkpoint import load_state

TESTS = Path(__file__).parent.parent


def launch(root, processes, accumulate):
    arguments = [str(TESTS / "toy_fit.py"), str(root), str(accumulate)]
    if processes == 1:
        said = Forked(root.parent, *arguments, ACCELERATE_USE_CPU="true").good()
    else:
        # Not by `accelerate launch --cpu`, which starts a single process whatever it is told.
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(processes), *arguments]
        how = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **how})
        assert done.returncode == 0, done.stderr[-2000:]
        said = done.stdout
    assert said.count(f"one of {processes} processes") == processes
    folder = root / "toy" / "fold_0"
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return log, load_state(folder / "final.safetensors")["model"]


def test_two_processes_equal_one_that_accumulates(tmp_path):
    """95 samples: the validation rows do not divide by two, and none may count twice."""
    one, weights = launch(tmp_path / "one", 1, 2)
    two, others = launch(tmp_path / "two", 2, 1)
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=1e-5, atol=1e-6)
    assert [e["step"] for e in one] == [e["step"] for e in two]
    for a, b in zip(one, two):
        assert a.keys() == b.keys()
        for key in a.keys() & {"loss", "valid/mae", "grad_norm"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
