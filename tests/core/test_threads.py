"""Processes on the CPU share its cores, whatever launcher they come from."""

import os

import pytest
import torch
from cli import run

from comp.core.config import RunConfig
from comp.core.predict import new_accelerator
from comp.core.threads import share_cores


@pytest.fixture(autouse=True)
def _four_cores(set_threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(("processes", "threads"), [(1, 4), (2, 2), (3, 1), (8, 1)])
def test_each_process_gets_its_part(processes, threads):
    share_cores(processes)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("wish", ["3", None])
def test_without_the_launchers_one_thread_nothing_changes(monkeypatch, wish, set_threads):
    monkeypatch.setenv("OMP_NUM_THREADS", wish) if wish else monkeypatch.delenv("OMP_NUM_THREADS")
    set_threads(3)
    share_cores(1)
    assert torch.get_num_threads() == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, the cores are left alone")
def test_training_and_refinement_take_their_part(monkeypatch, tmp_path):
    new_accelerator(RunConfig(task="fwi", name="threads"))
    assert torch.get_num_threads() == 4
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    missing = str(tmp_path / "missing.npy")
    assert run("refine.py", "--predictions", missing, "--records", missing, "--out", missing)
    assert torch.get_num_threads() == 2
