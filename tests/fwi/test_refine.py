"""Inversion of predictions against their records, file in, file out, and killed anywhere."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from functools import partial

import cli
import numpy as np
import pandas as pd
import pytest
import torch

from comp.core.errors import InputError
from comp.core.files import save_npy
from comp.core.predictions import load_predictions, save_predictions
from comp.core.share import Share
from comp.core.signals import Stopped
from comp.fwi import refining
from comp.fwi.guesses import Guess
from comp.fwi.maps import Maps
from comp.fwi.refine import Refiner, Sample, Settings, energy
from comp.fwi.refining import open_records, refine_file
from comp.fwi.simulated import write_training
from comp.fwi.survey import Survey
from comp.fwi.velocity import generate
from comp.fwi.wave import simulate

# A corner of a map, and time enough for a wave to come back from its bottom.
TINY = Survey(
    ny=22, nx=24, nt=220, pad=10, source_columns=(0, 23), receiver_columns=tuple(range(24))
)
QUICK = Settings(evaluations=8, batch=3)


def blurred(maps, cells=3):
    """Maps as a network would predict them: blurred, and off by some per cent."""
    padded = np.pad(maps, [(0, 0), (cells, cells), (cells, cells)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * cells + 1,) * 2, (1, 2))
    depth = np.linspace(0, 3, maps.shape[1])[:, None]
    return (windows.mean((3, 4)) * (1 + 0.03 * np.sin(2 * depth))).clip(1500, 4500)


@pytest.fixture(scope="module")
def problem():
    """(truth, starts, records) of five maps, three of them layered."""
    truth = np.concatenate([corner("FlatVel_A", 3), corner("Style_A", 2)])
    records = simulate(torch.from_numpy(truth), TINY).numpy()
    return truth, blurred(truth).astype(np.float32), records


def corner(family, count):
    return generate(family, count, 0)[:, : TINY.ny, : TINY.nx]


def refined(samples, settings=QUICK):
    """Row -> Refined of a stream."""
    steps = Refiner(settings, TINY).refine(samples)
    return {one.row: one for ended in steps for one in ended}


def samples(problem, prior="layered", rows=range(5)):
    return [Sample(i, problem[1][i], problem[2][i], prior) for i in rows]


def errors(maps, truth):
    return np.abs(maps - truth).mean((1, 2))


@pytest.mark.parametrize("prior", ["layered", "smooth", "none"])
def test_inversion_approaches_the_truth(problem, prior):
    found = refined(samples(problem, prior), replace(QUICK, evaluations=20))
    for i, truth in enumerate(problem[0]):
        assert found[i].misfit[-1] < 0.3 * found[i].misfit[0]
        assert np.abs(found[i].velocity - truth).mean() < np.abs(problem[1][i] - truth).mean()
        assert found[i].iterations >= 12 and len(found[i].misfit) == 20


def test_level_layers_are_found_exactly(problem):
    """Whole velocities at every depth, at the second evaluation."""
    truth, start, record = (of[0] for of in problem)
    half = (record * 256).astype(np.float16).astype(np.float32) / 256
    for seen, stop in ((record, "tolerance"), (half, "found")):
        one = refined([Sample(0, start, seen, "flat")])[0]
        np.testing.assert_array_equal(one.velocity, truth)
        assert one.stop == stop and len(one.misfit) == 2


def test_level_layers_where_there_are_none_do_no_harm(problem):
    one = refined(samples(problem, "flat", [3]))[3]
    assert one.misfit[-1] < one.misfit[0] and len(one.misfit) == QUICK.evaluations


@pytest.mark.parametrize("error", [np.linalg.LinAlgError, torch.linalg.LinAlgError])
def test_a_method_that_fails_on_one_sample_does_not_end_the_others(problem, capsys, error):
    """It gets what it would have got without the method, bit for bit."""

    def method(start, record):
        if np.array_equal(start, problem[1][0]):
            return Guess(problem[0][0])
        raise error("singular")

    truth, records = problem[0], problem[2]
    near = truth[1] + np.float32(1e-2) * (problem[1][1] - truth[1])  # as good as what is found
    for start in (problem[1][1], near):
        refiner = Refiner(replace(QUICK, batch=1), TINY)
        refiner._guesses = {"layered": method}
        given = [Sample(0, problem[1][0], records[0], "layered")]
        given.append(Sample(1, start, records[1], "layered"))
        found = {one.row: one for ended in refiner.refine(given) for one in ended}
        assert found[0].stop == "tolerance"
        plain = refined([given[1]])[1]
        np.testing.assert_array_equal(found[1].velocity, plain.velocity)
        np.testing.assert_array_equal(found[1].misfit, plain.misfit)
    assert plain.misfit[0] < 1e-3
    assert "note: row 1: no guess for layered maps: singular" in capsys.readouterr().out


def test_the_misfit_is_that_of_the_map(problem):
    one = refined(samples(problem, rows=[1]))[1]
    modelled = simulate(torch.from_numpy(one.velocity)[None], TINY)[0].numpy()
    observed = problem[2][1]
    expected = np.linalg.norm((modelled - observed)[:, :-1]) / np.linalg.norm(observed[:, :-1])
    assert one.misfit[-1] == pytest.approx(expected, rel=1e-4)


def test_a_sample_does_not_depend_on_the_stream(problem):
    """Batch size, order and neighbours leave every bit as it is."""
    expected = refined(samples(problem), replace(QUICK, batch=1))
    for batch, rows in ((2, [4, 2, 0, 1, 3]), (5, range(5)), (3, [3, 2])):
        found = refined(samples(problem, rows=rows), replace(QUICK, batch=batch))
        assert sorted(found) == sorted(rows)
        for row, one in found.items():
            np.testing.assert_array_equal(one.velocity, expected[row].velocity)
            np.testing.assert_array_equal(one.misfit, expected[row].misfit)


def test_energy_is_the_same_alone_and_in_a_batch():
    records = torch.randn(6, 5, 999, 70, generator=torch.manual_seed(0))
    for i in range(6):
        assert torch.equal(energy(records[i : i + 1])[0], energy(records)[i])


def test_the_last_row_does_not_count(problem):
    spoilt = problem[2].copy()
    spoilt[:, :, -1] = 1e3
    expected = refined(samples(problem, rows=[0]))[0]
    found = refined(samples((problem[0], problem[1], spoilt), rows=[0]))[0]
    np.testing.assert_array_equal(found.velocity, expected.velocity)


def test_velocities_stay_within_the_survey(problem):
    narrow = replace(TINY, min_velocity=1800.0, max_velocity=3500.0)
    stream = Refiner(QUICK, narrow).refine(samples(problem))
    for one in (one for ended in stream for one in ended):
        assert one.velocity.min() >= 1800 and one.velocity.max() <= 3500


def test_never_worse(problem):
    """A sample that has no time to improve keeps its start, and so does one that is right."""
    one = refined(samples(problem, rows=[2]), replace(QUICK, evaluations=1))[2]
    assert (one.stop, one.iterations, len(one.misfit)) == ("evaluations", 0, 1)
    np.testing.assert_array_equal(one.velocity, problem[1][2])
    right = Sample(7, problem[0][0], problem[2][0], "layered")
    one = refined([right])[7]
    assert one.stop == "tolerance" and one.misfit.tolist() == [0]
    np.testing.assert_array_equal(one.velocity, problem[0][0])


def test_a_sample_that_hardly_improves_stops(problem):
    settings = replace(QUICK, stall=0.99, patience=3)
    one = refined(samples(problem, rows=[0]), settings)[0]
    assert one.stop == "stalled" and len(one.misfit) == 4


# --- files


@pytest.fixture
def files(problem, tmp_path):
    """A prediction file in an order of its own, and a folder of records; (predictions, records)."""
    _, starts, records = problem
    table = pd.DataFrame({"id": ["d", "b", "e", "a", "c"], "family": list("VVVSS")})
    save_predictions(tmp_path / "p.npy", table, starts)
    for name, record in zip(table["id"], records):
        save_npy(tmp_path / f"test/{name}.npy", record)
    save_npy(tmp_path / "test/unused.npy", records[0])
    return tmp_path / "p.npy", tmp_path / "test"


def contents(folder):
    """Name -> bytes of everything below `folder`."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_files_agree_with_the_samples(files, problem, tmp_path):
    out = tmp_path / "out/q.npy"
    refine_file(*files, out, QUICK, survey=TINY)
    found, given = load_predictions(out), load_predictions(files[0])
    pd.testing.assert_frame_equal(found.table, given.table)
    table = pd.read_csv(out.with_suffix(".refined.csv"))
    assert table["id"].tolist() == given.ids.tolist()
    curves = np.load(out.with_suffix(".misfit.npy"))
    assert curves.shape == (5, 8) and curves.dtype == np.float32
    for i, line in table.iterrows():
        one = refined(samples(problem, line["prior"], [i]))[i]
        np.testing.assert_array_equal(found.values[i], one.velocity)
        np.testing.assert_array_equal(curves[i, : len(one.misfit)], one.misfit)
        assert np.isnan(curves[i, len(one.misfit) :]).all()
        assert (line["iterations"], line["stop"]) == (one.iterations, one.stop)
        assert line["evaluations"] == len(one.misfit)
        assert line[["start_misfit", "misfit"]].tolist() == pytest.approx(one.misfit[[0, -1]])
    names = {"q.npy", "q.ids.csv", "q.refined.csv", "q.misfit.npy"}
    assert set(contents(out.parent)) == names


