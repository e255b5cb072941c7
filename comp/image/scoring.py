"""A submission CSV scored against truth: the competition's number beside the trivial predictor."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.errors import InputError
from comp.core.predictions import load_predictions
from comp.core.submission import read_submission, read_truth
from comp.image.checks import checked_sets
from comp.image.metrics import MacroRecall
from comp.image.store import ImageStore
from comp.image.submission import ImageLayout
from comp.image.trivial import trivial_labels


def report(
    submission: Path, truth: Path, *, train: Path | None = None, **others: Path | None
) -> Iterator[str]:
    """Lines about a submission: a table beside the trivial predictor, and the score.

    Args:
        submission: the CSV, rows in any order.
        truth: prediction file of label sets (n, C), or a CSV in the submission's layout.
        train: the prepared training data.
        others: what other competitions draw; of no use here.

    Raises:
        InputError: no `train`; rows missing, doubled or unknown; a label that there is not.
    """
    if train is None:
        raise InputError("--train: not given; expected the prepared folder, which knows the labels")
    for name in (name for name, path in others.items() if path is not None):
        raise InputError(f"--{name}: of no use for images, whose pictures scripts/plot.py draws")
    store = ImageStore(train)
    layout = ImageLayout(store.competition, store.heads)
    ids, true = _load_truth(truth, layout)
    submitted = layout.sets(read_submission(submission, layout, ids))
    table = score_table(store, submitted, true)
    yield table.to_string(float_format="%.4f")
    yield f"score of {submission}: {table.loc['submission', store.metric.name]:.4f}"


def score_table(store: ImageStore, submitted: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """The metric of label sets (n, C), with a row each for the submission and for the trivial one.

    Columns: the metric, for macro recall that of each head, the mean number of labels, and the
    share of images without any.
    """
    metric = store.metric
    trivial = np.broadcast_to(trivial_labels(store), truth.shape)
    rows = {}
    for name, sets in {"submission": submitted, "the same for all": trivial}.items():
        number = np.count_nonzero(sets, axis=1)
        rows[name] = {metric.name: metric.score(sets, truth)}
        if isinstance(metric, MacroRecall):
            rows[name] |= metric.of_heads(sets, truth)
        rows[name] |= {"labels": float(number.mean()), "empty": float((number == 0).mean())}
    return pd.DataFrame.from_dict(rows, orient="index")


def _load_truth(path: Path, layout: ImageLayout) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ids and (n, C) bool label sets."""
    if path.suffix == ".csv":
        ids, values = read_truth(path, layout)
        return ids, layout.sets(values)
    known = load_predictions(path)
    return known.ids, checked_sets(known.values, (len(known), *layout.value_shape), str(path))
