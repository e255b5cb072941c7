"""Combine prediction files into one, or join the folds of one run into an out-of-fold file.

python scripts/ensemble.py --predictions runs/a/fold_*/predictions/test.npy --out runs/a/test.npy
python scripts/ensemble.py --join-folds runs/a/fold_*/predictions/valid.npy \\
    --ids data/fwi_demo/folds.csv --out runs/a/oof.npy
python scripts/ensemble.py --method weighted --predictions runs/a/test.npy runs/b/test.npy \\
    --oof runs/a/oof.npy runs/b/oof.npy --truth truth.npy --out submissions/ab.npy
python scripts/ensemble.py --recipe ab.json --predictions a/test.npy b/test.npy --out ab.npy
python scripts/ensemble.py --task image --data data/imet --space logit --predictions … --out …
"""

import argparse
from pathlib import Path

from comp.core.ensemble import METHODS, combine
from comp.core.ensemble_args import choose_weights, given_recipe
from comp.core.errors import InputError, run_script
from comp.core.oof import expected_ids, join_folds
from comp.core.weights import ERRORS
from comp.tasks import task_class


def main() -> None:
    """Parse, fit weights if asked, combine or join."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--predictions", nargs="+", type=Path, help="prediction files to combine")
    what.add_argument("--join-folds", nargs="+", type=Path, help="validation file of every fold")
    parser.add_argument("--out", required=True, type=Path, help="the new prediction file, .npy")
    parser.add_argument("--ids", type=Path, help="to join: fold file, or a CSV with all ids")
    parser.add_argument("--method", choices=METHODS, help="default: mean")
    weighted = parser.add_argument_group("weighted", "either the weights or what to fit them on")
    weighted.add_argument("--weights", nargs="+", type=float, help="one for each file, sum 1")
    weighted.add_argument("--oof", nargs="+", type=Path, help="out-of-fold file of each file")
    weighted.add_argument("--truth", type=Path, help="truth of the out-of-fold files, .npy")
    least = "least in the fit (default: absolute); probabilities need squared"
    weighted.add_argument("--error", choices=ERRORS, default="absolute", help=least)
    parser.add_argument("--recipe", type=Path, help="written by scripts/recipe.py, .json")
    parser.add_argument("--space", help="image: average probability, logit or rank")
    parser.add_argument("--task", default="fwi", help="competition kind (default: fwi)")
    parser.add_argument("--data", type=Path, help="image: prepared folder, for its labels")
    args = parser.parse_args()
    if args.join_folds:
        if args.ids is None:
            raise InputError("--join-folds: give the fold file as --ids")
        join_folds(args.join_folds, args.out, expected_ids(args.ids))
    elif args.recipe or args.space:
        recipe = given_recipe(args)
        task_class(args.task).blender(args.data).apply(recipe, args.predictions, args.out)
    else:
        combine(args.predictions, args.out, args.method or "mean", choose_weights(args))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run_script(main)
