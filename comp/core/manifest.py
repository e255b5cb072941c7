"""`manifest.json`: what a bundle holds, where each file goes when it is unpacked, what is run.

A bundle is one flat folder, because the uploader of data sets leaves sub-folders out: the manifest
says which place in the working folder a flat name stands for.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from comp.core.config import Section, parse_config
from comp.core.errors import InputError
from comp.core.files import read_json, sha256

MANIFEST = "manifest.json"
PYTHON = (3, 12)  # of the notebooks' image


class Entry(Section):
    """One file."""

    place: str | None = Field(None, description="in the working folder; null: used where it is")
    bytes: int = Field(ge=0, description="size")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="checksum")


class RunEntry(Section):
    """One run, unpacked as `runs/<name>`."""

    name: str = Field(description="the run folder's name")
    folds: tuple[int | Literal["all"], ...] = Field(min_length=1, description="folds that predict")


class Manifest(Section):
    """A bundle."""

    bundle: str = Field(description="its name, by which a notebook knows it")
    version: Literal[1] = 1
    task: str = Field(description="the competition's kind")
    runs: tuple[RunEntry, ...] = Field(min_length=1, description="in the order of their weights")
    data: str | None = Field(None, description="place of the prepared folder's files")
    rule: str | None = Field(None, description="place of the rule")
    predict: tuple[str, ...] = Field((), description="options of predict.py")
    weights: tuple[float, ...] | None = Field(None, description="of each fold; null: the mean")
    recipe: str | None = Field(None, description="place of the ensemble's recipe, a file a run")
    hours: float | None = Field(None, gt=0, description="in which all runs have to predict")
    files: dict[str, Entry] = Field(description="every other file of the folder, by its name")


def entry_of(path: Path, place: str | None = None) -> Entry:
    """The entry of a file."""
    return Entry(place=place, bytes=path.stat().st_size, sha256=sha256(path))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle; raises InputError where it is missing or damaged."""
    path = folder / MANIFEST
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: {type(values).__name__}, expected the manifest of a bundle")
    return parse_config(Manifest, values, path)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise InputError naming the first file that is missing or not as it was bundled."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file, which {MANIFEST} names; upload it all again")
        if path.stat().st_size != entry.bytes:
            raise InputError(f"{path}: {path.stat().st_size} bytes, expected {entry.bytes}")
        if (found := sha256(path)) != entry.sha256:
            raise InputError(f"{path}: sha256 {found[:12]}…, expected {entry.sha256[:12]}…")
