"""The competition's metric, the same by family, and the baselines that a network has to beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from tqdm import tqdm

from comp.core.files import drop_pages

# The competition scores the columns x_1, x_3, …, x_69 of each map and ignores the others.
SCORED_COLUMNS = slice(1, None, 2)
_CHUNK = 256  # maps worked on at once, 5 MB


def scored(maps: np.ndarray) -> np.ndarray:
    """The part (..., ny, ⌊nx/2⌋) of maps (..., ny, nx) that the competition scores; a view."""
    return maps[..., SCORED_COLUMNS]


def sample_mae(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) float64 mean absolute error of each sample over everything given, m/s.

    Args:
        prediction: (n, ...) or broadcastable to the truth, m/s.
        truth: (n, ...), m/s; `scored` parts for the competition's error.
    """
    difference = np.abs(np.asarray(prediction, np.float32) - np.asarray(truth, np.float32))
    return difference.mean(axis=tuple(range(1, difference.ndim)), dtype=np.float64)


def competition_mae(prediction: np.ndarray, truth: np.ndarray) -> float:
    """The leaderboard's number for maps (n, ny, nx) in m/s: MAE over all rows, scored columns."""
    return float(sample_mae(scored(prediction), scored(truth)).mean())


def streamed_mae(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) competition MAE of each sample, m/s, in constant memory.

    Args:
        prediction: scored parts (n, ny, columns), or one (ny, columns) or () for all samples.
        truth: scored parts (n, ny, columns), usually of a memmap.
    """
    errors = np.empty(len(truth))
    for start in tqdm(range(0, len(truth), _CHUNK), desc="scoring", unit="chunk"):
        chunk = slice(start, start + _CHUNK)
        mine = prediction[chunk] if np.ndim(prediction) == 3 else prediction
        errors[chunk] = sample_mae(mine, truth[chunk])
        for array in (prediction, truth):
            drop_pages(array)
    return errors


class VelocityStore(Protocol):
    """What the baselines need of a prepared folder of training data."""

    def __len__(self) -> int: ...

    def velocities(self, rows: np.ndarray) -> np.ndarray:
        """(k, ny, nx) float32 maps at `rows`, m/s."""
        ...


@dataclass(frozen=True)
class Baselines:
    """The two predictions that need no shots.

    Attributes:
        constant: m/s; the one velocity with the least MAE over the training maps, their median.
        mean_map: (ny, nx) float64, m/s; the mean of the training maps.
    """

    constant: float
    mean_map: np.ndarray


def fit_baselines(store: VelocityStore) -> Baselines:
    """Read all training maps once, in constant memory.

    The median comes from a histogram with bins of 1 m/s over the scored columns: exact for maps in
    whole m/s, else within 0.5 m/s.
    """
    histogram = np.zeros(1 << 16, dtype=np.int64)
    total: np.ndarray | float = 0.0
    for start in tqdm(range(0, len(store), _CHUNK), desc="baselines", unit="chunk"):
        maps = store.velocities(np.arange(start, min(start + _CHUNK, len(store))))
        total = total + maps.sum(axis=0, dtype=np.float64)
        velocities = np.rint(scored(maps)).astype(np.uint16).ravel()
        histogram += np.bincount(velocities, minlength=len(histogram))
    cumulative = histogram.cumsum()
    constant = int(np.searchsorted(cumulative, cumulative[-1] / 2))
    return Baselines(float(constant), np.asarray(total) / len(store))


def mae_table(families: np.ndarray | None, errors: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Mean error by family, the last row over all samples.

    Args:
        families: (n,) family of each sample; None gives the last row alone.
        errors: column name -> (n,) MAE of each sample, m/s.

    Returns:
        A row for each family in alphabetical order, then "all"; columns `samples`, then those of
        `errors`.
    """
    table = pd.DataFrame(dict(errors))
    table.insert(0, "samples", 1)
    how = {"samples": "sum", **dict.fromkeys(errors, "mean")}
    by_family = [] if families is None else [table.groupby(np.asarray(families)).agg(how)]
    total = table.agg(how).to_frame("all").T
    return pd.concat([*by_family, total]).astype({"samples": int})
