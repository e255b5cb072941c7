import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from comp.core.errors import InputError
from comp.fwi.plots import maps_grid, prediction_panels, velocity_panels
from comp.fwi.plots_base import GATHER_PERCENTILE
from comp.fwi.plots_gathers import gather, residual_gain, residual_panels
from comp.fwi.plots_statistics import family_bars, misfit_curves
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import generate

RNG = np.random.default_rng(0)


@pytest.fixture
def velocity():
    return generate("CurveVel_A", 2, 0)


def picture(path):
    """(height, width, 3) pixels of a PNG that shows something."""
    pixels = imread(path, format="png")[..., :3]
    assert pixels.std() > 0.1
    return pixels


def test_prediction_panels_grow_with_samples_and_records(tmp_path, velocity):
    guess = velocity + RNG.normal(0, 100, velocity.shape)
    shots = RNG.normal(size=(2, 5, 1000, 70)).astype(np.float16)
    prediction_panels(tmp_path / "one.png", ["a"], velocity[:1], guess[:1])
    prediction_panels(tmp_path / "two.png", ["a", "b"], velocity, guess)
    prediction_panels(tmp_path / "all.png", ["a", "b"], velocity, guess, shots)
    one, two, both = (picture(tmp_path / f"{name}.png") for name in ("one", "two", "all"))
    assert one.shape[0] < two.shape[0] == both.shape[0]
    assert one.shape[1] == two.shape[1] < both.shape[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.png", "one.png", "two.png"]


def test_errors_are_drawn_on_a_symmetric_scale(tmp_path, velocity):
    # Red where the prediction is too fast, blue where it is too slow by as much, mirror images.
    half = np.where(np.arange(70) < 35, 200, -200)
    prediction_panels(tmp_path / "a.png", ["a"], velocity[:1], velocity[:1] + half)
    prediction_panels(tmp_path / "b.png", ["a"], velocity[:1], velocity[:1] - half)
    reddest, bluest = (0.404, 0.0, 0.122), (0.020, 0.188, 0.380)  # the ends of RdBu_r
    share = {}
    for name in "ab":
        pixels = picture(tmp_path / f"{name}.png")
        share[name] = [np.all(np.abs(pixels - c) < 0.01, axis=2).sum() for c in (reddest, bluest)]
    assert min(share["a"] + share["b"]) > 1000
    assert share["a"] == pytest.approx(share["b"], rel=0.05)


def test_exact_prediction_and_silent_record_are_drawn(tmp_path, velocity):
    prediction_panels(
        tmp_path / "a.png", ["a", "b"], velocity, velocity, np.zeros((2, 5, 1000, 70))
    )
    picture(tmp_path / "a.png")


def test_maps_grid_takes_rows_of_different_length(tmp_path, velocity):
    maps_grid(tmp_path / "a.png", {"two": velocity, "one": velocity[:1]})
    picture(tmp_path / "a.png")


def test_gather(tmp_path):
    gather(tmp_path / "a.png", RNG.normal(size=(1000, 70)), "shot at 0 m")
    picture(tmp_path / "a.png")


def test_wrong_shapes_are_named_and_nothing_is_written(tmp_path, velocity):
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match=r"truth: shape \(2, 70, 70\), expected \(1, 70, 70\)"):
        prediction_panels(path, ["a"], velocity, velocity)
    with pytest.raises(InputError, match="prediction: shape"):
        prediction_panels(path, ["a", "b"], velocity, velocity[:, :, 1:])
    with pytest.raises(InputError, match="shots: shape"):
        prediction_panels(path, ["a", "b"], velocity, velocity, np.zeros((2, 1000, 70)))
    with pytest.raises(InputError, match="row: shape"):
        maps_grid(path, {"row": velocity[:, 1:]})
    with pytest.raises(InputError, match="record: shape"):
        gather(path, np.zeros((70, 1000)))
    assert list(tmp_path.iterdir()) == []


# --- what is drawn, read off the figure


@pytest.fixture
def drawn(saved_figures, tmp_path):
    """Call a picture function; returns the figure that it wrote, checked to be a picture."""

    def draw(function, *arguments, **options):
        function(tmp_path / "a.png", *arguments, **options)
        picture(tmp_path / "a.png")
        return saved_figures[-1]

    return draw


