"""Raw files to a prepared folder: both namings, bad input, and SIGKILL anywhere."""

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from cli import run_in

from comp.core.claims import exclusive
from comp.core.errors import InputError
from comp.fwi.prepare import prepare, verify
from comp.fwi.shards import AMPLITUDE_SCALE
from comp.fwi.shots import ShotStore
from comp.fwi.survey import OFFICIAL

TINY = replace(OFFICIAL, ny=4, nx=5, nt=20, source_columns=(0, 4), receiver_columns=(0, 2, 4))
VEL = ("FlatVel_A/data/data{}.npy", "FlatVel_A/model/model{}.npy")
FAULT = ("CurveFault_B/seis{}.npy", "CurveFault_B/vel{}.npy")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_pair(raw, naming, key, rows=3, seed=0):
    random = np.random.default_rng(seed)
    shots = random.normal(0, 10, (rows, *TINY.record_shape)).astype(np.float32)
    velocity = random.uniform(1500, 4500, (rows, 1, *TINY.map_shape)).astype(np.float32)
    save(raw / naming[0].format(key), shots)
    save(raw / naming[1].format(key), velocity)
    return shots, velocity[:, 0]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    write_pair(folder, VEL, "1", rows=3, seed=1)
    write_pair(folder, VEL, "2", rows=35, seed=2)  # more than one chunk
    write_pair(folder, FAULT, "2_1_0", rows=4, seed=3)
    write_pair(folder, FAULT, "A_1_B", rows=1, seed=4)
    return folder


