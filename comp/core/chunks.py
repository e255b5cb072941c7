"""Prediction files that grow chunk by chunk; which chunks are finished stands in files beside them.

While it works there are, for prediction files `a.npy`, `b.npy`, …,

    a.npy.partial, b.npy.partial    the arrays, at their full size
    a.predicting/recipe.json        what is being predicted; other work is refused
    a.predicting/plan.json          how many (network, view) pairs there are time for
    a.predicting/chunk-00003.json   chunk 3 is on disk: its pairs, the rows that were broken

Processes write disjoint rows and meet in these files alone. A chunk that was not finished when a
process was killed is predicted again, in the same batches.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.core.claims import refuse_other_recipe
from comp.core.errors import InputError
from comp.core.files import drop_pages, partial_path, read_json, reserve_npy, write_json
from comp.core.halves import Storage, write_scale
from comp.core.predictions import write_ids


class Chunks:
    """The chunks of prediction files with the same rows.

    Attributes:
        folder: of the notes.
        count: number of chunks.
        storage: how predictions are stored.
    """

    def __init__(
        self, outs: Sequence[str | Path], shape: Sequence[int], storage: Storage, size: int
    ) -> None:
        """`shape` of each array, rows first; `size` rows a chunk."""
        self.outs, self.shape, self.storage = [Path(out) for out in outs], tuple(shape), storage
        self.folder = self.outs[0].with_suffix(".predicting")
        self.size, self.count = size, -(-self.shape[0] // size)
        self._arrays: list[np.memmap] = []

    def rows(self, chunk: int) -> np.ndarray:
        """The rows of a chunk, ascending."""
        return np.arange(chunk * self.size, min((chunk + 1) * self.size, self.shape[0]))

    def finished(self) -> set[int]:
        """The chunks that are on disk."""
        return {int(path.stem.removeprefix("chunk-")) for path in self.folder.glob("chunk-*.json")}

    def pending(self, index: int = 0, count: int = 1) -> list[int]:
        """The unfinished chunks of process `index` of `count`, ascending."""
        finished = self.finished()
        return [chunk for chunk in range(index, self.count, count) if chunk not in finished]

    def claim(self, recipe: dict[str, Any]) -> None:
        """Note what is being predicted; raises InputError if unfinished work is of another kind."""
        path, recipe = self.folder / "recipe.json", json.loads(json.dumps(recipe))
        if path.exists():
            advice = "finish that with the same command, or delete the folder"
            refuse_other_recipe(path, read_json(path), recipe, advice)
        else:
            write_json(path, recipe)

    def plan(self) -> dict[str, Any]:
        """What `write_plan` has noted; nothing at first."""
        path = self.folder / "plan.json"
        return read_json(path) if path.exists() else {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Note the plan, for every process and the next start."""
        write_json(self.folder / "plan.json", plan)

    def prepare(self, networks: int) -> None:
        """Make the arrays of the first so many files, unless finished chunks lie in them."""
        if self.count and not self.pending():  # all is there, and perhaps moved to its place
            return
        partials = [partial_path(out) for out in self.outs[:networks]]
        if not self.finished() or not all(path.exists() for path in partials):
            for path in self.folder.glob("chunk-*.json"):
                path.unlink()
            for path in partials:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    reserve_npy(path, self.shape, self.storage.dtype)
                except OSError as error:
                    path.unlink(missing_ok=True)
                    raise InputError(f"{path}: not written: {error.strerror or error}") from None

    def open(self, networks: int) -> None:
        """Open the first so many arrays for writing."""
        paths = [partial_path(out) for out in self.outs[:networks]]
        self._arrays = [np.lib.format.open_memmap(path, mode="r+") for path in paths]

    def write(self, network: int, rows: np.ndarray, values: np.ndarray) -> None:
        """Write float32 predictions (k, ...), or one for all, of consecutive rows."""
        self._arrays[network][rows[0] : rows[-1] + 1] = self.storage.encode(values)

    def finish(self, chunk: int, **note: Any) -> None:
        """Say that all rows of a chunk are written, once they are on disk."""
        for array in self._arrays:
            array.flush()
            drop_pages(array)
        write_json(self.folder / f"chunk-{chunk:05d}.json", note)

    def notes(self) -> pd.DataFrame:
        """(count,) rows, what was said of each chunk."""
        paths = [self.folder / f"chunk-{chunk:05d}.json" for chunk in range(self.count)]
        return pd.DataFrame([read_json(path) for path in paths])

    def collect(self, table: pd.DataFrame, networks: int) -> None:
        """Put the first so many files in their place, with `table` beside each; remove the rest.

        Files of an earlier run for networks that are left out go too: nobody would expect them
        among the new ones.
        """
        self._arrays = []
        for out in self.outs[:networks]:
            if partial_path(out).exists():  # it is gone if a process was killed right here
                os.replace(partial_path(out), out)
            write_scale(out, self.storage)
            write_ids(out, table)
        for out in self.outs[networks:]:
            out.unlink(missing_ok=True)
        shutil.rmtree(self.folder)
