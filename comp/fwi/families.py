"""Which family a predicted map looks like: test sets do not say, and weights depend on it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from comp.core.errors import InputError

_LEVEL = 5.0  # m/s; neighbours closer than this count as equal
_STEP = 100.0  # m/s; neighbours further apart count as an interface
_BIN, _BINS = 50.0, 128  # m/s; to count distinct velocities, up to 6.4 km/s
_SHARE = 0.01  # of a map's cells that a velocity must have to count
_FITTED = 20_000  # maps that a router is fitted on
FEATURES = 17


def map_features(maps: np.ndarray) -> np.ndarray:
    """What tells the families apart, of each map alone.

    Levels, curves and faults differ in their lateral changes, A and B in the order of velocities
    with depth, photographs (Style) in having many velocities and changes everywhere.

    Args:
        maps: (k, ny, nx) float32, m/s.

    Returns:
        (k, FEATURES) float64.
    """
    cells, rows = (1, 2), maps.mean(axis=2, dtype=np.float64)
    down, across = np.diff(maps, axis=1), np.diff(maps, axis=2)
    steep, wide = np.abs(down), np.abs(across)
    bent = np.abs(np.diff(across, axis=2))
    falls = np.diff(rows, axis=1)
    depth = np.arange(rows.shape[1]) - (rows.shape[1] - 1) / 2
    found = [
        (wide < _LEVEL).mean(axis=cells),
        (wide > _STEP).mean(axis=cells),
        (steep < _LEVEL).mean(axis=cells),
        (steep > _STEP).mean(axis=cells),
        (down < -_LEVEL).mean(axis=cells),
        (falls < -1).mean(axis=1),
        rows @ depth / (np.square(depth).sum() * 10),  # 10 m/s a cell is a usual slope
        maps.mean(axis=cells) / 1000,
    ]
    lengths = [
        wide.mean(axis=cells),
        np.sqrt(np.square(wide).mean(axis=cells)),
        wide.mean(axis=1).max(axis=1),
        bent.mean(axis=cells),
        steep.mean(axis=cells),
        np.sqrt(np.square(steep).mean(axis=cells)),
        maps.std(axis=2).mean(axis=1),
        np.abs(falls).max(axis=1),
    ]
    logs = [np.log(np.asarray(length, np.float64) + 1) for length in lengths]
    return np.stack([*found, *logs, np.log(_distinct(maps) + 1)], axis=1).astype(np.float64)


def _distinct(maps: np.ndarray) -> np.ndarray:
    """(k,) number of velocities, to 50 m/s, that a hundredth of the map's cells have."""
    samples, size = len(maps), maps[0].size
    velocity = (maps.reshape(samples, -1) / _BIN).clip(0, _BINS - 1).astype(np.int64)
    velocity += _BINS * np.arange(samples)[:, None]
    counts = np.bincount(velocity.ravel(), minlength=_BINS * samples).reshape(samples, _BINS)
    return np.count_nonzero(counts >= _SHARE * size, axis=1)


@dataclass(frozen=True)
class Router:
    """A multinomial logistic regression on the features and their squares; plain numbers.

    Attributes:
        families: F names.
        centre, scale: (FEATURES,) mean and standard deviation of the features.
        slopes: (F, 2·FEATURES).
        offsets: (F,).
    """

    families: list[str]
    centre: list[float]
    scale: list[float]
    slopes: list[list[float]]
    offsets: list[float]

    def route(self, features: np.ndarray) -> np.ndarray:
        """(k,) str: the likeliest family of each row of (k, FEATURES)."""
        scores = _expand(features, np.array(self.centre), np.array(self.scale))
        scores = scores @ np.array(self.slopes).T + np.array(self.offsets)
        return np.array(self.families, dtype=object)[scores.argmax(axis=1)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_router(values: Mapping[str, Any]) -> Router:
    """The router of a recipe; raises InputError when its numbers do not fit together."""
    try:
        router = Router(**values)
        slopes = len(router.families), 2 * FEATURES
        for numbers, shape in (
            (router.centre, (FEATURES,)),
            (router.scale, (FEATURES,)),
            (router.slopes, slopes),
            (router.offsets, slopes[:1]),
        ):
            np.asarray(numbers, np.float64).reshape(shape)
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe: key settings.router: not a router: {error}") from None
    return router


def fit_router(features: np.ndarray, families: np.ndarray, seed: int = 0) -> Router:
    """Fit a router on maps whose families are known.

    Args:
        features: (n, FEATURES).
        families: (n,) names; of one family alone the router knows no other.
        seed: of the draw, where there are more maps than a fit needs.
    """
    if len(features) > _FITTED:
        drawn = np.random.default_rng(seed).choice(len(features), _FITTED, replace=False)
        features, families = features[drawn], families[drawn]
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1
    names = np.unique(families.astype(str)).tolist()
    if len(names) == 1:
        nothing = [[0.0] * (2 * FEATURES)]
        return Router(names, centre.tolist(), scale.tolist(), nothing, [0.0])
    model = LogisticRegression(max_iter=1000)
    model.fit(_expand(features, centre, scale), families.astype(str))
    slopes, offsets = model.coef_, model.intercept_
    if len(names) == 2:  # of two classes scikit-learn keeps the second one's alone
        slopes, offsets = np.vstack([-slopes, slopes]) / 2, np.append(-offsets, offsets) / 2
    return Router(names, centre.tolist(), scale.tolist(), slopes.tolist(), offsets.tolist())


def _expand(features: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(k, 2·FEATURES) standardised features and their squares; far ones are held at 5."""
    unit = ((features - centre) / scale).clip(-5, 5)
    return np.concatenate([unit, np.square(unit)], axis=1)
