"""The official layout, and the way of a prediction file to a score through the scripts."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cli import run

from comp.core.predictions import load_predictions, save_predictions
from comp.core.submission import read_submission, write_submission
from comp.fwi.submission import LAYOUT, FwiLayout
from comp.fwi.survey import OFFICIAL, Survey

IDS = ["000039dca2", "ffff000001", "0a0b0c0d0e", "8_y_3"]  # the last one looks like a row id


@pytest.fixture
def maps():
    """True and predicted maps, (4, 70, 70) float32, m/s."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(1500, 4500, (4, 70, 70)).astype(np.float32)
    return truth, (truth + rng.laplace(0, 30, truth.shape)).astype(np.float32)


@pytest.fixture
def files(tmp_path, maps):
    """Truth and, in another order, predictions."""
    truth, predicted = maps
    table = pd.DataFrame({"id": IDS, "family": ["Style_A", "FlatVel_B", "Style_A", "FlatVel_B"]})
    save_predictions(tmp_path / "truth.npy", table, truth)
    save_predictions(tmp_path / "p.npy", table[["id"]][::-1], predicted[::-1])
    return tmp_path / "truth.npy", tmp_path / "p.npy"


def test_the_official_header_and_row_ids():
    assert LAYOUT.header[:3] == ("oid_ypos", "x_1", "x_3") and LAYOUT.header[-1] == "x_69"
    assert len(LAYOUT.header) == 36 and LAYOUT.rows_per_id == 70
    row_ids = LAYOUT.row_ids(IDS).to_pylist()
    assert row_ids == [f"{oid}_y_{k}" for oid in IDS for k in range(70)]
    names, numbers = LAYOUT.split(pa.array(row_ids))
    assert names.to_pylist() == np.repeat(IDS, 70).tolist()
    assert numbers.tolist() == list(range(70)) * 4
    assert LAYOUT.row_ids([]).to_pylist() == []


@pytest.mark.parametrize(
    "row_id", ["a_y_70", "a_y_-1", "a_y_01", "a_y_", "a_3", "_y_3", "a_y_3 ", ""]
)
def test_malformed_row_ids_are_told_apart(row_id):
    names, numbers = LAYOUT.split(pa.array(["a_y_0", row_id]))
    assert names.to_pylist() == ["a", ""] and numbers.tolist() == [0, -1]


def test_another_survey_has_another_layout():
    small = FwiLayout(Survey(ny=3, nx=5, receiver_columns=tuple(range(5))))
    assert small.header == ("oid_ypos", "x_1", "x_3") and small.rows_per_id == 3
    values = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    rows = small.rows(small.columns(values), np.arange(len(values) * small.rows_per_id))
    assert rows.tolist() == [[1, 3], [6, 8], [11, 13], [16, 18], [21, 23], [26, 28]]


def test_the_rows_of_one_map_as_text(tmp_path):
    values = np.full((1, 70, 70), 3000, np.float32)
    values[0, 0, :4] = 1500, 1500.126, 2222, 4499.994
    save_predictions(tmp_path / "p.npy", pd.DataFrame({"id": ["000039dca2"]}), values)
    write_submission(tmp_path / "s.csv", load_predictions(tmp_path / "p.npy"), LAYOUT)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0].startswith("oid_ypos,x_1,x_3,x_5,") and lines[0].endswith(",x_67,x_69")
    assert lines[1] == "000039dca2_y_0,1500.13,4499.99" + ",3000" * 33
    assert lines[70] == "000039dca2_y_69" + ",3000" * 35 and len(lines) == 71


def test_rounding_keeps_every_value_within_half_a_hundredth(tmp_path, files, maps):
    ids = write_submission(tmp_path / "s.csv", load_predictions(files[1]), LAYOUT)
    read = read_submission(tmp_path / "s.csv", LAYOUT, ids)
    exact = maps[1][::-1, :, 1::2].astype(np.float64)
    # Above 4096 neighbouring float32 numbers are 0.0005 apart.
    assert np.abs(read - exact).max() <= 0.005 + 0.0005


def test_predictions_to_csv_to_score(tmp_path, files, maps, capsys):
    truth, predictions = files
    csv = tmp_path / "s.csv"
    assert run("submit.py", "--predictions", predictions, "--out", csv, "--decimals", 4) == 0
    assert f"checked {csv}: 280 rows of 4 ids" in capsys.readouterr().out
    assert run("score.py", "--submission", csv, "--truth", truth) == 0
    printed = capsys.readouterr().out
    error = np.abs(maps[1].astype(np.float64) - maps[0])[:, :, 1::2].mean((1, 2))
    assert float(printed.split()[-2]) == pytest.approx(error.mean(), abs=2e-4)
    by_family = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert by_family["Style_A"] == ["2", f"{error[[0, 2]].mean():.2f}"]
    assert by_family["FlatVel_B"] == ["2", f"{error[[1, 3]].mean():.2f}"]
    assert by_family["all"] == ["4", f"{error.mean():.2f}"]