def images(figure):
    """[(title, image)] of every panel that holds one, in order."""
    panels = [panel for panel in figure.axes if panel.get_images()]
    return [(panel.get_title(), panel.get_images()[0]) for panel in panels]


def test_velocity_panels_share_one_scale_in_metres(drawn, velocity):
    start, end = velocity + 100, velocity - 4
    figure = drawn(velocity_panels, ["a", "b"], {"start": start, "refined": end}, velocity)
    found = images(figure)
    assert [title for title, _ in found[:3]] == [
        "a\nstart, MAE 100 m/s",
        "refined, MAE 4.0 m/s",
        "truth",
    ]
    for (_, image), expected in zip(found, [start[0], end[0], velocity[0], start[1]]):
        np.testing.assert_array_equal(image.get_array(), expected)
        assert image.get_clim() == (1500, 4500) and image.get_extent() == [0, 700, 700, 0]
    lowest = figure.axes[3]
    assert (lowest.get_xlabel(), lowest.get_ylabel()) == ("distance (m)", "depth (m)")
    without = images(drawn(velocity_panels, ["a", "b"], {"start": start}))
    assert [title for title, _ in without] == ["a\nstart", "b\nstart"]


def test_residuals_are_clipped_like_the_records(drawn):
    observed = RNG.normal(size=OFFICIAL.record_shape).astype(np.float32)
    modelled = observed * np.float32(0.99)
    modelled[:, -1] = 1e3  # the last step of official records is not reliable, and not counted
    found = images(drawn(residual_panels, observed, modelled, shots=[1, 4]))
    limit = np.percentile(np.abs(observed[[1, 4], :-1]), GATHER_PERCENTILE)
    assert [title for title, _ in found] == [
        "observed, shot at 170 m",
        "modelled, misfit 0.01",
        "residual × 100",
        "observed, shot at 690 m",
        "modelled, misfit 0.01",
        "residual × 100",
    ]
    for _, image in found:
        np.testing.assert_allclose(image.get_clim(), (-limit, limit), rtol=1e-6)
        assert image.get_extent() == [-5, 695, 1, 0]  # receivers in m, time in s downwards
    np.testing.assert_array_equal(found[3][1].get_array(), observed[4])
    np.testing.assert_allclose(
        found[2][1].get_array()[:-1], -observed[1, :-1], rtol=1e-3, atol=1e-4
    )


def test_a_residual_as_large_as_the_record_is_not_magnified(drawn):
    record = RNG.normal(size=OFFICIAL.record_shape)
    found = images(drawn(residual_panels, record, np.zeros_like(record)))
    assert [title for title, _ in found[:3]] == [
        "observed, shot at 0 m",
        "modelled, misfit 1",
        "residual",
    ]
    assert len(found) == 9
    exact = images(drawn(residual_panels, record, record, shots=[0]))
    assert exact[2][0] == "residual"
    assert residual_gain(np.full(9, 0.012), 1.0) == 50


def test_misfit_curves_carry_stopped_samples_on(drawn):
    misfit = np.array([[1, 0.1, np.nan, np.nan], [1, 0.5, 0.4, 0.3], [0.2, 0.2, 0.1, 0.01]])
    figure = drawn(misfit_curves, misfit, np.array(["F", "F", "S"]), across="iterations")
    first, second = figure.axes
    assert [a.get_title() for a in figure.axes] == ["F, 2 samples", "S, 1 samples"]
    assert first.get_yscale() == "log"
    assert (first.get_xlabel(), first.get_ylabel()) == ("iterations", "relative misfit")
    np.testing.assert_allclose(first.lines[0].get_ydata(), [1, 0.3, 0.25, 0.2])
    np.testing.assert_allclose(second.lines[0].get_ydata(), misfit[2])
    band = first.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.12) and band[:, 1].max() == 1
    assert [t.get_text() for t in first.texts] == ["1.0e+00 → 2.0e-01"]
    (alone,) = drawn(misfit_curves, misfit).axes
    assert alone.get_title() == "all, 3 samples"


