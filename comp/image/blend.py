"""Ways to combine probabilities, compared on out-of-fold predictions, and the best one applied."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from comp.core.aligned import Aligned, in_chunks, read_stack
from comp.core.ensemble import reduce_stack, write_combined
from comp.core.errors import InputError
from comp.core.files import drop_pages, new_npy
from comp.core.predictions import write_ids
from comp.core.recipe import ALL, Blender, Comparison, Recipe, fingerprint
from comp.core.weights import least_squares, load_out_of_fold
from comp.image.checks import checked_folds, checked_sets
from comp.image.metrics import MacroRecall
from comp.image.prior_search import fit_argmax
from comp.image.rule_report import compare_rules
from comp.image.spaces import SPACES, column_ranks, from_space, head_columns, to_space
from comp.image.store import ImageStore
from comp.image.threshold_search import fit_global

_COLUMN_VALUES = 1 << 23  # of all files together, ranked at once: 32 MB in float32
_FITTED = 200_000  # probabilities of a head that its weights are fitted on


class ImageBlender(Blender):
    """Probabilities, logits or ranks, weighted or not, head by head."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self._heads = head_columns(store.heads)

    def search(self, oof: Sequence[Path], truth: Path) -> Comparison:
        """Compare the ways by the competition's metric, with the rule that it starts from.

        Weights are those with the least squared error of the probabilities, whatever is averaged.
        One way at a time is held in memory, (n, C) float32 and its label sets.
        """
        files, target = load_out_of_fold(oof, truth)
        first, count = files[0].file, len(files)
        self._check_labels(files)
        folds = checked_folds(first.table["fold"].to_numpy(), len(first))
        sets = checked_sets(target.read(slice(0, len(first))), None, str(truth))
        fitted = self._weights(files, sets, np.ones(len(first), bool))
        of_fold = {k: self._weights(files, sets, folds != k) for k in np.unique(folds)}
        rows, recipes = {}, {}

        def judge(name: str, space: str, method: str, all_weights: dict, nested: Callable) -> None:
            recipe = Recipe("image", method, count, all_weights, {"space": space})
            searched = self._score(self._combined(files, recipe), sets, folds)["searched"]
            mine = np.empty(first.values.shape, np.float32)
            for fold, weights in nested().items():
                one = Recipe("image", method, count, weights, {"space": space})
                held = slice(None) if fold is None else folds == fold
                mine[held] = self._combined(files, one)[held]
            rows[name] = self._score(mine, sets, folds) | {"searched": searched}
            recipes[name] = recipe

        for number, path in enumerate(oof):
            single = {ALL: np.eye(count)[number].tolist()}
            judge(str(path), "probability", "weighted", single, lambda one=single: {None: one})
        for space in SPACES if count > 1 else ():
            judge(f"{space}, mean", space, "mean", {}, lambda: {None: {}})
            judge(f"{space}, weighted by head", space, "weighted", fitted, lambda: of_fold)
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("way")
        best = str(table["nested"].idxmax())
        recipes[best].figures.update({k: float(table.loc[best, k]) for k in ("nested", "searched")})
        marks = {str(path): fingerprint(path) for path in (*oof, truth)}
        recipes[best].fitted_on.update(marks)
        title = f"{self.store.metric.name}; nested: each fold by what was fitted on the others"
        return Comparison(title, table[["nested", "±", "searched"]], recipes[best])

    def apply(self, recipe: Recipe, paths: Sequence[Path], out: Path) -> None:
        files = recipe.load(paths)
        self._check_labels(files)
        if self._space(recipe) != "rank":
            write_combined(files, out, lambda stack, _: self._reduce(stack, recipe), recipe.method)
            return
        with new_npy(out, files[0].file.values.shape, np.float32) as result:
            self._rank_into(files, recipe, result)
        write_ids(out, files[0].file.table)

    def _combined(self, files: Sequence[Aligned], recipe: Recipe) -> np.ndarray:
        """(n, C) float32 in memory."""
        result = np.empty(files[0].file.values.shape, np.float32)
        if self._space(recipe) == "rank":
            self._rank_into(files, recipe, result)
            return result

        def work(chunk: slice) -> None:
            result[chunk] = self._reduce(read_stack(files, chunk), recipe)

        in_chunks(files, work, "comparing")
        return result

    def _reduce(self, stack: np.ndarray, recipe: Recipe) -> np.ndarray:
        """(files, k, C) probabilities to (k, C)."""
        space = self._space(recipe)
        result = np.empty(stack.shape[1:], np.float32)
        for head, part in self._heads:
            values = np.ascontiguousarray(to_space(stack[..., part], space, head))
            shares = recipe.shares([head.name])[0]
            result[:, part] = from_space(reduce_stack(values, recipe.method, shares), space, head)
        return result

    def _rank_into(self, files: Sequence[Aligned], recipe: Recipe, result: np.ndarray) -> None:
        """Fill (n, C) a few columns at a time, as a rank depends on all samples."""
        in_chunks(files, lambda chunk: read_stack(files, chunk), "checking")
        step = max(1, _COLUMN_VALUES // (len(files) * len(result)))
        for head, part in self._heads:
            shares = recipe.shares([head.name])[0]
            for start in range(part.start, part.stop, step):
                some = slice(start, min(start + step, part.stop))
                ranks = [column_ranks(one.file.read(one.rows, some)) for one in files]
                result[:, some] = reduce_stack(np.stack(ranks), recipe.method, shares)
                for array in (result, *(one.file.values for one in files)):
                    drop_pages(array)
            result[:, part] = from_space(result[:, part], "rank", head)

    def _weights(
        self, files: Sequence[Aligned], sets: np.ndarray, mine: np.ndarray
    ) -> dict[str, list[float]]:
        """Head -> weights of the files with the least squared error, on cells drawn of `mine`."""
        rng, rows, found = np.random.default_rng(0), np.flatnonzero(mine), {}
        for head, part in self._heads:
            total = len(rows) * len(head.labels)
            drawn = np.sort(rng.choice(total, min(total, _FITTED), replace=False))
            row, column = np.divmod(drawn, len(head.labels))
            row, column = rows[row], column + part.start
            cells = [one.file.cells(one.rows[row], column) for one in files]
            truth = sets[row, column].astype(np.float64)
            found[head.name] = least_squares(np.stack(cells, 1).astype(np.float64), truth).tolist()
        return found

    def _score(self, values: np.ndarray, sets: np.ndarray, folds: np.ndarray) -> dict[str, float]:
        metric = self.store.metric
        recall = isinstance(metric, MacroRecall)
        groups = None if recall else self.store.label_groups
        fits = {"argmax": fit_argmax} if recall else {"global": fit_global}
        table = compare_rules(values, sets, folds, metric, groups, fits).table
        return {name: float(table[name].iloc[0]) for name in ("nested", "±", "searched")}

    def _check_labels(self, files: Sequence[Aligned]) -> None:
        first, expected = files[0].file, (len(self.store.labels),)
        if first.values.shape[1:] != expected:
            raise InputError(
                f"{first.path}: sample shape {first.values.shape[1:]}, expected {expected} as "
                f"{self.store.folder} has labels"
            )

    @staticmethod
    def _space(recipe: Recipe) -> str:
        space = recipe.settings.get("space", "probability")
        if space not in SPACES:
            raise InputError(f"recipe: key settings.space: {space!r}, expected {', '.join(SPACES)}")
        return space