def test_row_order_does_not_change_the_score(tmp_path, files, capsys):
    truth, predictions = files
    csv = tmp_path / "s.csv"
    run("submit.py", "--predictions", predictions, "--out", csv)
    header, *rows = csv.read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([header, *sorted(rows)]) + "\n")
    capsys.readouterr()
    scores = []
    for path in (csv, tmp_path / "turned.csv"):
        assert run("score.py", "--submission", path, "--truth", truth) == 0
        scores.append(capsys.readouterr().out.split()[-2])
    assert scores[0] == scores[1]
    assert run("submit.py", "--check", tmp_path / "turned.csv") == 2
    assert "line 4: row id '000039dca2_y_10', expected '000039dca2_y_2'" in capsys.readouterr().err


def test_truth_may_be_a_submission_csv(tmp_path, files, capsys):
    truth, predictions = files
    for source, name in ((truth, "truth.csv"), (predictions, "s.csv")):
        run("submit.py", "--predictions", source, "--out", tmp_path / name, "--decimals", 4)
    scores = []
    for path in (truth, tmp_path / "truth.csv"):
        capsys.readouterr()
        assert run("score.py", "--submission", tmp_path / "s.csv", "--truth", path) == 0
        scores.append(float(capsys.readouterr().out.split()[-2]))
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:-1], "s.csv: 1 of 280 rows missing, first '000039dca2_y_69'"),
        (lambda s: [*s, s[-1]], "s.csv: line 282: row id '000039dca2_y_69' stands there twice"),
        (lambda s: [*s, s[-1].replace("_y_69", "_y_70")], "row id '000039dca2_y_70' is unknown"),
        (
            lambda s: [*s[:-1], s[-1].split(",")[0] + ",9999" * 35],
            "value 9999, expected 1000..6000",
        ),
    ],
)
def test_score_refuses_in_one_line(tmp_path, files, capsys, change, message):
    truth, predictions = files
    csv = tmp_path / "s.csv"
    run("submit.py", "--predictions", predictions, "--out", csv)
    csv.write_text("\n".join(change(csv.read_text().splitlines())) + "\n")
    assert run("score.py", "--submission", csv, "--truth", truth) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_submit_follows_and_checks_the_sample(tmp_path, files, capsys):
    truth, predictions = files
    sample, csv = tmp_path / "sample.csv", tmp_path / "s.csv"
    run("submit.py", "--predictions", truth, "--out", sample)
    assert run("submit.py", "--predictions", predictions, "--out", csv, "--sample", sample) == 0
    assert run("submit.py", "--check", csv, "--sample", sample) == 0
    firsts = [line.split(",")[0] for line in csv.read_text().splitlines()[1::70]]
    assert firsts == [f"{oid}_y_0" for oid in IDS]
    sample.write_text(sample.read_text().replace("8_y_3_y_", "9_y_3_y_"))
    capsys.readouterr()
    assert run("submit.py", "--check", csv, "--sample", sample) == 2
    assert "s.csv: line 212: row id '8_y_3_y_0', expected '9_y_3_y_0'" in capsys.readouterr().err
    assert run("submit.py", "--predictions", predictions, "--out", csv, "--sample", sample) == 2
    assert "1 of 4 ids missing, first '9_y_3'" in capsys.readouterr().err


@pytest.mark.parametrize("velocity", [np.nan, np.inf, 999.0, 6001.0])
def test_submit_refuses_what_is_no_velocity(tmp_path, files, maps, capsys, velocity):
    values = maps[1].copy()
    values[2, 7, 8] = velocity  # an even column, which is not even written
    save_predictions(files[1], pd.DataFrame({"id": IDS}), values)
    assert run("submit.py", "--predictions", files[1], "--out", tmp_path / "s.csv") == 2
    assert "id '0a0b0c0d0e': value" in capsys.readouterr().err
    assert not list(tmp_path.glob("s.csv*"))


def test_clip_keeps_to_the_survey(tmp_path, files, capsys):
    csv = tmp_path / "s.csv"
    assert run("submit.py", "--predictions", files[1], "--out", csv, "--clip") == 0
    assert "values outside 1500..4500 clipped: " in capsys.readouterr().out
    read = read_submission(csv, LAYOUT, IDS)
    assert read.min() == OFFICIAL.min_velocity and read.max() == OFFICIAL.max_velocity


@pytest.mark.parametrize("script", ["ensemble.py", "submit.py", "score.py"])
def test_help(script, capsys):
    assert run(script, "--help") == 0
    assert f"python scripts/{script}" in capsys.readouterr().out
