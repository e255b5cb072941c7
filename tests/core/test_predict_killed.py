"""Prediction that is killed, stopped or shared between processes leaves the same files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
HOW = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
FILES = ("a.npy", "b.npy", "a.ids.csv", "b.ids.csv")


def start(out, pause=0.0, processes=None):
    command = [sys.executable]
    if processes:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        command += [str(processes)]
    command += [str(TESTS / "toy_predict.py"), str(out), str(pause)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **HOW}, start_new_session=True, **how)


def finish(process):
    out, error = process.communicate()
    assert process.returncode == 0, error[-2000:]
    return out


def contents(out):
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)  # and nothing else is left
    return [(out / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    said = finish(start(out))
    assert "warning: 3 of 96 samples could not be read: s003, s040, s041" in said
    return contents(out)


def when_finished(process, out, chunks):
    """Wait until so many chunks are finished."""
    while len(list(out.glob("a.predicting/chunk-*.json"))) < chunks:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.003)


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, whole):
    for chunks in (0, 2, 8):
        process = start(tmp_path, pause=0.01)
        if chunks:
            when_finished(process, tmp_path, chunks)
        else:
            while not (tmp_path / "a.predicting/recipe.json").exists():
                time.sleep(0.003)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "a.npy").exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("a.predicting/chunk-*.json")}
    assert len(before) >= 8
    said = finish(start(tmp_path))
    assert contents(tmp_path) == whole
    assert "warning: 3 of 96 samples could not be read: s003, s040, s041" in said
    assert f"{96 - 10 * len(before)} samples in" in said or len(before) > 9


def test_sigterm_ends_it_between_two_batches_and_it_goes_on(tmp_path, whole):
    process = start(tmp_path, pause=0.02)
    when_finished(process, tmp_path, 2)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate()
    assert "stopped; finished chunks are kept" in error
    finish(start(tmp_path))
    assert contents(tmp_path) == whole


def test_two_processes_leave_what_one_does_also_after_a_kill(tmp_path, whole):
    process = start(tmp_path, pause=0.02, processes=2)
    when_finished(process, tmp_path, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.5)  # its children are in sessions of their own and follow it
    said = finish(start(tmp_path, processes=2))
    assert said.count("one of 2 processes") == 2 and "on 2 devices" in said
    assert contents(tmp_path) == whole
    assert said.count("warning: 3 of 96") == 1
