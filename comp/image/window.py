"""The part of an image that a network sees, cut out and resized in one step."""

from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np

Fit = Literal["squash", "crop", "pad"]
Size = tuple[int, int]  # height, width in pixels


class Window(A.ImageOnlyTransform):
    """Resize a window of the image to the network's size.

    The whole window has the image's own aspect ("squash"), which the resize then changes, or is the
    largest of the network's aspect inside the image ("crop") or around it ("pad"). Drawn windows
    are a share of it in area, stretched by some factor in aspect, anywhere in the image; a window
    that is not drawn is whole and in the middle.

    Args:
        size: (height, width) of the result.
        fit: see above.
        area: least and largest share of the whole window; None for the whole one, in the middle.
        stretch: largest factor by which the aspect is changed, up or down.
        fill: grey level of what "pad" adds; None mirrors the image.
    """

    def __init__(
        self,
        size: Size,
        fit: Fit = "squash",
        area: tuple[float, float] | None = None,
        stretch: float = 1.0,
        fill: int | None = None,
    ) -> None:
        super().__init__(p=1.0)
        self.size, self.fit, self.area, self.stretch = size, fit, area, stretch
        self.margin = fill

    @property
    def least(self) -> Size:
        """Height and width from which on an image is large enough for any window.

        Smaller images are enlarged; of a larger one nothing is lost by shrinking it to this.
        """
        share = 1.0 if self.area is None else self.area[0] / self.stretch
        height, width = (int(np.ceil(length / np.sqrt(share))) for length in self.size)
        return height, width

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the window: first row, first column, height, width, in the padded image's pixels."""
        height, width = self._padded(*params["shape"][:2])
        tall, wide = float(height), float(width)
        if self.fit == "crop":
            tall = min(tall, wide * self.size[0] / self.size[1])
            wide = min(wide, tall * self.size[1] / self.size[0])
        if self.area is not None:
            area = self.py_random.uniform(*self.area)
            stretch = self.stretch ** self.py_random.uniform(-1, 1)
            tall, wide = tall * np.sqrt(area / stretch), wide * np.sqrt(area * stretch)
        tall = min(max(1, round(tall)), height)
        wide = min(max(1, round(wide)), width)
        if self.area is None:
            top, left = (height - tall) // 2, (width - wide) // 2
        else:
            top, left = (self.py_random.randint(0, room) for room in (height - tall, width - wide))
        return {"window": (top, left, tall, wide)}

    def apply(
        self, img: np.ndarray, window: tuple[int, int, int, int], **params: Any
    ) -> np.ndarray:
        """(height, width, c) uint8 of an image (H, W, c)."""
        height, width = self._padded(*img.shape[:2])
        if (height, width) != img.shape[:2]:
            down, right = height - img.shape[0], width - img.shape[1]
            edges = down // 2, down - down // 2, right // 2, right - right // 2
            img = with_border(img, edges, self.margin)
        top, left, tall, wide = window
        part = img[top : top + tall, left : left + wide]
        return _resized(part, self.size).reshape(*self.size, img.shape[2])

    def _padded(self, height: int, width: int) -> Size:
        """Height and width of the image once "pad" has given it the network's aspect."""
        if self.fit != "pad":
            return height, width
        aspect = self.size[0] / self.size[1]
        return max(height, round(width * aspect)), max(width, round(height / aspect))


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    """Shrunk by whole factors first, by averaging, and then to `size` by less than 2, linearly.

    As free of aliasing as averaging all the way, and several times as fast.
    """
    down, across = (max(1, has // wants) for has, wants in zip(image.shape, size))
    if down > 1 or across > 1:
        rows, columns = image.shape[0] // down, image.shape[1] // across
        whole = image[: rows * down, : columns * across]
        image = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def with_border(
    image: np.ndarray, edges: tuple[int, int, int, int], fill: int | None
) -> np.ndarray:
    """(H, W, c) with so many pixels added above, below, left and right; `fill` None mirrors it."""
    if fill is None:
        wider = cv2.copyMakeBorder(image, *edges, cv2.BORDER_REFLECT)
    else:
        wider = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=(fill,) * 4)
    return wider.reshape(*wider.shape[:2], image.shape[2])
