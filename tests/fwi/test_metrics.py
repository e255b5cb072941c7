"""The metric and the baselines against plain loops and brute force."""

import numpy as np
import pandas as pd
import pytest

from comp.core.errors import InputError
from comp.core.predictions import load_predictions, save_predictions
from comp.core.submission import write_submission
from comp.fwi import metrics, plots
from comp.fwi.metrics import competition_mae, fit_baselines, mae_table, sample_mae, streamed_mae
from comp.fwi.scoring import draw_extremes, family_table, score_submission
from comp.fwi.submission import LAYOUT


class Store:
    """Velocity maps in memory, read as a prepared folder is."""

    def __init__(self, maps):
        self.maps = maps

    def __len__(self):
        return len(self.maps)

    def velocities(self, rows):
        return self.maps[rows]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK", 3)


@pytest.fixture
def maps():
    """(7, 70, 70) true and predicted, m/s."""
    rng = np.random.default_rng(0)
    truth = np.rint(rng.gamma(2, 400, (7, 70, 70)) + 1500).clip(1500, 4500).astype(np.float32)
    return truth, (truth + rng.laplace(0, 40, truth.shape)).astype(np.float32)


def test_mae_counts_every_row_and_the_odd_columns(maps):
    truth, predicted = (m[:2] for m in maps)
    total, count = 0.0, 0
    for sample in range(2):
        for y in range(70):
            for x in range(1, 70, 2):
                total += abs(float(predicted[sample, y, x]) - float(truth[sample, y, x]))
                count += 1
    assert count == 2 * 70 * 35
    assert competition_mae(predicted, truth) == pytest.approx(total / count, rel=1e-6)


def test_even_columns_do_not_count(maps):
    truth, predicted = maps
    spoilt = predicted.copy()
    spoilt[..., ::2] = 9e9
    assert competition_mae(spoilt, truth) == competition_mae(predicted, truth)


def test_streamed_in_chunks_is_the_same(maps):
    truth, predicted = (m[..., 1::2] for m in maps)
    expected = sample_mae(predicted, truth)
    assert expected.shape == (7,) and expected.mean() == pytest.approx(competition_mae(*maps))
    np.testing.assert_array_equal(streamed_mae(predicted, truth), expected)
    np.testing.assert_array_equal(
        streamed_mae(predicted[0], truth), sample_mae(predicted[:1], truth)
    )
    np.testing.assert_array_equal(
        streamed_mae(np.array(3000.0), truth), np.abs(truth - 3000).mean((1, 2), dtype=np.float64)
    )


def test_the_constant_is_the_best_of_all_and_the_mean_map_the_mean(maps):
    truth, _ = maps
    found = fit_baselines(Store(truth))
    best = min(competition_mae(np.full_like(truth, v), truth) for v in range(1500, 4501))
    mine = competition_mae(np.full_like(truth, found.constant), truth)
    assert mine == pytest.approx(best, rel=1e-12)
    np.testing.assert_allclose(found.mean_map, truth.mean(0, dtype=np.float64), rtol=1e-12)


def test_table_by_family():
    errors = {"a": np.array([1.0, 2.0, 6.0]), "b": np.array([0.0, 4.0, 5.0])}
    table = mae_table(np.array(["Y", "X", "Y"]), errors)
    expected = pd.DataFrame(
        {"samples": [1, 2, 3], "a": [2.0, 3.5, 3.0], "b": [4.0, 2.5, 3.0]}, ["X", "Y", "all"]
    )
    pd.testing.assert_frame_equal(table, expected)
    assert mae_table(None, errors).index.tolist() == ["all"]


@pytest.fixture
def scored(tmp_path, maps):
    truth, predicted = maps
    table = pd.DataFrame({"id": list("gfedcba"), "family": ["FlatVel_A"] * 3 + ["Style_B"] * 4})
    save_predictions(tmp_path / "truth.npy", table, truth)
    save_predictions(tmp_path / "p.npy", table[["id"]], predicted)
    write_submission(tmp_path / "s.csv", load_predictions(tmp_path / "p.npy"), LAYOUT)
    return score_submission(tmp_path / "s.csv", tmp_path / "truth.npy", LAYOUT)


def test_score_table_beside_the_baselines(maps, scored):
    truth, predicted = maps
    assert scored.mae == pytest.approx(competition_mae(predicted, truth), abs=0.01)
    train = Store(np.roll(truth, 5, axis=2))
    baselines = fit_baselines(train)
    table = family_table(scored, baselines, LAYOUT)
    constant, mean = np.full_like(truth, baselines.constant), baselines.mean_map[None] + 0 * truth
    assert table.columns.tolist()[2:] == [f"constant {baselines.constant:g}", "mean map"]
    for name, rows in (("FlatVel_A", slice(3)), ("Style_B", slice(3, 7)), ("all", slice(7))):
        expected = [competition_mae(m[rows], truth[rows]) for m in (predicted, constant, mean)]
        np.testing.assert_allclose(table.loc[name].iloc[1:], expected, atol=0.01)


def test_truth_that_is_not_full_maps_is_refused(tmp_path, scored):
    save_predictions(tmp_path / "t.npy", scored.truth.table, np.zeros((7, 70, 35), np.float32))
    with pytest.raises(InputError, match=r"t.npy: maps \(70, 35\), expected \(70, 70\)"):
        score_submission(tmp_path / "s.csv", tmp_path / "t.npy", LAYOUT)
    values = np.array(scored.truth.values)
    values[4, 3, 3] = np.nan
    save_predictions(tmp_path / "t.npy", scored.truth.table, values)
    with pytest.raises(InputError, match="t.npy: id 'c' holds NaN"):
        score_submission(tmp_path / "s.csv", tmp_path / "t.npy", LAYOUT)


def test_the_picture_shows_worst_median_and_best(tmp_path, monkeypatch, maps, scored):
    truth, predicted = maps
    drawn = []
    draw = plots.prediction_panels

    def keep(path, titles, truth, prediction, **how):
        drawn.append((titles, np.array(truth), np.array(prediction)))
        draw(path, titles, truth, prediction, **how)

    monkeypatch.setattr(plots, "prediction_panels", keep)
    order = np.argsort(scored.errors)[[6, 3, 0]]
    draw_extremes(tmp_path / "a.png", scored, LAYOUT, predictions=tmp_path / "p.npy")
    draw_extremes(tmp_path / "b.png", scored, LAYOUT)
    for titles, true, _ in drawn:
        assert [title.split()[0] for title in titles] == ["gfedcba"[i] for i in order]
        np.testing.assert_array_equal(true[..., 1::2], truth[order][..., 1::2])
    np.testing.assert_array_equal(drawn[0][1], truth[order])
    np.testing.assert_array_equal(drawn[0][2], predicted[order])
    full_width_error = np.abs(drawn[1][2] - drawn[1][1]).mean((1, 2))
    np.testing.assert_allclose(full_width_error, scored.errors[order], rtol=1e-5)
    np.testing.assert_array_equal(drawn[1][2][..., 1::2], scored.submitted[order])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
