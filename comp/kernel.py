"""What a bundle's notebook does: from mounted files to a checked `submission.csv`."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from comp.core.ensemble import combine
from comp.core.errors import InputError
from comp.core.manifest import RunEntry, read_manifest
from comp.core.predictions import load_predictions, note_broken
from comp.core.recipe import read_recipe
from comp.core.submission import check_submission, read_ids, write_submission
from comp.core.unpack import (
    check_space,
    find_sample,
    find_test,
    launcher,
    run,
    same_ids,
    unpack,
)
from comp.tasks import build_task, load_config

RECORDS = 32  # of a rehearsal
_CSV = "submission.csv"
_LONGER = 2  # times a sample submission, a submission may be: its numbers have more places


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """End a notebook with one line where the input is bad, not with a traceback."""
    try:
        yield
    except (InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


class Kernel:
    """A bundle, unpacked beside the competition's test data.

    Attributes:
        bundle: its folder, only read.
        scratch: where it is unpacked and predictions lie.
        working: where the submission goes.
        layout: of the submission.
        sample: the sample submission.
        test: the test folder.
    """

    def __init__(
        self,
        bundle: Path,
        inputs: Path,
        scratch: Path,
        working: Path,
        test: Path | None = None,
        sample: Path | None = None,
    ) -> None:
        """Find, unpack and check everything that can be checked before a network runs.

        Raises:
            InputError: a file of the bundle missing or damaged, no sample submission, no test
                folder or one of other ids, too little space.
        """
        self.bundle, self.scratch, self.working = bundle, scratch, working
        self.began = time.monotonic()
        for folder in (scratch, working):
            folder.mkdir(parents=True, exist_ok=True)
        self.manifest = read_manifest(bundle)
        unpack(bundle, self.manifest, scratch)
        place = scratch / f"runs/{self.manifest.runs[0].name}/config.yaml"
        data, rule = (name and scratch / name for name in (self.manifest.data, self.manifest.rule))
        self.data = data
        moved = [f"data.folder={data}"] if data else []
        self.task = build_task(load_config(place, moved))
        self.layout = self.task.layout(data, rule)
        self.sample = sample or find_sample(inputs, self.layout)
        self.ids = read_ids(self.sample, self.layout)
        first = str(self.ids[0])
        files = self.task.test_files(first)
        self.test = test or find_test([self.sample.parent, inputs], files, first)
        table, _ = self.task.test_data(str(self.test))
        same_ids(self.test, table["id"], self.sample, self.ids)
        self._check_space(_LONGER * self.sample.stat().st_size)
        print(f"{self.sample}: {len(self.ids)} samples, {self.test} has them all")

    def rehearse(self) -> None:
        """Go the whole way with a few records, then see to the space for all of them."""
        out, start = self.scratch / "some.csv", time.perf_counter()
        # Without the sample submission, which names more than these.
        number = self._go("rehearsal", out, None, ["--limit", RECORDS])
        print(f"{number} records in {time.perf_counter() - start:.0f} s: the way is whole")
        self._check_space(out.stat().st_size * len(self.ids) // number)

    def submit(self) -> Path:
        """Predict, ensemble, write the submission and check it; clears up behind itself."""
        out = self.working / _CSV
        self._go("predictions", out, self.sample, [])
        shutil.rmtree(self.scratch / "runs")
        return out

    def _go(self, name: str, out: Path, sample: Path | None, how: list) -> int:
        """Write the submission of the test folder; returns the number of its samples.

        Predictions lie in a folder `name` of the scratch folder meanwhile.
        """
        place, manifest = self.scratch / name, self.manifest
        together = place / "together.npy"
        files = [self._predict(i, place, how) for i in range(len(manifest.runs))]
        if manifest.recipe is None or not all(files):
            parts, weights = _weighted(files, manifest.runs, manifest.weights)
            combine(parts, together, "weighted" if weights else "mean", weights)
        else:  # found on one out-of-fold file a run
            means = [place / f"{entry.name}.npy" for entry in manifest.runs]
            for parts, mean in zip(files, means):
                combine(parts, mean)
            blender = self.task.blender(self.data)
            recipe = read_recipe(self.scratch / manifest.recipe, manifest.task)
            blender.apply(recipe, means, together)
        predictions = load_predictions(together)
        ids = write_submission(out, predictions, self.layout, sample)
        rows = check_submission(out, self.layout, ids)
        print(f"wrote and checked {out}: {rows} rows of {len(ids)} ids")
        note_broken(predictions.table)
        shutil.rmtree(place)
        return len(ids)

    def _predict(self, number: int, place: Path, how: list) -> list[Path]:
        """Predict with a run; returns the file of each fold that there was time for.

        A run after the first that has no time, or not for all samples, counts for nothing: where
        it lacks, its files hold stand-ins.
        """
        entry, bundled = self.manifest.runs[number], self.scratch / "runs"
        out = place / entry.name
        what = ["--run", bundled / entry.name, "--test", self.test.absolute(), "--out", out]
        late = f"note: {entry.name}: left out, {self.manifest.hours} hours do not suffice for it"
        if self.manifest.hours is not None and not how:
            hours = self._hours(number)
            if number and hours <= 0:
                print(late)
                return []
            what += ["--hours", f"{hours:.4f}"]
        start = launcher(torch.cuda.device_count())
        script = self.bundle / "predict.py"
        run([*start, script, *what, *how, *self.manifest.predict], self.scratch)
        files = [out / f"fold_{fold}.npy" for fold in entry.folds]
        files = [file for file in files if file.exists()]
        table = load_predictions(files[0]).table
        if number and "pairs" in table and not table["pairs"].all():
            print(late)
            return []
        return files

    def _hours(self, number: int) -> float:
        """The time of a run: of what is left, its share among the runs that are left, by folds."""
        left = self.manifest.hours - (time.monotonic() - self.began) / 3600
        folds = [len(entry.folds) for entry in self.manifest.runs[number:]]
        return max(0.0, left) * folds[0] / sum(folds)

    def _check_space(self, csv: int) -> None:
        files = sum(len(entry.folds) for entry in self.manifest.runs)
        size = 4 * len(self.ids) * int(np.prod(self.task.prediction_shape))
        needs = {self.scratch: (files + 1) * size, self.working: csv}
        check_space(needs, f"{files} predictions of {len(self.ids)} samples, their mean, the CSV")


def try_bundle(bundle: Path, test: Path, sample: Path) -> None:
    """Go the notebook's whole way here, with a few records; nothing stays behind."""
    with tempfile.TemporaryDirectory(prefix="check-") as place:
        Kernel(bundle.absolute(), test.parent, *[Path(place)] * 2, test, sample).rehearse()


def _weighted(
    files: list[list[Path]], runs: Sequence[RunEntry], weights: Sequence[float] | None
) -> tuple[list[Path], list[float] | None]:
    """The files of all runs, and their weights, which sum to one whatever files are missing."""
    there = [file for parts in files for file in parts]
    if weights is None:
        return there, None
    names = [(entry.name, f"fold_{fold}.npy") for entry in runs for fold in entry.folds]
    given = dict(zip(names, weights))
    kept = [given[file.parent.name, file.name] for file in there]
    if not sum(kept):
        return there, None
    return there, [weight / sum(kept) for weight in kept]
