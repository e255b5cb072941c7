"""Find how to combine the predictions of several models, on out-of-fold predictions.

python scripts/recipe.py --oof runs/a/oof.npy runs/b/oof.npy --truth runs/a/truth.npy \\
    --out runs/ab/recipe.json
python scripts/recipe.py --task image --data data/imet --oof runs/a/oof.npy runs/b/oof.npy \\
    --truth runs/a/truth.npy --out runs/ab/recipe.json

Prints how each way scores on folds that it was not fitted on, and writes the best one, fitted on
all, for scripts/ensemble.py --recipe; the table goes beside it as a CSV.
"""

import argparse
from pathlib import Path

from comp.core.errors import run_script
from comp.core.recipe import write_recipe
from comp.tasks import task_class


def main() -> None:
    """Parse, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--oof", nargs="+", required=True, type=Path, help="a file for each model")
    parser.add_argument("--truth", required=True, type=Path, help="their truth, .npy")
    parser.add_argument("--out", required=True, type=Path, help="the recipe to write, .json")
    parser.add_argument("--task", default="fwi", help="competition kind (default: fwi)")
    parser.add_argument("--data", type=Path, help="image: prepared folder, for its labels")
    args = parser.parse_args()
    comparison = task_class(args.task).blender(args.data).search(args.oof, args.truth)
    write_recipe(args.out, comparison)
    print(comparison.title)
    print(comparison.table.to_string(float_format="%.4f"))
    figures = comparison.recipe.figures
    print(f"wrote {args.out}: {comparison.recipe.method}, {figures['nested']:.4f} nested")


if __name__ == "__main__":
    run_script(main)
