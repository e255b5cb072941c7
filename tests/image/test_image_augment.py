"""Pipelines: what is drawn depends on the seed alone, and images come out as the config says."""

import os
import pickle
import subprocess
import sys

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.augmentations.geometric.functional import d4

from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.image.augment import (
    AugmentConfig,
    plain_transform,
    training_transform,
    view_images,
    view_names,
)
from comp.image.window import Window

CHANGES = {  # each on its own, and what else it needs
    "window": {"window": (0.3, 0.5)},
    "stretch": {"window": (1, 1), "stretch": 2},
    "flip": {"flip": 1},
    "flip_vertical": {"flip_vertical": 1},
    "turn": {"turn": 1},
    "rotate": {"affine": 1, "shift": 0},
    "shift": {"affine": 1, "rotate": 0, "shift": 0.3},
    "shear": {"affine": 1, "rotate": 0, "shift": 0, "shear": 30},
    "zoom": {"affine": 1, "rotate": 0, "shift": 0, "zoom": 0.3},
    "distort": {"distort": 1},
    "brightness": {"colour": 1, "contrast": 0, "saturation": 0, "hue": 0},
    "contrast": {"colour": 1, "brightness": 0, "saturation": 0, "hue": 0},
    "saturation": {"colour": 1, "brightness": 0, "contrast": 0, "hue": 0},
    "hue": {"colour": 1, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.1},
    "blur": {"blur": 1},
    "noise": {"noise": 1},
    "jpeg": {"jpeg": 1},
    "holes": {"holes": 1},
}
OFF = {"window": None, "stretch": 1, "flip": 0, "colour": 0}
EVERYTHING = {
    "flip_vertical": 0.5,
    "turn": 0.5,
    "affine": 0.5,
    "distort": 0.5,
    "blur": 0.5,
    "noise": 0.5,
    "jpeg": 0.5,
    "holes": 0.5,
}


def config(**values):
    return parse_config(AugmentConfig, values, "test")


