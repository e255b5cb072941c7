"""The training table of an image competition: ids, further columns and checked labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack

from comp.core.errors import InputError
from comp.core.files import read_table
from comp.core.predictions import check_unique
from comp.image.entry import Competition, LabelColumn
from comp.image.heads import Head


@dataclass(frozen=True)
class Training:
    """The training table.

    Attributes:
        table: `id` (str, unique) and the competition's further columns (str), one row an image.
        heads: the heads, with their vocabularies.
        names: what each of the C labels means, in the order of the columns.
        targets: (n, C) uint8 of 0 and 1.
    """

    table: pd.DataFrame
    heads: tuple[Head, ...]
    names: tuple[str, ...]
    targets: csr_array

    def in_order(self, ids: np.ndarray, source: str | Path) -> "Training":
        """The same images in the order of `ids`, which are those of `source`.

        Raises:
            InputError: an id that the table does not have, or the other way round.
        """
        check_unique(pd.Series(ids), source)
        order = pd.Index(self.table["id"]).get_indexer(pd.Index(ids))
        if (order < 0).any():
            first = str(ids[int(np.argmax(order < 0))])
            raise InputError(f"{source}: image {first!r} is not in the training table")
        if len(order) < len(self.table):
            missing = self.table["id"][~self.table["id"].isin(ids)]
            raise InputError(f"{source}: no image {missing.iloc[0]!r} ({len(missing)} missing)")
        table = self.table.iloc[order].reset_index(drop=True)
        return replace(self, table=table, targets=self.targets[order])


def read_training(raw: str | Path, competition: Competition) -> Training:
    """Read and check the training table and the vocabulary in a raw folder.

    Stray spaces in headers pass with a note; an empty cell is a valid empty set of labels, in a
    multilabel column.

    Raises:
        InputError: a file or column missing; an id doubled or blank; a cell of a further column
            blank; a label unknown, doubled, or not exactly one in a multiclass column.
    """
    path = Path(raw) / competition.table
    labelled = [labels.column for labels in competition.labels]
    table = read_columns(path, [competition.id, *labelled, *competition.columns])
    if not len(table):
        raise InputError(f"{path}: a header without rows")
    check_unique(table[competition.id], path)
    for column in competition.columns:
        blank = np.flatnonzero(table[column].str.strip() == "")
        if len(blank):
            where = table[competition.id].iloc[blank[0]]
            raise InputError(f"{path}: id {where!r}: blank {column!r}, expected a value")
    heads, names, targets = [], [], []
    for labels in competition.labels:
        cells = _Cells(path, table[competition.id].to_numpy(), table[labels.column], competition)
        words, meanings = _vocabulary(raw, labels, cells)
        head = Head(labels.column, words, labels.kind)
        heads.append(head)
        kind = f"{head.name}::" if len(competition.labels) > 1 else ""
        names.extend(kind + meaning for meaning in meanings)
        targets.append(cells.targets(head))
    kept = table[[competition.id, *competition.columns]]
    kept = kept.rename(columns={competition.id: "id"})
    return Training(kept, tuple(heads), tuple(names), csr_array(hstack(targets, format="csr")))


def read_columns(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of a CSV as strings; stray spaces in its header pass with a note.

    Raises:
        InputError: no such file, not a table, or a column missing or twice.
    """
    table = read_table(path)
    stripped = [str(name).strip() for name in table.columns]
    if stripped != list(table.columns):
        print(f"note: {path}: the header has stray spaces")
    table.columns = stripped
    for column in columns:
        if stripped.count(column) != 1:
            raise InputError(
                f"{path}: {stripped.count(column) or 'no'} columns {column!r}, expected one; "
                f"the header is {','.join(stripped)}"
            )
    return table[list(columns)]


class _Cells:
    """The cells of one label column, taken apart."""

    def __init__(
        self, path: Path, ids: np.ndarray, cells: pd.Series, competition: Competition
    ) -> None:
        self._path, self._ids, self._count = path, ids, len(cells)
        words = cells.reset_index(drop=True).str.split(competition.separator, regex=False).explode()
        words = words.str.strip()
        words = words[words != ""]
        self._rows, self._words = words.index.to_numpy(), words.to_numpy()

    def words(self) -> list[str]:
        """All labels that occur, whole numbers in their order."""
        found = sorted(set(self._words))
        return sorted(found, key=int) if all(map(str.isdecimal, found)) else found

    def targets(self, head: Head) -> csr_array:
        """(n, labels of the head) uint8; raises InputError naming the first bad cell's id."""
        columns = pd.Index(head.labels).get_indexer(self._words)
        unknown = np.flatnonzero(columns < 0)
        if len(unknown):
            few = ", ".join(head.labels[:3])
            raise self._error(
                unknown[0], f"unknown, expected one of {len(head.labels)} such as {few}"
            )
        places = self._rows * len(head.labels) + columns
        doubled = np.flatnonzero(pd.Index(places).duplicated())
        if len(doubled):
            raise self._error(doubled[0], "stands there twice")
        if head.kind == "multiclass":
            counts = np.bincount(self._rows, minlength=self._count)
            wrong = np.flatnonzero(counts != 1)
            if len(wrong):
                raise InputError(
                    f"{self._path}: id {self._ids[wrong[0]]!r}: {counts[wrong[0]]} labels in "
                    f"{head.name!r}, expected one"
                )
        ones = np.ones(len(columns), np.uint8)
        shape = (self._count, len(head.labels))
        targets = csr_array((ones, (self._rows, columns)), shape=shape)
        targets.sort_indices()
        return targets

    def _error(self, place: int, what: str) -> InputError:
        word, where = self._words[place], self._ids[self._rows[place]]
        return InputError(f"{self._path}: id {where!r}: label {word!r} {what}")


def _vocabulary(
    raw: str | Path, labels: LabelColumn, cells: _Cells
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of a column and what they mean."""
    source = labels.vocabulary
    if isinstance(source, str):
        path = Path(raw) / source
        table = read_table(path)
        if len(table.columns) < 2 or not len(table):
            raise InputError(f"{path}: expected rows of a label and its name")
        words = tuple(table.iloc[:, 0].str.strip())
        check_unique(pd.Series(words), path)
        return words, tuple(table.iloc[:, 1].str.strip())
    if isinstance(source, int):
        words = tuple(map(str, range(source)))
    else:
        words = tuple(cells.words()) if source is None else source
    if not labels.names:
        return words, words
    if len(labels.names) != len(words):
        raise InputError(
            f"competition: {len(labels.names)} names of {labels.column!r}, expected {len(words)}"
        )
    return words, labels.names
