"""The competition's test layout: a folder with one record file for each sample."""

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
        ids: (n,) str, sorted.
    """

    def __init__(self, folder: str | Path, survey: Survey = OFFICIAL) -> None:
        """Looks at names and sizes only; raises InputError for a file that cannot be a record."""
        self.folder, self.survey = Path(folder), survey
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder")
        paths = [path for path in self.folder.glob("*.npy") if path.is_file()]
        if not paths:
            raise InputError(f"{self.folder}: holds no .npy records")
        self.ids = np.array(sorted(path.stem for path in paths))
        sizes = np.array([path.stat().st_size for path in paths])
        for i in np.flatnonzero(sizes != np.median(sizes)):
            self._open(paths[i])
        self._open(self.path(0))

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> Path:
        """The file of record `row`."""
        return self.folder / f"{self.ids[row]}.npy"

    def read(self, row: int, out: np.ndarray) -> None:
        """Read record `row` into `out`; raises InputError if it holds NaN or a dead shot."""
        path = self.path(row)
        out[:] = self._open(path)
        check_records(out[None], path)

    def _open(self, path: Path) -> np.ndarray:
        return open_npy(path, self.survey.record_shape, [np.float32])
