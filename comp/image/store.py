"""The prepared folder of an image competition, read by maps: its format, and the store.

    index.json            format version, the competition's entry, heads, where the raw folder is
    table.csv             id, the competition's further columns, height and width in pixels
    ids.npy               the ids as UTF-8 bytes of fixed width (n,)
    target_stops.npy      int64 (n,), where each image's labels end in …
    target_columns.npy    int32, the columns of its labels, ascending
    pixels.npy, …         decoded images, where they are kept, see `comp.image.packed`

`comp.image.prepare` writes it. Without `pixels.npy` images are decoded from the raw folder.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.core.files import open_index, open_npy, read_table
from comp.core.folds import Description
from comp.image.entry import Competition
from comp.image.folder import FileImages
from comp.image.heads import Head
from comp.image.label_groups import Group, label_groups
from comp.image.metrics import FBeta, MacroRecall
from comp.image.packed import PackedImages

FORMAT_VERSION = 1
INDEX = "index.json"
# What the store opens at once: the competition, and how often each label occurs.
INFERENCE_FILES = (INDEX, "ids.npy", "target_stops.npy", "target_columns.npy")


class ImageStore:
    """A prepared folder.

    Costs little to send to a loader's worker, which maps the files itself.

    Attributes:
        folder: the prepared folder.
        competition: its competition's entry.
        heads: the heads, with their vocabularies.
        labels: (C,) what each label means, e.g. "culture::french"; the label itself where the
            competition does not say. Where there are several heads, `<head>::` stands before it.
        size: longest short side of the decoded images that are kept, pixels; None if none are, or
            all at their full size.
        channels: of every image.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises InputError if the folder is not prepared or its tables are damaged."""
        self.folder = Path(folder)
        path, index = open_index(folder, FORMAT_VERSION)
        try:
            self.competition = parse_config(Competition, index["competition"], path)
            heads = [(h["name"], tuple(h["labels"]), h["kind"]) for h in index["heads"]]
            self.heads = tuple(Head(*head) for head in heads)
            self.labels = tuple(index["labels"])
            self.size: int | None = index["size"]
            count, self._packed, self._raw = index["images"], index["packed"], dict(index["raw"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: not an index of images: {error!r}") from None
        self.channels = self.competition.images.channels
        self._ids = open_npy(self.folder / "ids.npy", (count,))
        self._stops = open_npy(self.folder / "target_stops.npy", (count,), [np.int64])
        stored = int(self._stops[-1])
        self._columns = open_npy(self.folder / "target_columns.npy", (stored,), [np.int32])

    @cached_property
    def _source(self) -> FileImages | PackedImages:
        """Opened when the first image is wanted: the tables can do without."""
        if self._packed:
            return PackedImages(self.folder)
        raw, images = self._raw, self.competition.images
        # A pair of folders that was moved together still fits; else where it was first.
        places = [(self.folder / raw["relative"]).resolve(), Path(raw["absolute"])]
        for place in places:
            if (place / images.train).is_dir():
                return FileImages([place / images.train], images)
        raise InputError(
            f"{self.folder}: its raw images are gone: expected the folder {images.train!r} in "
            f"{places[0]} or {places[1]}; prepare it again"
        )

    def __reduce__(self) -> tuple[type["ImageStore"], tuple[Path]]:
        return ImageStore, (self.folder,)

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) str: image ids, in the order of the training table."""
        return np.char.decode(np.asarray(self._ids), "utf-8")

    @cached_property
    def _table(self) -> pd.DataFrame:
        path = self.folder / "table.csv"
        table = read_table(path)
        if not np.array_equal(table["id"].to_numpy(str), self.ids):
            raise InputError(f"{path}: its ids are not those of ids.npy")
        return table

    @property
    def groups(self) -> np.ndarray:
        """(n,) str: images with the same one must share a fold; the id where there are none."""
        group = self.competition.group
        return self.ids if group is None else self._table[group].to_numpy(str)

    def table(self, rows: Sequence[int]) -> pd.DataFrame:
        """The id table of `rows` for a prediction file: `id`, then the further columns."""
        columns = ["id", *self.competition.columns]
        return self._table[columns].iloc[np.asarray(rows)].reset_index(drop=True)

    def targets(self, rows: Sequence[int]) -> np.ndarray:
        """(len(rows), C) float32 targets, the heads' columns one after another."""
        out = np.zeros((len(rows), len(self.labels)), np.float32)
        for i, row in enumerate(rows):
            out[i, self._columns_of(int(row))] = 1
        return out

    def _columns_of(self, row: int) -> np.ndarray:
        start = self._stops[row - 1] if row else 0
        return self._columns[start : self._stops[row]]

    @property
    def label_counts(self) -> np.ndarray:
        """(C,) int64: images that have each label."""
        return np.bincount(self._columns, minlength=len(self.labels))

    @property
    def metric(self) -> FBeta | MacroRecall:
        """The competition's metric."""
        return self.competition.metric_of(self.heads)

    @property
    def label_groups(self) -> tuple[Group, ...]:
        """Groups of labels and their limits, by what stands before `::` in the labels' names.

        Labels without it are one group, "all".
        """
        return limited_groups(self.labels, self.competition)

    def description(self) -> Description:
        """What is known of each image when folds are cut."""
        labels = np.zeros((len(self), len(self.labels)), np.uint8)
        counts = np.diff(self._stops, prepend=0)
        labels[np.repeat(np.arange(len(self)), counts), self._columns] = 1
        table = self._table.drop(columns="id")
        return Description(self.ids, table, labels, self.labels, self.competition.group)

    def read(self, row: int, least: tuple[int, int] | None = None) -> np.ndarray:
        """Image `row`, (H, W, channels) uint8.

        Args:
            row: of the table.
            least: height and width that suffice; a JPEG may then be decoded at 1/2, 1/4 or 1/8.

        Raises:
            InputError: the raw images are gone, this one is missing or cannot be decoded.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} in {self.folder}")
        if isinstance(self._source, PackedImages):
            return self._source.read(row)
        return self._source.read(self._ids[row].decode(), least)


def limited_groups(labels: Sequence[str], competition: Competition) -> tuple[Group, ...]:
    """Groups of `ImageStore.labels`; a limit above the size of its group is cut to that.

    Raises:
        InputError: limits of a kind that no label has, or more labels at least than there are.
    """
    kinds = [name.split("::")[0] if "::" in name else "all" for name in labels]
    limits = {
        kind: (least, None if most is None else min(most, kinds.count(kind)))
        for kind, (least, most) in competition.limits.items()
    }
    return label_groups(kinds, limits)


def describe_folder(folder: str | Path) -> Description:
    """`ImageStore.description` of a prepared folder."""
    return ImageStore(folder).description()