def test_a_prepared_folder_has_records_too(tmp_path):
    load = partial(corner, "FlatVel_A", 3)
    write_training(tmp_path / "data", [Maps("FlatVel_A", 0, 3, "", "file", {}, load)], TINY)
    source = open_records(tmp_path / "data")
    truth = source.velocities(range(3))
    table = pd.DataFrame({"id": source.ids[::-1]})
    save_predictions(tmp_path / "p.npy", table, blurred(truth[::-1]).astype(np.float32))
    refine_file(tmp_path / "p.npy", tmp_path / "data", tmp_path / "q.npy", QUICK)
    before, after = (load_predictions(tmp_path / f"{x}.npy").values for x in "pq")
    assert (errors(after, truth[::-1]) < errors(before, truth[::-1])).all()


KILLER = textwrap.dedent("""
    import os, signal, sys, time
    from pathlib import Path
    import torch
    from comp.core.share import Share
    from comp.fwi.refine_work import Work
    from comp.fwi.refining import refine_file
    from test_refine import QUICK, TINY, contents

    work = Path(sys.argv[1])
    calls, fatal = 0, None

    def kill_at(function):
        def wrapper(*args):
            global calls
            calls += 1
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)
        return wrapper

    def child(out, share=Share()):
        pid = os.fork()
        if pid == 0:
            refine_file(work / "p.npy", work / "test", out, QUICK, share=share, survey=TINY)
            os._exit(0)
        return pid

    def end(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    torch.set_num_threads(1)  # forking and OpenMP threads do not mix
    refine_file(work / "p.npy", work / "test", work / "0/q.npy", QUICK, survey=TINY)
    expected = contents(work / "0")
    Work._encode, os.replace = kill_at(Work._encode), kill_at(os.replace)
    # 1 is the recipe; 2 to 6 the samples; 7 the maps, their misfits, table, ids.
    for fatal in (3, 8, 10):
        at, out = fatal, work / f"{fatal}/q.npy"
        calls = 0
        assert end(child(out)) == -signal.SIGKILL
        assert contents(out.parent) != expected
        for part in out.parent.glob("q.refining/part-*"):
            with open(part, "ab") as file:
                file.write(b"cut")
        fatal = None
        assert end(child(out)) == 0
        assert contents(out.parent) == expected, f"differs after a kill at file {at}"

    fatal, calls = 3, 0
    out = work / "two/q.npy"
    assert end(child(out)) == -signal.SIGKILL
    fatal = None
    both = [child(out, Share(i, 2)) for i in (1, 0)]
    assert [end(pid) for pid in both] == [0, 0]
    assert contents(out.parent) == expected, "two processes differ from one"

    # All is done but put together: the second process comes when the first could be through.
    fatal, calls, out = 7, 0, work / "late/q.npy"
    assert end(child(out)) == -signal.SIGKILL
    fatal = None
    first = child(out, Share(0, 2))
    time.sleep(1)
    assert [end(pid) for pid in (child(out, Share(1, 2)), first)] == [0, 0]
    assert contents(out.parent) == expected, "a late process"
""")


