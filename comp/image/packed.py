"""Decoded images in one file, for images that are costly to get at: parquet rows, large JPEGs.

pixels.npy    uint8, the images one after another, each (height, width, channels)
shapes.npy    int32 (n, 3)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from comp.core.errors import InputError
from comp.core.files import drop_pages, new_npy, open_npy, save_npy
from comp.image.parallel import in_threads

_COLUMNS = 4096  # parquet columns in memory at a time: one page of each image
_LINE = 64  # columns copied at a time: a cache line of each image, 12 times as fast as 1 column
_DROP_EVERY = 1000  # images


class PackedImages:
    """Decoded images in a folder, mapped: nothing is held in memory.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises InputError if a file is missing, truncated, or does not fit the other."""
        self.folder = Path(folder)
        path = self.folder / "pixels.npy"
        self._pixels = open_npy(path, (None,), [np.uint8])
        self._shapes = open_npy(self.folder / "shapes.npy", (None, 3), [np.int32])
        sizes = np.prod(self._shapes, axis=1, dtype=np.int64)
        self._stops = np.cumsum(sizes)
        if int(sizes.sum()) != len(self._pixels):
            raise InputError(f"{path}: {len(self._pixels)} bytes, expected {int(sizes.sum())}")

    def __len__(self) -> int:
        return len(self._shapes)

    def __reduce__(self) -> tuple[type["PackedImages"], tuple[Path]]:
        return PackedImages, (self.folder,)  # a loader's worker maps the files anew

    def read(self, row: int) -> np.ndarray:
        """A copy of image `row`, (H, W, channels) uint8."""
        stop = int(self._stops[row])
        shape = tuple(map(int, self._shapes[row]))
        return np.array(self._pixels[stop - int(np.prod(shape)) : stop]).reshape(shape)


def pack_images(
    read: Callable[[int], np.ndarray], shapes: np.ndarray, out: str | Path, threads: int
) -> None:
    """Decode images into a folder.

    Args:
        read: gives image i, (H, W, channels) uint8; called by several threads.
        shapes: (n, 3) the images' shapes.
        out: the folder, made if need be.
        threads: that decode at a time.

    Raises:
        InputError: as `read`; an image of another shape; the disk is full.
    """
    out, shapes = Path(out), np.asarray(shapes, np.int32)
    sizes = np.prod(shapes, axis=1, dtype=np.int64)
    stops = np.cumsum(sizes)
    with new_npy(out / "pixels.npy", (int(sizes.sum()),), np.uint8) as flat:

        def pack(i: int) -> None:
            image = read(i)
            if image.shape != tuple(shapes[i]):
                raise InputError(f"image {i}: shape {image.shape}, expected {tuple(shapes[i])}")
            flat[stops[i] - sizes[i] : stops[i]] = image.reshape(-1)
            if i % _DROP_EVERY == 0:
                drop_pages(flat)

        in_threads(pack, range(len(shapes)), threads, "packing")
    save_npy(out / "shapes.npy", shapes)


class ParquetImages:
    """Images in parquet files, each a row of an id and then its pixels.

    Attributes:
        ids: (n,) str, in the order of the files, `…_10` after `…_9`.
    """

    def __init__(
        self, folders: Sequence[Path], pattern: str, shape: tuple[int, int], id_column: str
    ) -> None:
        """Reads the ids.

        Args:
            folders: where to look.
            pattern: of the files' names, e.g. `train_image_data_*.parquet`.
            shape: height and width.
            id_column: the column of ids.

        Raises:
            InputError: no such file, not a parquet file, another number of pixels, or pixels that
                are not uint8.
        """
        paths = [path for folder in folders for path in folder.glob(pattern)]
        if not paths:
            raise InputError(f"{folders[0]}: no parquet files here, expected {pattern}")
        self._paths = sorted(paths, key=lambda path: (len(path.name), path.name))
        self._shape, self._id_column = shape, id_column
        self._files = [_open_parquet(path, shape, id_column) for path in self._paths]
        ids = [file.read([id_column]).column(0).to_pylist() for file in self._files]
        self.ids = np.array([str(name) for part in ids for name in part])

    def pack(self, out: str | Path) -> None:
        """Copy the images to a folder for `PackedImages`.

        Parquet lies in columns, so one image cannot be read without all. The copy goes a group of
        columns at a time, 200 MB for 50,000 images of 137 × 236.

        Raises:
            InputError: a pixel without a value; the disk is full.
        """
        out, count, pixels = Path(out), len(self.ids), self._shape[0] * self._shape[1]
        with new_npy(out / "pixels.npy", (count * pixels,), np.uint8) as flat:
            images, start = np.asarray(flat).reshape(count, pixels), 0
            with tqdm(total=count * pixels, desc="packing", unit="B", unit_scale=True) as bar:
                for path, file in zip(self._paths, self._files):
                    rows = images[start : start + file.metadata.num_rows]
                    names = [name for name in file.schema_arrow.names if name != self._id_column]
                    for first in range(0, pixels, _COLUMNS):
                        block = file.read(names[first : first + _COLUMNS])
                        place = rows[:, first : first + block.num_columns]
                        _copy_columns(path, block, place)
                        drop_pages(flat)
                        bar.update(place.size)
                    start += len(rows)
        save_npy(out / "shapes.npy", np.tile(np.int32([*self._shape, 1]), (count, 1)))


def _copy_columns(path: Path, block: pa.Table, place: np.ndarray) -> None:
    """The columns of a table side by side."""
    gaps = [name for name in block.column_names if block[name].null_count]
    if gaps:
        raise InputError(f"{path}: column {gaps[0]!r} has gaps")
    columns = [column.to_numpy() for column in block.columns]
    for k in range(0, len(columns), _LINE):
        place[:, k : k + _LINE] = np.stack(columns[k : k + _LINE], axis=1)


def _open_parquet(path: Path, shape: tuple[int, int], id_column: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a parquet file: {str(error).splitlines()[0]}") from None
    schema = file.schema_arrow
    if id_column not in schema.names:
        raise InputError(f"{path}: no column {id_column!r}, expected it and the pixels")
    found = len(schema.names) - 1
    if found != shape[0] * shape[1]:
        raise InputError(f"{path}: {found} pixels, expected {shape[0]} × {shape[1]}")
    odd = [f for f in schema if f.name != id_column and f.type != pa.uint8()]
    if odd:
        raise InputError(f"{path}: column {odd[0].name!r} is {odd[0].type}, expected uint8")
    return file
