"""Cut a prepared data folder into stratified folds and write them as the CSV that training reads.

python scripts/make_folds.py --data data/fwi_demo --folds 5
python scripts/make_folds.py --data data/fwi_demo --valid-fraction 0.1 --group none
"""

import argparse
import shlex
import sys
from pathlib import Path

from comp.core.errors import run_script
from comp.core.folds import write_folds
from comp.core.stratify import PACKAGE, balance_table, find_gaps, make_folds, make_split
from comp.tasks import task_class

GAPS_SHOWN = 20


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
        "--group", help="column that must not straddle folds, or none (default for fwi: source)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the cut (default: 0)")
    parser.add_argument("--out", type=Path, help="fold file (default: <data>/folds.csv)")
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
    made |= {"seed": args.seed, "package": PACKAGE, "command": shlex.join(sys.argv)}
    out = args.out or args.data / "folds.csv"
    write_folds(out, folds, samples, made)
    print(balance_table(folds, samples.labels, samples.names).to_string(float_format="%.1f"))
    gaps = find_gaps(folds, samples.labels, samples.names, samples.groups)
    for gap in gaps[:GAPS_SHOWN]:
        print(f"warning: {gap}")
    if len(gaps) > GAPS_SHOWN:
        print(f"warning: and {len(gaps) - GAPS_SHOWN} more labels like these")
    print(f"wrote {out}: {len(folds)} samples, grouped by {samples.group or 'nothing'}")


if __name__ == "__main__":
    run_script(main)
