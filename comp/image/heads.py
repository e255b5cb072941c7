"""What a network predicts: one or several groups of labels, side by side in the columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from comp.core.errors import InputError


@dataclass(frozen=True)
class Head:
    """A group of labels.

    Logits, probabilities and targets are (n, C) float32: the heads' columns one after another.
    Targets are multi-hot in a multilabel head, where a row of zeros is a valid empty set, and
    one-hot in a multiclass head; mixed ones are weighted means of these.

    Attributes:
        name: unique among the heads of a competition.
        labels: the vocabulary, in the order of the columns.
        kind: "multilabel", any number of labels a sample by sigmoids, or "multiclass", exactly one
            by a softmax.

    Raises:
        InputError: a label that stands twice, or fewer labels than the kind can tell apart.
    """

    name: str
    labels: tuple[str, ...]
    kind: Literal["multilabel", "multiclass"]

    def __post_init__(self) -> None:
        least = 2 if self.kind == "multiclass" else 1
        if len(self.labels) < least:
            raise InputError(
                f"head {self.name!r}: {len(self.labels)} labels, a {self.kind} head takes "
                f"at least {least}"
            )
        if len(set(self.labels)) < len(self.labels):
            seen: set[str] = set()
            doubled = next(x for x in self.labels if x in seen or seen.add(x))
            raise InputError(f"head {self.name!r}: label {doubled!r} stands there twice")


def columns(heads: Sequence[Head]) -> list[slice]:
    """The columns of each head, in the heads' order."""
    stops = [0]
    for head in heads:
        stops.append(stops[-1] + len(head.labels))
    return [slice(start, stop) for start, stop in pairwise(stops)]
