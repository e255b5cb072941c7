"""Images that lie in files of their own: one file an image, or one for each of its channels."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from comp.core.errors import InputError
from comp.image.decoding import Header, read_header, read_image
from comp.image.entry import ID, ImageFiles


class FileImages:
    """The images of some folders; costs nothing to open.

    Attributes:
        folders: searched in order.
        images: how a competition names the files.
    """

    def __init__(self, folders: Sequence[str | Path], images: ImageFiles) -> None:
        self.folders, self.images = tuple(Path(folder) for folder in folders), images

    def paths(self, image_id: str) -> list[Path]:
        """The files of an image, whether they exist or not."""
        names = [name.replace(ID, image_id) for name in self.images.files]
        if len(self.folders) == 1:  # nothing to look for
            return [self.folders[0] / name for name in names]
        having = (folder for folder in self.folders if (folder / names[0]).exists())
        folder = next(having, self.folders[0])
        return [folder / name for name in names]

    def ids(self) -> list[str]:
        """Ids of all images, sorted, each once; raises InputError if there is none."""
        before, after = self.images.files[0].split(ID)
        found = []
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
            found += [
                name[len(before) : len(name) - len(after)]
                for name in names
                if name.startswith(before) and name.endswith(after) and _is_image(name)
            ]
        if not found:
            folders = ", ".join(map(str, self.folders))
            raise InputError(f"{folders}: no images here, expected {self.images.files[0]}")
        return sorted(set(found))

    def read(
        self, image_id: str, least: tuple[int, int] | None = None, side: int | None = None
    ) -> np.ndarray:
        """An image, (H, W, channels) uint8; `least` and `side` as in `read_image`.

        Raises:
            InputError: as `comp.image.decoding.read_image`; channels of different sizes.
        """
        paths = self.paths(image_id)
        if len(paths) == 1:
            return read_image(paths[0], self.images.channels, least, side)
        planes = [read_image(path, 1, least, side) for path in paths]
        for path, plane in zip(paths, planes):
            if plane.shape != planes[0].shape:
                raise InputError(
                    f"{path}: {plane.shape[0]} × {plane.shape[1]} pixels, expected "
                    f"{planes[0].shape[0]} × {planes[0].shape[1]} as in {paths[0].name}"
                )
        return np.concatenate(planes, axis=2)

    def headers(self, image_id: str) -> list[Header]:
        """What the files' headers say; raises InputError as `read_header`, or for other sizes."""
        paths = self.paths(image_id)
        headers = [read_header(path) for path in paths]
        size = (headers[0].height, headers[0].width)
        for path, header in zip(paths, headers):
            if (header.height, header.width) != size:
                raise InputError(
                    f"{path}: {header.height} × {header.width} pixels, expected {size[0]} × "
                    f"{size[1]} as in {paths[0].name}"
                )
        return headers


def _is_image(name: str) -> bool:
    """Whether a file is an image by its name: other things lie about in folders too."""
    return not name.startswith(".") and Path(name).suffix.lower() in Image.registered_extensions()
