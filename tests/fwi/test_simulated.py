"""Simulated training and test data: what is written, bad input, and SIGKILL anywhere."""

import os
import re
import runpy
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import cli
import numpy as np
import pandas as pd
import pytest
import torch
from test_prepare import contents

from comp.core.claims import exclusive
from comp.core.errors import InputError
from comp.core.files import save_npy
from comp.core.predictions import load_predictions
from comp.core.share import Share
from comp.fwi.maps import generated_maps, given_maps
from comp.fwi.shots import RecordFolder, ShotStore
from comp.fwi.simulated import Simulator, hex_ids, write_test, write_training
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import generate
from comp.fwi.wave import simulate

SHORT = replace(OFFICIAL, nt=20, pad=40, source_columns=(0, 69))
TWO = ("FlatVel_A", "Style_B")
SCRIPT = Path(__file__).parents[2] / "scripts/simulate.py"


def generated(count=5, shard_size=3, seed=0, **more):
    return generated_maps(TWO, count, shard_size, seed, **more)


def all_maps(maps):
    return np.concatenate([part.load() for part in maps])


def test_training_data_are_records_of_the_generated_maps(tmp_path):
    write_training(tmp_path, generated(seed=7), SHORT, Share(device="cpu"))
    store = ShotStore(tmp_path)
    assert store.survey == SHORT
    assert [s.rows for s in store.shards] == [3, 2, 3, 2]
    assert store.ids[[0, 4, 5]].tolist() == [
        "FlatVel_A_0000_0000",
        "FlatVel_A_0001_0001",
        "Style_B_0000_0000",
    ]
    assert store.sources[[0, 2, 4]].tolist() == ["FlatVel_A_0000"] * 2 + ["FlatVel_A_0001"]
    assert store.families[[0, 4, 5]].tolist() == ["FlatVel_A", "FlatVel_A", "Style_B"]
    expected = generate("Style_B", 2, [7, 9, 1])
    np.testing.assert_array_equal(store.velocities([8, 9]), expected)
    records = simulate(torch.from_numpy(expected), SHORT).numpy()
    for row, record in zip([8, 9], records):
        scaled = (record * np.float32(store.amplitude_scale)).astype(np.float16)
        np.testing.assert_array_equal(store.shots(row), scaled)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_is_taken_and_differs_in_the_last_bits_only(tmp_path):
    write_training(tmp_path / "gpu", generated(), SHORT)
    write_training(tmp_path / "cpu", generated(), SHORT, Share(device="cpu"))
    gpu, cpu = (ShotStore(tmp_path / name) for name in ("gpu", "cpu"))
    assert Simulator(SHORT).device.type == "cuda"
    for row in range(len(cpu)):
        np.testing.assert_allclose(gpu.shots(row), cpu.shots(row), rtol=2e-3, atol=1e-2)
        np.testing.assert_array_equal(gpu.velocity(row), cpu.velocity(row))


def launched(place, processes, *arguments):
    """`simulate.py` in so many processes, started as a launcher does, on the CPU."""
    started = []
    for rank in range(processes):
        numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        numbers["CUDA_VISIBLE_DEVICES"] = ""
        started.append(cli.Forked(place, "simulate.py", *arguments, **numbers))
    return started


def test_several_processes_write_what_one_does(tmp_path):
    how = ["--families", *TWO, "--count", 3, "--shard-size", 2]
    for name, processes in (("one", 1), ("three", 3), ("three", 3)):
        first, *_ = said = [p.good() for p in launched(tmp_path, processes, *how, "--out", name)]
        assert "6/6" in first and not any(said[1:])
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_what_one_process_leaves_out_another_takes_up(tmp_path, monkeypatch):
    """The second of two processes is never started: its shards are made by the next run."""
    write_training(tmp_path / "straight", generated(), SHORT)
    other = Share(1, 2)
    monkeypatch.setattr(Share, "wait_for_first", lambda *_: None)
    (tmp_path / "out").mkdir()
    write_training(tmp_path / "out", generated(), SHORT, other)
    assert len(list((tmp_path / "out/shards").glob("*.json"))) == 2
    assert not (tmp_path / "out/index.json").exists()
    write_training(tmp_path / "out", generated(), SHORT)
    assert contents(tmp_path / "straight") == contents(tmp_path / "out")


