"""From probabilities to label sets: frozen rules, as a run keeps them beside its predictions.

A rule knows the groups of its columns and how many labels each may have. It is fitted on
out-of-fold predictions (`comp.image.threshold_search`, for softmax heads
`comp.image.prior_search`), written as JSON, and decides on the test set:

    rule = fit_groups(probabilities, truth, metric, groups)
    write_text(path, rule.to_json())
    ...
    sets = read_rule(path).decide(test_probabilities)

Comparisons with thresholds are strict, so a label of probability 0 is never chosen by one, and none
is at threshold 1. Limits keep, or add, the most probable labels of the group, and of equally
probable ones the first column.
"""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from comp.core.config import Section, parse_config
from comp.core.errors import InputError
from comp.image.checks import checked_probabilities, chunks
from comp.image.heads import Head
from comp.image.label_groups import Group, checked_groups
from comp.image.ranking import top_labels

_TINY = np.float32(1e-12)  # below it probabilities count as equal where their logarithm is taken


class Rule(Section):
    """How probabilities (n, C) become label sets (n, C)."""

    @property
    @abstractmethod
    def width(self) -> int:
        """C, the number of labels it was fitted for."""

    @abstractmethod
    def _choose(self, probabilities: np.ndarray) -> np.ndarray:
        """(r, C) bool from checked (r, C) float32."""

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """(n, C) bool label sets.

        Args:
            probabilities: (n, C) floating, 0 to 1.

        Raises:
            InputError: another number of labels than the rule's, NaN or outside 0..1.
        """
        probabilities = checked_probabilities(probabilities)
        if probabilities.shape[1] != self.width:
            raise InputError(
                f"probabilities: {probabilities.shape[1]} labels, expected the rule's {self.width}"
            )
        result = np.empty(probabilities.shape, bool)
        for rows in chunks(*result.shape):
            result[rows] = self._choose(probabilities[rows])
        return result

    def to_json(self) -> str:
        """The rule as one JSON object, exact; `rule_from_json` reads it."""
        return self.model_dump_json() + "\n"


class _GroupedRule(Rule):
    groups: tuple[Group, ...] = Field(min_length=1, description="each column in exactly one")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        checked_groups(self.groups, self.width)
        return self

    @property
    def width(self) -> int:
        return sum(len(group.columns) for group in self.groups)

    def _choose(self, probabilities: np.ndarray) -> np.ndarray:
        chosen = self._above(probabilities)
        for group in self.groups:
            if group.bound:
                part = probabilities[:, group.where], chosen[:, group.where]
                chosen[:, group.where] = _limit(*part, group)
        return chosen

    @abstractmethod
    def _above(self, probabilities: np.ndarray) -> np.ndarray:
        """(r, C) bool, as `_choose`, before the groups' limits."""


def _limit(probabilities: np.ndarray, chosen: np.ndarray, group: Group) -> np.ndarray:
    """`chosen` (r, g) with as many labels in each row as the group may have."""
    found = np.count_nonzero(chosen, axis=1)
    few = found < group.minimum
    if few.any():
        chosen[few] = top_labels(np.where(chosen[few], 2, probabilities[few]), group.minimum)
    if group.maximum is not None and (many := found > group.maximum).any():
        chosen[many] = top_labels(np.where(chosen[many], probabilities[many], -1), group.maximum)
    return chosen


class GroupThresholds(_GroupedRule):
    """p > the threshold of the label's group."""

    kind: Literal["groups"] = "groups"
    thresholds: tuple[float, ...] = Field(description="one a group, 0 to 1")

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        _check_thresholds(self.thresholds, len(self.groups))
        return self

    def _above(self, probabilities: np.ndarray) -> np.ndarray:
        limits = np.empty(self.width, np.float32)
        for group, threshold in zip(self.groups, self.thresholds):
            limits[group.where] = threshold
        return probabilities > limits


