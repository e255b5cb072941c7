"""Prediction that is killed, stopped or shared between processes leaves the same files."""

import signal
import socket
from pathlib import Path

import pytest
from cli import Forked

SCRIPT = Path(__file__).parent.parent / "toy_predict.py"
FILES = ("a.npy", "b.npy", "a.ids.csv", "b.ids.csv")


def start(out, pause=0.0, **environment):
    return Forked(out, SCRIPT, out, pause, ACCELERATE_USE_CPU="true", **environment)


def start_two(out, pause=0.0):
    """Two processes that know of each other as a launcher tells them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return [start(out, pause, RANK=rank, LOCAL_RANK=rank, **where) for rank in "01"]


def contents(out):
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)  # and nothing else is left
    return [(out / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    said = start(out).good()
    assert "warning: 3 of 96 samples could not be read or predicted: s003, s040, s041" in said
    return contents(out)


def finished(out, chunks):
    """Whether so many chunks are finished."""
    return len(list(out.glob("a.predicting/chunk-*.json"))) >= chunks


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, whole):
    for chunks in (0, 2, 8):
        process = start(tmp_path, pause=0.01)
        recipe = tmp_path / "a.predicting/recipe.json"
        process.wait(lambda n=chunks, recipe=recipe: recipe.exists() and finished(tmp_path, n))
        assert process.kill(signal.SIGKILL) == -signal.SIGKILL
        assert not (tmp_path / "a.npy").exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("a.predicting/chunk-*.json")}
    assert len(before) >= 8
    said = start(tmp_path).good()
    assert contents(tmp_path) == whole
    assert "warning: 3 of 96 samples could not be read or predicted: s003, s040, s041" in said
    assert f"{96 - 10 * len(before)} samples in" in said or len(before) > 9


def test_sigterm_ends_it_between_two_batches_and_it_goes_on(tmp_path, whole):
    process = start(tmp_path, pause=0.02)
    process.wait(lambda: finished(tmp_path, 2))
    assert process.kill(signal.SIGTERM)
    assert "stopped; finished chunks are kept" in process.said()
    start(tmp_path).good()
    assert contents(tmp_path) == whole


def test_two_processes_leave_what_one_does_also_after_a_kill(tmp_path, whole):
    first, second = start_two(tmp_path, pause=0.02)
    first.wait(lambda: finished(tmp_path, 3))
    for process in (first, second):
        process.kill(signal.SIGKILL)
    said = [process.good() for process in start_two(tmp_path)]
    assert all("one of 2 processes" in each for each in said) and "on 2 devices" in said[0]
    assert contents(tmp_path) == whole
    assert "".join(said).count("warning: 3 of 96") == 1
