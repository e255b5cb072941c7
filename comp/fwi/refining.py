"""A prediction file refined against its records: several processes, killed and started again.

    <out>.npy, <out>.ids.csv    the refined predictions, in the order and the form of the given ones
    <out>.refined.csv           prior, misfit before and after, iterations, evaluations and why the
                                inversion ended, for each sample
    <out>.misfit.npy            float32 (n, evaluations): relative L2 misfit of the map reached
                                after each evaluation, the start's first; NaN after the last

While it runs, each process appends what is done to a file of its own in `<out>.refining/`; samples
in the making are begun again after a kill, and come out the same as they share nothing. The folder
stays where samples are left at the end of the time given.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from comp.core.claims import exclusive
from comp.core.errors import InputError
from comp.core.files import sha256
from comp.core.predictions import Predictions, load_predictions
from comp.core.share import Share
from comp.core.signals import StopRequest
from comp.fwi.checks import check_records, check_velocity
from comp.fwi.records import RecordFolder
from comp.fwi.refine import Refiner, Sample, Settings
from comp.fwi.refine_work import Work
from comp.fwi.router import route
from comp.fwi.shots import ShotStore
from comp.fwi.survey import OFFICIAL, Survey

_CHUNK = 512  # maps checked at once, 10 MB
# Priors that are the last to be begun: on a GPU their samples gain 10 m/s a second, smooth ones 40,
# level ones 60, which matters where time is short: only there are records read twice.
_LAST = ("layered",)


class Records(Protocol):
    """Records by row, wherever they come from."""

    ids: np.ndarray
    survey: Survey

    def record(self, row: int) -> np.ndarray:
        """(shots, nt, receivers) float32 amplitudes; raises InputError for a broken record."""
        ...


class _Folder(RecordFolder):
    def record(self, row: int) -> np.ndarray:
        out = np.empty(self.survey.record_shape, np.float32)
        self.read(row, out)
        return out


class _Prepared(ShotStore):
    def record(self, row: int) -> np.ndarray:
        record = self.shots(row).astype(np.float32) / np.float32(self.amplitude_scale)
        check_records(record[None], self.folder, row)
        return record


def open_records(folder: str | Path, survey: Survey = OFFICIAL) -> Records:
    """A prepared folder (it has an index.json), or a folder of `<id>.npy` records of `survey`."""
    if (Path(folder) / "index.json").exists():
        return _Prepared(folder)
    return _Folder(folder, survey)


def refine_file(
    predictions: str | Path,
    records: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    prior: str = "auto",
    share: Share | None = None,
    survey: Survey = OFFICIAL,
    hours: float = math.inf,
) -> int:
    """Invert every sample of a prediction file against its record; see the module for the files.

    Args:
        predictions: the prediction file's array.
        records: where the records with its ids are, see `open_records`.
        out: the array to write.
        settings: of the inversion.
        prior: a name of `comp.fwi.priors.PRIORS` for all samples; "auto" asks `router.route`.
        share: what this process does; the first one puts the parts together.
        survey: of a folder of records; a prepared folder has its own.
        hours: after which no further sample is begun, those that gain most in a second first.
            Those that are left keep their predictions, and the next run goes on with them.

    Returns:
        How many samples are left; 0 in all processes but the first.

    Raises:
        InputError: predictions that are no velocity maps, ids without a record, a broken record;
            unfinished work of another prediction file or of other settings is in the way.
        Stopped: asked to end by Ctrl-C or SIGTERM; the next run goes on.
    """
    if not hours >= 0:
        raise InputError(f"hours: got {hours}, expected 0 or more")
    end = time.monotonic() + 3600 * hours
    settings, share = settings or Settings(), share or Share()
    given, source, out = load_predictions(predictions), open_records(records, survey), Path(out)
    if given.values.shape[1:] != source.survey.map_shape:
        found, expected = given.values.shape[1:], source.survey.map_shape
        raise InputError(f"{given.path}: maps {found}, expected {expected}")
    rows = _record_rows(given, source.ids, records)
    for first in range(0, len(given), _CHUNK):
        check_velocity(given.values[first : first + _CHUNK], given.path, first)
    work = Work(out.with_suffix(".refining"), settings, source.survey, len(given))
    with ExitStack() as stack:
        if share.index == 0:
            stack.enter_context(exclusive(work.folder))
        recipe = {**asdict(settings), "prior": prior, "survey": asdict(source.survey)}
        work.claim({**recipe, "predictions": sha256(given.path)}, share)
        todo = work.missing(share)

        stop = stack.enter_context(StopRequest())

        def read(row: int, kind: str | None = None) -> Sample:
            work.heed(stop)  # many may be read before the first is begun
            start, record = given.values[row], source.record(rows[row])
            kind = kind or route(record, start, source.survey)
            return Sample(int(row), np.array(start), record, kind)

        def in_order() -> Iterator[Sample]:
            if prior != "auto" or math.isinf(hours):
                yield from (read(row, None if prior == "auto" else prior) for row in todo)
                return
            later = []
            for sample in map(read, todo):
                if sample.prior in _LAST:
                    later.append((sample.row, sample.prior))
                else:
                    yield sample
            # Read again, since their records need not fit into memory.
            yield from (read(*one) for one in later)

        def samples() -> Iterator[Sample]:
            for sample in in_order():
                if time.monotonic() > end:
                    return
                yield sample

        bar = stack.enter_context(work.bar(share))
        refiner = Refiner(settings, source.survey, share.device, share.beside)
        if len(todo):
            work.refine(refiner, samples(), share, bar, stop)
        work.finish(share)
        if share.index > 0:
            return 0
        work.wait(share, bar, stop)
        return work.collect(given, out)


def _record_rows(given: Predictions, ids: np.ndarray, records: str | Path) -> np.ndarray:
    """The row of each prediction's record."""
    rows = pd.Index(ids).get_indexer(pd.Index(given.ids))
    if (rows < 0).any():
        first, missing = given.ids[int(np.argmax(rows < 0))], int((rows < 0).sum())
        what = f"no record for {missing} of {len(rows)} ids of {given.path}, first {first!r}"
        raise InputError(f"{records}: {what}")
    return rows
