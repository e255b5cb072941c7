"""What the ways to combine velocity maps have to be fitted: weights of all, by family, a router."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from comp.core.ensemble import Method
from comp.core.recipe import ALL
from comp.core.weights import least_absolute
from comp.fwi.families import Router, fit_router
from comp.fwi.postprocess import POSTS

_FITTED = 20_000  # cells of one fit: half a second; more change weights by less than 0.02
_FEW = 10  # samples of a family; with fewer it takes the weights of all


@dataclass(frozen=True)
class Fitted:
    """Fitted on some samples.

    Attributes:
        weights: "all" and each family -> (files,) float64.
        router: None where families are not known.
    """

    weights: dict[str, np.ndarray]
    router: Router | None


def fit(
    drawn: np.ndarray, features: np.ndarray, families: np.ndarray | None, mine: np.ndarray
) -> Fitted:
    """Fit weights with the least absolute error, exactly on at most 20,000 cells each.

    Args:
        drawn: (n, cells, files + 1) float32 predictions of some cells, the truth behind them, m/s.
        features: (n, FEATURES), see `comp.fwi.families`.
        families: (n,) names; None fits weights of all alone.
        mine: (n,) bool: the samples to fit on.
    """
    groups = {ALL: mine}
    router = None
    if families is not None:
        groups |= {family: mine & (families == family) for family in np.unique(families[mine])}
        router = fit_router(features[mine], families[mine])
    weights = {}
    for group, members in groups.items():
        if group != ALL and np.count_nonzero(members) < _FEW:
            continue
        cells = drawn[members].reshape(-1, drawn.shape[-1])
        if len(cells) > _FITTED:
            cells = np.random.default_rng(0).choice(cells, _FITTED, replace=False)
        weights[group] = least_absolute(cells[:, :-1].astype(np.float64), cells[:, -1])
    return Fitted(weights, router)


def known_families(*tables: pd.DataFrame) -> np.ndarray | None:
    """(n,) family of each sample from the first table that has them; None for fewer than two."""
    for table in tables:
        if "family" in table and table["family"].nunique() > 1:
            return table["family"].to_numpy().astype(object)
    print("note: no column 'family' with two or more of them; nothing is fitted by family")
    return None


class Ways:
    """The ways that are compared, the simplest first.

    Attributes:
        names: of the ways; those of single files are the files'.
        methods: what combines the files, see `comp.core.ensemble.METHODS`.
        by_family: whether families are known.
    """

    def __init__(self, files: Sequence[str], by_family: bool) -> None:
        several: list[tuple[str, Method]] = []
        if len(files) > 1:
            several = [("mean", "mean"), ("median", "median"), ("weighted", "weighted")]
            several += [("weighted-median", "weighted-median")]
            if by_family:
                several += [(f"{name} by family", method) for name, method in several[2:]]
        self.by_family = by_family
        self.names = [*files, *(name for name, _ in several)]
        self.methods: list[Method] = ["weighted"] * len(files) + [method for _, method in several]
        self._files = len(files)

    def posts(self, way: int) -> Sequence[str]:
        """What may follow: nothing but the file itself is compared of single files among others."""
        if 1 < self._files > way:
            return POSTS[:1]
        return POSTS if self.by_family else POSTS[:2]

    def weights(self, way: int, fitted: Fitted) -> dict[str, list[float]]:
        """Weights of each group, for a recipe."""
        if way < self._files:
            return {ALL: np.eye(self._files)[way].tolist()}
        if self.methods[way] in ("mean", "median"):
            return {}
        groups = fitted.weights if "by family" in self.names[way] else [ALL]
        return {str(group): fitted.weights[group].tolist() for group in groups}

    def shares(
        self, way: int, fitted: Sequence[Fitted], families: np.ndarray | None
    ) -> np.ndarray | None:
        """(k, files) weights of samples of routed `families`, or None where none count."""
        if way < self._files:
            return np.eye(self._files)[way]
        if self.methods[way] in ("mean", "median"):
            return None
        if "by family" not in self.names[way]:
            return np.array([one.weights[ALL] for one in fitted])
        pairs = zip(fitted, families)
        return np.array([one.weights.get(family, one.weights[ALL]) for one, family in pairs])
