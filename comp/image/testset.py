"""The test images of a competition, as they lie in its folder."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.image.entry import ID, Competition, ImageFiles
from comp.image.folder import FileImages
from comp.image.packed import PackedImages, ParquetImages


class TestImages:
    """Test images in the competition's layout.

    Parquet files are unpacked into a temporary folder first, which lives as long as the object.

    Attributes:
        folder: the raw folder, or the folder of test images itself.
        ids: (n,) str; sorted, of parquet files in their order.
        channels: of every image.
    """

    __test__ = False  # pytest takes a class of this name for a test

    def __init__(
        self,
        folder: str | Path,
        competition: Competition,
        size: int | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Looks at names only; an image that is missing or damaged shows when it is read.

        Of several folders of test images those that are there are read, with a note on the others;
        an image that lies in more than one counts once, as the first of them has it.

        Args:
            folder: the raw folder, or the folder of test images itself.
            competition: the competition's entry.
            size: images are shrunk to this short side, as those of a store of that `size` were.
            ids: the images wanted, in that order, e.g. those of the sample submission; None for
                all that are there.

        Raises:
            InputError: no such folder, or no images in it.
        """
        self.folder, self.channels = Path(folder), competition.images.channels
        self._size, self._temporary, images = size, None, competition.images
        there = [name for name in images.test if (self.folder / name).is_dir()]
        folders = [self.folder / name for name in there] or [self.folder]
        if 0 < len(there) < len(images.test):
            absent = ", ".join(name for name in images.test if name not in there)
            print(f"note: {self.folder}: test images of {', '.join(there)}; there is no {absent}")
        if images.kind == "files":
            self._source: FileImages | PackedImages = FileImages(folders, images)
            self.ids = np.array(self._source.ids() if ids is None else ids, dtype=str)
            return
        parquet = ParquetImages(folders, images.files[1], images.shape, competition.id)
        self._temporary = tempfile.TemporaryDirectory(prefix="images-")
        parquet.pack(self._temporary.name)
        self._source = PackedImages(self._temporary.name)
        self.ids = parquet.ids if ids is None else np.array(ids, dtype=str)
        self._rows = pd.Index(parquet.ids).get_indexer(pd.Index(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_temporary": None}  # which only the first process cleans up

    def read(self, i: int, least: tuple[int, int] | None = None) -> np.ndarray:
        """Image `i`, (H, W, channels) uint8.

        Args:
            i: its place in `ids`.
            least: height and width that suffice, see `ImageStore.read`.

        Raises:
            InputError: the image is missing or cannot be decoded.
        """
        name = str(self.ids[i])
        if isinstance(self._source, FileImages):
            return self._source.read(name, least, self._size)
        if self._rows[i] < 0:
            raise InputError(f"{self.folder}: no image {name!r} in its parquet files")
        return self._source.read(int(self._rows[i]))


def sample_files(images: ImageFiles, name: str) -> tuple[str, ...]:
    """Where in a folder that `TestImages` takes the files of test image `name` may lie."""
    files = images.files[1:] if images.kind == "parquet" else images.files
    folders = dict.fromkeys([*images.test, "."])
    return tuple(f"{folder}/{file.replace(ID, name)}" for folder in folders for file in files)
