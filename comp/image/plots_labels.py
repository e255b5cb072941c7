"""Pictures of how well labels are ranked: average precision, and precision against recall."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from comp.core.errors import InputError
from comp.core.figures import save, short
from comp.image.checks import checked_probabilities, checked_sets, chunks
from comp.image.cuts import Histogram
from comp.image.metrics import average_precision

SHOWN = 40  # labels with a bar
CURVES = 10  # labels with a curve
_BLUE, _RED = "#4477aa", "#ee6677"


def ap_bars(path: str | Path, table: pd.DataFrame, samples: int) -> None:
    """Write the average precision of labels as bars, and of all labels against their support.

    Of more than SHOWN labels the best and the worst half as many have a bar. A tick on a bar marks
    what guessing gives, the share of images that have the label.

    Args:
        path: PNG file to write.
        table: as `comp.image.metrics.class_table` gives it.
        samples: number of images.

    Raises:
        InputError: no label has an image, or the file can't be written.
    """
    known = table[table["support"] > 0].sort_values("ap", ascending=False, kind="stable")
    if known.empty:
        raise InputError(f"{path}: nothing to draw, no label has an image")
    bars, hidden = known, len(known) - SHOWN
    if hidden > 0:
        bars = pd.concat([known[: SHOWN // 2], known[-SHOWN // 2 :]])
    places = np.arange(len(bars)) + (hidden > 0) * (np.arange(len(bars)) >= SHOWN // 2)
    figure = Figure(figsize=(12, max(3.0, 1.4 + 0.2 * (places[-1] + 1))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.barh(places, bars["ap"], 0.75, color=_BLUE)
    chance = bars["support"] / samples
    left.vlines(chance, places - 0.38, places + 0.38, color="black", lw=1.5, label="guessing")
    names = [f"{short(name)}, n = {n}" for name, n in bars["support"].items()]
    left.set_yticks(places, names, fontsize="small", parse_math=False)
    left.set_ylim(places[-1] + 0.6, -0.6)
    left.set_xlim(0, 1)
    left.set_xlabel("average precision")
    left.grid(axis="x", color="0.85")
    left.set_axisbelow(True)
    mean = known["ap"].mean()
    left.axvline(mean, color=_RED, lw=1.2, label=f"mean of all, {mean:.3f}")
    right.plot(known["support"], known["ap"], "o", ms=4, color=_BLUE, alpha=0.6)
    right.axhline(mean, color=_RED, lw=1.2)
    reach = np.geomspace(1, samples, 100)
    right.plot(reach, reach / samples, color="black", lw=1)
    right.set_xscale("log")
    narrow = known["support"].max() < 50 * known["support"].min()
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    right.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_xlim(max(0.8, 0.8 * known["support"].min()), 1.25 * known["support"].max())
    right.set_ylim(0, 1.02)
    right.set_xlabel("images that have the label")
    right.set_ylabel("average precision")
    right.grid(color="0.85")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    title = f"{len(known)} labels, {samples} images"
    figure.suptitle(title + (f"; {hidden} between the bars" if hidden > 0 else ""), fontsize=10)
    save(figure, path)


def precision_recall(
    path: str | Path,
    probabilities: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    beta: float = 1.0,
) -> None:
    """Write precision against recall: of all pairs of image and label, and of frequent labels.

    Args:
        path: PNG file to write.
        probabilities: (n, C).
        truth: (n, C) label sets.
        names: C label names.
        beta: of the F-beta whose level lines lie below the curves.

    Raises:
        InputError: arrays that do not fit, no label has an image, or the file can't be written.
    """
    probabilities = checked_probabilities(probabilities)
    truth = checked_sets(truth, probabilities.shape, "truth")
    support = np.count_nonzero(truth, axis=0)
    if not support.any():
        raise InputError(f"{path}: nothing to draw, no label has an image")
    most = np.argsort(-support, kind="stable")[:CURVES]
    most = most[support[most] > 0]
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=(5, 3))
    beside.set_axis_off()
    _draw_levels(axes, beta)
    precisions = average_precision(probabilities[:, most], truth[:, most])
    colours = colormaps["tab10"]
    for i, (column, ap) in enumerate(zip(most, precisions)):
        label = f"{short(names[column])}, n = {support[column]}, AP {ap:.3f}"
        recall, precision = _curve(probabilities[:, column], truth[:, column])
        axes.step(recall, precision, where="post", color=colours(i), lw=1.1, label=label)
    recall, precision = _curve_of_pairs(probabilities, truth)
    axes.plot(recall, precision, color="black", lw=2.2, label="all labels together")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_aspect("equal")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    lines = axes.get_legend_handles_labels()
    legend = beside.legend(*lines, loc="center left", fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    which = "labels" if len(most) == len(names) else f"most frequent of {len(names)} labels"
    figure.suptitle(f"{len(most)} {which}, {len(truth)} images", fontsize=10)
    save(figure, path)


def _draw_levels(axes: Axes, beta: float) -> None:
    """Lines of equal F-beta, grey."""
    recall = np.linspace(0.005, 1, 400)
    for level in (0.2, 0.4, 0.6, 0.8):
        below = (1 + beta**2) * recall - level * beta**2
        with np.errstate(divide="ignore"):
            precision = np.where(below > 0, level * recall / below, np.inf)
        inside = precision <= 1
        axes.plot(recall[inside], precision[inside], color="0.85", lw=1, zorder=0)
        end = level / (1 + beta**2 - level * beta**2)  # where recall is 1
        how = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": "0.5"}
        axes.annotate(f"F{beta:g} {level:.1f}", (1.01, end), (4, 0), **how)


def _curve(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one label after letting in each distinct probability."""
    order = np.argsort(-probabilities, kind="stable")
    values, hits = probabilities[order], np.cumsum(truth[order])
    last = np.append(values[1:] != values[:-1], True)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    recall = hits[last] / hits[-1]
    return np.append(0, recall), np.append(precision[0], precision)


def _curve_of_pairs(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision over all pairs, which are too many to sort."""
    predicted, hits = Histogram(), Histogram()
    for rows in chunks(*truth.shape):
        predicted.add(probabilities[rows])
        hits.add(probabilities[rows][truth[rows]])
    bins, letting = predicted.steps()
    hitting = hits.at(bins).cumsum()
    return hitting / np.count_nonzero(truth), hitting / letting.cumsum()
