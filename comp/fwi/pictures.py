"""Pictures from files: what scripts/plot.py is asked for, read, put in order and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from comp.core.errors import InputError
from comp.core.figures import Picture
from comp.core.files import drop_pages, open_npy
from comp.core.predictions import Predictions, ids_path, load_predictions
from comp.fwi.checks import check_records
from comp.fwi.metrics import mae_table, sample_mae, scored
from comp.fwi.plots import velocity_panels
from comp.fwi.plots_gathers import residual_panels
from comp.fwi.plots_statistics import family_bars, misfit_curves
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave import simulate

MISFIT_SUFFIX = ".misfit.npy"
_CHUNK = 256  # maps worked on at once, 5 MB


def named_files(texts: Sequence[str]) -> dict[str, str]:
    """Name → path of texts `name=path`; InputError for another form or a name given twice."""
    files: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not (name and path) or name in files:
            raise InputError(f"{text!r}: expected name=file.npy, each name once")
        files[name] = path
    return files


def draw_maps(
    out: str | Path,
    stages: Mapping[str, str | Path],
    truth: str | Path | None = None,
    ids: Sequence[str] | None = None,
    survey: Survey = OFFICIAL,
) -> None:
    """Draw samples at several stages, such as start and refined, and their truth.

    Args:
        out: the picture.
        stages: name and prediction file of each column.
        truth: prediction file of the true maps.
        ids: the samples; None takes those with the worst, the median and the best MAE of the last
            stage or, where there is no truth, the first three.
        survey: the shape of a map.

    Raises:
        InputError: a file missing or broken, an unknown id, maps of another shape.
    """
    files = {name: _load_maps(path, survey) for name, path in stages.items()}
    if not files:
        raise InputError("maps: no prediction file given")
    true = None if truth is None else _load_maps(truth, survey)
    last = list(files.values())[-1]
    if ids is None and true is not None:
        errors = _errors(last, true)
        order = np.argsort(errors, kind="stable")[[-1, len(errors) // 2, 0]]
        ids = list(dict.fromkeys(true.ids[order]))
    elif ids is None:
        ids = list(last.ids[:3])
    named = last if true is None else true
    rows = named.rows_of(ids)
    families = named.table["family"].iloc[rows] if "family" in named.table else [""] * len(rows)
    titles = [i if family in i else f"{i} {family}" for i, family in zip(ids, families)]
    columns = {name: file.values[file.rows_of(ids)] for name, file in files.items()}
    velocity_panels(out, titles, columns, None if true is None else true.values[rows], survey)


def draw_residual(
    out: str | Path,
    record: str | Path,
    velocity: str | Path,
    name: str | None = None,
    survey: Survey = OFFICIAL,
) -> None:
    """Draw a record, the one that a velocity map gives, and what is between them.

    Args:
        out: the picture.
        record: `<id>.npy`, (shots, nt, receivers), as the test data have it.
        velocity: prediction file, or an array (ny, nx) on its own, m/s.
        name: which id of the prediction file; None takes the record's.
        survey: the acquisition.

    Raises:
        InputError: a file missing or broken, of another shape, an unknown id, NaN, a velocity that
            cannot be simulated.
    """
    observed = open_npy(record, survey.record_shape, [np.float32, np.float64])
    check_records(observed[None], record)
    if ids_path(velocity).exists():
        file = _load_maps(velocity, survey)
        model = file.values[file.rows_of([Path(record).stem if name is None else name])]
    else:
        if name is not None:
            raise InputError(f"{ids_path(velocity)}: no such file, so no id {name!r}")
        model = open_npy(velocity, survey.map_shape)[None]
    try:
        modelled = simulate(torch.from_numpy(model.astype(np.float32)), survey)[0].numpy()
    except InputError as error:
        raise InputError(f"{velocity}: {error}") from None
    residual_panels(out, observed, modelled, survey=survey)


def draw_curves(out: str | Path, misfit: str | Path) -> None:
    """Draw how the misfit fell, by family where the id table beside it has that column.

    Args:
        out: the picture.
        misfit: `<stem>.misfit.npy`, (n, evaluations), beside `<stem>.ids.csv`.

    Raises:
        InputError: a file missing or broken, lengths that differ, as `misfit_curves`.
    """
    if not Path(misfit).name.endswith(MISFIT_SUFFIX):
        raise InputError(f"{misfit}: expected a file <stem>{MISFIT_SUFFIX}")
    predictions = Path(str(misfit).removesuffix(MISFIT_SUFFIX) + ".npy")
    values, file = open_npy(misfit, (None, None)), load_predictions(predictions)
    if len(values) != len(file):
        raise InputError(f"{misfit}: {len(values)} rows for {len(file)} of {predictions}")
    families = file.table["family"].to_numpy(str) if "family" in file.table else None
    misfit_curves(out, values, families)


def draw_bars(
    out: str | Path,
    truth: str | Path,
    results: Mapping[str, str | Path],
    survey: Survey = OFFICIAL,
) -> dict[str, float]:
    """Draw the mean error of named results by family, as the competition counts it.

    Args:
        out: the picture.
        truth: prediction file of the true maps, with a column `family` or without.
        results: name and prediction file of each; each must hold all ids of the truth.
        survey: the shape of a map.

    Returns:
        The MAE of each result over all samples, m/s.

    Raises:
        InputError: a file missing or broken, ids missing, maps of another shape, NaN.
    """
    families, errors = _family_errors(truth, results, survey)
    family_bars(out, families, errors)
    return {name: float(values.mean()) for name, values in errors.items()}


def error_table(
    truth: str | Path, results: Sequence[str], survey: Survey = OFFICIAL
) -> pd.DataFrame:
    """The errors of `draw_bars` as text: a row a family and one for all, a column a result.

    Args:
        truth: prediction file of the true maps.
        results: `name=file` of each.
        survey: the shape of a map.
    """
    table = mae_table(*_family_errors(truth, named_files(results), survey))
    shown = {name: table[name].map("{:.2f}".format) for name in table.columns[1:]}
    columns = {"MAE, m/s": table.index, "samples": table["samples"], **shown}
    return pd.DataFrame(columns).reset_index(drop=True)


def _family_errors(
    truth: str | Path, results: Mapping[str, str | Path], survey: Survey
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Families of the truth's samples, None where it does not say, and their errors, m/s."""
    true = _load_maps(truth, survey)
    errors = {name: _errors(_load_maps(path, survey), true) for name, path in results.items()}
    return true.table["family"].to_numpy(str) if "family" in true.table else None, errors


