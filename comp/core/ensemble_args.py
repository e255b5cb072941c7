"""What the options of scripts/ensemble.py ask for."""

from argparse import Namespace

from comp.core.ensemble import WEIGHTED
from comp.core.errors import InputError
from comp.core.recipe import ALL, Recipe, read_recipe
from comp.core.weights import fit_weights


def choose_weights(args: Namespace) -> list[float] | None:
    """The given weights, or those fitted on out-of-fold files, which are printed.

    None for a method without weights.

    Raises:
        InputError: not exactly one of `--weights` and `--oof` with `--truth`; another number of
            `--oof` than of `--predictions`; as `fit_weights`.
    """
    if args.method not in WEIGHTED:
        return None
    if (args.weights is None) == (args.oof is None or args.truth is None):
        raise InputError(f"--method {args.method}: give either --weights or both --oof and --truth")
    if args.weights is not None:
        return args.weights
    if len(args.oof) != len(args.predictions):
        raise InputError(f"--oof: {len(args.oof)} files for {len(args.predictions)} --predictions")
    weights = fit_weights(args.oof, args.truth, args.error)
    print(*(f"{share:.4f}  {path}" for share, path in zip(weights, args.predictions)), sep="\n")
    return weights.tolist()


def given_recipe(args: Namespace) -> Recipe:
    """The recipe of `--recipe`, or that of `--space` with method and weights.

    Raises:
        InputError: an option beside `--recipe` that it answers already; as `read_recipe`.
    """
    if args.recipe is None:
        weights = choose_weights(args)
        shares = {} if weights is None else {ALL: weights}
        files, settings = len(args.predictions), {"space": args.space}
        return Recipe(args.task, args.method or "mean", files, shares, settings)
    for name in ("method", "weights", "oof", "truth", "space"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name}: given beside --recipe, which says it already")
    return read_recipe(args.recipe, args.task)