def test_test_data_are_written_by_one_process(tmp_path):
    (one, _) = launched(tmp_path, 2, "--families", "FlatVel_A", "--as-test", "--out", "test")
    assert one.end() == 2
    assert "--as-test: started in 2 processes, expected one" in one.said()


def test_a_family_named_twice_is_made_once():
    assert len(generated_maps(["FlatVel_A"] * 2, 5, 3, seed=0)) == 2


def test_shards_are_independent_of_each_other():
    maps = generated(count=6)
    assert len(np.unique(all_maps(maps).reshape(12, -1), axis=0)) == 12
    np.testing.assert_array_equal(all_maps(generated(count=3)[1:]), maps[2].load())


def test_test_data_have_the_competitions_layout(tmp_path):
    maps = generated(test=True)
    write_test(tmp_path, maps, seed=3, survey=SHORT, device="cpu")
    records = RecordFolder(tmp_path / "test", SHORT)
    truth = load_predictions(tmp_path / "test_truth.npy")
    assert len(records) == len(truth) == 10
    assert all(re.fullmatch("[0-9a-f]{10}", name) for name in records.ids)
    assert truth.ids.tolist() == records.ids.tolist() == sorted(truth.ids)
    assert truth.table["family"].value_counts().to_dict() == {"FlatVel_A": 5, "Style_B": 5}
    out = np.empty(SHORT.record_shape, np.float32)
    for row in range(10):
        records.read(row, out)
        expected = simulate(torch.from_numpy(truth.values[row : row + 1].copy()), SHORT)[0]
        np.testing.assert_array_equal(out, expected)
    of_style = truth.values[(truth.table["family"] == "Style_B").to_numpy()]
    made = all_maps(maps[2:])
    assert {m.tobytes() for m in of_style} == {m.tobytes() for m in made}

    sample = pd.read_csv(tmp_path / "sample_submission.csv")
    assert sample.columns.tolist() == ["oid_ypos", *(f"x_{x}" for x in range(1, 70, 2))]
    assert sample["oid_ypos"].tolist() == [f"{i}_y_{y}" for i in truth.ids for y in range(70)]
    assert (sample.iloc[:, 1:] == 3000).all(axis=None)


def test_test_data_share_no_map_with_training_data_of_the_same_seed():
    train, test = all_maps(generated()), all_maps(generated(test=True))
    assert not {m.tobytes() for m in train} & {m.tobytes() for m in test}


def test_ids_are_distinct_at_the_competitions_size():
    ids = hex_ids(65_818, seed=0)
    assert len(set(ids)) == 65_818 and {len(i) for i in ids} == {10}
    assert not set(ids) & set(hex_ids(100, seed=1))
    assert np.abs(np.diff(np.argsort(ids)[:1000])).min() > 1  # neighbours by id were not so made


# --- maps from files


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "maps"
    folder.mkdir()
    whole = random.integers(1500, 4500, (12, 70, 70)).astype(np.int16)
    np.savez(folder / "FlatVel_A.npz", velocity=whole)
    np.savez(folder / "CurveVel_A.npz", velocity=whole[:4].astype(np.float32) + 0.5)
    return folder


def test_maps_from_files_are_samples_of_their_own(files, tmp_path):
    maps = given_maps(files, None, count=6, shard_size=4, seed=0)
    assert [(m.name, m.rows) for m in maps] == [
        ("CurveVel_A_0000", 4),
        ("FlatVel_A_0000", 4),
        ("FlatVel_A_0001", 2),
    ]
    write_training(tmp_path / "out", maps, SHORT)
    store = ShotStore(tmp_path / "out")
    assert store.sources.tolist() == store.ids.tolist()
    assert store.shards[1].source == "FlatVel_A.npz"
    given = np.load(files / "FlatVel_A.npz")["velocity"]
    drawn = {m.tobytes() for m in store.velocities(range(4, 10)).astype(np.int16)}
    assert len(drawn) == 6 and drawn <= {m.tobytes() for m in given}


