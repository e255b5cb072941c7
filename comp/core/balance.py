"""How well folds are balanced: as a table, in words, and as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.sparse import csc_array

from comp.core.errors import InputError
from comp.core.figures import save, short

SHOWN = 20  # rows and warnings on a terminal, labels in a panel
TRAIN_ONLY = "train only"


def balance_table(folds: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Count every label in every fold.

    Args:
        folds: (n,) fold of each sample, −1 for one that always trains.
        labels: (n, m) of 0 and 1.
        names: m label names.

    Returns:
        One row "samples" and one a label. Columns in two levels: for "all", and for each fold, `n`
        samples with the label and `%` of that fold's samples; then ("off", "pp"), the largest
        distance of a fold's percentage from that of all, in percentage points.
    """
    parts = {"all": np.ones(len(folds), bool)}
    for fold in np.unique(folds):
        parts[TRAIN_ONLY if fold < 0 else f"fold {fold}"] = folds == fold
    columns = {}
    for name, rows in parts.items():
        size = int(rows.sum())
        columns[name, "n"] = np.array([size, *labels[rows].sum(axis=0, dtype=np.int64)])
        columns[name, "%"] = 100 * columns[name, "n"] / size
    table = pd.DataFrame(columns, index=["samples", *names])
    percent = table.xs("%", axis=1, level=1)
    table["off", "pp"] = percent.sub(percent["all"], axis=0).abs().max(axis=1)
    return table


def find_gaps(
    folds: np.ndarray, labels: np.ndarray, names: Sequence[str], groups: np.ndarray
) -> list[str]:
    """Say in one line each what a fold cannot validate or cannot learn.

    Args:
        folds, labels, names: as in `balance_table`.
        groups: (n,) the groups that were kept together.

    Returns:
        Labels with fewer groups than there are folds, counted; folds that differ in size by more
        than a tenth; then each label that no sample has, that is missing from a fold's validation,
        or all of whose samples validate in one fold. Empty when there is nothing to say.
    """
    known = np.unique(folds[folds >= 0])
    sizes = [int((folds == fold).sum()) for fold in known]
    group_of_row, _ = pd.factorize(groups)
    columns = csc_array(labels)
    gaps, scarce = [], 0
    if max(sizes) > 1.1 * min(sizes):
        gaps.append(f"folds hold {min(sizes)} to {max(sizes)} samples: groups are few or unequal")
    for name, start, stop in zip(names, columns.indptr, columns.indptr[1:]):
        rows = columns.indices[start:stop]
        if not len(rows):
            gaps.append(f"{name}: no samples")
            continue
        inside, held = np.unique(folds[rows]), len(np.unique(group_of_row[rows]))
        scarce += held < len(known)
        problems = []
        if absent := sorted(set(known) - set(inside)):
            problems.append(f"never validated in fold {', '.join(map(str, absent))}")
        if len(inside) == 1 and inside[0] >= 0:
            problems.append(f"never trained while fold {inside[0]} validates")
        if problems:
            gaps.append(f"{name}: {len(rows)} samples in {held} groups: {'; '.join(problems)}")
    if scarce:
        what = f"{scarce} labels have fewer groups than the {len(known)} folds"
        gaps.insert(0, f"{what}, so no cut can balance them: make fewer folds or smaller groups")
    return gaps


def balance_text(table: pd.DataFrame, gaps: Sequence[str]) -> str:
    """A table of `balance_table` and the lines of `find_gaps` for a terminal.

    More than `SHOWN` labels or gaps are cut to those: the labels furthest off, the first gaps.
    """
    labels = table.iloc[1:]
    if hidden := max(len(labels) - SHOWN, 0):
        labels = labels.sort_values(("off", "pp"), ascending=False, kind="stable")[:SHOWN]
    shown = pd.concat([table.iloc[:1], labels])
    off = {("off", "pp"): "{:.2g}".format}
    lines = [shown.to_string(float_format="%.1f", formatters=off)]
    if hidden:
        lines.append(f"and {hidden} labels that are off by less")
    lines += [f"warning: {gap}" for gap in gaps[:SHOWN]]
    if len(gaps) > SHOWN:
        lines.append(f"warning: and {len(gaps) - SHOWN} more labels like these")
    return "\n".join(lines)


