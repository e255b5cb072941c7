"""The layout of the seismic competition's submission CSV."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from comp.fwi.checks import VELOCITY_RANGE
from comp.fwi.metrics import SCORED_COLUMNS, scored
from comp.fwi.survey import OFFICIAL, Survey


@dataclass(frozen=True)
class FwiLayout:
    """One CSV row for each row of a map, `<oid>_y_<k>`, with its scored columns in m/s.

    Two decimals are the fewest that keep the score within 0.01 m/s whatever the maps: rounding
    moves a value by at most 0.005. benchmarks/submission.py measures what others cost.

    Attributes:
        survey: gives the size of a map and the range of its velocities.
        decimals: decimal places written.
        valid_range: velocities outside are refused, m/s.
    """

    survey: Survey = OFFICIAL
    decimals: int = 2
    valid_range: tuple[float, float] = VELOCITY_RANGE

    @property
    def header(self) -> tuple[str, ...]:
        """`oid_ypos`, then `x_1`, `x_3`, …"""
        return "oid_ypos", *(f"x_{x}" for x in range(self.survey.nx)[SCORED_COLUMNS])

    @property
    def rows_per_id(self) -> int:
        """One for each row (depth) of a map."""
        return self.survey.ny

    @property
    def value_shape(self) -> tuple[int, int]:
        """(depth, distance) cells of a predicted map."""
        return self.survey.map_shape

    @property
    def row_shape(self) -> tuple[int]:
        """One value for each scored column."""
        return (len(self.header) - 1,)

    @property
    def column_type(self) -> pa.DataType:
        """float32: Arrow writes the shortest text that reads back as the same float32."""
        return pa.float32()

    @property
    def clip_range(self) -> tuple[float, float]:
        """Range of the competition's maps, m/s."""
        return self.survey.min_velocity, self.survey.max_velocity

    def row_ids(self, ids: Sequence[str]) -> pa.Array:
        """(len(ids)·ny,) `<oid>_y_<k>`, k from 0 (shallow) to ny − 1 (deep)."""
        sample, number = np.divmod(np.arange(len(ids) * self.survey.ny), self.survey.ny)
        names = pa.array(ids, pa.string()).take(pa.array(sample))
        return pc.binary_join_element_wise(names, self._numbers().take(pa.array(number)), "_y_")

    def split(self, row_ids: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """(rows,) oid and (rows,) row of the map; "" and −1 where it is not `<oid>_y_<k>`."""
        parts = pc.extract_regex(row_ids, r"^(?P<oid>.+)_y_(?P<number>\d+)$")
        number = pc.index_in(parts.field("number"), value_set=self._numbers()).fill_null(-1)
        known = pc.greater_equal(number, 0)
        return pc.if_else(known, parts.field("oid"), ""), number.to_numpy()

    def columns(self, values: np.ndarray) -> list[pa.Array]:
        """One float32 array for each scored column of maps (k, ny, nx)."""
        rows = scored(values).reshape(-1, *self.row_shape)
        return [pa.array(column) for column in np.ascontiguousarray(rows.T, dtype=np.float32)]

    def rows(self, columns: Sequence[pa.Array], numbers: np.ndarray) -> np.ndarray:
        """(rows, scored columns) float32, m/s."""
        return np.stack([c.to_numpy(zero_copy_only=False) for c in columns], axis=1)

    def _numbers(self) -> pa.Array:
        return pa.array([str(k) for k in range(self.survey.ny)])


LAYOUT = FwiLayout()
