"""Whose a folder of unfinished work is: one writer at a time, and only ever the same work."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comp.core.errors import InputError


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other writers out; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is writing to it") from None
        yield
    finally:
        os.close(handle)


def refuse_other_recipe(
    path: Path, found: dict[str, Any], wanted: dict[str, Any], advice: str
) -> None:
    """Raise InputError naming the first setting in which what is on disk differs from this run."""
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            what = f"{key} was {found.get(key)!r}, is now {wanted.get(key)!r}"
            raise InputError(f"{path}: made from other data or settings: {what}; {advice}")
