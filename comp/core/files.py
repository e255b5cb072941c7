"""Files that are either whole or not there: atomic writes, checked reads."""

import contextlib
import hashlib
import itertools
import json
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from comp.core.errors import InputError


def partial_path(path: str | Path) -> Path:
    """Where a file lies while it is being written: beside its place, so that a rename is atomic."""
    path = Path(path)
    return path.with_name(f"{path.name}.partial")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it on success, delete it on failure.

    A reader sees the old file or the new one, never half of one, also after a kill or a full disk.
    What a killed process left behind is overwritten by the next one to write the same file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: not written: {error.strerror or error}") from error
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8)."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; raises InputError when it is missing or does not parse."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def open_index(folder: str | Path, version: int) -> tuple[Path, dict[str, Any]]:
    """`index.json` of a prepared folder, and what it holds; it is written last of all.

    Raises:
        InputError: the folder is not prepared, or in another version of the format.
    """
    path = Path(folder) / "index.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; {folder} is not a (finished) prepared folder")
    index = read_json(path)
    found = index.get("version") if isinstance(index, dict) else None
    if found != version:
        raise InputError(f"{path}: format version {found!r}, expected {version}")
    return path, index


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, hint: str = ""
) -> pd.DataFrame:
    """Read a CSV as strings, leaving out the `#` lines before its header.

    Args:
        path: the CSV.
        columns: read these alone, as far as they are there; None for all.
        hint: where the file comes from, for the message when it is missing.

    Raises:
        InputError: no such file, or not a table.
    """
    try:
        with open(path, encoding="utf-8") as file:
            notes = sum(1 for _ in itertools.takewhile(lambda line: line.startswith("#"), file))
        wanted = None if columns is None else (lambda column: column in columns)
        return pd.read_csv(path, skiprows=notes, dtype=str, na_filter=False, usecols=wanted)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{hint}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV table: {str(error).strip()}") from None


def save_npy(path: str | Path, array: np.ndarray) -> None:
    """Write one array to `path` atomically as `.npy`, without pickling."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.save(file, array, allow_pickle=False)


@contextlib.contextmanager
def new_npy(path: str | Path, shape: Sequence[int], dtype: Any) -> Iterator[np.memmap]:
    """Yield a writable memmap of a new `.npy` that appears at `path` only when the block ends well.

    The space is reserved first, because a full disk under a memmap kills the process (SIGBUS)
    where a reservation fails with an error that can be reported.
    """
    with atomic_path(path) as partial:
        reserve_npy(partial, shape, dtype)
        array = np.lib.format.open_memmap(partial, mode="r+")
        yield array
        array.flush()


@contextlib.contextmanager
def growing_npy(path: str | Path, shape: Sequence[int], dtype: Any) -> Iterator[BinaryIO]:
    """Yield a file to write the values of a new `.npy` to, all of them and in their order.

    It appears at `path` only when the block ends well. A memmap costs twice as much, since its
    pages are zeroed and mapped before they are written.
    """
    kind, shape = np.dtype(dtype), tuple(map(int, shape))
    about = {"descr": kind.str, "fortran_order": False, "shape": shape}
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        end = file.tell() + math.prod(shape) * kind.itemsize
        yield file
        if file.tell() != end:
            raise ValueError(f"{path}: {file.tell()} bytes were written, expected {end}")


def reserve_npy(path: str | Path, shape: Sequence[int], dtype: Any) -> None:
    """Make a `.npy` of zeros whose space on disk is reserved; OSError where there is none."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape)).flush()
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def open_npy(
    path: str | Path,
    shape: Sequence[int | None] | None = None,
    dtypes: Sequence[Any] | None = None,
    mmap: bool = True,
) -> np.ndarray:
    """Open a `.npy` file and check it before a byte of it is used.

    Args:
        path: the file.
        shape: expected shape; None stands for any length along an axis.
        dtypes: accepted dtypes; None accepts any that is not `object`.
        mmap: map the file instead of reading it into memory.

    Raises:
        InputError: missing, truncated, object array, other shape or dtype.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        if "pickled" in str(error):  # what NumPy takes any unknown file for
            raise InputError(f"{path}: not a .npy file") from None
        if "object" in str(error).lower():
            raise InputError(f"{path}: holds Python objects, expected plain numbers") from None
        raise InputError(f"{path}: truncated or not a .npy file ({error})") from None
    except (EOFError, OSError) as error:
        raise InputError(f"{path}: truncated or not a .npy file ({error})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an .npz archive, expected a single .npy array")
    if dtypes is not None and array.dtype not in [np.dtype(d) for d in dtypes]:
        names = " or ".join(str(np.dtype(d)) for d in dtypes)
        raise InputError(f"{path}: dtype {array.dtype}, expected {names}")
    if shape is not None and (
        array.ndim != len(shape)
        or any(want is not None and want != got for want, got in zip(shape, array.shape))
    ):
        want = tuple("any" if s is None else s for s in shape)
        raise InputError(f"{path}: shape {array.shape}, expected {want}")
    return array


def drop_pages(array: np.ndarray) -> None:
    """Let go of the pages of a memmap, or a view of one, touched so far; no effect on others.

    A loop over a file larger than memory otherwise shows the whole file as resident. Nothing is
    lost: what was written stays in the page cache, what is read again is mapped again.
    """
    base, mode = getattr(array, "stored", array), None  # of a `HalfArray` what is on disk
    while isinstance(base, np.ndarray):  # a view's base is the memmap, whose base is the mapping
        base, mode = base.base, getattr(base, "mode", mode)
    if isinstance(base, mmap.mmap) and mode in ("r", "r+", "w+"):  # "c" would lose its changes
        base.madvise(mmap.MADV_DONTNEED)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
