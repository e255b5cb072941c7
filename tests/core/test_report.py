"""Reports of run folders: every figure is one that training left, unfinished folds are marked."""

import json

import numpy as np
import pandas as pd
import pytest
from cli import run
from toy import ToyTask, toy_config

from comp.core.checkpoint import count_parameters
from comp.core.config import write_config
from comp.core.errors import InputError
from comp.core.predictions import save_predictions
from comp.core.report import draw_curves, metrics_table, read_runs, report_lines, runs_table
from comp.core.runs import read_log
from comp.core.trainer import Trainer, fit


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of three folds, the last one killed in its second epoch, and a run of one fold."""
    root = tmp_path_factory.mktemp("runs")
    for name, folds in (("three", (0, 1)), ("one", (0,))):
        config = toy_config(root / name, batch_norm=True)
        for fold in folds:
            fit(ToyTask(config), fold, root / name)
        write_config(root / name / "config.yaml", config)
    step = Trainer.train_step

    def dies(self, feed):
        if self.step == 7:
            raise KeyboardInterrupt
        return step(self, feed)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", dies)
        fit(ToyTask(toy_config(root / "three", batch_norm=True)), 2, root / "three")
    return root


def done(runs, name, fold):
    return json.loads((runs / name / f"fold_{fold}" / "done.json").read_text())


def test_the_table_has_the_figures_that_training_left(runs):
    three, one = read_runs([runs / "three", runs / "one"])
    assert [(fold.fold, fold.finished) for fold in three.folds] == [
        ("0", True),
        ("1", True),
        ("2", False),
    ]
    assert [fold.steps for fold in three.folds] == [12, 12, 7]
    best = [done(runs, "three", fold)["best"] for fold in (0, 1)]
    assert [fold.best for fold in three.counted] == best
    assert three.folds[0].seconds == done(runs, "three", 0)["seconds"]
    # 6·16 + 16 and 16 + 1 of the layers, 2·16 of the norm.
    assert {fold.parameters for fold in three.folds} == {6 * 16 + 16 + 16 + 1 + 32}
    table = runs_table([three, one]).set_index("run")
    assert table.loc["three", "folds"] == "0 1 2*" and table.loc["one", "folds"] == "0"
    assert table.loc["three", "best"] == f"{np.mean(best):.4f} ± {np.std(best, ddof=1):.4f}"
    assert table.loc["one", "best"] == f"{done(runs, 'one', 0)['best']:.4f}"
    assert table.loc["one", "metric"] == "mae" and table.loc["one", "steps"] == "12"
    assert (
        metrics_table([three, one]).set_index("best validation").loc["mae", "one"]
        == table.loc["one", "best"]
    )
    (line,) = [line for line in report_lines([three, one]) if line.startswith("*")]
    assert line == "* three: fold 2 is unfinished, at step 7; left out of the figures"


def test_a_run_without_a_finished_fold_is_shown_as_it_stands(runs, tmp_path):
    (tmp_path / "fold_2").mkdir()
    for name in ("config.yaml", "fold_2/log.jsonl", "fold_2/best.safetensors"):
        (tmp_path / name).write_bytes((runs / "three" / name).read_bytes())
    (report,) = read_runs([tmp_path])
    (fold,) = report.counted
    log = read_log(tmp_path / "fold_2/log.jsonl")
    assert fold.best == min(e["valid/mae"] for e in log if "valid/mae" in e)
    assert fold.seconds == pytest.approx(sum(16 / e["samples_per_s"] for e in log if "lr" in e))
    assert report_lines([report])[-1].endswith("fold 2 is unfinished, at step 7")


def test_folds_without_validation_have_no_best(tmp_path):
    config = toy_config(tmp_path / "x", folds=("all",))
    fit(ToyTask(config), "all", tmp_path / "x")
    write_config(tmp_path / "x" / "config.yaml", config)
    (report,) = read_runs([tmp_path / "x"])
    assert runs_table([report])["best"].tolist() == ["–"]
    assert report.folds[0].parameters == count_parameters(tmp_path / "x/fold_all/final.safetensors")
    with pytest.raises(InputError, match="no run has validated"):
        draw_curves(tmp_path / "a.png", [report])


def test_seconds_count_every_start(tmp_path, monkeypatch):
    config, clock = toy_config(tmp_path, train={"checkpoint_every": 1}), [0.0]
    monkeypatch.setattr("comp.core.trainer.time.time", lambda: clock[0])
    step = Trainer.train_step

    def slow(self, feed):
        if self.step == 5 and clock[0] == 50:
            raise KeyboardInterrupt
        clock[0] += 10
        return step(self, feed)

    monkeypatch.setattr(Trainer, "train_step", slow)
    with pytest.raises(KeyboardInterrupt):
        fit(ToyTask(config), 0, tmp_path)
    clock[0] = 1000.0
    assert fit(ToyTask(config), 0, tmp_path)["seconds"] == 120


def test_curves_are_the_logged_validations(runs, tmp_path, saved_figures):
    reports = read_runs([runs / "three", runs / "one"])
    for against in ("step", "seconds"):
        draw_curves(tmp_path / f"{against}.png", reports, against)
    (axes,) = saved_figures[0].axes
    assert len(axes.lines) == 4 and len({line.get_color() for line in axes.lines}) == 2
    log = read_log(runs / "one/fold_0/log.jsonl")
    valid = [(e["step"], e["valid/mae"]) for e in log if "valid/mae" in e]
    np.testing.assert_allclose(axes.lines[3].get_xydata(), valid)
    assert axes.get_ylabel() == "validation mae"
    seconds = saved_figures[1].axes[0].lines[3].get_xdata()
    assert (np.diff(seconds) > 0).all() and (tmp_path / "seconds.png").stat().st_size > 1000


def test_the_script_prints_both_forms(runs, tmp_path, capsys):
    assert run("report.py", runs / "three", runs / "one", "--curves", tmp_path / "c.png") == 0
    text = capsys.readouterr().out
    assert "three" in text and "0 1 2*" in text and f"wrote {tmp_path / 'c.png'}" in text
    assert run("report.py", runs / "one", "--markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| run ") and set(lines[1]) <= set("|-: ")
    assert len({line.count("|") for line in lines[:3]}) == 1


def test_prediction_files_are_scored_by_family(tmp_path, capsys):
    table = pd.DataFrame({"id": list("abcd"), "family": ["FlatVel_A"] * 3 + ["Style_A"]})
    truth = np.full((4, 70, 70), 2000, np.float32)
    save_predictions(tmp_path / "truth.npy", table, truth)
    shifts = np.array([10, 20, 30, 100], np.float32)[:, None, None]
    save_predictions(tmp_path / "net.npy", table[["id"]], truth + shifts)
    files = ["--predictions", f"net={tmp_path / 'net.npy'}", "--truth", tmp_path / "truth.npy"]
    assert run("report.py", *files) == 0
    found = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert found == [["FlatVel_A", "3", "20.00"], ["Style_A", "1", "100.00"], ["all", "4", "40.00"]]
    assert run("report.py", *files[:2]) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no config.yaml, expected a run folder"),
        (lambda p: p.joinpath("config.yaml").write_text("a: 1\n"), "nothing was trained here yet"),
    ],
)
def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys, make, message):
    make(tmp_path)
    assert run("report.py", tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error and str(tmp_path) in error and error.count("\n") == 1
    assert run("report.py") == 2
