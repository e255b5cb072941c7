"""What is done to images before the network sees them: in training, in validation, test-time views.

albumentations has a generator of its own in each transform, all of them copied into every worker:
workers draw the same, and again each epoch when they are started anew (albumentations 2.0.8); set
by a seed, its transforms all start alike, so that what is flipped is also what is turned. Here one
generator, seeded for every image, serves the whole pipeline. What happens to an image is a pure
function of that seed, `ImageDataset` makes it from (seed, epoch, row), and the number of workers,
processes and interruptions changes nothing.
"""

import random
from typing import Literal

import albumentations as A
import cv2
import numpy as np
import torch
from pydantic import Field, field_validator

from comp.core.config import Section
from comp.core.errors import InputError
from comp.image.window import Fit, Size, Window

View = Literal[
    "plain",
    "flip",
    "flip_vertical",
    "half_turn",
    "quarter_turn",
    "back_turn",
    "transpose",
    "anti_transpose",
]
_SQUARE = ("quarter_turn", "back_turn", "transpose", "anti_transpose")  # they swap the sides


class AugmentConfig(Section):
    """How images are brought to the network's size, and what is drawn anew for each in training.

    Every change has its probability; colours are changed the same way in all channels but for
    saturation and hue, which only images of three channels have.
    """

    fit: Fit = Field(
        "squash",
        description="to the network's aspect: squash the image, crop its middle, or pad around it",
    )
    fill: int | None = Field(
        None, ge=0, le=255, description="grey level outside of the image; null mirrors it"
    )
    window: tuple[float, float] | None = Field(
        (0.6, 1.0), description="share of the image's area that is cut out; null: as in validation"
    )
    stretch: float = Field(
        1.15, ge=1, description="of the window's aspect: drawn up to this factor"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    flip_vertical: float = Field(0.0, ge=0, le=1, description="probability of top to bottom")
    turn: float = Field(
        0.0, ge=0, le=1, description="probability of 0 to 3 quarter turns, drawn alike"
    )
    affine: float = Field(0.0, ge=0, le=1, description="probability of the next four, together")
    rotate: float = Field(15.0, ge=0, le=180, description="degrees to either side")
    shift: float = Field(0.05, ge=0, le=1, description="share of the image, in each direction")
    shear: float = Field(0.0, ge=0, le=45, description="degrees to either side")
    zoom: float = Field(0.0, ge=0, lt=1, description="scale drawn from 1 ± this")
    distort: float = Field(0.0, ge=0, le=1, description="probability of bending a 5 × 5 grid")
    colour: float = Field(0.5, ge=0, le=1, description="probability of the next four, together")
    brightness: float = Field(0.2, ge=0, le=1, description="factor drawn from 1 ± this")
    contrast: float = Field(0.2, ge=0, le=1, description="factor drawn from 1 ± this")
    saturation: float = Field(0.2, ge=0, le=1, description="factor drawn from 1 ± this")
    hue: float = Field(0.02, ge=0, le=0.5, description="turns of the colour circle, ± this")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian, σ 0.5 to 2 pixels")
    noise: float = Field(
        0.0, ge=0, le=1, description="probability of noise, σ 0.02 to 0.1 of white"
    )
    jpeg: float = Field(0.0, ge=0, le=1, description="probability of compression, quality 40 to 90")
    holes: float = Field(
        0.0, ge=0, le=1, description="probability of 1 to 4 holes, 0.1 to 0.3 of the sides each"
    )
    views: tuple[View, ...] = Field(
        ("plain", "flip"), min_length=1, description="averaged by test-time augmentation"
    )

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and not 0 < window[0] <= window[1] <= 1:
            raise ValueError("takes two ascending shares above 0, up to 1, or null")
        return window

    @field_validator("views")
    @classmethod
    def _check_views(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        if views[0] != "plain" or len(set(views)) < len(views):
            raise ValueError("takes plain first, and each view once")
        return views


class Transform:
    """A pipeline over one image; of equal image and seed, equal results, wherever it runs.

    Attributes:
        size: (height, width) of what comes out.
        least: height and width from which on an image is large enough: reading may shrink it to
            that.
    """

    def __init__(self, window: Window, others: list[A.BasicTransform]) -> None:
        self.size, self.least = window.size, window.least
        self._compose = A.Compose([window, *others])

    def __call__(self, image: np.ndarray, seed: int = 0) -> np.ndarray:
        """(height, width, c) uint8 of an image (H, W, c) uint8 of any height and width."""
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return self._compose(image=image)["image"]


def plain_transform(config: AugmentConfig, size: Size) -> Transform:
    """The pipeline of validation and prediction: the whole window, resized, nothing drawn."""
    return Transform(Window(size, config.fit, fill=config.fill), [])


def training_transform(config: AugmentConfig, size: Size, channels: int) -> Transform:
    """The pipeline of training.

    Args:
        config: what is drawn.
        size: (height, width) of the network's input.
        channels: of the images.

    Raises:
        InputError: quarter turns of images that are not square, compression of other than grey or
            colour images, interpolation of more than four channels.
    """
    if config.turn > 0 and size[0] != size[1]:
        raise InputError(f"key 'augment.turn': got {config.turn}; takes 0 for size {size}")
    if config.jpeg > 0 and channels not in (1, 3):
        raise InputError(f"key 'augment.jpeg': got {config.jpeg}; takes 0 for {channels} channels")
    for key in ("affine", "distort"):  # OpenCV fills four channels at most
        if (share := getattr(config, key)) > 0 and channels > 4:
            raise InputError(f"key 'augment.{key}': got {share}; takes 0 for {channels} channels")
    window = Window(size, config.fit, config.window, config.stretch, config.fill)
    shapes = [
        A.HorizontalFlip(p=config.flip),
        A.VerticalFlip(p=config.flip_vertical),
        A.RandomRotate90(p=config.turn),
    ]
    others = [*shapes, *_bent(config, channels), *_pixels(config, channels)]
    return Transform(window, [change for change in others if change.p > 0])


def _bent(config: AugmentConfig, channels: int) -> list[A.BasicTransform]:
    """Changes of shape that interpolate."""
    border = {
        "border_mode": cv2.BORDER_REFLECT_101 if config.fill is None else cv2.BORDER_CONSTANT,
        "fill": (config.fill or 0,) * channels,  # one number alone would fill the first channel
    }
    shift = (-config.shift, config.shift)
    affine = A.Affine(
        rotate=(-config.rotate, config.rotate),
        translate_percent={"x": shift, "y": shift},
        shear={axis: (-config.shear, config.shear) for axis in "xy"},
        scale=(1 - config.zoom, 1 + config.zoom),
        keep_ratio=True,
        p=config.affine,
        **border,
    )
    return [affine, A.GridDistortion(p=config.distort, **border)]


def _pixels(config: AugmentConfig, channels: int) -> list[A.BasicTransform]:
    """Changes of the values where they are."""
    light = {"brightness": config.brightness, "contrast": config.contrast}
    if channels == 3:
        ranges = {key: (1 - value, 1 + value) for key, value in light.items()}
        ranges["saturation"] = (1 - config.saturation, 1 + config.saturation)
        colour = A.ColorJitter(hue=(-config.hue, config.hue), p=config.colour, **ranges)
    else:
        limits = {f"{key}_limit": (-value, value) for key, value in light.items()}
        colour = A.RandomBrightnessContrast(brightness_by_max=False, p=config.colour, **limits)
    return [
        colour,
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.5, 2.0), p=config.blur),
        A.GaussNoise(std_range=(0.02, 0.1), p=config.noise),
        A.ImageCompression(quality_range=(40, 90), p=config.jpeg),
        A.CoarseDropout(
            num_holes_range=(1, 4),
            hole_height_range=(0.1, 0.3),
            hole_width_range=(0.1, 0.3),
            fill=config.fill or 0,
            p=config.holes,
        ),
    ]


def view_names(config: AugmentConfig, size: Size) -> tuple[View, ...]:
    """The test-time views, the plain one first.

    Raises:
        InputError: a view that would swap the sides of an image that is not square.
    """
    for view in config.views:
        if view in _SQUARE and size[0] != size[1]:
            raise InputError(f"key 'augment.views': got {view}; takes others for size {size}")
    return config.views


def view_images(images: torch.Tensor, view: View) -> torch.Tensor:
    """Images (b, c, h, w) of any type, on any device, as seen in a view: an exact symmetry."""
    if view in _SQUARE:
        images = images.transpose(-2, -1)
    dims = {
        "flip": (-1,),
        "flip_vertical": (-2,),
        "half_turn": (-2, -1),
        "quarter_turn": (-2,),  # counterclockwise
        "back_turn": (-1,),
        "anti_transpose": (-2, -1),
    }.get(view)
    return images if dims is None else images.flip(dims)
