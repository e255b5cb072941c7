"""Ways to combine velocity maps, compared on out-of-fold predictions, and the best one applied."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comp.core.aligned import Aligned, in_chunks, read_stack
from comp.core.combining import weighted_median
from comp.core.ensemble import reduce_stack, write_combined
from comp.core.errors import InputError
from comp.core.predictions import Predictions
from comp.core.recipe import ALL, Blender, Comparison, Recipe, fingerprint
from comp.core.weights import load_out_of_fold
from comp.fwi.blend_fit import Fitted, Ways, fit, known_families
from comp.fwi.blend_report import best_way, chosen_by_others, compare_table
from comp.fwi.families import FEATURES, map_features, read_router
from comp.fwi.metrics import sample_mae, scored
from comp.fwi.postprocess import POSTS, postprocess
from comp.fwi.survey import OFFICIAL

_CELLS = 200_000  # drawn in all, or one of each sample


class FwiBlender(Blender):
    """Weighted or not, by family or not, then clipped and rounded or not; see the `Ways`.

    A sample's family is what a router takes the median of its predicted maps for. Two passes over
    the files in constant memory, beside a table of errors: 400 bytes a sample for ten files.
    """

    def search(self, oof: Sequence[Path], truth: Path) -> Comparison:
        files, target = load_out_of_fold(oof, truth)
        first = _checked_maps(files)
        folds = first.table["fold"].to_numpy()
        if len(np.unique(folds)) < 2:
            raise InputError(f"{first.path}: only fold {folds[0]}, expected two or more")
        families = known_families(first.table, target.file.table.iloc[target.rows])
        samples, size = len(first), scored(first.values[:1]).size
        features = np.empty((samples, FEATURES))
        cells = min(size, -(-_CELLS // samples))
        drawn = np.empty((samples, cells, len(files) + 1), np.float32)

        def look(chunk: slice) -> None:
            stack = read_stack([*files, target], chunk)
            features[chunk] = _features(stack[:-1])
            values = scored(stack).reshape(*stack.shape[:2], size)
            shape = (1, chunk.stop - chunk.start, cells)
            places = np.random.default_rng([0, chunk.start]).integers(size, size=shape)
            drawn[chunk] = np.moveaxis(np.take_along_axis(values, places, axis=2), 0, -1)

        in_chunks([*files, target], look, "features")
        everything = fit(drawn, features, families, np.ones(samples, bool))
        of_fold = {k: fit(drawn, features, families, folds != k) for k in np.unique(folds)}
        ways = Ways(tuple(map(str, oof)), families is not None)
        shape = (2, len(ways.names), len(POSTS), samples)
        errors = np.full(shape, np.inf, np.float32)  # searched and nested

        def score(chunk: slice) -> None:
            stack = np.ascontiguousarray(scored(read_stack([*files, target], chunk)))
            own = [of_fold[k] for k in folds[chunk]]
            for kind, fitted in enumerate(([everything] * len(own), own)):
                errors[kind, ..., chunk] = _errors(stack, ways, fitted, features[chunk])

        in_chunks([*files, target], score, "comparing")
        way, post = best_way(errors[1])
        figures = {
            "nested": errors[1, way, post].mean(dtype=float),
            "searched": errors[0, way, post].mean(dtype=float),
            "nested_choice_included": chosen_by_others(errors[1], folds).mean(dtype=float),
        }
        recipe = Recipe(
            "fwi",
            ways.methods[way],
            len(files),
            ways.weights(way, everything),
            {"post": POSTS[post], "router": everything.router and everything.router.to_dict()},
            {name: float(value) for name, value in figures.items()},
            {str(path): fingerprint(path) for path in (*oof, truth)},
        )
        title = "MAE in m/s, scored columns; nested: each fold by what was fitted on the others"
        return Comparison(title, compare_table(ways.names, errors, folds), recipe)

    def apply(self, recipe: Recipe, paths: Sequence[Path], out: Path) -> None:
        files, post = recipe.load(paths), recipe.settings.get("post", "none")
        for name in recipe.settings.keys() - {"post", "router"}:
            raise InputError(f"recipe: key settings.{name}: of no use here, expected post, router")
        if post not in POSTS:
            raise InputError(f"recipe: key settings.post: {post!r}, expected {', '.join(POSTS)}")
        _checked_maps(files)
        grouped = post == "round" or set(recipe.weights) - {ALL}
        router = read_router(recipe.settings.get("router") or {}) if grouped else None

        def reduce(stack: np.ndarray, chunk: slice) -> np.ndarray:
            families = router.route(_features(stack)) if router else [ALL] * stack.shape[1]
            combined = reduce_stack(stack, recipe.method, recipe.shares(families))
            return postprocess(combined, post, families)

        write_combined(files, out, reduce, recipe.method)


def _checked_maps(files: Sequence[Aligned]) -> Predictions:
    """The first file; raises InputError unless its samples are maps."""
    first = files[0].file
    if first.values.shape[1:] != OFFICIAL.map_shape:
        raise InputError(
            f"{first.path}: sample shape {first.values.shape[1:]}, expected {OFFICIAL.map_shape}"
        )
    return first


def _features(stack: np.ndarray) -> np.ndarray:
    """(k, FEATURES) of (files, k, ny, nx) maps: those of their median, which blurs no interface."""
    return map_features(weighted_median(stack, np.full(len(stack), 1 / len(stack))))


def _errors(
    stack: np.ndarray, ways: Ways, fitted: Sequence[Fitted], features: np.ndarray
) -> np.ndarray:
    """(ways, posts, k) MAE of the scored parts (files + truth, k, ny, columns), m/s.

    Args:
        stack: the predictions, and the truth behind them.
        ways: to combine.
        fitted: k, what each sample is combined by.
        features: (k, FEATURES).
    """
    predictions, truth = stack[:-1], stack[-1]
    families = None
    if ways.by_family:
        families = np.empty(len(features), object)
        for one in {id(one): one for one in fitted}.values():
            mine = np.array([other is one for other in fitted])
            families[mine] = one.router.route(features[mine])
    errors = np.full((len(ways.names), len(POSTS), len(features)), np.inf)
    for way, method in enumerate(ways.methods):
        shares = ways.shares(way, fitted, families)
        combined = reduce_stack(predictions, method, shares)
        for post in ways.posts(way):
            done = postprocess(combined, post, families)
            errors[way, POSTS.index(post)] = sample_mae(done, truth)
    return errors
