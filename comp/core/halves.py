"""Predictions in two bytes a value: how they are stored, and a view that reads as float32.

Probabilities are stored as float16. Velocities are not: its steps are 2 m/s from 2048 m/s on and 4
from 4096 on. An offset or a factor does not help enough, since float16 has eleven bits and 3000 m/s
in steps of 0.1 need fifteen: v − 3000 would still be off by up to 0.5 m/s. They are stored as whole
numbers of a unit, uint16, and the unit stands in a file beside the array, `<stem>.scale.json`:
prediction = stored value × scale.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.core.errors import InputError
from comp.core.files import read_json, write_json


@dataclass(frozen=True)
class Storage:
    """How predictions lie on disk.

    Attributes:
        dtype: "float32", "float16" or "uint16".
        scale: a stored value times this is the prediction; other than 1 for uint16 alone.
    """

    dtype: str = "float32"
    scale: float = 1.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Float32 predictions as they are stored, the nearest value each."""
        if self.dtype != "uint16":
            return values.astype(self.dtype)
        most = np.iinfo(self.dtype).max
        return np.rint(values / np.float32(self.scale)).clip(0, most).astype(self.dtype)


FULL = Storage()


class HalfArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of two-byte values that reads as float32: what is indexed is decoded, no more.

    It can be indexed, reshaped, compared and calculated with; NumPy's functions take it, and then
    decode it as a whole.

    Attributes:
        stored: (n, ...) what is on disk, a memmap.
        scale: see `Storage`.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, stored: np.ndarray, scale: float = 1.0) -> None:
        self.stored, self.scale = stored, np.float32(scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """As the stored array's."""
        return self.stored.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.stored.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self.stored.size

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, key: Any) -> np.ndarray:
        values = np.asarray(self.stored[key], np.float32)
        return values if self.scale == 1 else values * self.scale

    def reshape(self, *shape: int) -> "HalfArray":
        """The same values in another shape; nothing is decoded."""
        return HalfArray(self.stored.reshape(*shape), self.scale)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...] if dtype is None else self[...].astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, HalfArray) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **how)


def scale_path(path: str | Path) -> Path:
    """Where the unit of the uint16 array at `path` stands (`a/test.npy` → `a/test.scale.json`)."""
    return Path(path).with_suffix(".scale.json")


def write_scale(path: str | Path, storage: Storage) -> None:
    """Write the unit of the array at `path`, or remove that of an older one there."""
    if storage.dtype == "uint16":
        note = "prediction = stored value × scale"
        write_json(scale_path(path), {"scale": storage.scale, "note": note})
    else:
        scale_path(path).unlink(missing_ok=True)


def decoded(values: np.ndarray, path: str | Path) -> np.ndarray | HalfArray:
    """The array of a prediction file, whatever it is stored as.

    Raises:
        InputError: uint16 values whose unit is not known.
    """
    if values.dtype == np.float16:
        return HalfArray(values)
    if values.dtype != np.uint16:
        return values
    place = scale_path(path)
    if not place.exists():
        raise InputError(f"{path}: uint16 values, expected their unit in {place}; no such file")
    note = read_json(place)
    scale = note.get("scale") if isinstance(note, dict) else None
    if not isinstance(scale, int | float) or not scale > 0:
        raise InputError(f"{place}: key 'scale': got {scale!r}; takes a positive number")
    return HalfArray(values, scale)
