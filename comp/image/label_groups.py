"""Groups of labels, such as iMet's cultures and tags, and how many of each an image may have."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from comp.core.config import Section, parse_config
from comp.core.errors import InputError


class Group(Section):
    """Labels of one kind, such as iMet's cultures, and how many of them an image has."""

    name: str = Field(description="what the labels have in common")
    columns: tuple[int, ...] = Field(min_length=1, description="columns, ascending")
    minimum: int = Field(0, ge=0, description="labels chosen at least")
    maximum: int | None = Field(None, ge=0, description="labels chosen at most")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        most = len(self.columns) if self.maximum is None else self.maximum
        if not self.minimum <= most <= len(self.columns):
            raise ValueError(
                f"takes minimum ≤ maximum ≤ {len(self.columns)} columns in group {self.name!r}"
            )
        return self

    @property
    def bound(self) -> bool:
        """Whether there is any limit."""
        return self.minimum > 0 or self.maximum is not None

    @property
    def where(self) -> slice | list[int]:
        """An index of the columns: a slice, which copies nothing, where they are consecutive."""
        first, last = self.columns[0], self.columns[-1]
        if self.columns == tuple(range(first, last + 1)):
            return slice(first, last + 1)
        return list(self.columns)


def one_group(labels: int, minimum: int = 0, maximum: int | None = None) -> tuple[Group, ...]:
    """All columns as one group; raises InputError for limits that cannot be."""
    return label_groups(["all"] * labels, {"all": (minimum, maximum)})


def label_groups(
    kinds: Sequence[str], limits: Mapping[str, tuple[int, int | None]] | None = None
) -> tuple[Group, ...]:
    """Groups of labels by their kind.

    Args:
        kinds: the kind of each column, e.g. what stands before `::` in iMet's label names.
        limits: minimum and maximum number of labels of a kind, e.g.
            `{"culture": (0, 3), "tag": (1, 8)}`; none for a kind that is not named.

    Raises:
        InputError: limits for an unknown kind, or a minimum above the maximum or the group's size.
    """
    columns: dict[str, list[int]] = {}
    for column, kind in enumerate(kinds):
        columns.setdefault(kind, []).append(column)
    limits = dict(limits or {})
    for kind in limits:
        if kind not in columns:
            raise InputError(f"limits: no labels of kind {kind!r}, expected one of {list(columns)}")
    groups = []
    for kind, places in columns.items():
        least, most = limits.get(kind, (0, None))
        values = {"name": kind, "columns": places, "minimum": least, "maximum": most}
        groups.append(parse_config(Group, values, "label group"))
    return tuple(groups)


def checked_groups(groups: Sequence[Group] | None, labels: int) -> tuple[Group, ...]:
    """The groups, or one of all columns for None; InputError unless each column is in one group."""
    if groups is None:
        return one_group(labels)
    if sorted(column for group in groups for column in group.columns) != list(range(labels)):
        raise InputError(f"groups: expected each of the {labels} columns in exactly one group")
    return tuple(groups)
