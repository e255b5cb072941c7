"""What a competition says of itself: its tables, image files, labels, metric and submission.

An entry is data. Those of `comp.image.competitions` are known by name; a YAML file with the same
keys is one more:

    name: cells
    id: image_id
    labels: [{column: tags, vocabulary: [round, flat, dark]}]
    images: {files: ["{id}_dna.tif", "{id}_actin.tif"], channels: 2}
    metric: f1_macro
    submission: {header: [image_id, tags]}
"""

import string
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from comp.core.config import Section
from comp.image.heads import Head
from comp.image.metrics import FBeta, MacroRecall

ID = "{id}"
_ADDED = ("id", "fold", "group", "height", "width", "broken")  # columns of tables made here


class LabelColumn(Section):
    """A column of the training table that holds labels: one head of the network."""

    column: str = Field(min_length=1, description="the column, and the name of the head")
    kind: Literal["multilabel", "multiclass"] = Field(
        "multilabel", description="any number of labels, or exactly one"
    )
    vocabulary: int | str | tuple[str, ...] | None = Field(
        None,
        description="the labels, in the order of the columns; so many whole numbers from 0; a CSV "
        "of the raw folder whose first two columns are a label and its name; or none: what the "
        "training table holds, sorted",
    )
    names: tuple[str, ...] = Field((), description="what the labels mean, in their order")
    weight: float = Field(1.0, ge=0, description="of the head in macro recall")

    @field_validator("vocabulary", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """YAML reads a label such as 7 as a number."""
        if not isinstance(value, list | tuple):
            return value
        return tuple(str(label) if type(label) is int else label for label in value)


class ImageFiles(Section):
    """Where the images of a competition lie, and how one is put together."""

    kind: Literal["files", "parquet"] = Field(
        "files", description="files of their own, or rows of parquet files: an id, then the pixels"
    )
    train: str = Field("train", description="folder of the training images in the raw folder")
    test: tuple[str, ...] = Field(
        ("test",), min_length=1, description="folders of the test images in the raw folder"
    )
    files: tuple[str, ...] = Field(
        ("{id}.png",),
        min_length=1,
        description="name of an image's file; several hold one channel each. Of parquet files: the "
        "patterns of the training and of the test ones",
    )
    channels: int = Field(3, ge=1, description="of an image as it is read")
    shape: tuple[int, int] | None = Field(None, description="height, width; for parquet only")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "parquet":
            if len(self.files) != 2 or self.shape is None or self.channels != 1:
                raise ValueError("takes two patterns in files, a shape and 1 channel for parquet")
            return self
        for name in self.files:
            fields = [field for _, field, _, _ in string.Formatter().parse(name) if field]
            if fields != ["id"]:
                raise ValueError(f"takes file names with {ID} once, not {name!r}")
        if len(self.files) not in (1, self.channels):
            raise ValueError(f"takes as many channels as there are files, {len(self.files)}")
        if len(self.files) == 1 and self.channels not in (1, 3):
            raise ValueError("takes 1 or 3 channels where one file holds them")
        return self


class Submission(Section):
    """The submission CSV."""

    header: tuple[str, str] = Field(description="columns of the id and of the labels")
    rows: tuple[str, ...] = Field(
        (),
        description="none: one row an image, its labels joined. Otherwise one row for each of "
        "these heads, in this order, with the id <id>_<head>",
    )
    blank: bool = Field(True, description="whether an image may be submitted without labels")


class Competition(Section):
    """A multilabel or multiclass competition over images."""

    name: str = Field(pattern=r"^[\w.-]+$", description="what it is called here")
    table: str = Field("train.csv", description="the training table in the raw folder")
    id: str = Field("id", description="the table's column of image ids")
    labels: tuple[LabelColumn, ...] = Field(min_length=1, description="the columns of labels")
    separator: str = Field(" ", min_length=1, description="between the labels of a cell")
    columns: tuple[str, ...] = Field((), description="further columns to keep, e.g. for groups")
    group: str | None = Field(
        None, description="one of columns: images with the same value share a fold"
    )
    limits: dict[str, tuple[int, int | None]] = Field(
        {},
        description="least and most labels of an image whose names begin with <key>::; the key "
        "all is for labels without ::",
    )
    images: ImageFiles = ImageFiles()
    metric: str = Field(
        "f1_samples",
        pattern=r"^(f\d+(\.\d+)?_(samples|micro|macro)|macro_recall)$",
        description="f<beta>_samples, f<beta>_micro, f<beta>_macro, or macro_recall",
    )
    submission: Submission

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kinds = {labels.kind for labels in self.labels}
        if (self.metric == "macro_recall") != (kinds == {"multiclass"}):
            raise ValueError(
                "takes metric macro_recall with multiclass labels alone, F-beta with multilabel"
            )
        if self.submission.rows and sorted(self.submission.rows) != sorted(self.head_names):
            raise ValueError(f"takes each of {', '.join(self.head_names)} once in submission.rows")
        if not self.submission.rows and len(self.labels) > 1:
            raise ValueError("takes submission.rows where there are several columns of labels")
        if self.group is not None and self.group not in self.columns:
            raise ValueError(f"takes {self.group!r} in columns, as it is the group")
        for name in self.columns:
            if name in _ADDED and not name == self.group == "group":
                raise ValueError(f"takes no {name!r} in columns: tables made here have their own")
        return self

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads' names, in the order of the columns."""
        return tuple(labels.column for labels in self.labels)

    def metric_of(self, heads: tuple[Head, ...]) -> FBeta | MacroRecall:
        """The competition's metric over its heads."""
        if self.metric == "macro_recall":
            return MacroRecall(heads, tuple(labels.weight for labels in self.labels))
        beta, average = self.metric[1:].split("_")
        return FBeta(average, float(beta))