def contents(folder):
    """Every file with the digest of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_both_namings_with_ids_families_and_sources(raw, tmp_path):
    prepare(raw, tmp_path / "out", TINY)
    store = ShotStore(tmp_path / "out")
    assert len(store) == 43
    assert store.survey == TINY
    assert list(dict.fromkeys(store.sources)) == [
        "CurveFault_B/seis2_1_0.npy",
        "CurveFault_B/seisA_1_B.npy",
        "FlatVel_A/data/data1.npy",
        "FlatVel_A/data/data2.npy",
    ]
    assert list(dict.fromkeys(store.families)) == ["CurveFault_B", "FlatVel_A"]
    assert store.ids[0] == "CurveFault_B_seis2_1_0_0000"
    assert store.ids[-1] == "FlatVel_A_data2_0034"
    assert len(set(store.ids)) == 43


def test_values_come_back_within_half_precision(raw, tmp_path):
    shots, velocity = write_pair(raw, VEL, "2", rows=35, seed=5)
    shots[0, 0, 0, 0] = 1e-6  # a subnormal in float16 as it is, a normal number when scaled
    save(raw / VEL[0].format("2"), shots)
    prepare(raw, tmp_path / "out", TINY)
    store = ShotStore(tmp_path / "out")
    rows = np.flatnonzero(store.sources == "FlatVel_A/data/data2.npy")
    for row, expected in zip(rows, shots):
        found = store.shots(row).astype(np.float32) / store.amplitude_scale
        assert np.abs(found / expected - 1).max() <= 2**-11
    np.testing.assert_array_equal(store.velocities(rows), velocity)


def test_index_has_one_entry_a_shard_and_checksums_that_hold(raw, tmp_path):
    prepare(raw, tmp_path / "out", TINY)
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["rows"] == 43
    assert [entry["rows"] for entry in index["shards"]] == [4, 1, 3, 35]
    entry = index["shards"][0]
    path = tmp_path / "out/shards" / f"{entry['name']}.shots.npy"
    assert entry["shots"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["shots"]["bytes"] == path.stat().st_size
    assert entry["shots"]["dtype"] == "float16"
    assert entry["amplitude_scale"] == AMPLITUDE_SCALE


def test_verify_finds_one_changed_byte(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out, TINY)
    verify(out)
    path = out / "shards/FlatVel_A_data1.velocity.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"FlatVel_A_data1\.velocity\.npy: sha256"):
        verify(out)
    path.unlink()
    with pytest.raises(InputError, match=r"FlatVel_A_data1\.velocity\.npy: no such file"):
        verify(out)


# --- bad raw data: how it is spoilt, and the line that must come


def replace_value(path, index, value):
    array = np.load(path)
    array[index] = value
    np.save(path, array)


def lone_shots(raw):
    (raw / "FlatVel_A/model/model1.npy").unlink()


def lone_map(raw):
    (raw / "CurveFault_B/seis2_1_0.npy").unlink()


def truncated(raw):
    path = raw / "FlatVel_A/data/data1.npy"
    os.truncate(path, path.stat().st_size - 7)


def empty_file(raw):
    (raw / "FlatVel_A/data/data1.npy").write_bytes(b"")


def wrong_shape(raw):
    save(raw / "FlatVel_A/data/data1.npy", np.ones((3, 2, 21, 3), np.float32))


def wrong_dtype(raw):
    save(raw / "FlatVel_A/data/data1.npy", np.ones((3, *TINY.record_shape)))


def object_array(raw):
    array = np.full((3, *TINY.record_shape), None)
    np.save(raw / "FlatVel_A/data/data1.npy", array, allow_pickle=True)


def fewer_maps(raw):
    save(raw / "FlatVel_A/model/model1.npy", np.full((2, 1, *TINY.map_shape), 2e3, np.float32))


def no_rows(raw):
    write_pair(raw, VEL, "1", rows=0)


def nan_record(raw):
    replace_value(raw / "FlatVel_A/data/data2.npy", (33, 1, 5, 2), np.nan)


def infinite_record(raw):
    replace_value(raw / "FlatVel_A/data/data2.npy", (33, 0, 5, 2), -np.inf)


def dead_record(raw):
    replace_value(raw / "FlatVel_A/data/data2.npy", (33, 1), 0.25)


def too_loud(raw):
    replace_value(raw / "FlatVel_A/data/data2.npy", (33, 1, 5, 2), -256.0)


def too_fast(raw):
    replace_value(raw / "CurveFault_B/vel2_1_0.npy", (2, 0, 1, 1), 6001)


def in_km_per_s(raw):
    replace_value(raw / "CurveFault_B/vel2_1_0.npy", 2, 3.0)


def nan_velocity(raw):
    replace_value(raw / "CurveFault_B/vel2_1_0.npy", (2, 0, 1, 1), np.nan)


def foreign_folder(raw):
    (raw / "notes").mkdir()


BAD = {
    lone_shots: r"model/model1\.npy: missing, for .*data/data1\.npy",
    lone_map: r"CurveFault_B/seis2_1_0\.npy: missing, for .*vel2_1_0\.npy",
    truncated: r"data/data1\.npy: truncated",
    empty_file: r"data/data1\.npy: truncated",
    wrong_shape: r"data/data1\.npy: shape \(3, 2, 21, 3\), expected \('any', 2, 20, 3\)",
    wrong_dtype: r"data/data1\.npy: dtype float64, expected float32",
    object_array: r"data/data1\.npy: holds Python objects",
    fewer_maps: r"model/model1\.npy: shape \(2, 1, 4, 5\), expected \(3, 1, 4, 5\)",
    no_rows: r"data/data1\.npy: holds no records",
    nan_record: r"data/data2\.npy: row 33: shot 1 holds NaN or infinite values",
    infinite_record: r"data/data2\.npy: row 33: shot 0 holds NaN or infinite values",
    dead_record: r"data/data2\.npy: row 33: shot 1 is constant \(0\.25\): a dead record",
    too_loud: r"data/data2\.npy: row 33: amplitude 256, expected at most 255\.875",
    too_fast: r"vel2_1_0\.npy: row 2: velocity .*6001 m/s, expected 1000\.\.6000",
    in_km_per_s: r"vel2_1_0\.npy: row 2: velocity 3\.\.3 m/s, expected 1000\.\.6000",
    nan_velocity: r"vel2_1_0\.npy: row 2: velocity nan\.\.nan m/s",
    foreign_folder: r"notes: no raw data here, expected data/data\*\.npy or seis\*\.npy",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_raw_data_are_named_and_leave_nothing_half_written(spoil, raw, tmp_path):
    spoil(raw)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=BAD[spoil]) as error:
        prepare(raw, out, TINY)
    assert "\n" not in str(error.value)
    assert not (out / "index.json").exists()
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("make", [False, True])
def test_raw_folder_missing_or_empty(make, tmp_path):
    if make:
        (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match=r"raw: (no such folder|holds no family folders)"):
        prepare(tmp_path / "raw", tmp_path / "out", TINY)


def test_goes_on_after_bad_input_was_mended(raw, tmp_path):
    prepare(raw, tmp_path / "straight", TINY)
    path = raw / "FlatVel_A/data/data2.npy"
    good, times = path.read_bytes(), path.stat()
    nan_record(raw)
    with pytest.raises(InputError):
        prepare(raw, tmp_path / "out", TINY)
    path.write_bytes(good)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    prepare(raw, tmp_path / "out", TINY)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


# --- starting again

# Runs `prepare` in a forked child that kills itself with SIGKILL at its n-th event (a chunk read,
# a file about to be renamed or just renamed), then again to the end, for n = 0, 1, ... until a
# child survives. Forked, because an interpreter with torch takes seconds to start.
KILLER = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import comp.fwi.shard_writer as shards
    from test_prepare import TINY, contents
    from comp.fwi.prepare import prepare

    raw, work = sys.argv[1:]
    events, fatal = 0, -1

    def event():
        global events
        if events == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        events += 1

    def watched(function):
        def wrapper(*args, **kwargs):
            event()
            result = function(*args, **kwargs)
            event()
            return result
        return wrapper

    def child(out):
        pid = os.fork()
        if pid == 0:
            prepare(raw, out, TINY)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert child(f"{work}/straight") == 0
    expected = contents(Path(f"{work}/straight"))
    os.replace = watched(os.replace)
    shards._encode = watched(shards._encode)
    killed = unfinished = 0
    while True:
        fatal, out = killed, f"{work}/{killed}"
        code = child(out)
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        killed += 1
        unfinished += contents(Path(out)) != expected
        fatal = -1
        assert child(out) == 0
        assert contents(Path(out)) == expected, f"differs after a kill at event {killed - 1}"
    print("killed", killed, "unfinished", unfinished)
""")


