"""Run folders as tables and learning curves, read from the files that training left.

Of every fold: `done.json` where it is finished, `log.jsonl`, and the notes of `best.safetensors`,
which say the metric that selects and the step of its best value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from comp.core.checkpoint import count_parameters, load_note
from comp.core.config import read_yaml
from comp.core.errors import InputError
from comp.core.figures import save, short
from comp.core.files import read_json
from comp.core.runs import read_log

UNFINISHED = "*"
_NONE = "–"
_WEIGHTS = ("best.safetensors", "final.safetensors", "last.safetensors")


@dataclass(frozen=True)
class FoldReport:
    """What one fold's folder says.

    Attributes:
        fold: its name, such as "0" or "all".
        finished: whether it was trained to its end.
        steps: optimizer steps that were done.
        seconds: that they took with validation, over all restarts; of an unfinished fold the time
            in which it trained, from the logged rate.
        parameters: of the network; None where no weights were saved yet.
        metric: the one that selects; None where nothing has been validated.
        best: its best value, None likewise.
        best_epoch: the epoch after which it was reached.
        values: every metric of that validation by name, such as "mae" and "mae/FlatVel_A".
        curve: columns step, seconds (of training alone) and the metric, a row a validation.
    """

    fold: str
    finished: bool
    steps: int
    seconds: float
    parameters: int | None
    metric: str | None
    best: float | None
    best_epoch: float | None
    values: dict[str, float]
    curve: pd.DataFrame


@dataclass(frozen=True)
class RunReport:
    """A run folder: its name, its network as the config names it, its folds in order."""

    name: str
    model: str
    folds: tuple[FoldReport, ...]

    @property
    def counted(self) -> tuple[FoldReport, ...]:
        """The folds that figures are taken over: finished ones, or all where there are none."""
        return tuple(fold for fold in self.folds if fold.finished) or self.folds


def read_runs(folders: Sequence[str | Path]) -> list[RunReport]:
    """Read run folders, called by their names, or by their paths where two have one name.

    Raises:
        InputError: a folder that is no run's, or in which nothing was trained.
    """
    names = [Path(folder).resolve().name for folder in folders]
    return [
        _read_run(Path(folder), name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names)
    ]


def _read_run(folder: Path, name: str) -> RunReport:
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no config.yaml, expected a run folder")
    config = read_yaml(folder / "config.yaml")
    places = sorted(path for path in folder.glob("fold_*") if (path / "log.jsonl").is_file())
    if not places:
        raise InputError(f"{folder}: no fold_*/log.jsonl, nothing was trained here yet")
    model = config.get("model", {})
    names = [str(model[key]) for key in ("name", "encoder", "backbone") if model.get(key)]
    batch = config["train"]["batch_size"]
    return RunReport(name, " ".join(names), tuple(_read_fold(path, batch) for path in places))


def _read_fold(folder: Path, batch_size: int) -> FoldReport:
    log = read_log(folder / "log.jsonl")
    done = read_json(folder / "done.json") if (folder / "done.json").exists() else None
    weights = [folder / name for name in _WEIGHTS if (folder / name).exists()]
    metric = best = epoch = None
    values: dict[str, float] = {}
    if weights and weights[0].name == "best.safetensors":
        metric, best, step = (load_note(weights[0], key) for key in ("metric", "score", "step"))
        line = next((e for e in log if e["step"] == step and f"valid/{metric}" in e), {})
        epoch = line.get("epoch")
        values = {k.removeprefix("valid/"): v for k, v in line.items() if k.startswith("valid/")}
    seconds = _training_seconds(log, batch_size)
    curve = [
        (event["step"], second, event[f"valid/{metric}"])
        for event, second in zip(log, seconds)
        if f"valid/{metric}" in event
    ]
    return FoldReport(
        folder.name.removeprefix("fold_"),
        done is not None,
        done["steps"] if done else max((event["step"] for event in log), default=0),
        done["seconds"] if done else (seconds[-1] if seconds else 0.0),
        count_parameters(weights[0]) if weights else None,
        metric,
        best,
        epoch,
        values,
        pd.DataFrame(curve, columns=["step", "seconds", "metric"]),
    )


def _training_seconds(log: Sequence[dict[str, Any]], batch_size: int) -> list[float]:
    """Seconds of training up to each event, validation left out, from the logged samples/s."""
    found, seconds, last = [], 0.0, 0
    for event in log:
        if rate := event.get("samples_per_s"):
            seconds += (event["step"] - last) * batch_size / rate
            last = event["step"]
        found.append(seconds)
    return found


def runs_table(runs: Sequence[RunReport]) -> pd.DataFrame:
    """A row a run: network, cost, and the best value of the metric that selects, over its folds."""
    rows = []
    for run in runs:
        folds, parameters = run.counted, run.counted[0].parameters
        metric = next((fold.metric for fold in folds if fold.metric), None)
        rows.append(
            {
                "run": run.name,
                "model": run.model,
                "params": _NONE if parameters is None else f"{parameters / 1e6:.2f}M",
                "folds": " ".join(_marked(fold) for fold in run.folds),
                "steps": _mean([fold.steps for fold in folds], "{:.0f}"),
                "seconds": _mean([fold.seconds for fold in folds], "{:.0f}"),
                "metric": metric or _NONE,
                "best": _spread([fold.best for fold in folds]),
                "at epoch": _mean([fold.best_epoch for fold in folds], "{:.1f}"),
            }
        )
    return pd.DataFrame(rows)


def metrics_table(runs: Sequence[RunReport]) -> pd.DataFrame:
    """A row a metric, a column a run: its values at each fold's best validation, over the folds."""
    names = dict.fromkeys(n for run in runs for fold in run.counted for n in fold.values)
    columns = {
        run.name: [_spread([fold.values.get(name) for fold in run.counted]) for name in names]
        for run in runs
    }
    return pd.DataFrame({"best validation": list(names), **columns})