def test_misfit_curves_of_ten_families_are_all_drawn(drawn):
    families = np.repeat([f"F{i}" for i in range(10)], 3)
    figure = drawn(misfit_curves, RNG.uniform(0.1, 1, (30, 5)), families)
    used = [panel for panel in figure.axes if panel.lines]
    assert [panel.get_title()[:2] for panel in used] == [f"F{i}" for i in range(10)]
    assert [i for i, panel in enumerate(used) if panel.get_xlabel()] == [6, 7, 8, 9]


def test_family_bars_show_means_and_spread(drawn):
    families = np.array(["B"] * 11 + ["A"])
    errors = {"network": np.array([*np.arange(11.0), 30]), "refined": np.full(12, 0.5)}
    (axes,) = drawn(family_bars, families, errors).axes
    heights = [bar.get_height() for bars in axes.containers for bar in bars]
    np.testing.assert_allclose(heights, [30, 5, 85 / 12, 0.5, 0.5, 0.5])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A\n1", "B\n11", "all\n12"]
    assert [t.get_text() for t in axes.texts] == ["30", "5.0", "7.1", "0.5", "0.5", "0.5"]
    ends = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]
    assert ends[:2] == [[30, 30], [1, 9]]
    assert axes.get_ylabel() == "MAE (m/s)" and axes.get_ylim()[0] == 0
    (alone,) = drawn(family_bars, None, errors).axes
    assert [t.get_text() for t in alone.get_xticklabels()] == ["all\n12"]


RECORD = np.ones(OFFICIAL.record_shape)
SILENT, HOLED = RECORD.copy(), RECORD.copy()
SILENT[2], HOLED[0, 0, 0] = 0, np.nan
ONE = {"a": np.ones(3)}
BAD = {
    "no stages": (velocity_panels, (["a"], {}), "stages: none given"),
    "map": (velocity_panels, (["a"], {"s": np.ones((1, 70, 69))}), r"s: shape \(1, 70, 69\)"),
    "truth": (velocity_panels, (["a"], {"s": np.ones((1, 70, 70))}, np.ones((70, 70))), "truth: s"),
    "observed": (residual_panels, (RECORD[1:], RECORD), r"observed: shape \(4, 1000, 70\)"),
    "modelled": (residual_panels, (RECORD, RECORD[:, 1:]), "modelled: shape"),
    "holed": (residual_panels, (RECORD, HOLED), "modelled: holds NaN"),
    "shot": (residual_panels, (RECORD, RECORD, [5]), "shot 5: expected 0 … 4"),
    "silent": (residual_panels, (SILENT, RECORD, [2]), "observed: shot 2 is silent"),
    "curve": (misfit_curves, (np.ones(3),), r"misfit: shape \(3,\), expected \(samples, evalu"),
    "families": (misfit_curves, (np.ones((3, 2)), np.array(["a"])), r"families: shape \(1,\)"),
    "no start": (misfit_curves, ([[1, 1], [np.nan, 1]],), "misfit: row 1 begins with nan"),
    "zero": (misfit_curves, ([[1, 0.5], [1, 0]],), "misfit: row 1 holds 0, expected above 0"),
    "no errors": (family_bars, (None, {}), "errors: none given"),
    "no samples": (family_bars, (None, {"a": np.ones(0)}), "errors: none given"),
    "lengths": (family_bars, (np.array(["F"] * 2), ONE), r"a: shape \(3,\), expected \(2,\)"),
    "bad error": (family_bars, (None, {"a": np.array([1, np.nan])}), "a: the error of row 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_named(case, tmp_path):
    function, arguments, message = BAD[case]
    with pytest.raises(InputError, match=message) as error:
        function(tmp_path / "a.png", *arguments)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_failed_write_leaves_nothing_behind(tmp_path, velocity, monkeypatch):
    def full_disk(self, file, **options):
        file.write_bytes(b"\x89PNG half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(InputError, match=r"a\.png: not written: No space left"):
        maps_grid(tmp_path / "a.png", {"row": velocity})
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_not_imported():
    code = "import sys, comp.fwi.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
