"""Refinement on disk: what each process has done, put together when all of it is there.

A process appends one record of fixed size for each finished sample to its own file, so a kill costs
at most a cut record at a file's end, which is dropped. Processes meet in these files alone: none
waits for another while it computes, and the next run may have more of them or fewer.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from comp.core.claims import refuse_other_recipe
from comp.core.files import atomic_path, new_npy, read_json, write_json
from comp.core.predictions import Predictions, write_ids
from comp.core.share import Share
from comp.core.signals import Stopped, StopRequest
from comp.fwi.refine import Refined, Refiner, Sample, Settings
from comp.fwi.survey import Survey

_POLL = 0.5  # seconds between looks at what the other processes have done
_COLUMNS = ("iterations", "prior", "stop")


class Work:
    """The folder of unfinished work.

    Attributes:
        folder: the folder.
        samples: rows of the prediction file.
    """

    def __init__(self, folder: Path, settings: Settings, survey: Survey, samples: int) -> None:
        self.folder, self.samples = folder, samples
        self._dtype = np.dtype(
            [
                ("row", "<i8"),
                ("velocity", "<f4", survey.map_shape),
                ("misfit", "<f4", settings.evaluations),
                ("iterations", "<i4"),
                ("prior", "S16"),
                ("stop", "S16"),
            ]
        )

    def claim(self, recipe: dict[str, Any], share: Share) -> None:
        """Write what is being done, in the first process, and refuse a folder of other work.

        The other processes wait for the first.
        """
        path = self.folder / "recipe.json"
        recipe = json.loads(json.dumps(recipe))  # tuples read back as lists
        if share.index == 0 and not path.exists():
            write_json(path, recipe)
        while not path.exists():
            time.sleep(_POLL)
        advice = "finish that with the same command, or delete the folder"
        refuse_other_recipe(path, read_json(path), recipe, advice)

    def missing(self, share: Share) -> np.ndarray:
        """The rows of a share that are not done yet, ascending."""
        rows = np.arange(share.index, self.samples, share.count)
        done = [self._read(part)["row"] for part in self._parts()]
        return np.setdiff1d(rows, np.concatenate([[], *done]))

    @contextmanager
    def bar(self, share: Share) -> Iterator[tqdm]:
        """A bar over the samples of all processes, on the first of them."""
        with tqdm(
            total=self.samples,
            initial=self._done(),
            desc="refine",
            unit="sample",
            dynamic_ncols=True,
            disable=share.index > 0,
        ) as bar:
            yield bar

    def refine(
        self,
        refiner: Refiner,
        samples: Iterable[Sample],
        share: Share,
        bar: tqdm,
        stop: StopRequest,
    ) -> None:
        """Refine samples and note each when it is done.

        Raises:
            Stopped: on request.
        """
        part = self.folder / f"part-{share.index:04d}.bin"
        part.touch()
        os.truncate(part, len(self._read(part)) * self._dtype.itemsize)
        with open(part, "ab", buffering=0) as file:
            for ended in refiner.refine(samples):
                for one in ended:
                    file.write(self._encode(one))
                bar.set_postfix_str(f"misfit {np.median(refiner.misfits):.1e}", refresh=False)
                self._show(bar)
                self.heed(stop)

    def finish(self, share: Share) -> None:
        """Say that a process has done its share, as far as it will."""
        self._finished(share.index).touch()

    def wait(self, share: Share, bar: tqdm, stop: StopRequest) -> None:
        """Until all processes have finished, those with nothing to do included."""
        others = [self._finished(i) for i in range(share.count)]
        while not all(path.exists() for path in others):
            self._show(bar)
            self.heed(stop)
            time.sleep(_POLL)
        self._show(bar)

    def collect(self, given: Predictions, out: Path) -> int:
        """Put the parts together, and remove them where nothing is missing.

        Samples that are missing keep their predictions; no prior, "time" and NaN say so.

        Returns:
            How many are missing.
        """
        shape = self._dtype["velocity"].shape
        length = self._dtype["misfit"].shape[0]
        columns = {name: np.zeros(self.samples, self._dtype[name]) for name in _COLUMNS}
        columns["stop"][:] = b"time"
        first, last = np.full((2, self.samples), np.nan, np.float32)
        spent = np.zeros(self.samples, np.int64)
        misfit_path = out.with_suffix(".misfit.npy")
        with (
            new_npy(out, (self.samples, *shape), np.float32) as velocity,
            new_npy(misfit_path, (self.samples, length), np.float32) as misfit,
        ):
            for part in self._parts():
                for one in self._read(part):
                    row = one["row"]
                    velocity[row], misfit[row] = one["velocity"], one["misfit"]
                    for name, column in columns.items():
                        column[row] = one[name]
                    spent[row] = np.isfinite(one["misfit"]).sum()
                    first[row], last[row] = one["misfit"][0], one["misfit"][spent[row] - 1]
            missing = np.flatnonzero(columns["stop"] == b"time")
            for row in missing:
                velocity[row], misfit[row] = given.values[row], np.nan
        table = given.table.assign(
            prior=columns["prior"].astype(str),
            start_misfit=first,
            misfit=last,
            iterations=columns["iterations"],
            evaluations=spent,
            stop=columns["stop"].astype(str),
        )
        with atomic_path(out.with_suffix(".refined.csv")) as partial:
            table.to_csv(partial, index=False)
        write_ids(out, given.table)
        if len(missing):
            # A notebook's next launch has the same parent: it must not take these for its own.
            for path in self.folder.glob("finished-*"):
                path.unlink()
        else:
            shutil.rmtree(self.folder)
        return len(missing)

    @staticmethod
    def heed(stop: StopRequest) -> None:
        """Raise Stopped if that was requested."""
        if stop.signum:
            raise Stopped("stopped; what is done is kept, run again to go on", stop.signum)

    def _encode(self, one: Refined) -> bytes:
        record = np.zeros((), self._dtype)
        record["misfit"] = np.nan
        record["misfit"][: len(one.misfit)] = one.misfit
        record["row"], record["velocity"] = one.row, one.velocity
        for name in _COLUMNS:
            record[name] = getattr(one, name)
        return record.tobytes()

    def _finished(self, index: int) -> Path:
        """Says that a process needs the folder no more.

        The processes of one launch are children of one launcher.
        """
        return self.folder / f"finished-{os.getppid()}-{index}"

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.bin"))

    def _read(self, part: Path) -> np.ndarray:
        """The whole records of a part, mapped."""
        count = part.stat().st_size // self._dtype.itemsize
        return np.memmap(part, self._dtype, "r", shape=count) if count else np.empty(0, self._dtype)

    def _done(self) -> int:
        return sum(part.stat().st_size // self._dtype.itemsize for part in self._parts())

    def _show(self, bar: tqdm) -> None:
        bar.update(self._done() - bar.n)
