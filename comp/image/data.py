"""Datasets of images: decoded, augmented and put together in the loader's workers.

Images stay uint8 until they are on the device, a quarter of the bytes to hand over.
"""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch

from comp.core.batches import BatchDataset, Source, batch_tensor
from comp.core.errors import InputError
from comp.core.loading import derive_seed
from comp.core.task import Batch
from comp.image.augment import Transform
from comp.image.window import Size

# The loader's workers are what is parallel: threads of OpenCV's in each would get in their way.
cv2.setNumThreads(0)


class Images(Source, Protocol):
    """Where images come from.

    Attributes:
        channels: of each image.
    """

    channels: int

    def read(self, row: int, least: Size | None = None) -> np.ndarray:
        """(H, W, channels) uint8; InputError if it cannot be decoded.

        Of a large image a smaller version may come, at least as large as `least`.
        """
        ...


class LabelledImages(Images, Protocol):
    """Images whose labels are known."""

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """(k, C) float32."""
        ...


class ImageDataset(BatchDataset):
    """Images with their targets; an image that cannot be read is an error.

    A batch: "row" (b,) int64 rows of the store; "image" (b, c, height, width) uint8; "target"
    (b, C) float32.

    What is drawn for an image depends on the seed, the epoch and its row, and on nothing else.
    """

    def __init__(
        self,
        store: LabelledImages,
        rows: Sequence[int] | None,
        transform: Transform,
        seed: int = 0,
    ) -> None:
        """`rows` of the store selects and orders; None takes all."""
        super().__init__(store, rows)
        self.store, self.transform, self.seed = store, transform, seed

    def read(self, rows: np.ndarray, epoch: int) -> Batch:
        image = _image_tensor(len(rows), self.store, self.transform)
        for row, out in zip(rows.tolist(), image.numpy()):
            seed = derive_seed(self.seed, epoch, row)
            pixels = self.transform(self.store.read(row, self.transform.least), seed)
            out[:] = pixels.transpose(2, 0, 1)
        target = torch.from_numpy(self.store.targets(rows))
        return {"row": torch.from_numpy(rows), "image": image, "target": target}


class TestDataset(BatchDataset):
    """Test images, without targets. One that cannot be read is marked, and is no error.

    A batch: "row" (b,) int64 rows of the images; "image" (b, c, height, width) uint8; "broken"
    (b,) bool, true for an image that could not be read and is all zeros.
    """

    __test__ = False  # no test, whatever pytest takes its name for

    def __init__(
        self, images: Images, transform: Transform, rows: Sequence[int] | None = None
    ) -> None:
        """`rows` selects and orders; None takes all."""
        super().__init__(images, rows)
        self.images, self.transform = images, transform

    def read(self, rows: np.ndarray, epoch: int) -> Batch:
        image = _image_tensor(len(rows), self.images, self.transform)
        broken = torch.zeros(len(rows), dtype=torch.bool)
        for i, (row, out) in enumerate(zip(rows.tolist(), image.numpy())):
            try:
                pixels = self.images.read(row, self.transform.least)
            except InputError:
                broken[i], out[:] = True, 0
            else:
                out[:] = self.transform(pixels).transpose(2, 0, 1)
        return {"row": torch.from_numpy(rows), "image": image, "broken": broken}


def _image_tensor(size: int, images: Images, transform: Transform) -> torch.Tensor:
    return batch_tensor((size, images.channels, *transform.size), torch.uint8)