def report_lines(runs: Sequence[RunReport], markdown: bool = False) -> list[str]:
    """Both tables as text, and a line for each unfinished fold."""
    found = [*table_lines(runs_table(runs), markdown), ""]
    table = metrics_table(runs)
    if len(table):
        found += [*table_lines(table, markdown), ""]
    if any(len(run.counted) > 1 for run in runs):
        found.append("± is the standard deviation over folds; steps and seconds are those of one")
    found += [
        f"{UNFINISHED} {run.name}: fold {fold.fold} is unfinished, at step {fold.steps}"
        + ("; left out of the figures" if fold not in run.counted else "")
        for run in runs
        for fold in run.folds
        if not fold.finished
    ]
    return found


def table_lines(table: pd.DataFrame, markdown: bool = False) -> list[str]:
    """A table of text as lines: the first column to the left, the others to the right."""
    rows = [list(map(str, table.columns)), *table.astype(str).to_numpy().tolist()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = [
        [text.rjust(width) if i else text.ljust(width) for i, (text, width) in enumerate(pairs)]
        for pairs in (zip(row, widths) for row in rows)
    ]
    if not markdown:
        return ["  ".join(row).rstrip() for row in cells]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]


def _marked(fold: FoldReport) -> str:
    return fold.fold + ("" if fold.finished else UNFINISHED)


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(np.mean(known)) if known else _NONE


def _spread(values: Sequence[float | None]) -> str:
    """Mean and, of several, the standard deviation, to four figures and to the mean's places."""
    known = [value for value in values if value is not None]
    if not known:
        return _NONE
    mean = float(np.mean(known))
    places = max(0, min(4, 3 - int(np.floor(np.log10(abs(mean) or 1)))))
    text = f"{mean:.{places}f}"
    return text if len(known) == 1 else f"{text} ± {np.std(known, ddof=1):.{places}f}"


def draw_curves(out: str | Path, runs: Sequence[RunReport], against: str = "seconds") -> None:
    """Draw the metric that selects over training, a colour a run, a line a fold.

    Args:
        out: PNG file to write.
        runs: those without validations are left out.
        against: "seconds", of training alone, or "step".

    Raises:
        InputError: no run has validated; runs that are judged by different metrics.
    """
    shown = [run for run in runs if any(len(fold.curve) for fold in run.folds)]
    metrics = sorted({fold.metric for run in shown for fold in run.folds if fold.metric})
    if len(metrics) != 1:
        what = f"metrics {', '.join(metrics)} on one axis" if metrics else "no run has validated"
        raise InputError(f"{out}: {what}, expected curves of one metric")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, run in enumerate(shown):
        for i, fold in enumerate(fold for fold in run.folds if len(fold.curve)):
            label = f"{short(run.name)} {run.model}" if i == 0 else None
            x, y = fold.curve[against], fold.curve["metric"]
            axes.plot(x, y, color=f"C{number}", alpha=0.8, marker=".", label=label)
    axes.set_xlabel("seconds of training" if against == "seconds" else "steps")
    axes.set_ylabel(f"validation {metrics[0]}")
    low, high = axes.dataLim.intervaly
    if 0 < 10 * low < high:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save(figure, out)
