import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from comp.core.errors import InputError
from comp.fwi.plots import gather, maps_grid, prediction_panels
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


def test_failed_write_leaves_nothing_behind(tmp_path, velocity, monkeypatch):
    def full_disk(self, file, **options):
        file.write_bytes(b"\x89PNG half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(InputError, match=r"a\.png: not written: No space left"):
        maps_grid(tmp_path / "a.png", {"row": velocity})
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_not_imported():
    code = "import sys, comp.fwi.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