def photo(height=60, width=80, channels=3, seed=0):
    """Smooth colours with some detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, channels), np.uint8)
    image = coarse.repeat(height // 6 + 1, 0).repeat(width // 8 + 1, 1)[:height, :width]
    return (image // 2 + rng.integers(0, 128, image.shape)).astype(np.uint8)


def quadrants(height, width):
    """Grey levels that tell where a pixel comes from: 0 and 60 above, 120 and 180 below."""
    image = np.zeros((height, width, 1), np.uint8)
    image[:, width // 2 :] += 60
    image[height // 2 :] += 120
    return image


# --- what is drawn


def test_equal_seeds_draw_alike_whatever_ran_before():
    transform = training_transform(config(**EVERYTHING), (48, 48), 3)
    image = photo()
    first = [transform(image, seed) for seed in range(30)]
    again = pickle.loads(pickle.dumps(transform))
    np.random.seed(1)
    for seed in reversed(range(30)):
        np.testing.assert_array_equal(again(image, seed), first[seed])
    assert len({x.tobytes() for x in first}) == 30
    np.testing.assert_array_equal(image, photo())  # it was not written to


def test_what_is_drawn_for_one_change_says_nothing_about_the_next():
    # Seeded by albumentations' own set_random_seed, an image is flipped both ways or neither.
    changes = config(**OFF | {"flip": 0.5, "flip_vertical": 0.5})
    transform = training_transform(changes, (8, 8), 1)
    corners = [int(transform(quadrants(8, 8), seed)[0, 0, 0]) for seed in range(400)]
    counts = {corner: corners.count(corner) for corner in (0, 60, 120, 180)}
    assert sum(counts.values()) == 400 and all(70 < n < 130 for n in counts.values()), counts
    faulty = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    seen = set()
    for seed in range(20):
        faulty.set_random_seed(seed)
        seen.add(int(faulty(image=quadrants(8, 8))["image"][0, 0, 0]))
    assert seen == {0, 180}  # the fault that is worked around


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_images_and_can_be_off(name):
    image, plain = photo(), plain_transform(config(), (48, 48))(photo())
    off = training_transform(config(**OFF), (48, 48), 3)
    np.testing.assert_array_equal(off(image, 3), plain)
    on = training_transform(config(**OFF | CHANGES[name]), (48, 48), 3)
    drawn = [on(image, seed).astype(int) for seed in range(8)]
    assert sum(np.abs(x - plain).max() > 4 for x in drawn) >= 4  # strengths near 0 are drawn too
    if name not in ("flip", "flip_vertical"):
        assert len({x.tobytes() for x in drawn}) > 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("fill", [None, 200])
def test_any_image_comes_out_in_the_network_size(channels, fit, fill):
    changes = EVERYTHING | {"turn": 0, "jpeg": 0.5 if channels in (1, 3) else 0}
    how = config(**changes | {"fit": fit, "fill": fill})
    for transform in (plain_transform(how, (33, 57)), training_transform(how, (33, 57), channels)):
        for height, width in [(20, 20), (33, 57), (200, 40), (1, 1)]:
            for seed in range(4):
                out = transform(photo(height, width, channels), seed)
                assert out.shape == (33, 57, channels) and out.dtype == np.uint8


# --- the window


def test_squash_crop_and_pad():
    image = quadrants(40, 80)  # shown square: 40 columns go at each side, or 20 rows come
    squash, crop, pad = (
        plain_transform(config(fit=fit, fill=99), (40, 40))(image)[:, :, 0]
        for fit in ("squash", "crop", "pad")
    )
    assert squash[0, 0] == 0 and squash[-1, -1] == 180
    np.testing.assert_array_equal(crop, image[:, 20:60, 0])
    assert (pad[:10] == 99).all() and (pad[-10:] == 99).all() and pad[10, 0] == 0
    mirrored = plain_transform(config(fit="pad"), (40, 40))(image)[:, :, 0]
    np.testing.assert_array_equal(mirrored[:10], mirrored[10:20][::-1])


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_windows_lie_in_the_image_and_have_the_share_that_was_asked_for(fit):
    window = Window((30, 60), fit, (0.25, 0.5), stretch=1.2)
    padded = {"squash": (900, 1000), "crop": (900, 1000), "pad": (900, 1800)}[fit]
    whole = {"squash": 900 * 1000, "crop": 500 * 1000, "pad": 900 * 1800}[fit]
    aspect = {"squash": 0.9, "crop": 0.5, "pad": 0.5}[fit]
    shares, aspects, places = [], [], []
    for seed in range(300):
        window.set_random_seed(seed)
        drawn = window.get_params_dependent_on_data({"shape": (900, 1000, 3)}, {})["window"]
        top, left, tall, wide = drawn
        assert top >= 0 and left >= 0 and top + tall <= padded[0] and left + wide <= padded[1]
        shares.append(tall * wide / whole)
        aspects.append(tall / wide / aspect)
        places.append((top / (padded[0] - tall), left / (padded[1] - wide)))
    assert 0.249 < min(shares) < 0.26 and 0.49 < max(shares) < 0.501
    assert 1 / 1.21 < min(aspects) < 1 / 1.18 and 1.18 < max(aspects) < 1.21
    assert np.min(places, 0).max() < 0.02 and np.max(places, 0).min() > 0.98


def test_an_image_as_large_as_asked_for_is_never_enlarged():
    transform = training_transform(config(window=(0.2, 1.0), stretch=1.3), (40, 70), 3)
    window = Window((40, 70), "squash", (0.2, 1.0), 1.3)
    assert transform.least == window.least
    for seed in range(300):
        window.set_random_seed(seed)
        shape = {"shape": (*window.least, 3)}
        _, _, tall, wide = window.get_params_dependent_on_data(shape, {})["window"]
        assert tall >= 40 and wide >= 70
    assert plain_transform(config(), (40, 70)).least == (40, 70)


@pytest.mark.parametrize("height, width", [(40, 40), (60, 60), (88, 88), (24, 88), (88, 20)])
def test_shrinking_averages(height, width):
    checks = 255 * ((np.arange(height)[:, None] + np.arange(width)) % 2)
    out = plain_transform(config(), (20, 20))(checks.astype(np.uint8)[:, :, None])
    # By a factor of 2 or more linear interpolation alone would show checks of 0 and 255.
    assert out.min() > 60 and out.max() < 195


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("change", ["shift", "distort", "holes", "pad"])
def test_what_is_filled_is_filled_in_all_channels(channels, change):
    black = np.zeros((40, 80, channels), np.uint8)
    values = {} if change == "pad" else CHANGES[change]
    how = config(**OFF | {"fill": 200, "fit": "pad" if change == "pad" else "squash"} | values)
    drawn = np.stack([training_transform(how, (32, 32), channels)(black, s) for s in range(20)])
    assert set(np.unique(drawn)) >= {0, 200} or change == "distort"
    assert (drawn == drawn[..., :1]).all()


# --- views


def test_views_are_the_symmetries_of_the_square():
    names = {
        "plain": "e",
        "flip": "h",
        "flip_vertical": "v",
        "half_turn": "r180",
        "quarter_turn": "r90",
        "back_turn": "r270",
        "transpose": "t",
        "anti_transpose": "hvt",
    }
    image = photo(16, 16)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    assert view_names(config(views=list(names)), (16, 16)) == tuple(names)
    for ours, theirs in names.items():
        seen = view_images(tensor, ours)[0].numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(seen, d4(image, theirs), err_msg=ours)


# --- bad settings


@pytest.mark.parametrize(
    "values, message",
    [
        ({"window": (0.5, 0.2)}, "augment.window|window"),
        ({"window": (0, 1)}, "window"),
        ({"stretch": 0.9}, "stretch"),
        ({"flip": 1.5}, "flip"),
        ({"fit": "stretch"}, "fit"),
        ({"fill": 256}, "fill"),
        ({"views": ["flip"]}, "plain first"),
        ({"views": ["plain", "flip", "flip"]}, "each view once"),
        ({"views": ["plain", "upside"]}, "views"),
        ({"rotation": 3}, "rotation"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        config(**values)


def test_settings_that_do_not_fit_the_images_are_refused():
    with pytest.raises(InputError, match=r"'augment.turn': got 0.5; takes 0 for size \(32, 64\)"):
        training_transform(config(turn=0.5), (32, 64), 3)
    with pytest.raises(InputError, match=r"'augment.jpeg': got 0.1; takes 0 for 4 channels"):
        training_transform(config(jpeg=0.1), (32, 32), 4)
    for key in ("affine", "distort"):
        with pytest.raises(InputError, match=f"'augment.{key}': got 0.1; takes 0 for 5 channels"):
            training_transform(config(**{key: 0.1}), (32, 32), 5)
    with pytest.raises(InputError, match=r"'augment.views': got transpose"):
        view_names(config(views=["plain", "transpose"]), (32, 64))


# --- nobody is called

_WATCH = """
import socket
def refuse(*arguments, **options):
    print("called", arguments[0])
    raise OSError("no network here")
socket.getaddrinfo = refuse
import {module}
print("imported")
"""


@pytest.mark.parametrize("module", ["comp.image.augment", "comp.image.data"])
def test_no_network_call_at_import(module):
    assert _imported(module) == ["imported"]


def test_albumentations_alone_would_call():
    assert any(line.startswith("called pypi.org") for line in _imported("albumentations"))


def _imported(module):
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-W", "ignore", "-c", _WATCH.format(module=module)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]
