"""A submission CSV scored against truth: the competition's number, a table by family, a picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.files import open_npy
from comp.core.predictions import Predictions, load_predictions
from comp.core.submission import read_submission, read_truth
from comp.fwi.metrics import Baselines, fit_baselines, mae_table, scored, streamed_mae
from comp.fwi.shots import ShotStore
from comp.fwi.submission import FwiLayout


@dataclass(frozen=True)
class Score:
    """A submission beside the truth, both in the truth's order.

    Attributes:
        truth: the true maps; of a truth given as CSV, the scored columns alone.
        submitted: (n, ny, scored columns) float32, m/s.
        errors: (n,) MAE of each sample over what is scored, m/s.
    """

    truth: Predictions
    submitted: np.ndarray
    errors: np.ndarray

    @property
    def mae(self) -> float:
        """The competition's number, m/s."""
        return float(self.errors.mean())


def report(
    submission: Path,
    truth: Path,
    layout: FwiLayout,
    *,
    train: Path | None = None,
    picture: Path | None = None,
    predictions: Path | None = None,
    records: Path | None = None,
) -> Iterator[str]:
    """Lines about a submission: the table by family, with `train` beside baselines, the score.

    Raises:
        InputError: as `score_submission` and `draw_extremes`.
    """
    score = score_submission(submission, truth, layout)
    baselines = None if train is None else fit_baselines(ShotStore(train))
    yield "MAE in m/s over all rows and the scored columns"
    yield family_table(score, baselines, layout).to_string(float_format="%.2f")
    if picture is not None:
        draw_extremes(picture, score, layout, predictions, records)
        yield f"wrote {picture}"
    yield f"score of {submission}: {score.mae:.4f} m/s"


def score_submission(path: str | Path, truth: str | Path, layout: FwiLayout) -> Score:
    """Score a submission CSV whose rows may be in any order.

    Args:
        path: the submission.
        truth: prediction-form `.npy` of full maps, or a CSV in the same layout.
        layout: the competition's.

    Raises:
        InputError: rows missing, doubled or unknown; NaN; a truth of another shape.
    """
    known = _load_truth(truth, layout)
    submitted = read_submission(path, layout, known.ids)
    errors = streamed_mae(submitted, _scored_part(known, layout))
    if not np.isfinite(errors).all():
        bad = known.ids[int(np.argmin(np.isfinite(errors)))]
        raise InputError(f"{truth}: id {bad!r} holds NaN or infinite values")
    return Score(known, submitted, errors)


def _load_truth(path: str | Path, layout: FwiLayout) -> Predictions:
    if Path(path).suffix == ".csv":
        ids, values = read_truth(path, layout)
        return Predictions(pd.DataFrame({"id": ids}), values, Path(path))
    truth = load_predictions(path)
    if truth.values.shape[1:] != layout.value_shape:
        raise InputError(f"{path}: maps {truth.values.shape[1:]}, expected {layout.value_shape}")
    return truth


def _scored_part(maps: Predictions, layout: FwiLayout) -> np.ndarray:
    """(n, ny, scored columns) of full maps; of what was read from a CSV, all of it."""
    return scored(maps.values) if maps.values.shape[1:] == layout.value_shape else maps.values


def family_table(score: Score, baselines: Baselines | None, layout: FwiLayout) -> pd.DataFrame:
    """MAE in m/s by family (where the truth's table has that column) and over all samples.

    Columns: `samples`, `submission`, and with `baselines` "constant <m/s>" and "mean map".
    """
    errors = {"submission": score.errors}
    if baselines is not None:
        truth = _scored_part(score.truth, layout)
        constant = np.array(baselines.constant)
        errors[f"constant {baselines.constant:g}"] = streamed_mae(constant, truth)
        errors["mean map"] = streamed_mae(scored(baselines.mean_map), truth)
    table = score.truth.table
    return mae_table(table["family"].to_numpy() if "family" in table else None, errors)


def draw_extremes(
    path: str | Path,
    score: Score,
    layout: FwiLayout,
    predictions: str | Path | None = None,
    records: str | Path | None = None,
) -> None:
    """Draw the samples with the worst, the median and the best error as a PNG.

    Args:
        path: the picture.
        score: what is drawn.
        layout: its survey is the one drawn.
        predictions: prediction file with the full maps; without it only the scored columns of
            truth and submission are drawn, each twice as wide.
        records: folder with `<id>.npy` shot records, of which a gather each is drawn.
    """
    from comp.fwi.plots import prediction_panels  # matplotlib is slow to import

    order = np.argsort(score.errors, kind="stable")
    rows = list(dict.fromkeys(int(order[i]) for i in (-1, len(order) // 2, 0)))
    table = score.truth.table.iloc[rows]
    ids = table["id"].tolist()
    families = table["family"] if "family" in table else [""] * len(ids)
    titles = [i if family in i else f"{i} {family}" for i, family in zip(ids, families)]
    survey = layout.survey
    if predictions is None:
        truth = _widen(_scored_part(score.truth, layout)[rows], survey.nx)
        drawn = _widen(score.submitted[rows], survey.nx)
    else:
        full = load_predictions(predictions)
        truth = _widen(score.truth.values[rows], survey.nx)
        drawn = full.values[full.rows_of(ids)]
    shots = None
    if records is not None:
        files = [Path(records) / f"{name}.npy" for name in ids]
        shots = np.stack([open_npy(file, shape=survey.record_shape) for file in files])
    prediction_panels(path, titles, truth, drawn, shots=shots, survey=survey)


def _widen(maps: np.ndarray, nx: int) -> np.ndarray:
    """Scored columns to maps of `nx` columns, each repeated; full maps as they are."""
    return maps if maps.shape[-1] == nx else np.repeat(maps, 2, axis=-1)[..., :nx]
