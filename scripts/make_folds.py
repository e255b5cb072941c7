"""Cut a prepared data folder into stratified folds and write them as the CSV that training reads.

python scripts/make_folds.py --data data/fwi_demo --folds 5
python scripts/make_folds.py --data data/fwi_demo --valid-fraction 0.1 --group none
python scripts/make_folds.py --task image --data data/emoji --picture data/emoji/folds.png
"""

import argparse
import shlex
import sys
from pathlib import Path

from comp.core.balance import balance_table, balance_text, draw_balance, find_gaps
from comp.core.errors import run_script
from comp.core.folds import write_folds
from comp.core.stratify import cut_by, make_folds, make_split
from comp.tasks import task_class


def main() -> None:
    """Parse, describe the samples, cut them, write the file, show how well it is balanced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="prepared folder, data/<name>")
    parser.add_argument("--task", default="fwi", help="competition kind (default: fwi)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--folds", type=int, default=5, help="number of folds (default: 5)")
    how.add_argument("--valid-fraction", type=float, help="instead: one split, 0 to 1 for fold 0")
    parser.add_argument(
        "--group", help="column that must not straddle folds, or none (default: as the data say)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the cut (default: 0)")
    parser.add_argument("--out", type=Path, help="fold file (default: <data>/folds.csv)")
    parser.add_argument("--picture", type=Path, help="also draw the balance, a PNG")
    args = parser.parse_args()
    samples = task_class(args.task).describe(args.data)
    if args.group is not None:
        samples = samples.grouped_by(None if args.group == "none" else args.group)
    if args.valid_fraction is None:
        folds = make_folds(samples.labels, samples.groups, args.folds, args.seed)
        made = {"method": "MultilabelStratifiedKFold", "folds": args.folds}
    else:
        folds = make_split(samples.labels, samples.groups, args.valid_fraction, args.seed)
        made = {"method": "MultilabelStratifiedShuffleSplit", "valid": args.valid_fraction}
    package = cut_by(samples.labels, samples.groups)
    made |= {"seed": args.seed, "package": package, "command": shlex.join(sys.argv)}
    out = args.out or args.data / "folds.csv"
    write_folds(out, folds, samples, made)
    table = balance_table(folds, samples.labels, samples.names)
    print(balance_text(table, find_gaps(folds, samples.labels, samples.names, samples.groups)))
    if args.picture:
        draw_balance(args.picture, table)
        print(f"wrote {args.picture}")
    print(f"wrote {out}: {len(folds)} samples, grouped by {samples.group or 'nothing'}")


if __name__ == "__main__":
    run_script(main)
