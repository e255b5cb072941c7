"""Pictures of images with text beside them, written as PNG files."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comp.core.errors import InputError
from comp.core.figures import save

_INCHES = 2.1  # of an image's longer side
_LINE = 0.14  # inches of a line of text


def batch_grid(
    path: str | Path,
    columns: Sequence[str],
    images: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
) -> None:
    """Write one row an image, one column for each way it is seen.

    Args:
        path: PNG file to write.
        columns: what each column shows.
        images: for each row as many images (h, w, c) uint8 as there are columns.
        captions: lines of text below the first image of each row.

    Raises:
        InputError: no images, or the file can't be written.
    """
    if not images:
        raise InputError(f"{path}: nothing to draw, no images")
    height, width = images[0][0].shape[:2]
    scale = _INCHES / max(height, width)
    lines = max(caption.count("\n") + 1 for caption in captions)
    tall = height * scale + (lines + 1) * _LINE
    figure = Figure(
        figsize=(len(columns) * (width * scale + 0.1), len(images) * tall + 0.3),
        layout="constrained",
    )
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for cells, row, caption in zip(axes, images, captions):
        for panel, image in zip(cells, row):
            _draw(panel, image)
        _write(cells[0], caption)
    for panel, name in zip(axes[0], columns):
        panel.set_title(name, fontsize=9)
    save(figure, path)


def captioned_grid(
    path: str | Path,
    title: str,
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    per_row: int = 5,
) -> None:
    """Write images of any sizes, each with its text below, in reading order.

    Args:
        path: PNG file to write.
        title: above all of them.
        images: (h, w, c) uint8 each.
        captions: lines of text for each.
        per_row: images in a row.

    Raises:
        InputError: no images, or the file can't be written.
    """
    if not images:
        raise InputError(f"{path}: nothing to draw, no images")
    rows, across = math.ceil(len(images) / per_row), min(per_row, len(images))
    lines = max(caption.count("\n") + 1 for caption in captions)
    aspect = max(image.shape[0] / image.shape[1] for image in images)
    tall = _INCHES * min(1, aspect) + (lines + 1) * _LINE
    figure = Figure(figsize=(across * (_INCHES + 0.1), rows * tall + 0.4), layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False)
    for panel, image, caption in zip(axes.flat, images, captions):
        _draw(panel, image)
        _write(panel, caption)
    for panel in axes.flat[len(images) :]:
        panel.set_axis_off()
    figure.suptitle(title, fontsize=9)
    save(figure, path)


def _draw(panel: Axes, image: np.ndarray) -> None:
    panel.imshow(as_colour(image), interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])


def _write(panel: Axes, caption: str) -> None:
    """Text below a panel, from its left edge."""
    panel.set_xlabel(caption, fontsize=7, loc="left", parse_math=False)


def as_colour(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 of an image of any number of channels.

    Grey is repeated, a second channel alone is green, a fourth is added as yellow (which is what
    Protein Atlas calls it); further ones are not shown.
    """
    channels = image.shape[2]
    if channels == 1:
        return image.repeat(3, axis=2)
    colour = np.zeros((*image.shape[:2], 3), np.uint16)
    shown = min(channels, 3)
    colour[:, :, :shown] = image[:, :, :shown]
    if channels > 3:
        colour[:, :, :2] += image[:, :, 3:4]
    return colour.clip(0, 255).astype(np.uint8)