def draw_balance(path: str | Path, table: pd.DataFrame) -> None:
    """Draw the shares of the worst-balanced labels in each fold and write a PNG atomically.

    On the left the labels whose share in a fold is furthest from that in all samples, as distances
    in percentage points; on the right those whose share in a fold is furthest from it as a multiple
    of it. Common labels fill the left panel and rare ones the right. A grey bar spans two
    standard deviations to either side over random folds as large as the smallest fold.

    Args:
        path: the PNG.
        table: as `balance_table` gives it.

    Raises:
        InputError: no label has a sample.
    """
    percent = table.xs("%", axis=1, level=1).iloc[1:]
    percent = percent[percent["all"] > 0]
    if percent.empty:
        raise InputError(f"{path}: nothing to draw, no label has a sample")
    whole = percent.pop("all")
    sizes = table.loc["samples"].xs("n", level=1)
    outside = 1 - sizes.min() / sizes["all"]  # folds are drawn without replacement
    spread = 2 * np.sqrt(whole * (100 - whole) * outside / sizes.min())
    figure = Figure(figsize=(13, 1.4 + 0.27 * min(len(percent), SHOWN)), layout="constrained")
    left, right = figure.subplots(1, 2)
    span = pd.DataFrame({"down": np.minimum(spread, whole), "up": spread})  # no share is below 0
    names = [f"{short(name)}, {share:.3g} %" for name, share in whole.items()]
    _draw_panel(left, percent.sub(whole, axis=0), 0, span, names)
    left.set_xlabel("share in the fold − share in all, percentage points")
    counts = (whole * sizes["all"] / 100).round().astype(int)
    names = [f"{short(name)}, n = {count}" for name, count in counts.items()]
    _draw_panel(right, percent.div(whole, axis=0), 1, span.div(whole, axis=0), names)
    right.set_xlabel("share in the fold / share in all")
    handles, titles = left.get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower center", ncols=9, frameon=False)
    save(figure, path)


def _draw_panel(
    axes: Axes, parts: pd.DataFrame, aim: float, span: pd.DataFrame, names: Sequence[str]
) -> None:
    """The rows of `parts` that are furthest from `aim`, worst first; a dot for each column."""
    off = (parts - aim).abs().max(axis=1).to_numpy()
    worst = np.argsort(-off, kind="stable")[:SHOWN]
    parts, span = parts.iloc[worst], span.iloc[worst]
    lines = np.arange(len(worst))
    axes.use_sticky_edges = False  # room beside the widest bar
    width, start = span["down"] + span["up"], aim - span["down"]
    axes.barh(lines, width, 0.8, start, color="0.9", label="random folds, ± 2 σ")
    axes.axvline(aim, color="black", lw=1, label="all samples")
    folds = [name for name in parts if name != TRAIN_ONLY]
    colours = colormaps["tab10"] if len(folds) <= 10 else colormaps["viridis"].resampled(len(folds))
    colour_of = {name: colours(i) for i, name in enumerate(folds)} | {TRAIN_ONLY: "0.4"}
    shifts = np.linspace(-0.3, 0.3, parts.shape[1])  # dots of equal shares stay apart
    for shift, (name, values) in zip(shifts, parts.items()):
        axes.plot(values, lines + shift, "o", ms=3.5, color=colour_of[name], label=name)
    axes.set_yticks(lines, [names[row] for row in worst], fontsize="small", parse_math=False)
    axes.set_ylim(len(worst) - 0.5, -0.5)  # the worst on top
    axes.grid(axis="x", color="0.85")
    axes.set_axisbelow(True)
