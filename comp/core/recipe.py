"""The recipe of an ensemble: found on out-of-fold predictions, one JSON file, applied to others."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.core.aligned import Aligned, load_aligned
from comp.core.ensemble import METHODS, check_weights
from comp.core.errors import InputError
from comp.core.files import atomic_path, read_json, write_json
from comp.core.predictions import ids_path

ALL = "all"  # the weights of whatever has none of its own
_VERSION = 1
_BLOCKS, _BLOCK = 64, 1 << 16  # of a file, read for its fingerprint: 4 MB


@dataclass(frozen=True)
class Recipe:
    """How prediction files of the same models become one.

    Attributes:
        task: the competition kind that it was made for.
        method: one of `comp.core.ensemble.METHODS`.
        files: number of prediction files, in the order of those it was found on.
        weights: group ("all", a family, a head) -> one for each file; empty where none count.
        settings: what the competition adds, see its blender.
        figures: errors or scores, for the reader.
        fitted_on: name and fingerprint of each out-of-fold file, and of the truth.
    """

    task: str
    method: str
    files: int
    weights: dict[str, list[float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    fitted_on: dict[str, str] = field(default_factory=dict)

    def shares(self, groups: Sequence[str]) -> np.ndarray:
        """(k, files) weights of each of `groups`; of all alike where it has none of its own."""
        equal = [1 / self.files] * self.files
        rest = self.weights.get(ALL, equal)
        return np.array([self.weights.get(group, rest) for group in groups]).reshape(-1, self.files)

    def load(self, paths: Sequence[str | Path]) -> list[Aligned]:
        """The aligned prediction files; raises InputError unless there are `files` of them."""
        if len(paths) != self.files:
            raise InputError(f"{len(paths)} prediction files, expected the recipe's {self.files}")
        return load_aligned(paths)


@dataclass(frozen=True)
class Comparison:
    """Ways to combine, compared on out-of-fold predictions.

    Attributes:
        title: says what the figures are.
        table: a row a way, with its nested and its searched figure.
        recipe: the best way, fitted on all samples.
    """

    title: str
    table: pd.DataFrame
    recipe: Recipe


class Blender(ABC):
    """How a competition combines predictions of several models."""

    @abstractmethod
    def search(self, oof: Sequence[Path], truth: Path) -> Comparison:
        """Compare the ways on out-of-fold files; raises InputError for files that do not agree."""

    @abstractmethod
    def apply(self, recipe: Recipe, paths: Sequence[Path], out: Path) -> None:
        """Combine prediction files into a new one, float32; raises InputError as `combine`."""


def write_recipe(path: str | Path, comparison: Comparison) -> None:
    """Write the recipe as JSON, and the table beside it as `<stem>.csv`."""
    with atomic_path(Path(path).with_suffix(".csv")) as partial:
        comparison.table.to_csv(partial, float_format="%.6g")
    write_json(path, {"version": _VERSION, **asdict(comparison.recipe)})


def read_recipe(path: str | Path, task: str) -> Recipe:
    """Read and check a recipe.

    Raises:
        InputError: missing, not a recipe, of another version or task, or bad weights.
    """
    values = read_json(path)
    if not isinstance(values, Mapping) or values.get("version") != _VERSION:
        found = values.get("version") if isinstance(values, Mapping) else type(values).__name__
        raise InputError(f"{path}: version {found!r}, expected a recipe of version {_VERSION}")
    try:
        recipe = Recipe(**{name: value for name, value in values.items() if name != "version"})
    except TypeError as error:
        raise InputError(f"{path}: not a recipe: {error}") from None
    kinds = {"files": int, "weights": dict, "settings": dict}
    for name, kind in kinds.items():
        if not isinstance(found := getattr(recipe, name), kind):
            raise InputError(f"{path}: key {name}: {found!r}, expected {kind.__name__}")
    if recipe.task != task:
        raise InputError(f"{path}: made for task {recipe.task!r}, expected {task!r} (see --task)")
    if recipe.method not in METHODS:
        raise InputError(f"{path}: method {recipe.method!r}, expected one of {', '.join(METHODS)}")
    for group, weights in recipe.weights.items():
        try:
            check_weights(weights, recipe.files)
        except (TypeError, ValueError) as error:  # of which bad input is one
            raise InputError(f"{path}: key weights.{group}: {error}") from None
    return recipe


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a prediction file's length, of 64 spread blocks of it, and of its id table.

    Files of hundreds of gigabytes are told apart without reading them; a change of single values
    may be missed.
    """
    size = Path(path).stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for start in np.linspace(0, max(0, size - _BLOCK), _BLOCKS).astype(int):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    digest.update(ids_path(path).read_bytes())
    return digest.hexdigest()