class ClassThresholds(_GroupedRule):
    """p > the label's own threshold."""

    kind: Literal["classes"] = "classes"
    thresholds: tuple[float, ...] = Field(description="one a label, 0 to 1")

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        _check_thresholds(self.thresholds, self.width)
        return self

    def _above(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities > np.array(self.thresholds, np.float32)


class RelativeThreshold(_GroupedRule):
    """p > share · the image's largest p; with k = 1 / share, p > max / k (6th of iMet 2019, k 7).

    The most probable label is always chosen, unless limits or a share of 1 forbid it.
    """

    kind: Literal["relative"] = "relative"
    share: float = Field(ge=0, le=1, description="1 / k")

    def _above(self, probabilities: np.ndarray) -> np.ndarray:
        return relative_to_largest(probabilities) > np.float32(self.share)


def relative_to_largest(probabilities: np.ndarray) -> np.ndarray:
    """(n, C) float32: each row divided by its largest; rows of zeros stay."""
    largest = probabilities.max(axis=1, keepdims=True)
    return probabilities / np.maximum(largest, np.finfo(np.float32).tiny)


def _check_thresholds(thresholds: tuple[float, ...], number: int) -> None:
    if len(thresholds) != number or not all(0 <= value <= 1 for value in thresholds):
        raise ValueError(f"takes {number} thresholds from 0 to 1")


class PriorCorrection(Rule):
    """In each softmax head the class of the largest p · count^−γ.

    A network trained on the classes as they come holds frequent ones for likely; recall averaged
    over classes does not. γ 0 is the plain argmax, γ 1 takes the training prior out.
    """

    kind: Literal["prior"] = "prior"
    names: tuple[str, ...] = Field(min_length=1, description="head names")
    counts: tuple[tuple[int, ...], ...] = Field(description="of each head, samples of each class")
    gammas: tuple[float, ...] = Field(description="one a head")

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if not len(self.names) == len(self.counts) == len(self.gammas) or not all(self.counts):
            raise ValueError(f"takes counts and a gamma for each of the {len(self.names)} heads")
        if not np.isfinite(self.gammas).all():
            raise ValueError(f"takes finite gammas, got {self.gammas}")
        return self

    @property
    def width(self) -> int:
        return sum(map(len, self.counts))

    def _choose(self, probabilities: np.ndarray) -> np.ndarray:
        chosen = np.zeros(probabilities.shape, bool)
        rows, start = np.arange(len(chosen)), 0
        for counts, gamma in zip(self.counts, self.gammas):
            part = log_probabilities(probabilities[:, start : start + len(counts)])
            best = (part - np.float32(gamma) * log_counts(counts)).argmax(axis=1)
            chosen[rows, start + best] = True
            start += len(counts)
        return chosen


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithm of float32 probabilities, those below 1e-12 as 1e-12."""
    return np.log(np.maximum(probabilities, _TINY))


def log_counts(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """float32 natural logarithm of class counts; a class without samples counts as one sample."""
    return np.log(np.maximum(np.asarray(counts), 1)).astype(np.float32)


def plain_argmax(heads: Sequence[Head]) -> PriorCorrection:
    """The most probable class of each softmax head: the rule that corrects nothing."""
    return PriorCorrection(
        names=tuple(head.name for head in heads),
        counts=tuple((1,) * len(head.labels) for head in heads),
        gammas=(0.0,) * len(heads),
    )


_KINDS: dict[str, type[Rule]] = {
    rule.model_fields["kind"].default: rule
    for rule in (GroupThresholds, ClassThresholds, RelativeThreshold, PriorCorrection)
}


def rule_from_json(text: str, source: str | Path = "rule") -> Rule:
    """Read what `Rule.to_json` wrote.

    Args:
        text: the JSON.
        source: where it comes from, for messages.

    Raises:
        InputError: not JSON, no known `kind`, or a value that does not fit; names the key.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: not JSON: {error}") from None
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in _KINDS:
        raise InputError(f"{source}: kind {kind!r}, expected one of {', '.join(_KINDS)}")
    return parse_config(_KINDS[kind], values, source)


def read_rule(path: str | Path) -> Rule:
    """Read a rule file; raises InputError when missing or as `rule_from_json`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}, expected the JSON of a rule") from None
    return rule_from_json(text, path)