def test_killed_anywhere_or_shared_out_is_byte_identical(files, tmp_path):
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr


def interrupt(monkeypatch, at):
    """Have SIGTERM arrive during evaluation number `at`."""
    step, calls = Refiner._advance, []

    def interrupted(self, slots):
        calls.append(slots)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        step(self, slots)

    monkeypatch.setattr(Refiner, "_advance", interrupted)


def test_sigterm_keeps_what_is_done(files, tmp_path, monkeypatch):
    refine_file(*files, tmp_path / "straight/q.npy", QUICK, survey=TINY)
    out = tmp_path / "stopped/q.npy"
    with monkeypatch.context() as patch:
        interrupt(patch, 10)  # three samples have ended with the eighth
        with pytest.raises(Stopped):
            refine_file(*files, out, QUICK, survey=TINY)
    assert not out.exists()
    refine_file(*files, out, QUICK, survey=TINY)
    assert contents(out.parent) == contents(tmp_path / "straight")


def test_what_the_time_does_not_suffice_for_keeps_its_prediction(files, tmp_path, monkeypatch):
    refine_file(*files, tmp_path / "straight/q.npy", QUICK, survey=TINY)
    out = tmp_path / "hours/q.npy"
    assert refine_file(*files, out, QUICK, survey=TINY, hours=0) == 5
    given = load_predictions(files[0])
    np.testing.assert_array_equal(load_predictions(out).values, given.values)
    table = pd.read_csv(out.with_suffix(".refined.csv"))
    assert (table["stop"] == "time").all() and table["misfit"].isna().all()
    # What a next launch of the same parent, a notebook, would take for its own processes'.
    assert not list(out.with_suffix(".refining").glob("finished-*"))
    with monkeypatch.context() as patch:
        clock = iter([0.0, 0.0, 0.0, 0.0, 4000.0, 4000.0])
        patch.setattr("comp.fwi.refining.time.monotonic", lambda: next(clock))
        assert refine_file(*files, out, QUICK, survey=TINY, hours=1) == 2
    assert list(pd.read_csv(out.with_suffix(".refined.csv"))["stop"] == "time") == [0, 0, 0, 1, 1]
    assert refine_file(*files, out, QUICK, survey=TINY) == 0
    assert contents(out.parent) == contents(tmp_path / "straight")
    with pytest.raises(InputError, match=r"hours: got -1, expected 0 or more"):
        refine_file(*files, out, QUICK, survey=TINY, hours=-1)


