"""What a bundle's notebook does: from mounted files to a checked `submission.csv`."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from comp.core.ensemble import combine
from comp.core.errors import InputError
from comp.core.manifest import read_manifest
from comp.core.predictions import load_predictions, note_broken
from comp.core.submission import check_submission, read_ids, write_submission
from comp.core.unpack import (
    check_space,
    find_sample,
    find_test,
    launcher,
    run,
    same_ids,
    thin,
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
        for folder in (scratch, working):
            folder.mkdir(parents=True, exist_ok=True)
        self.manifest = read_manifest(bundle)
        unpack(bundle, self.manifest, scratch)
        place = scratch / f"runs/{self.manifest.runs[0].name}/config.yaml"
        data, rule = (name and scratch / name for name in (self.manifest.data, self.manifest.rule))
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
        some = [str(name) for name in self.ids[:RECORDS]]
        files = (file for name in some for file in self.task.test_files(name))
        test, out = thin(self.test, files, self.scratch / "some"), self.scratch / "some.csv"
        start = time.perf_counter()
        # Without the sample submission, which names more than these.
        number = self._go(test, out, None)
        print(f"{number} records in {time.perf_counter() - start:.0f} s: the way is whole")
        self._check_space(out.stat().st_size * len(self.ids) // number)

    def submit(self) -> Path:
        """Predict, ensemble, write the submission and check it; clears up behind itself."""
        out = self.working / _CSV
        self._go(self.test, out, self.sample)
        shutil.rmtree(self.scratch / "runs")
        (self.scratch / "test.npy").unlink()
        return out

    def _go(self, test: Path, out: Path, sample: Path | None) -> int:
        """Write the submission of a test folder; returns the number of its samples."""
        start, manifest, predicted = launcher(torch.cuda.device_count()), self.manifest, []
        for entry in manifest.runs:
            run_folder = self.scratch / "runs" / entry.name
            what = ["--run", run_folder.relative_to(self.scratch), "--test", test.absolute()]
            run([*start, self.bundle / "predict.py", *what, *manifest.predict], self.scratch)
            predicted += [run_folder / f"fold_{k}/predictions/test.npy" for k in entry.folds]
        mean = self.scratch / "test.npy"
        combine(predicted, mean, "weighted" if manifest.weights else "mean", manifest.weights)
        predictions = load_predictions(mean)
        ids = write_submission(out, predictions, self.layout, sample)
        rows = check_submission(out, self.layout, ids)
        print(f"wrote and checked {out}: {rows} rows of {len(ids)} ids")
        note_broken(predictions.table)
        return len(ids)

    def _check_space(self, csv: int) -> None:
        files = sum(len(entry.folds) for entry in self.manifest.runs)
        size = 4 * len(self.ids) * int(np.prod(self.task.prediction_shape))
        needs = {self.scratch: (files + 1) * size, self.working: csv}
        check_space(needs, f"{files} predictions of {len(self.ids)} samples, their mean, the CSV")
