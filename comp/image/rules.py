"""The rule from probabilities to labels: compared, chosen and written for the test set."""

from pathlib import Path

import numpy as np

from comp.core.errors import InputError
from comp.core.files import atomic_path, write_text
from comp.image.checks import checked_folds
from comp.image.judged import load_judged
from comp.image.metrics import MacroRecall
from comp.image.rule_report import Comparison, compare_rules
from comp.image.store import ImageStore

_PARTS, _SEED = 5, 0  # of one fold, to search a rule on some and score it on another


def compare_on(store: ImageStore, path: str | Path) -> Comparison:
    """Compare the rules that the competition's metric can be used with.

    One fold is cut into parts that stand for folds: the network has seen none of them.

    Args:
        store: the training data, which knows the truth.
        path: out-of-fold prediction file of it, of all folds or of some.

    Raises:
        InputError: not out-of-fold, of other data, or one fold of one group.
    """
    known, metric = load_judged(store, path), store.metric
    folds = checked_folds(known.folds, len(known.rows), several=False)
    if (folds == folds[0]).all():
        folds = _parts(store.groups[known.rows], path)
        print(f"one fold: rules judged on {folds.max() + 1} parts of it")
    groups = None if isinstance(metric, MacroRecall) else store.label_groups
    return compare_rules(known.probabilities, known.truth, folds, metric, groups)


def _parts(groups: np.ndarray, path: str | Path) -> np.ndarray:
    """(n,) int64 part of each sample, drawn by a fixed seed; a group lies in one part."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"{path}: one fold and one group, expected two or more of either")
    return np.random.default_rng(_SEED).permutation(len(names))[group] % _PARTS


def write_rule(path: str | Path, comparison: Comparison, name: str | None = None) -> str:
    """Write one rule as JSON, and the table of all beside it as `<stem>.csv`.

    Args:
        path: the rule's file.
        comparison: what to choose from.
        name: the rule's name; None for the best by its nested score.

    Returns:
        The rule's name.

    Raises:
        InputError: no such rule.
    """
    name = comparison.best if name is None else name
    if name not in comparison.rules:
        raise InputError(f"rule {name!r}: unknown; takes one of {', '.join(comparison.rules)}")
    with atomic_path(Path(path).with_suffix(".csv")) as partial:
        comparison.table.to_csv(partial, float_format="%.6g")
    write_text(path, comparison.rules[name].to_json())
    return name
