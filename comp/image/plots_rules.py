"""Pictures of decisions: the metric at every threshold or strength of prior correction."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from comp.core.figures import save
from comp.image.checks import checked_probabilities, checked_sets
from comp.image.heads import columns
from comp.image.label_groups import Group
from comp.image.metrics import FBeta, MacroRecall, Metric
from comp.image.thresholds import GroupThresholds, PriorCorrection, Rule

THRESHOLDS = np.r_[0.001, 0.002, 0.005, 0.01, np.arange(0.02, 0.99, 0.02)]
GAMMAS = np.arange(0, 2.01, 0.1)
_BLACK, _BLUE, _ORANGE = "black", "#4477aa", "#cc6600"


def threshold_sweep(
    path: str | Path,
    probabilities: np.ndarray,
    truth: np.ndarray,
    folds: np.ndarray,
    metric: FBeta,
    groups: Sequence[Group],
) -> float:
    """Write the metric at each threshold that all labels share, and how many labels it lets in.

    Args:
        path: PNG file to write.
        probabilities: (n, C) out-of-fold.
        truth: (n, C) label sets.
        folds: (n,) the fold that was held out; of several each has a thin line.
        metric: what counts.
        groups: label groups, whose limits hold.

    Returns:
        The best of the thresholds drawn.

    Raises:
        InputError: arrays that do not fit, or the file can't be written.
    """
    probabilities = checked_probabilities(probabilities)
    truth = checked_sets(truth, probabilities.shape, "truth")
    numbers = []

    def decide(threshold: float) -> np.ndarray:
        rule = GroupThresholds(groups=groups, thresholds=(threshold,) * len(groups))
        chosen = rule.decide(probabilities)
        numbers.append(np.count_nonzero(chosen) / len(chosen))
        return chosen

    scores = _scores(THRESHOLDS, decide, truth, folds, metric)
    figure, axes = _lines(THRESHOLDS, scores, "threshold of all labels", metric.name)
    axes.set_xlim(0, 1)
    counts = axes.twinx()
    counts.plot(THRESHOLDS, numbers, color=_ORANGE, ls="--", label="labels an image")
    true = np.count_nonzero(truth) / len(truth)
    counts.axhline(true, color=_ORANGE, lw=0.8, ls=":", label=f"true labels an image, {true:.2f}")
    counts.set_ylim(0, max(3 * true, 1))  # at low thresholds there is no end to them
    counts.set_ylabel("labels an image", color=_ORANGE)
    counts.tick_params(axis="y", colors=_ORANGE)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    save(figure, path)
    return float(THRESHOLDS[scores[0].argmax()])


def prior_sweep(
    path: str | Path,
    probabilities: np.ndarray,
    truth: np.ndarray,
    folds: np.ndarray,
    metric: MacroRecall,
) -> float:
    """Write macro recall against γ of `argmax(p · count^−γ)`, of each head and weighted together.

    Args:
        path: PNG file to write.
        probabilities: (n, C) out-of-fold.
        truth: (n, C), one label in each head; its counts are the prior.
        folds: (n,) the fold that was held out; of several each has a thin line.
        metric: the heads and their weights.

    Returns:
        The best of the γ drawn, the same for all heads.

    Raises:
        InputError: arrays that do not fit, or the file can't be written.
    """
    probabilities = checked_probabilities(probabilities)
    truth = checked_sets(truth, probabilities.shape, "truth")
    counts = [truth[:, part].sum(axis=0).tolist() for part in columns(metric.heads)]
    names = tuple(head.name for head in metric.heads)
    of_head = []

    def decide(gamma: float) -> np.ndarray:
        rule: Rule = PriorCorrection(names=names, counts=counts, gammas=(gamma,) * len(names))
        chosen = rule.decide(probabilities)
        of_head.append(list(metric.of_heads(chosen, truth).values()))
        return chosen

    scores = _scores(GAMMAS, decide, truth, folds, metric)
    figure, axes = _lines(GAMMAS, scores, "γ, of all heads", metric.name)
    styles = ("--", "-.", ":") * len(names)
    for name, line, style in zip(names, np.transpose(of_head), styles):
        axes.plot(GAMMAS, line, color=_ORANGE, ls=style, label=name)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)
    return float(GAMMAS[scores[0].argmax()])


def _scores(
    grid: np.ndarray,
    decide: Callable[[float], np.ndarray],
    truth: np.ndarray,
    folds: np.ndarray,
    metric: Metric,
) -> np.ndarray:
    """(1 + folds, m) metric of what `decide` makes of each of the m values: of all, of each fold.

    One fold alone has no row of its own.
    """
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    parts = [slice(None), *(parts if len(parts) > 1 else [])]
    scores = np.empty((len(parts), len(grid)))
    for i, value in enumerate(tqdm(grid, desc=metric.name, unit="value")):
        chosen = decide(float(value))
        scores[:, i] = [metric.score(chosen[rows], truth[rows]) for rows in parts]
    return scores


def _lines(grid: np.ndarray, scores: np.ndarray, across: str, name: str) -> tuple[Figure, Axes]:
    """A figure with the lines of `_scores`, the best value of all marked."""
    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for i, line in enumerate(scores[1:]):
        label = None if i else "each fold"
        axes.plot(grid, line, color=_BLUE, lw=0.8, alpha=0.6, label=label)
    axes.plot(grid, scores[0], color=_BLACK, lw=2, label="all images")
    best = int(scores[0].argmax())
    where = f"{scores[0, best]:.4f} at {grid[best]:.3g}"
    axes.plot(grid[best], scores[0, best], "o", color=_BLACK, label=where)
    axes.set_xlim(grid[0], grid[-1])
    axes.set_xlabel(across)
    axes.set_ylabel(name)
    axes.grid(color="0.88")
    return figure, axes
