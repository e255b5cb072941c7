"""The competition's test layout: a folder with one record file for each sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comp.core.errors import InputError
from comp.core.files import open_npy
from comp.fwi.checks import check_records
from comp.fwi.survey import OFFICIAL, Survey


class RecordFolder:
    """The competition's test layout: a folder of `<oid>.npy`, float32 (shots, nt, receivers).

    Attributes:
        folder: the folder.
        survey: the acquisition that the records must fit.
        ids: (n,) str; sorted, or as they were given.
    """

    def __init__(
        self,
        folder: str | Path,
        survey: Survey = OFFICIAL,
        ids: Sequence[str] | None = None,
        lenient: bool = False,
    ) -> None:
        """Looks at names and sizes only.

        Args:
            folder: the folder.
            survey: the acquisition that the records must fit.
            ids: the records wanted, in that order; None for all that are there.
            lenient: a file that is missing or cannot be a record shows when it is read.

        Raises:
            InputError: no such folder, no records in it, or a file that cannot be a record; if
                lenient, only where the first of the most common size is none.
        """
        self.folder, self.survey = Path(folder), survey
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder")
        found = sorted(path for path in self.folder.glob("*.npy") if path.is_file())
        if not found:
            raise InputError(f"{self.folder}: holds no .npy records")
        names = [path.stem for path in found]
        self.ids = np.array(names if ids is None else ids, dtype=str)
        sizes = np.array([path.stat().st_size for path in found])
        usual = sizes == np.sort(sizes)[len(sizes) // 2]
        if not lenient:
            for i in np.flatnonzero(~usual):
                self._open(found[i])
            absent = np.setdiff1d(self.ids, names)
            if len(absent):
                what = f"{len(absent)} of {len(self.ids)} records missing, first {str(absent[0])!r}"
                raise InputError(f"{self.folder}: {what}")
        self._open(found[int(np.argmax(usual))])

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> Path:
        """The file of record `row`."""
        return self.folder / f"{self.ids[row]}.npy"

    def read(self, row: int, out: np.ndarray) -> None:
        """Read record `row` into `out`; raises InputError if it is missing or damaged, or holds NaN
        or a dead shot.
        """
        path = self.path(row)
        out[:] = self._open(path)
        check_records(out[None], path)

    def _open(self, path: Path) -> np.ndarray:
        return open_npy(path, self.survey.record_shape, [np.float32])
