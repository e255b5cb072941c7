"""Pictures from files, through scripts/plot.py: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cli import run

from comp.core.files import save_npy
from comp.core.predictions import save_predictions
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import generate
from comp.fwi.wave import simulate

IDS = ["a", "b", "c", "d"]


@pytest.fixture
def files(tmp_path):
    """Truth of four samples, a start in another order, a refined one with its misfits."""
    truth = generate("CurveVel_A", 4, 0)
    table = pd.DataFrame({"id": IDS, "family": ["F", "F", "G", "G"]})
    errors = np.array([10, 40, 30, 20], np.float32)[:, None, None]
    save_predictions(tmp_path / "truth.npy", table, truth)
    save_predictions(tmp_path / "start.npy", table[["id"]][::-1], (truth + 100)[::-1])
    save_predictions(tmp_path / "refined.npy", table, truth + errors)
    save_npy(tmp_path / "refined.misfit.npy", np.full((4, 3), 0.5, np.float32))
    return tmp_path


@pytest.fixture
def plot(files, capsys, monkeypatch, saved_figures):
    """Run scripts/plot.py among the files: (exit code, figure or None, last line of errors)."""
    monkeypatch.chdir(files)

    def call(*arguments):
        code = run("plot.py", *arguments, "--out", "out.png")
        lines = capsys.readouterr().err.splitlines()
        assert (code == 0) == Path("out.png").exists()
        return code, saved_figures[-1] if saved_figures else None, lines[-1] if lines else ""

    return call


def titles(figure):
    return [panel.get_title() for panel in figure.axes if panel.get_images()]


def test_maps_show_worst_median_and_best(plot):
    code, figure, _ = plot(
        "maps", "--stage", "start=start.npy", "refined=refined.npy", "--truth", "truth.npy"
    )
    assert code == 0
    assert titles(figure) == [
        *("b F\nstart, MAE 100 m/s", "refined, MAE 40 m/s", "truth"),
        *("c G\nstart, MAE 100 m/s", "refined, MAE 30 m/s", "truth"),
        *("a F\nstart, MAE 100 m/s", "refined, MAE 10 m/s", "truth"),
    ]


def test_maps_by_id(plot):
    _, figure, _ = plot("maps", "--stage", "start=start.npy", "--ids", "c")
    assert titles(figure) == ["c\nstart"]
    truth = np.load("truth.npy")
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array(), truth[2] + 100)


def test_gathers_compare_a_record_with_that_of_a_map(plot, files):
    velocity = np.load("truth.npy")
    record = simulate(torch.from_numpy(velocity[1:2]), OFFICIAL)[0].numpy()
    save_npy("b.npy", record)
    code, figure, _ = plot("gathers", "--record", "b.npy", "--velocity", "truth.npy")
    assert code == 0
    assert titles(figure)[:3] == ["observed, shot at 0 m", "modelled, misfit 0", "residual"]
    save_npy("map.npy", velocity[0])
    _, figure, _ = plot("gathers", "--record", "b.npy", "--velocity", "map.npy")
    named = plot("gathers", "--record", "b.npy", "--velocity", "truth.npy", "--id", "a")[1]
    assert titles(figure) == titles(named)
    assert not titles(figure)[1].endswith("misfit 0")


def test_curves_take_families_from_the_predictions(plot):
    code, figure, _ = plot("curves", "--misfit", "refined.misfit.npy")
    assert code == 0
    assert [panel.get_title() for panel in figure.axes] == ["F, 2 samples", "G, 2 samples"]


def test_bars_are_the_competitions_error_aligned_by_id(plot, capsys):
    code, figure, _ = plot(
        "bars", "--truth", "truth.npy", "--result", "start=start.npy", "refined=refined.npy"
    )
    assert code == 0
    heights = [bar.get_height() for bars in figure.axes[0].containers for bar in bars]
    np.testing.assert_allclose(heights, [100, 100, 100, 25, 25, 25], rtol=1e-5)


BAD = {
    "form": (["maps", "--stage", "start.npy"], "'start.npy': expected name=file.npy"),
    "twice": (["maps", "--stage", "a=start.npy", "a=refined.npy"], "each name once"),
    "id": (["maps", "--stage", "a=start.npy", "--ids", "x"], "start.npy: 1 of 1 ids missing"),
    "shape": (["maps", "--stage", "a=cut.npy"], "cut.npy: shape (4, 70, 69), expected (n, 70, 70"),
    "record": (["gathers", "--record", "truth.npy", "--velocity", "truth.npy"], "truth.npy: shape"),
    "no id": (
        ["gathers", "--record", "r.npy", "--velocity", "truth.npy"],
        "truth.npy: 1 of 1 ids missing, first 'r'",
    ),
    "lone id": (
        ["gathers", "--record", "r.npy", "--velocity", "slow.npy", "--id", "a"],
        "slow.ids.csv: no such file, so no id 'a'",
    ),
    "km/s": (
        ["gathers", "--record", "r.npy", "--velocity", "slow.npy"],
        "slow.npy: velocity[0]: 2.5 … 2.5 m/s, which looks like km/s",
    ),
    "misfit": (["curves", "--misfit", "refined.npy"], "expected a file <stem>.misfit.npy"),
    "rows": (["curves", "--misfit", "start.misfit.npy"], "2 rows for 4 of start.npy"),
    "missing": (["bars", "--truth", "truth.npy", "--result", "a=no.npy"], "no.npy: no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_line(case, plot):
    arguments, message = BAD[case]
    save_predictions("cut.npy", pd.DataFrame({"id": IDS}), np.ones((4, 70, 69), np.float32))
    save_npy("r.npy", np.random.default_rng(0).normal(size=OFFICIAL.record_shape))
    save_npy("slow.npy", np.full((70, 70), 2.5))
    save_npy("start.misfit.npy", np.ones((2, 3)))
    code, _, error = plot(*arguments)
    assert code == 2 and error.startswith("error: ") and message in error