def test_what_gains_most_in_a_second_comes_first(files, tmp_path, monkeypatch):
    kinds = iter(["layered", "flat", "layered", "smooth", "layered"] + 3 * ["layered"])
    monkeypatch.setattr(refining, "route", lambda *_: next(kinds))
    clock = iter([0.0, 0.0, 0.0, 0.0, 4000.0])
    monkeypatch.setattr("comp.fwi.refining.time.monotonic", lambda: next(clock))
    out = tmp_path / "q.npy"
    assert refine_file(*files, out, QUICK, survey=TINY, hours=1) == 2
    table = pd.read_csv(out.with_suffix(".refined.csv"), keep_default_na=False)
    assert table["prior"].tolist() == ["layered", "flat", "", "smooth", ""]


def test_a_signal_is_heeded_while_records_are_looked_through(files, tmp_path, monkeypatch):
    seen = []

    def route(*_):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return "layered"  # so that all are looked through before the first is begun

    monkeypatch.setattr(refining, "route", route)
    with pytest.raises(Stopped):
        refine_file(*files, tmp_path / "q.npy", QUICK, survey=TINY, hours=1)
    assert len(seen) == 3


def test_the_launchers_variables(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (Share.of_launcher().index, Share.of_launcher().count) == (0, 1)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (Share.of_launcher().index, Share.of_launcher().count) == (5, 8)


@pytest.mark.parametrize(
    ("gpus", "local", "here", "device", "beside"),
    [
        (4, 3, 4, "cuda:3", 1),
        (1, 2, 3, "cuda:0", 3),
        (2, 4, 5, "cuda:0", 3),
        (2, 3, 5, "cuda:1", 2),
    ],
)
def test_more_processes_than_gpus_share_them(monkeypatch, gpus, local, here, device, beside):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in {"RANK": local + 8, "WORLD_SIZE": 16, "LOCAL_RANK": local}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    assert Share.of_launcher() == Share(local + 8, 16, device, beside)


def spoil_start(files, value):
    values = np.load(files[0])
    values[3, 5, 5] = value
    save_npy(files[0], values)


def spoil_record(files):
    record = np.load(files[1] / "b.npy")
    record[1, 7, 7] = np.nan
    save_npy(files[1] / "b.npy", record)


BAD_INPUT = {
    "no record": (lambda f: (f[1] / "e.npy").unlink(), r"test: no record for 1 of 5 .*first 'e'"),
    "shape": (lambda f: save_npy(f[0], np.ones((5, 7, 7))), r"p\.npy: maps \(7, 7\), expected"),
    "km/s": (lambda f: spoil_start(f, 2.5), r"p\.npy: row 3: velocity 2\.5\.\."),
    "NaN": (lambda f: spoil_start(f, np.nan), r"p\.npy: row 3: velocity nan"),
    "broken record": (spoil_record, r"b\.npy: shot 1 holds NaN"),
    "no table": (lambda f: f[0].with_suffix(".ids.csv").unlink(), r"p\.ids\.csv: no such file"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named(case, files, tmp_path):
    spoil, message = BAD_INPUT[case]
    spoil(files)
    with pytest.raises(InputError, match=message) as error:
        refine_file(*files, tmp_path / "q.npy", QUICK, survey=TINY)
    assert "\n" not in str(error.value)


def test_unfinished_work_of_other_settings_is_refused(files, tmp_path, monkeypatch):
    interrupt(monkeypatch, 1)
    with pytest.raises(Stopped):
        refine_file(*files, tmp_path / "q.npy", QUICK, survey=TINY)
    with pytest.raises(InputError, match=r"recipe\.json: .*evaluations was 8, is now 9"):
        refine_file(*files, tmp_path / "q.npy", replace(QUICK, evaluations=9), survey=TINY)
    spoil_start(files, 2000)
    with pytest.raises(InputError, match=r"recipe\.json: .*predictions was '.*finish that"):
        refine_file(*files, tmp_path / "q.npy", QUICK, survey=TINY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluations", "0"], "evaluations: got 0, expected 1 or more"),
        (["--batch", "0"], "batch: got 0, expected 1 or more"),
        (["--precision", "half"], "precision: got 'half', expected 'float32' or 'float64'"),
        (["--solver", "spng"], "solver: got 'spng', expected 'sponge' or 'deepwave'"),
    ],
)
def test_the_script_refuses_what_makes_no_sense(arguments, message, files, tmp_path, capsys):
    code = cli.run(
        "refine.py",
        *("--predictions", files[0], "--records", files[1], "--out", tmp_path / "q.npy"),
        *arguments,
    )
    assert code == 2 and message in capsys.readouterr().err


def test_the_script_refines_official_records(tmp_path):
    truth = generate("CurveVel_A", 1, 0)
    save_npy(tmp_path / "test/a.npy", simulate(torch.from_numpy(truth))[0].numpy())
    start = blurred(truth).astype(np.float32)
    save_predictions(tmp_path / "p.npy", pd.DataFrame({"id": ["a"]}), start)
    arguments = ("--predictions", tmp_path / "p.npy", "--records", tmp_path / "test")
    out = tmp_path / "q.npy"
    assert cli.run("refine.py", *arguments, "--out", out, "--evaluations", "3") == 0
    assert errors(load_predictions(out).values, truth) < errors(start, truth)
