"""Write a prediction file as the competition's submission CSV and check it, or check a CSV.

python scripts/submit.py --predictions runs/fwi_demo/test.npy --out submissions/fwi_demo.csv
python scripts/submit.py --check submissions/fwi_demo.csv --sample sample_submission.csv
python scripts/submit.py --task image --data data/emoji --predictions runs/emoji/test.npy \\
    --rule runs/emoji/rule.json --out submissions/emoji.csv
"""

import argparse
import time
from pathlib import Path

from comp.core.errors import InputError, run_script
from comp.core.predictions import load_predictions, note_broken
from comp.core.submission import check_submission, read_ids, write_submission
from comp.tasks import task_class


def main() -> None:
    """Parse, write if asked, check, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--predictions", type=Path, help="prediction file to write, .npy")
    what.add_argument("--check", type=Path, help="submission CSV to check")
    parser.add_argument("--out", type=Path, help="the CSV to write")
    parser.add_argument("--sample", type=Path, help="sample submission; sets ids and their order")
    parser.add_argument("--decimals", type=int, help="decimal places (default: the layout's)")
    parser.add_argument("--clip", action="store_true", help="clip to the range of the truth")
    parser.add_argument("--task", default="fwi", help="competition kind (default: fwi)")
    parser.add_argument("--data", type=Path, help="image: prepared folder, for its labels")
    parser.add_argument("--rule", type=Path, help="image: from probabilities to labels, JSON")
    args = parser.parse_args()
    layout = task_class(args.task).layout(args.data, args.rule)
    path, start = args.check, time.perf_counter()
    if path is not None:
        ids = read_ids(args.sample or path, layout)
    elif args.out is None:
        raise InputError("--predictions: give the CSV to write as --out")
    else:
        path, predictions = args.out, load_predictions(args.predictions)
        ids = write_submission(path, predictions, layout, args.sample, args.decimals, args.clip)
        print(f"wrote {path} in {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
    rows = check_submission(path, layout, ids)
    seconds, size = time.perf_counter() - start, path.stat().st_size / 1e6
    print(f"checked {path}: {rows} rows of {len(ids)} ids, {size:.1f} MB, {seconds:.1f} s")
    if args.predictions is not None:
        note_broken(predictions.table)


if __name__ == "__main__":
    run_script(main)
