"""Find the rule that makes label sets of probabilities, on out-of-fold predictions.

python scripts/rules.py --data data/plant_pathology --oof runs/plant_pathology/oof.npy \\
    --out runs/plant_pathology/rule.json

Prints how each rule scores on folds that it was not searched on, and writes the best one, searched
on all, for scripts/submit.py; the table goes beside it as a CSV. Predictions of one fold will do:
the rules are then judged on parts of it.
"""

import argparse
from pathlib import Path

from comp.core.errors import run_script
from comp.image.rules import compare_on, write_rule
from comp.image.store import ImageStore


def main() -> None:
    """Parse, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="prepared folder, data/<name>")
    parser.add_argument("--oof", required=True, type=Path, help="out-of-fold prediction file, .npy")
    parser.add_argument("--out", required=True, type=Path, help="the rule to write, .json")
    parser.add_argument("--rule", help="the one to write, by its name (default: the best nested)")
    args = parser.parse_args()
    store = ImageStore(args.data)
    comparison = compare_on(store, args.oof)
    name = write_rule(args.out, comparison, args.rule)
    print(f"{store.metric.name} of {args.oof}; nested: each fold decided by a rule of the others")
    print(comparison.table.to_string(float_format="%.4f"))
    print(f"wrote {args.out}: {name}, {comparison.table.loc[name, 'nested']:.4f} nested")


if __name__ == "__main__":
    run_script(main)
