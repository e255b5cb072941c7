"""Which rule to take: each one's score on predictions that it was not searched on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.image.checks import checked_folds, checked_probabilities, checked_sets
from comp.image.label_groups import Group
from comp.image.metrics import MacroRecall, Metric
from comp.image.prior_search import fit_argmax, fit_prior
from comp.image.threshold_search import (
    Fit,
    fit_classes,
    fit_fixed,
    fit_global,
    fit_groups,
    fit_matched,
    fit_relative,
)
from comp.image.thresholds import Rule


@dataclass(frozen=True)
class Comparison:
    """Rules compared on out-of-fold predictions.

    Attributes:
        table: a row a rule: `nested`, the metric of all samples, each decided by a rule searched on
            the other folds, which is the figure to report; `±`, the standard deviation of the
            folds' own nested scores; `searched`, the score on the very predictions searched on, for
            the distance; `labels`, the mean number of labels an image is given; `empty`, the share
            of images that are given none (both nested).
        rules: the rule of each row, fitted on all samples, for the test set.
    """

    table: pd.DataFrame
    rules: dict[str, Rule]

    @property
    def best(self) -> str:
        """Name of the rule with the best nested score; of equals the first, hence simpler, one."""
        return str(self.table["nested"].idxmax())


def default_fits(metric: Metric, groups: Sequence[Group] | None = None) -> dict[str, Fit]:
    """The rules that a metric can be used with, the simplest first."""
    if isinstance(metric, MacroRecall):
        return {"argmax": fit_argmax, "prior": fit_prior}
    fits: dict[str, Fit] = {"fixed 0.5": fit_fixed, "matched": fit_matched, "global": fit_global}
    if groups is not None and len(groups) > 1:
        fits["groups"] = fit_groups
    return {**fits, "relative": fit_relative, "classes": fit_classes}


def compare_rules(
    probabilities: np.ndarray,
    truth: np.ndarray,
    folds: np.ndarray,
    metric: Metric,
    groups: Sequence[Group] | None = None,
    fits: Mapping[str, Fit] | None = None,
) -> Comparison:
    """Score rules without the optimism of having searched them.

    Args:
        probabilities: (n, C) out-of-fold predictions.
        truth: (n, C) label sets.
        folds: (n,) int, the fold that was held out when the sample was predicted.
        metric: what counts; larger is better.
        groups: label groups with their limits, for all rules that take them.
        fits: rules to compare by name, `default_fits` for None. `functools.partial` sets what else
            a fit takes, e.g. `partial(fit_classes, shrinkage=50)`.

    Raises:
        InputError: arrays that do not fit each other, values out of range, fewer than two folds.
    """
    probabilities = checked_probabilities(probabilities)
    truth = checked_sets(truth, probabilities.shape, "truth")
    folds = checked_folds(folds, len(truth))
    fits = default_fits(metric, groups) if fits is None else fits
    if not fits:
        raise InputError("fits: no rules to compare")
    nested = {name: np.empty(truth.shape, bool) for name in fits}
    of_fold: dict[str, list[float]] = {name: [] for name in fits}
    for fold in np.unique(folds):
        held = folds == fold
        others = probabilities[~held], truth[~held]
        mine = probabilities[held]
        for name, fit in fits.items():
            decided = fit(*others, metric, groups).decide(mine)
            nested[name][held] = decided
            of_fold[name].append(metric.score(decided, truth[held]))
    rules = {name: fit(probabilities, truth, metric, groups) for name, fit in fits.items()}
    rows = {}
    for name, rule in rules.items():
        number = np.count_nonzero(nested[name], axis=1)
        rows[name] = {
            "nested": metric.score(nested[name], truth),
            "±": float(np.std(of_fold[name], ddof=1)),
            "searched": metric.score(rule.decide(probabilities), truth),
            "labels": float(number.mean()),
            "empty": float((number == 0).mean()),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")
    return Comparison(table, rules)