def test_killed_anywhere_and_started_again_is_byte_identical(tmp_path):
    raw = tmp_path / "raw"
    write_pair(raw, VEL, "1", rows=17, seed=1)
    write_pair(raw, FAULT, "2_1_0", rows=1, seed=2)
    command = [sys.executable, "-c", KILLER, str(raw), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    killed, unfinished = map(int, re.findall(r"\d+", run.stdout))
    # 2 shards × 3 files and the index renamed, 3 chunks encoded, each before and after.
    assert killed == 2 * (2 * 3 + 1 + 3)
    assert unfinished == killed - 1  # all but the kill after the last rename


def test_finished_shards_are_not_made_again(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out, TINY)
    before = contents(out)
    kept = out / "shards/FlatVel_A_data1.shots.npy"
    cut = out / "shards/FlatVel_A_data2.shots.npy"
    inode = kept.stat().st_ino
    os.truncate(cut, 100)
    (out / "shards/gone.shots.npy.partial").touch()  # of a run on other data
    with pytest.raises(InputError, match=r"gone\.shots\.npy\.partial: no part of this run"):
        prepare(raw, out, TINY)
    (out / "shards/gone.shots.npy.partial").unlink()
    (out / "shards/FlatVel_A_data1.shots.npy.partial").touch()
    prepare(raw, out, TINY)
    assert contents(out) == before
    assert kept.stat().st_ino == inode


def test_source_file_changed_since_is_refused(raw, tmp_path):
    prepare(raw, tmp_path / "out", TINY)
    os.utime(raw / "FlatVel_A/data/data1.npy", ns=(1, 1))
    with pytest.raises(InputError, match=r"data1\.json: .*shots_mtime_ns was \d+, is now 1;"):
        prepare(raw, tmp_path / "out", TINY)
    (tmp_path / "out/shards/FlatVel_A_data1.json").unlink()  # what the message says to do
    prepare(raw, tmp_path / "out", TINY)


def test_other_raw_data_or_settings_are_refused(raw, tmp_path):
    prepare(raw, tmp_path / "out", TINY)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=r"survey was .* is now .*'dt': 0\.002"):
        prepare(raw, tmp_path / "out", replace(TINY, dt=0.002))
    write_pair(tmp_path / "other", VEL, "7")
    with pytest.raises(InputError, match=r"CurveFault_B_seis2_1_0.* no part of this run"):
        prepare(tmp_path / "other", tmp_path / "out", TINY)
    assert contents(tmp_path / "out") == before


def test_more_raw_data_are_added(raw, tmp_path):
    prepare(raw, tmp_path / "out", TINY)
    write_pair(raw, VEL, "3", rows=2, seed=6)
    prepare(raw, tmp_path / "out", TINY)
    assert len(ShotStore(tmp_path / "out")) == 45


def test_second_writer_is_refused(raw, tmp_path):
    with exclusive(tmp_path / "out"):
        with pytest.raises(InputError, match="out: another process is writing to it"):
            prepare(raw, tmp_path / "out", TINY)


def test_script_reports_one_line_and_exit_code_2(raw, tmp_path):
    code, _, said = run_in(tmp_path, "prepare.py", "--raw", raw, "--out", tmp_path / "out")
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("error: ") and "expected ('any', 5, 1000, 70)" in said
