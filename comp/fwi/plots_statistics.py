"""Pictures over many samples: how misfits fall, and what errors are left, family by family."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from comp.core.errors import InputError
from comp.core.figures import save
from comp.fwi.plots_base import check_shape

BAND = (10, 90)  # percentiles between which the band and the whiskers lie
_PER_ROW = 4
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


def misfit_curves(
    path: str | Path,
    misfit: np.ndarray,
    families: np.ndarray | None = None,
    across: str = "evaluations",
) -> None:
    """Write the median misfit and the band between the percentiles BAND, one panel a family.

    A sample that has stopped counts on with its last misfit, or the curve would show only those
    that are slow to converge.

    Args:
        path: PNG file to write.
        misfit: (n, m) positive relative L2 misfit, column 0 at the start; NaN after a stop.
        families: (n,) family of each sample; None draws all in one panel.
        across: what the columns count.

    Raises:
        InputError: shapes that do not fit, a sample without any misfit, a misfit that is not
            positive, or the file can't be written.
    """
    misfit = np.asarray(misfit, np.float64)
    if misfit.ndim != 2 or not misfit.size:
        raise InputError(f"misfit: shape {misfit.shape}, expected (samples, {across})")
    if families is None:
        families = np.full(len(misfit), "all")
    check_shape("families", families, misfit.shape[:1])
    filled = _carry_on(misfit)
    names = sorted(set(families))
    rows, columns = math.ceil(len(names) / _PER_ROW), min(len(names), _PER_ROW)
    figure = Figure(figsize=(max(4.5, 3.0 * columns), 2.8 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    steps = np.arange(misfit.shape[1])
    for panel, name in zip(axes.flat, names):
        rows_of_family = filled[np.asarray(families) == name]
        low, middle, high = np.percentile(rows_of_family, (BAND[0], 50, BAND[1]), axis=0)
        panel.fill_between(steps, low, high, color=_COLOURS[0], alpha=0.25, linewidth=0)
        panel.plot(steps, middle, color=_COLOURS[0])
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.grid(alpha=0.3)
        panel.set_title(f"{name}, {len(rows_of_family)} samples", fontsize="medium")
        text = f"{middle[0]:.1e} → {middle[-1]:.1e}"
        panel.text(0.97, 0.95, text, transform=panel.transAxes, ha="right", va="top")
    for panel in axes.flat[len(names) :]:
        panel.set_axis_off()
    for column in range(columns):
        lowest = max(i for i in range(len(names)) if i % columns == column)
        axes.flat[lowest].set_xlabel(across)
        axes.flat[lowest].tick_params(labelbottom=True)
    for panel in axes[:, 0]:
        panel.set_ylabel("relative misfit")
    figure.suptitle(f"median, and band from {BAND[0]} to {BAND[1]} % of the samples", fontsize=9)
    save(figure, path)


def _carry_on(misfit: np.ndarray) -> np.ndarray:
    """(n, m) with each NaN replaced by the last number before it."""
    known = np.isfinite(misfit)
    if not known[:, 0].all():
        row = int(np.argmin(known[:, 0]))
        raise InputError(f"misfit: row {row} begins with {misfit[row, 0]}, expected a number")
    if not (misfit[known] > 0).all():
        row = int(np.argmax((known & ~(misfit > 0)).any(axis=1)))
        raise InputError(f"misfit: row {row} holds {np.nanmin(misfit[row]):g}, expected above 0")
    last = np.maximum.accumulate(np.where(known, np.arange(misfit.shape[1]), 0), axis=1)
    return np.take_along_axis(misfit, last, axis=1)


def family_bars(
    path: str | Path, families: np.ndarray | None, errors: Mapping[str, np.ndarray]
) -> None:
    """Write the mean error of each family and of all as bars, one colour a result.

    The whiskers reach from the 10th to the 90th percentile of the family's samples.

    Args:
        path: PNG file to write.
        families: (n,) family of each sample; None draws all samples alone.
        errors: name, such as "network" or "refined", and (n,) MAE of each sample, m/s.

    Raises:
        InputError: no result, lengths that do not fit, NaN, or the file can't be written.
    """
    if not errors or not len(next(iter(errors.values()))):
        raise InputError("errors: none given, expected at least one named result with samples")
    size = len(next(iter(errors.values())) if families is None else families)
    for name, values in errors.items():
        check_shape(name, values, (size,))
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise InputError(f"{name}: the error of row {row} is not a finite number")
    of_family = {} if families is None else pd.Series(range(size)).groupby(families).indices
    of_family["all"] = np.arange(size)
    width = 0.8 / len(errors)
    inches = (max(5.0, 1.0 + len(of_family) * (0.4 + 0.3 * len(errors))), 4.4)
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(errors.items()):
        values = np.asarray(values, np.float64)
        means = np.array([values[rows].mean() for rows in of_family.values()])
        ends = np.array([np.percentile(values[rows], BAND) for rows in of_family.values()]).T
        places = np.arange(len(of_family)) + (i - (len(errors) - 1) / 2) * width
        axes.bar(places, means, 0.92 * width, color=_COLOURS[i % len(_COLOURS)], label=name)
        # Lines rather than error bars: a mean may lie beyond a percentile.
        axes.vlines(places, *ends, color="0.25", linewidth=1)
        for place, mean, top in zip(places, means, np.maximum(means, ends[1])):
            text = f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"
            axes.annotate(
                text, (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=8
            )
    labels = [f"{name}\n{len(rows)}" for name, rows in of_family.items()]
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.margins(x=0.01, y=0.1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MAE (m/s)")
    axes.set_xlabel("family and number of samples")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"mean, whiskers from {BAND[0]} to {BAND[1]} % of the samples", fontsize=9)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)