def _load_maps(path: str | Path, survey: Survey) -> Predictions:
    file = load_predictions(path)
    if not len(file) or file.values.shape[1:] != survey.map_shape:
        wanted = f"(n, {survey.ny}, {survey.nx})"
        raise InputError(f"{path}: shape {file.values.shape}, expected {wanted}")
    return file


def _errors(file: Predictions, truth: Predictions) -> np.ndarray:
    """(n,) MAE of each sample of the truth over the scored columns, m/s."""
    rows, errors = file.rows_of(truth.ids), np.empty(len(truth))
    for start in range(0, len(truth), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        mine, true = file.values[rows[chunk]], truth.values[chunk]
        errors[chunk] = sample_mae(scored(mine), scored(true))
        for array in (file.values, truth.values):
            drop_pages(array)
    return errors


def _draw_bars(out: str, truth: str, result: Sequence[str]) -> list[str]:
    means = draw_bars(out, truth, named_files(result))
    return [f"{name}: MAE {mae:.2f} m/s" for name, mae in means.items()]


_TRUTH = "prediction file of the true maps"
PICTURES = {
    "maps": Picture(
        "velocity at several stages, on one scale",
        lambda out, stage, **how: draw_maps(out, named_files(stage), **how),
        {
            "--stage": {"nargs": "+", "required": True, "help": "name=predictions.npy"},
            "--truth": {"help": _TRUTH},
            "--ids": {"nargs": "+", "help": "samples (default: worst, median, best)"},
        },
    ),
    "gathers": Picture(
        "observed, modelled, residual",
        draw_residual,
        {
            "--record": {"required": True, "help": "<id>.npy, (5, 1000, 70)"},
            "--velocity": {"required": True, "help": "prediction file, or one map .npy"},
            "--id": {"dest": "name", "help": "of the prediction file (default: the record's)"},
        },
    ),
    "curves": Picture(
        "misfit against evaluations, by family",
        draw_curves,
        {"--misfit": {"required": True, "help": "<stem>.misfit.npy of scripts/refine.py"}},
    ),
    "bars": Picture(
        "mean error by family, with its spread",
        _draw_bars,
        {
            "--truth": {"required": True, "help": _TRUTH},
            "--result": {"nargs": "+", "required": True, "help": "name=predictions.npy"},
        },
    ),
}
