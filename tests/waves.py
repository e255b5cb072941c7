"""A small survey and rough maps for the tests of the wave equation's solvers."""

import numpy as np
import torch

from comp.fwi.survey import Survey

# Everything about it is small or unequal, so that a swapped axis or a fixed size shows.
SMALL = Survey(
    ny=12,
    nx=17,
    nt=150,
    pad=10,
    source_columns=(0, 5, 16),
    source_row=2,
    receiver_row=9,
    receiver_columns=(1, 4, 11, 16),
)


def layered_map(survey: Survey = SMALL, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    """One map (1, ny, nx) of strong horizontal contrasts with noise, 1500 … 4500 m/s."""
    rng = np.random.default_rng(seed)
    layer = rng.uniform(1600, 4400, size=(survey.ny // 4 + 1, 1)).repeat(4, axis=0)[: survey.ny]
    return torch.tensor(layer + rng.uniform(-100, 100, survey.map_shape), dtype=dtype)[None]


def rough_maps(
    count: int, survey: Survey, seed: int = 0, device="cpu", dtype=torch.float64
) -> torch.Tensor:
    """(count, ny, nx) rough maps, 1600 … 4400 m/s."""
    rng = np.random.default_rng(seed)
    maps = torch.tensor(rng.uniform(1600, 4400, (count, *survey.map_shape)))
    return maps.to(device, dtype)


def relative(found, expected) -> float:
    """Relative L2 distance."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