def test_skip_leaves_out_what_was_drawn_before(files):
    first = all_maps(given_maps(files, ["FlatVel_A"], 7, 4, seed=1))
    rest = all_maps(given_maps(files, ["FlatVel_A"], 7, 4, seed=1, skip=7))
    assert len(rest) == 5
    assert len(np.unique(np.concatenate([first, rest]).reshape(12, -1), axis=0)) == 12


def damage(value):
    return lambda f: np.savez(f / "FlatVel_A.npz", **value)


def spoilt_compression(folder):
    path = folder / "FlatVel_A.npz"
    np.savez_compressed(path, velocity=np.random.default_rng(0).uniform(1500, 4500, (9, 70, 70)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 999] = b"\xff" * 999
    path.write_bytes(data)


MAPS = np.full((3, 70, 70), 2000, np.float32)
FAST = MAPS.copy()
FAST[1, 5, 5] = 6500
BAD_MAPS = {
    "gone": (lambda f: (f / "FlatVel_A.npz").unlink(), "no such file"),
    "cut": (lambda f: os.truncate(f / "FlatVel_A.npz", 999), "not a readable .npz archive"),
    "npy": (lambda f: save_npy(f / "FlatVel_A.npz", MAPS), "not a readable .npz archive"),
    "damaged": (spoilt_compression, "not a readable .npz archive"),
    "key": (damage({"v": MAPS}), "no array 'velocity'"),
    "objects": (damage({"velocity": np.full(3, None)}), "not a readable .npz archive"),
    "dtype": (damage({"velocity": MAPS.astype("i4")}), "dtype int32, expected int16 or float32"),
    "shape": (damage({"velocity": MAPS[0]}), r"shape \(70, 70\), expected \(n, 70, 70\)"),
    "fast": (damage({"velocity": FAST}), "row 1: velocity 2000..6500 m/s"),
    "few": (damage({"velocity": MAPS[:1]}), "no map is left after skipping 1 of 1"),
}


@pytest.mark.parametrize("case", BAD_MAPS)
def test_bad_map_files_are_named(case, files):
    spoil, message = BAD_MAPS[case]
    spoil(files)
    with pytest.raises(InputError, match=rf"FlatVel_A\.npz: {message}") as error:
        given_maps(files, ["FlatVel_A"], 5, 5, seed=0, skip=1)
    assert "\n" not in str(error.value)


def test_folder_without_maps(tmp_path):
    with pytest.raises(InputError, match="none: no such folder"):
        given_maps(tmp_path / "none", None, 1, 1, 0)
    with pytest.raises(InputError, match=r"holds no <Family>\.npz files"):
        given_maps(tmp_path, None, 1, 1, 0)


def test_unknown_family_is_named():
    with pytest.raises(InputError, match="family 'FlatVel_C': unknown, expected one of FlatVel_A"):
        generated_maps(["FlatVel_C"], 1, 1, 0)


def test_map_too_fast_for_the_scheme_is_named(files, tmp_path):
    np.savez(files / "FlatVel_A.npz", velocity=np.full((1, 70, 70), 6000, np.int16))
    maps = given_maps(files, ["FlatVel_A"], 1, 1, 0)
    with pytest.raises(InputError, match=r"FlatVel_A\.npz: velocity\[0\]: unstable"):
        write_training(tmp_path / "out", maps, SHORT)


# --- starting again

KILLER = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import torch
    import comp.fwi.simulated as simulated
    from test_prepare import contents
    from comp.core.share import Share
    from test_simulated import SHORT, generated

    work = sys.argv[1]
    calls, fatal = 0, None

    def kill_at(function):
        def wrapper(*args, **kwargs):
            global calls
            calls += 1
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return wrapper

    def write(out):
        # On the CPU: forking and CUDA do not mix either.
        simulated.write_training(f"{out}/train", generated(), SHORT, Share(device="cpu"))
        simulated.write_test(f"{out}/test", generated(test=True), 0, SHORT, "cpu")

    def child(out):
        pid = os.fork()
        if pid == 0:
            write(out)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    torch.set_num_threads(1)  # forking and OpenMP threads do not mix
    write(f"{work}/straight")  # in the parent, so that its children find the solver compiled
    expected = contents(Path(f"{work}/straight"))
    os.replace = kill_at(os.replace)
    # Renamed: 4 shards x 3 files, the index; recipe, 10 records, truth, ids, sample submission.
    for fatal in (2, 9, 14, 19, 26):
        at, out = fatal, f"{work}/{fatal}"
        assert child(out) == -signal.SIGKILL
        assert contents(Path(out)) != expected
        fatal = None
        assert child(out) == 0
        assert contents(Path(out)) == expected, f"differs after a kill at file {at}"
""")


def test_killed_anywhere_and_started_again_is_byte_identical(tmp_path):
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr


def test_records_already_there_are_not_made_again(tmp_path):
    write_test(tmp_path, generated(test=True), 0, SHORT)
    before = contents(tmp_path)
    ids = load_predictions(tmp_path / "test_truth.npy").ids
    paths = {i: tmp_path / "test" / f"{i}.npy" for i in ids}
    files = {i: path.stat().st_ino for i, path in paths.items()}
    paths[ids[0]].unlink()
    paths[ids[0]].with_suffix(".npy.partial").touch()
    write_test(tmp_path, generated(test=True), 0, SHORT)
    assert contents(tmp_path) == before
    kept = [i for i, path in paths.items() if path.stat().st_ino == files[i]]
    assert len(kept) >= 7  # all but the shard of the one that was gone


def test_other_settings_are_refused(tmp_path):
    write_training(tmp_path / "train", generated(), SHORT)
    with pytest.raises(InputError, match=r"FlatVel_A_0000\.json: made from other .*seeds was"):
        write_training(tmp_path / "train", generated(seed=1), SHORT)
    write_test(tmp_path / "test", generated(), 0, SHORT)
    with pytest.raises(InputError, match=r"recipe\.json: made from other .*seed was 0, is now 1"):
        write_test(tmp_path / "test", generated(), 1, SHORT)
    (tmp_path / "test/test/0123456789.npy").touch()
    with pytest.raises(InputError, match=r"0123456789\.npy: no part of this test data"):
        write_test(tmp_path / "test", generated(), 0, SHORT)
    with exclusive(tmp_path / "test"), pytest.raises(InputError, match="another process"):
        write_test(tmp_path / "test", generated(), 0, SHORT)


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Run scripts/simulate.py with some arguments and `--out tmp_path/out`."""
    main = runpy.run_path(str(SCRIPT))["main"]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--out", str(tmp_path / "out")])
        main()
        return tmp_path / "out"

    return run


def test_script_writes_six_shots(script):
    out = script("--families", "FlatVel_A", "--count", "1", "--shots", "6")
    assert ShotStore(out).shots(0).shape == (6, 1000, 70)


def test_script_writes_test_data_from_files(script, files):
    out = script("--maps", str(files), "--count", "1", "--skip", "3", "--as-test")
    assert load_predictions(out / "test_truth.npy").values.shape == (2, 70, 70)
    assert RecordFolder(out / "test").ids.shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as-test", "--shots", "6"], "--shots 6: "),
        (["--skip", "3"], "--skip: only for --maps"),
        (["--shard-size", "0"], "--shard-size: expected 1 or more"),
        (["--families", "Flat"], "family 'Flat': unknown"),
    ],
)
def test_script_refuses_what_makes_no_sense(arguments, message, script):
    with pytest.raises(InputError, match=message):
        script(*arguments)
