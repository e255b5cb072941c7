"""Describe FWI samples for stratified folds: family, mean velocity, vertical roughness."""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from comp.core.folds import Description
from comp.fwi.extra import refuse_derived
from comp.fwi.shots import ShotStore

BINS = 5  # quantile bins of each measure
CHUNK = 512  # maps in memory at a time, 10 MB


def describe_folder(folder: str | Path) -> Description:
    """Describe every velocity map of a prepared folder, in one pass of constant memory.

    Returns:
        A description grouped by source file. Its labels are the family, one column each, and
        `BINS` quantile bins over all samples of the mean velocity (m/s) and of the vertical
        roughness, the mean |dv/dz| (m/s per m). Bins that no sample falls in, as happens where
        many maps share a value, are left out.

    Raises:
        InputError: `folder` is not a finished prepared folder, or holds derived samples.
    """
    store = ShotStore(folder)
    refuse_derived(folder, store.shards)
    mean_velocity, roughness = _measure(store).T
    families = np.unique(store.families)
    named = {str(family): store.families == family for family in families}
    named |= _quantile_bins(mean_velocity, "mean velocity", "m/s", digits=0)
    named |= _quantile_bins(roughness, "roughness", "1/s", digits=2)
    named = {name: rows for name, rows in named.items() if rows.any()}
    table = pd.DataFrame(
        {
            "family": store.families,
            "source": store.sources,
            "mean_velocity": mean_velocity.round(1),
            "roughness": roughness.round(3),
        }
    )
    labels = np.stack(list(named.values()), axis=1).astype(np.uint8)
    return Description(store.ids, table, labels, tuple(named), group="source")


def _measure(store: ShotStore) -> np.ndarray:
    """(n, 2) float64: mean velocity in m/s and mean |dv/dz| in 1/s of each map."""
    n = len(store.ids)
    measures = np.empty((n, 2))
    with tqdm(total=n, desc="describe", unit="map") as bar:
        for start in range(0, n, CHUNK):
            rows = range(start, min(start + CHUNK, n))
            velocity = store.velocities(rows)
            steps = np.abs(np.diff(velocity, axis=1)) / store.survey.dx
            measures[rows.start : rows.stop, 0] = velocity.mean(axis=(1, 2), dtype=np.float64)
            measures[rows.start : rows.stop, 1] = steps.mean(axis=(1, 2), dtype=np.float64)
            bar.update(len(rows))
    return measures


def _quantile_bins(values: np.ndarray, name: str, unit: str, digits: int) -> dict[str, np.ndarray]:
    """Name → (n,) bool, one for each of `BINS` bins that hold about equally many values."""
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1))
    bins = np.searchsorted(edges[1:-1], values, side="right")
    return {
        f"{name} bin {i + 1}, {edges[i]:.{digits}f}-{edges[i + 1]:.{digits}f} {unit}": bins == i
        for i in range(BINS)
    }
