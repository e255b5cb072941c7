"""The layout of image competitions' submission CSVs: labels as text, one or several rows an image.

What is predicted are probabilities; a rule found on out-of-fold predictions makes label sets of
them as they are written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from comp.core.errors import InputError
from comp.core.layout import BadCell
from comp.image.entry import Competition
from comp.image.heads import Head, columns
from comp.image.ranking import top_labels
from comp.image.store import ImageStore
from comp.image.thresholds import Rule, read_rule


@dataclass(frozen=True)
class ImageLayout:
    """One row an image with the labels of its head, or a row `<id>_<head>` for each head.

    An empty cell is the empty set where the competition takes it. Where it does not, an image for
    which the rule finds no label gets its most probable one.

    Attributes:
        competition: says header, rows and separator.
        heads: with their vocabularies.
        rule: from probabilities to label sets; None if nothing is to be written.
    """

    competition: Competition
    heads: tuple[Head, ...]
    rule: Rule | None = None
    column_type: pa.DataType = field(default_factory=pa.string, init=False)
    decimals: None = field(default=None, init=False)
    valid_range: tuple[float, float] = field(default=(0.0, 1.0), init=False)
    clip_range: tuple[float, float] = field(default=(0.0, 1.0), init=False)

    def __post_init__(self) -> None:
        if self.rule is not None and self.rule.width != self.value_shape[0]:
            raise InputError(
                f"rule: made for {self.rule.width} labels, expected {self.value_shape[0]} as of "
                f"competition {self.competition.name}"
            )

    @property
    def header(self) -> tuple[str, str]:
        """The row id's column and the labels'."""
        return self.competition.submission.header

    @cached_property
    def _order(self) -> list[tuple[Head, slice]]:
        """Head and columns of each row of an image."""
        found = {head.name: (head, part) for head, part in zip(self.heads, columns(self.heads))}
        return [found[name] for name in self.competition.submission.rows or found]

    @property
    def rows_per_id(self) -> int:
        """1, or the number of heads."""
        return len(self._order)

    @property
    def value_shape(self) -> tuple[int]:
        """C probabilities."""
        return (sum(len(head.labels) for head in self.heads),)

    @property
    def row_shape(self) -> tuple[int]:
        """A row is read as 0 and 1 for its head's labels, zeros behind where others have more."""
        return (max(len(head.labels) for head in self.heads),)

    def row_ids(self, ids: Sequence[str]) -> pa.Array:
        """The ids, or `<id>_<head>` for each head in the competition's order."""
        names = self.competition.submission.rows
        if not names:
            return pa.array(ids, pa.string())
        return pa.array([f"{name}_{head}" for name in ids for head in names], pa.string())

    def split(self, row_ids: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """(rows,) image id and (rows,) place of the head; "" and −1 where there is none such."""
        names = self.competition.submission.rows
        if not names:
            return row_ids, np.zeros(len(row_ids), np.int64)
        known = "|".join(map(re.escape, names))
        parts = pc.extract_regex(row_ids, rf"^(?P<id>.+)_(?P<head>{known})$")
        number = pc.index_in(parts.field("head"), value_set=pa.array(names)).fill_null(-1)
        found = pc.if_else(pc.greater_equal(number, 0), parts.field("id"), "")
        return found, number.to_numpy(zero_copy_only=False).astype(np.int64)

    def columns(self, values: np.ndarray) -> list[pa.Array]:
        """One column of texts from probabilities (k, C); raises InputError without a rule."""
        if self.rule is None:
            raise InputError("--rule: not given; expected a file written by scripts/rules.py")
        sets = self.rule.decide(values)
        cells = np.empty((len(values), self.rows_per_id), object)
        for number, (head, part) in enumerate(self._order):
            mine = sets[:, part]
            if not self.competition.submission.blank:
                empty = ~mine.any(axis=1)
                mine[empty] = top_labels(values[:, part][empty], 1)
            cells[:, number] = self._join(mine, head)
        return [pa.array(cells.ravel(), pa.string())]

    def _join(self, sets: np.ndarray, head: Head) -> list[str]:
        _, column = np.nonzero(sets)
        names = np.array(head.labels, object)[column]
        ends = np.count_nonzero(sets, axis=1).cumsum()
        separator = self.competition.separator
        return [separator.join(part) for part in np.split(names, ends[:-1])]

    def rows(self, columns: Sequence[pa.Array], numbers: np.ndarray) -> np.ndarray:
        """(rows, labels of the largest head) float32, 0 and 1; raises BadCell."""
        cells, result = columns[0], np.zeros((len(numbers), *self.row_shape), np.float32)
        for number, (head, _) in enumerate(self._order):
            rows = np.flatnonzero(numbers == number)
            self._parse(cells.take(pa.array(rows)), head, rows, result)
        return result

    def _parse(self, cells: pa.Array, head: Head, rows: np.ndarray, result: np.ndarray) -> None:
        """Set what `cells` name in the `rows` of `result`."""
        lists = pc.split_pattern(cells, self.competition.separator)
        cell = pc.list_parent_indices(lists).to_numpy()
        names = pc.utf8_trim_whitespace(pc.list_flatten(lists))
        some = pc.not_equal(names, "").to_numpy(zero_copy_only=False)
        column = pc.index_in(names, value_set=pa.array(head.labels)).fill_null(-1).to_numpy()
        if (wrong := some & (column < 0)).any():
            first = int(np.argmax(wrong))
            known = f"one of the {len(head.labels)} of {head.name}, as {head.labels[0]!r}"
            raise BadCell(
                int(rows[cell[first]]), f"label {names[first].as_py()!r}, expected {known}"
            )
        result[rows[cell[some]], column[some]] = 1
        found = result[rows].sum(axis=1)
        least = 1 if head.kind == "multiclass" or not self.competition.submission.blank else 0
        wrong = (found < least) | ((found > 1) & (head.kind == "multiclass"))
        if wrong.any():
            first = int(np.argmax(wrong))
            expected = "one" if head.kind == "multiclass" else "one or more"
            raise BadCell(int(rows[first]), f"{found[first]:.0f} labels, expected {expected}")

    def sets(self, values: np.ndarray) -> np.ndarray:
        """(n, C) bool label sets of what `comp.core.submission.read_submission` returns."""
        number = {head.name: i for i, (head, _) in enumerate(self._order)}
        parts = [values[:, number[head.name], : len(head.labels)] > 0.5 for head in self.heads]
        return np.concatenate(parts, axis=1)


def read_layout(data: str | Path | None, rule: str | Path | None) -> ImageLayout:
    """The layout of a prepared folder's competition, with the rule of a file.

    Raises:
        InputError: no prepared folder, a bad rule file, or the rule of another number of labels.
    """
    if data is None:
        raise InputError("--data: not given; expected the prepared folder, which knows the labels")
    store = ImageStore(data)
    return ImageLayout(store.competition, store.heads, None if rule is None else read_rule(rule))
